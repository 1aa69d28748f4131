"""Where on the grid codes are used: a count for every position and code."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from vqtok.evaluation.codebook import CodeUse

__all__ = ["PositionCounts"]

COUNTERS = 2**26  # of int32, 256 MiB: grids of 16 x 16 with 262,144 codes each


class PositionCounts:
    """How often each code of each codebook was used at each position.

    Where codebooks x positions x codes are more than `limit`, squares of positions are counted as one.

    Args:
        num_codebooks, codebook_size: Q and K.
        grid: h and w.
        limit: counters at most, unless one position is more.
    """

    def __init__(self, *, num_codebooks: int, codebook_size: int, grid: tuple[int, int], limit: int = COUNTERS) -> None:
        self.block = 1
        while num_codebooks * codebook_size * np.prod(self.blocks(grid)) > limit and self.block < max(grid):
            self.block += 1
        height, width = self.blocks(grid)
        rows, columns = np.indices(grid) // self.block
        first_of_position = (rows * width + columns) * codebook_size
        first_of_codebook = np.arange(num_codebooks) * height * width * codebook_size
        self.first = first_of_position[..., None] + first_of_codebook  # (h, w, Q), where the counts of a position begin
        self.counts = np.zeros((num_codebooks, height, width, codebook_size), dtype=np.int32)

    def blocks(self, grid: tuple[int, int]) -> tuple[int, int]:
        return -(-grid[0] // self.block), -(-grid[1] // self.block)

    def add(self, codes: npt.NDArray[Any]) -> None:
        """Count codes (B, h, w, Q)."""
        found, times = np.unique(codes + self.first, return_counts=True)
        self.counts.reshape(-1)[found] += times.astype(np.int32)

    def totals(self) -> npt.NDArray[np.int64]:
        """Counts over all positions, int64 (Q, K)."""
        totals: npt.NDArray[np.int64] = self.counts.sum(axis=(1, 2), dtype=np.int64)
        return totals

    def by_place(self, codebook: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Perplexity and number of codes of one codebook at each position or square of positions, both (h, w)."""
        counts = self.counts[codebook]
        use = [[CodeUse.from_counts(position[None]) for position in row] for row in counts]
        perplexity = np.array([[each.perplexity for each in row] for row in use])
        return perplexity, np.array([[each.codes_in_use for each in row] for row in use])
