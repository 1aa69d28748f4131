"""Where the codes of a codebook start: on rows of the first batch, or on centres of k-means on it (Lloyd 1982)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vqtok.quantizers.distributed import all_reduce_sum, count_rows, pick_rows
from vqtok.quantizers.lookup import nearest_codes

__all__ = ["kmeans", "spread_over"]

ITERATIONS = 10


@torch.no_grad()
def spread_over(rows: Tensor, noise: Tensor) -> Tensor:
    """A row for each code, one from each K-th part of the batch of all processes, no row twice where there are enough.

    Where codes outnumber rows, those that share one go a part of the way to another, so that of rows that differ no two
    codes coincide.

    Args:
        rows: (N, D), this process's part of the batch; at least two over all processes.
        noise: whole numbers below 2^31, the same on every process: int64 (3, K).

    Returns:
        (K, D), the same on every process.
    """
    counts = count_rows(rows)
    total, codes = int(counts.sum()), noise.shape[1]
    bounds = torch.arange(codes + 1, device=rows.device) * total // codes  # whole, so that no two codes share a row
    positions = bounds[:-1] + noise[0] % (bounds[1:] - bounds[:-1]).clamp(min=1)
    vectors = pick_rows(rows, positions, counts)
    if total >= codes:
        return vectors
    others = (positions + 1 + noise[1] % (total - 1)) % total
    share = (noise[2, :, None] % 2**24).float() / 2**25
    return vectors.lerp(pick_rows(rows, others, counts), share)


@torch.no_grad()
def kmeans(rows: Tensor, centres: Tensor, compared: Callable[[Tensor], Tensor]) -> Tensor:
    """Move each centre to the mean of the rows nearest to it, a few times.

    Args:
        rows: (N, D), this process's part of the batch; may be empty.
        centres: (K, D), the same on every process.
        compared: what is done to centres before rows are compared with them, such as bringing them to unit length.

    Returns:
        (K, D), the same on every process: k-means on the rows of all of them. A centre without rows stays.
    """
    for _ in range(ITERATIONS):
        codes = nearest_codes(rows, compared(centres))
        counts = rows.new_zeros(len(centres)).index_add_(0, codes, rows.new_ones(len(rows)))
        sums = torch.zeros_like(centres).index_add_(0, codes, rows)
        all_reduce_sum(counts, sums)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], centres)
    return centres
