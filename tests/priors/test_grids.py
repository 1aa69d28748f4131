from __future__ import annotations

import math

import numpy as np
import pytest

from vqtok.codes import CodesDataset
from vqtok.priors import PriorBinding
from vqtok.priors.grids import count_codes, unigram_bits_per_code


def test_unigram_bits_are_the_cross_entropy_of_counts() -> None:
    train, test = np.array([[2, 1, 0, 0]]), np.array([[1, 1, 0, 1]])
    # Counts start at one: 3, 2, 1, 1 of 7.
    expected = -(math.log2(3 / 7) + math.log2(2 / 7) + math.log2(1 / 7)) / 3
    assert unigram_bits_per_code(train, test) == pytest.approx(expected)


def test_unigram_bits_of_several_codebooks_are_their_mean() -> None:
    """Two that use a half of the codes each: of eight alike, and of one."""
    counts = np.array([[500] * 8 + [0] * 8, [0] * 9 + [4000] + [0] * 6])
    assert unigram_bits_per_code(counts, counts) == pytest.approx((3 + 0) / 2, abs=0.01)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4)])
def test_codes_are_counted_by_codebook(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqtok.codes.dataset.BLOCK", 7)
    codes = np.random.default_rng(0).integers(0, 10, (100, *shape)).astype(np.uint16)
    books = shape[2] if len(shape) == 3 else 1
    binding = PriorBinding(fingerprint="f" * 64, grid=(2, 3), codebook_size=11, num_codebooks=books)
    counts = count_codes(CodesDataset.from_arrays(codes), binding, "codes")
    flat = codes.reshape(-1, books)
    assert counts.tolist() == [[int((flat[:, book] == code).sum()) for code in range(11)] for book in range(books)]
