"""k-means on the rows of one batch: Lloyd 1982. Where a codebook may start."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vqtok.quantizers.distributed import all_reduce_sum
from vqtok.quantizers.lookup import nearest_codes

__all__ = ["kmeans"]

ITERATIONS = 10


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
