from __future__ import annotations

import math

import numpy as np
import pytest

from vqtok.errors import DataError
from vqtok.training.grids import CodeGrids, hold_out, unigram_bits_per_code


def test_held_out_images_are_the_seeds_and_nobody_is_in_both_parts() -> None:
    grids = CodeGrids(codes=np.arange(50).reshape(50, 1, 1), labels=np.arange(50))
    train, test = hold_out(grids, share=0.1, seed=3)
    assert (len(train), len(test)) == (45, 5)
    assert sorted([*train.codes.ravel(), *test.codes.ravel()]) == list(range(50))
    assert test.labels is not None
    assert np.array_equal(test.labels, test.codes.ravel())
    assert np.array_equal(hold_out(grids, share=0.1, seed=3)[1].codes, test.codes)
    assert not np.array_equal(hold_out(grids, share=0.1, seed=4)[1].codes, test.codes)
    with pytest.raises(DataError, match="at least 2 images"):
        hold_out(CodeGrids(codes=grids.codes[:1]), share=0.1, seed=0)


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
