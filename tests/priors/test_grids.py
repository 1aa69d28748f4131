from __future__ import annotations

import math

import numpy as np
import pytest

from vqtok.priors.grids import CodeGrids, unigram_bits_per_code


def test_unigram_bits_are_the_cross_entropy_of_counts() -> None:
    train = CodeGrids(codes=np.array([[[0, 0, 1]]]))
    test = CodeGrids(codes=np.array([[[0, 1, 3]]]))
    # Counts start at one: 3, 2, 1, 1 of 7.
    expected = -(math.log2(3 / 7) + math.log2(2 / 7) + math.log2(1 / 7)) / 3
    assert unigram_bits_per_code(train, test, 4) == pytest.approx(expected)


def test_unigram_bits_of_several_codebooks_are_their_mean() -> None:
    """Two that use a half of the codes each: of eight alike, and of one."""
    every = np.arange(8).reshape(8, 1, 1).repeat(500, axis=0)
    grids = CodeGrids(codes=np.stack([every, np.full_like(every, 9)], axis=-1))
    assert unigram_bits_per_code(grids, grids, 16) == pytest.approx((3 + 0) / 2, abs=0.01)
