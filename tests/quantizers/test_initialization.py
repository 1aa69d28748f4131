from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from tests.quantizers.methods import small
from vqtok.quantizers import EMAQuantizer, VectorQuantizer
from vqtok.quantizers.base import BatchPart
from vqtok.quantizers.codebook import CodebookQuantizer
from vqtok.quantizers.initialization import ITERATIONS, kmeans


def lloyd(rows: np.ndarray, centres: np.ndarray, *, cosine: bool) -> np.ndarray:
    """One row and one centre at a time, in float64; a centre without rows stays."""
    centres = centres.copy()
    for _ in range(ITERATIONS):
        compared = centres / np.linalg.norm(centres, axis=1, keepdims=True) if cosine else centres
        codes = np.array([((compared - row) ** 2).sum(axis=1).argmin() for row in rows])
        for k in range(len(centres)):
            if (codes == k).any():
                centres[k] = rows[codes == k].mean(axis=0)
    return centres


@pytest.mark.parametrize("cosine", [False, True])
@pytest.mark.parametrize("size", [2, 7, 40])
def test_centres_are_those_of_brute_force(size: int, cosine: bool) -> None:
    torch.manual_seed(0)
    rows = torch.randn(60, 3)
    rows = normalize(rows, dim=1) if cosine else rows
    centres = rows[:size].clone()
    centres[-1] = 50.0  # without rows
    compared = (lambda vectors: normalize(vectors, dim=1)) if cosine else (lambda vectors: vectors)
    found = kmeans(rows, centres, compared)
    expected = lloyd(rows.double().numpy(), centres.double().numpy(), cosine=cosine)
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5, atol=1e-6)
    if not cosine:
        assert (found[-1] == 50).all()


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_a_codebook_starts_on_centres_of_the_first_batch(metric: str) -> None:
    """Which leaves less distortion than the rows that the centres came from."""
    latents = torch.randn(8, 3, 8, 8)
    distortion = {}
    for init in ("data", "kmeans"):
        torch.manual_seed(1)
        quantizer = EMAQuantizer(codebook_size=16, code_dim=3, metric=metric, init=init)
        quantizer.initialize_once(quantizer.rows_to_compare(latents), BatchPart())
        distortion[init] = quantizer.distortion(latents).mean().item()
        torch.testing.assert_close(quantizer.code_sums, 8 * 8 * 8 / 16 * quantizer.codebook)  # used evenly
    assert distortion["kmeans"] < 0.75 * distortion["data"]


def test_as_many_codes_as_clusters_find_them() -> None:
    torch.manual_seed(0)
    clusters = torch.tensor([[0.0, 0], [10, 0], [0, 10], [10, 10]])
    rows = clusters.repeat_interleave(25, dim=0) + 0.1 * torch.randn(100, 2)  # the start takes one from each quarter
    quantizer = VectorQuantizer(codebook_size=4, code_dim=2, init="kmeans")
    quantizer.initialize_once(rows, BatchPart())
    means = rows.view(4, 25, 2).mean(dim=1)
    torch.testing.assert_close(quantizer.codebook.detach(), means, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("init", ["data", "kmeans"])
@pytest.mark.parametrize("method", ["ema", "gumbel", "ibq", "simvq", "vq"])
def test_a_single_row_does_not_make_all_codes_alike(method: str, init: str) -> None:
    torch.manual_seed(0)
    quantizer = small(method, init=init)
    assert isinstance(quantizer, CodebookQuantizer)
    quantizer(torch.randn(1, 3, 1, 1))
    assert len(quantizer.codebook.unique(dim=0)) == 16
