"""Use of codes by position, against a recount."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtok.evaluation.positions import PositionCounts
from vqtok.quantizers import CodeCounting


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    size=st.integers(2, 7),
    codebooks=st.integers(1, 3),
    limit=st.integers(1, 700),
    seed=st.integers(0, 99),
)
def test_counts_are_those_of_a_loop(height: int, width: int, size: int, codebooks: int, limit: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(0, size, (9, height, width, codebooks))
    counting = CodeCounting(num_codebooks=codebooks, codebook_size=size, levels=(size,))
    counts = PositionCounts(counting, grid=(height, width), limit=limit)
    for part in np.split(codes, [4, 4, 7]):
        counts.add(part)
    block = counts.block
    blocks = math.ceil(height / block), math.ceil(width / block)
    assert counts.counts.size <= limit or blocks == (1, 1)
    assert block == 1 or codebooks * size * math.ceil(height / (block - 1)) * math.ceil(width / (block - 1)) > limit
    for q in range(codebooks):
        assert counts.totals()[q].tolist() == [(codes[..., q] == code).sum() for code in range(size)]
        perplexity, in_use = counts.by_position(q).values()
        assert perplexity.shape == in_use.shape == blocks
        for row, column in np.ndindex(blocks):
            square = np.s_[:, row * block : (row + 1) * block, column * block : (column + 1) * block, q]
            _, times = np.unique(codes[square], return_counts=True)
            entropy = -sum(t / times.sum() * math.log(t / times.sum()) for t in times)
            assert perplexity[row, column] == pytest.approx(math.exp(entropy))
            assert in_use[row, column] == len(times)
