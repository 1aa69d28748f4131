"""Nearest-code search: for each row the index of the closest vector of a codebook.

argmin_k ||z - e_k||^2 = argmin_k ||e_k||^2 - 2 z.e_k, since ||z||^2 is the same for every k.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["nearest_codes"]

# Scores held at once. On CPU 2 MiB of float32, about one core's L2 cache; on an accelerator 256 MiB.
SCORES_ON_CPU = 2**19
SCORES_ON_ACCELERATOR = 2**26


@torch.no_grad()
def nearest_codes(rows: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest code by Euclidean distance; ties go to the lowest index.

    Args:
        rows: float32 (N, D).
        codebook: float32 (K, D).

    Returns:
        int64 (N,). The N x K distances are never held whole: rows are searched in chunks.
    """
    held = SCORES_ON_CPU if rows.device.type == "cpu" else SCORES_ON_ACCELERATOR
    chunk = max(1, held // codebook.shape[0])
    with torch.autocast(rows.device.type, enabled=False):
        norms = codebook.square().sum(dim=1)
        transposed = codebook.t()
        nearest = [torch.addmm(norms, part, transposed, alpha=-2).argmin(dim=1) for part in rows.split(chunk)]
    return nearest[0] if len(nearest) == 1 else torch.cat(nearest)
