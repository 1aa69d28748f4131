"""Use of codes, against counts made by hand."""

from __future__ import annotations

import numpy as np
import pytest

from vqtok.errors import DataError
from vqtok.evaluation import code_use, count_codes
from vqtok.evaluation.codebook import CodeSample
from vqtok.quantizers import CodeCounting


def test_counts_are_those_of_a_loop_over_every_code() -> None:
    codes = np.random.default_rng(0).integers(0, 5, (7, 3, 4)).astype(np.uint16)
    expected = [[sum(int(code) == k for code in codes.flat) for k in range(6)]]
    assert np.stack(count_codes(codes, codebook_size=6)).tolist() == expected


def test_every_codebook_has_counts_of_its_own() -> None:
    codes = np.array([[[[0, 2], [1, 2]]]])  # one image, 1 x 2 positions, 2 codebooks
    assert np.stack(count_codes(codes, codebook_size=3, num_codebooks=2)).tolist() == [[1, 1, 0], [0, 0, 2]]


@pytest.mark.parametrize("wrong", [-1, 6])
def test_a_code_outside_the_codebook_is_refused(wrong: int) -> None:
    with pytest.raises(DataError, match=r"codes must lie in \[0, 6\), got"):
        count_codes(np.array([[[0, wrong]]]), codebook_size=6)


@pytest.mark.parametrize("size", [7, 2**36])
def test_use_of_an_array_of_codes_is_that_of_its_counts(size: int) -> None:
    """However many codes there are: those that do not occur say nothing."""
    codes = np.array([[[[0, 6], [1, 6], [1, 6], [5, 6]]]])
    use = code_use(codes, codebook_size=size, num_codebooks=2)
    assert use.perplexity == pytest.approx((2**1.5 + 1) / 2)  # entropies of 1.5 and 0 bits
    assert (use.codes_in_use, use.num_codes) == (4, 2 * size)


def test_all_codes_are_looked_at_or_some_of_those_that_occur() -> None:
    small = CodeSample(CodeCounting(num_codebooks=1, codebook_size=4, levels=(4,)), np.array([2]))
    assert small.add(np.array([[2, 0], [2, 3]])).tolist() == [[2, 0], [2, 3]] and small.counts.tolist() == [1, 0, 2, 1]
    counting = CodeCounting(num_codebooks=1, codebook_size=2**36, levels=(2,) * 36)
    first = np.array([2**35, 7, 2**35])
    large = CodeSample(counting, first)
    assert large.add(first).tolist() == first.tolist()
    assert large.add(np.array([[7, 8, 2**36 - 1, 0]])).tolist() == [[7, -1, -1, -1]]
    assert (large.codes.tolist(), large.counts.tolist()) == ([7, 2**35], [2, 2])
    assert CodeSample(counting, np.array([2**36 - 1])).codes.tolist() == [0, 2**36 - 1]
    assert len(CodeSample(counting, np.arange(5000)).codes) == 1024
