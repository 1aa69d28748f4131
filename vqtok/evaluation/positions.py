"""Where on the grid codes are used: a count for every position and code, or value of a dimension."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from vqtok.quantizers import CodeCounting, CodeUse, DimensionUse

__all__ = ["PositionCounts"]

COUNTERS = 2**26  # of int32, 256 MiB: grids of 16 x 16 with 262,144 codes each


class PositionCounts:
    """How often each code of each codebook was used at each position.

    Where counts x positions are more than `limit`, squares of positions are counted as one.

    Args:
        counting: what is counted.
        grid: h and w.
        limit: counters at most, unless one position is more.
    """

    def __init__(self, counting: CodeCounting, *, grid: tuple[int, int], limit: int = COUNTERS) -> None:
        self.counting = counting
        self.block = 1
        rows, size = counting.shape
        while rows * size * np.prod(self.blocks(grid)) > limit and self.block < max(grid):
            self.block += 1
        height, width = self.blocks(grid)
        row, column = np.indices(grid) // self.block
        first_of_position = (row * width + column) * size
        first_of_row = np.arange(rows) * height * width * size
        self.first = first_of_position[..., None] + first_of_row  # (h, w, T), where the counts of a position begin
        self.counts = np.zeros((rows, height, width, size), dtype=np.int32)

    def blocks(self, grid: tuple[int, int]) -> tuple[int, int]:
        return -(-grid[0] // self.block), -(-grid[1] // self.block)

    def add(self, codes: npt.NDArray[Any]) -> None:
        """Count what codes are made of, (B, h, w, T)."""
        found, times = np.unique(codes + self.first, return_counts=True)
        self.counts.reshape(-1)[found] += times.astype(np.int32)

    def totals(self) -> npt.NDArray[np.int64]:
        """Counts over all positions, int64 (T, S)."""
        totals: npt.NDArray[np.int64] = self.counts.sum(axis=(1, 2), dtype=np.int64)
        return totals

    def by_position(self, codebook: int) -> dict[str, npt.NDArray[np.float64]]:
        """The use of one codebook at each position or square of positions, by name: (h, w) each.

        Perplexity and number of codes, or bits and dimensions that vary where those are counted.
        """
        counts = self.counts[self.counting.rows_of(codebook)]
        height, width = counts.shape[1:3]
        use = [
            self.counting.use(torch.from_numpy(counts[:, row, column]))
            for row in range(height)
            for column in range(width)
        ]
        found = [numbers_of(each) for each in use]
        return {name: np.array([each[name] for each in found]).reshape(height, width) for name in found[0]}


def numbers_of(use: CodeUse | DimensionUse) -> dict[str, float]:
    """What is shown of a position, under the names it has in drawings."""
    if isinstance(use, CodeUse):
        return {"perplexity": use.perplexity, "codes in use": use.codes_in_use}
    varying = use.num_dimensions - use.constant_dimensions
    return {"bits in use": use.bits_in_use, "dimensions that vary": varying}
