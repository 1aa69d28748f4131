"""The entropy term over soft assignments: each latent sure of its code, all codes in use alike.

    E[H(p)] - H(E[p])        p = softmax(affinity / temperature) over the codes

Yu et al. 2023, arXiv:2310.05737, equation 5. The means are over the rows of all processes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from vqtok.quantizers.base import entropy
from vqtok.quantizers.distributed import SharedNoise, mean_over_processes

__all__ = ["entropy_terms"]

# Soft assignments that are looked at in a batch: 256 MiB of float32. Beyond, one row of every few that follow another.
ASSIGNMENTS = 2**26


def entropy_terms(
    rows: Tensor,
    codebook_size: int,
    affinity: Callable[[Tensor], Tensor],
    *,
    weight: float,
    temperature: float,
    training: bool,
    noise: SharedNoise,
) -> dict[str, tuple[float, Tensor]]:
    """The two parts of the term with their weights; nothing where the weight is 0.

    Args:
        rows: (N, d).
        codebook_size: K.
        affinity: how close rows (M, d) are to each code, the larger the closer: (M, K).
        weight: of the term, in nats.
        temperature: of the soft assignments.
        training: take the means over all processes.
        noise: says which rows are looked at where all of them would be too many. Every so-many-th would be the same
            columns of the grid in every batch, and the others would never learn.
    """
    if weight == 0:
        return {}
    total = rows.shape[0]
    if (stride := -(-total * codebook_size // ASSIGNMENTS)) > 1:
        some = -(-total // stride)
        # Of total times some numbers, as many lead to each row, so that the means are right on average.
        rows = rows[(torch.arange(some, device=rows.device) * total + noise(some) % total) // some]
    log_p = (affinity(rows) / temperature).log_softmax(dim=1)
    entropies = -(log_p.exp() * log_p).sum(dim=1, keepdim=True)
    means = mean_over_processes(entropies, log_p.exp(), together=training)
    return {"code_entropy": (weight, means[0]), "use_entropy": (-weight, entropy(means[1:]))}
