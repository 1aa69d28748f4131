"""Nearest-code search: for each row the index of the closest vector of a codebook.

argmin_k ||z - e_k||^2 = argmin_k ||e_k||^2 - 2 z.e_k, since ||z||^2 is the same for every k.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import embedding

__all__ = ["gather_codes", "most_similar_codes", "nearest_codes"]

# Scores held at once. On CPU 2 MiB of float32, about one core's L2 cache; on an accelerator 256 MiB.
SCORES_ON_CPU = 2**19
SCORES_ON_ACCELERATOR = 2**26


def gather_codes(codebook: Tensor, codes: Tensor) -> Tensor:
    """Vectors (N, D) of codes (N,) from a codebook (K, D); its gradient is accumulated by index."""
    return embedding(codes, codebook)


@torch.no_grad()
def nearest_codes(rows: Tensor, codebook: Tensor) -> Tensor:
    """Index of the nearest code by Euclidean distance; ties go to the lowest index.

    Args:
        rows: (N, D).
        codebook: (K, D).

    Returns:
        int64 (N,). The N x K distances are never held whole: rows are searched in chunks.
    """
    codebook = codebook.float()
    return search(rows.float(), codebook, codebook.square().sum(dim=1))


@torch.no_grad()
def most_similar_codes(rows: Tensor, codebook: Tensor) -> Tensor:
    """Index of the code with the largest inner product; otherwise as `nearest_codes`."""
    return search(rows.float(), codebook.float(), codebook.new_zeros(len(codebook), dtype=torch.float32))


def search(rows: Tensor, codebook: Tensor, offsets: Tensor) -> Tensor:
    """argmin_k offset_k - 2 z . e_k, in chunks of rows."""
    held = SCORES_ON_CPU if rows.device.type == "cpu" else SCORES_ON_ACCELERATOR
    chunk = max(1, held // codebook.shape[0])
    with torch.autocast(rows.device.type, enabled=False):
        transposed = codebook.t()
        nearest = [torch.addmm(offsets, part, transposed, alpha=-2).argmin(dim=1) for part in rows.split(chunk)]
    return nearest[0] if len(nearest) == 1 else torch.cat(nearest)
