"""Use of codes, against counts made by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from vqtok.errors import DataError
from vqtok.evaluation import CodeUse, count_codes
from vqtok.quantizers import perplexity


def test_counts_are_those_of_a_loop_over_every_code() -> None:
    codes = np.random.default_rng(0).integers(0, 5, (7, 3, 4)).astype(np.uint16)
    expected = [[sum(int(code) == k for code in codes.flat) for k in range(6)]]
    assert count_codes(codes, codebook_size=6).tolist() == expected


def test_every_codebook_has_counts_of_its_own() -> None:
    codes = np.array([[[[0, 2], [1, 2]]]])  # one image, 1 x 2 positions, 2 codebooks
    assert count_codes(codes, codebook_size=3, num_codebooks=2).tolist() == [[1, 1, 0], [0, 0, 2]]


@pytest.mark.parametrize("wrong", [-1, 6])
def test_a_code_outside_the_codebook_is_refused(wrong: int) -> None:
    with pytest.raises(DataError, match=r"codes must lie in \[0, 6\), got"):
        count_codes(np.array([[[0, wrong]]]), codebook_size=6)


def test_perplexity_is_that_of_the_shares() -> None:
    use = CodeUse.from_counts(np.array([[2, 1, 1, 0]]))
    entropy = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)
    assert use.perplexity == pytest.approx(math.exp(entropy), rel=1e-12)
    assert (use.codes_in_use, use.codebook_size) == (3, 4)


def test_perplexity_is_k_for_even_use_and_one_for_a_single_code() -> None:
    assert CodeUse.from_counts(np.full((1, 8), 3)).perplexity == pytest.approx(8)
    assert CodeUse.from_counts(np.array([[0, 9]])).perplexity == pytest.approx(1)


def test_perplexity_is_the_one_that_training_logs() -> None:
    counts = np.random.default_rng(0).integers(0, 50, 64)
    assert CodeUse.from_counts(counts[None]).perplexity == pytest.approx(float(perplexity(torch.from_numpy(counts))))


def test_several_codebooks_give_their_mean_perplexity_and_all_their_codes() -> None:
    use = CodeUse.from_counts(np.array([[4, 4], [8, 0]]))
    assert (use.perplexity, use.codes_in_use, use.codebook_size) == (pytest.approx(1.5), 3, 2)
