from __future__ import annotations

import numpy as np
import pytest
import torch

from vqtok.priors.particles import needs_candidates, resample_candidates


@pytest.mark.parametrize(
    ("kept", "needed"), [("1100", False), ("0000", False), ("0001", True), ("1010", True), ("0110", True)]
)
def test_candidates_are_needed_where_a_kept_code_follows(kept: str, needed: bool) -> None:
    assert needs_candidates(np.array([each == "1" for each in kept])) is needed


def test_candidates_are_followed_as_often_as_they_weigh() -> None:
    weights = torch.tensor([[0.7, 0.2, 0.05, 0.05]], dtype=torch.float64)
    uniform = torch.rand(20_000, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    ancestors, after = resample_candidates(weights.log().expand(20_000, 4) + 3, uniform)
    shares = torch.bincount(ancestors.flatten(), minlength=4) / 80_000
    torch.testing.assert_close(shares.double(), weights[0], atol=3e-3, rtol=0)
    assert not after.any()
    times = (ancestors == 0).sum(dim=1)
    assert times.min() >= 2 and times.max() <= 3  # one stratum of four lies astride 0.7


def test_candidates_that_all_matter_stay() -> None:
    """An effective sample size of 1 / (0.5^2 + 0.3^2 + 2 * 0.1^2) = 2.8 of 4, beside one of 1.9."""
    weights = torch.tensor([[0.5, 0.3, 0.1, 0.1], [0.7, 0.2, 0.05, 0.05]], dtype=torch.float64)
    ancestors, after = resample_candidates(weights.log(), torch.full((2, 4), 0.5, dtype=torch.float64))
    assert ancestors.tolist() == [[0, 1, 2, 3], [0, 0, 0, 1]]
    torch.testing.assert_close(after, torch.stack([weights[0].log(), torch.zeros(4, dtype=torch.float64)]))
