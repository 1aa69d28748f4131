"""How often each code is used, and which codes are dead.

A codebook that starts far from the latents leaves most codes without a single latent, and a code without latents never
moves. The remedy since Jukebox (Dhariwal et al. 2020, appendix A): put a code whose use has fallen under a threshold on
a latent of the current batch.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from vqtok.quantizers.base import QuantizerOptions
from vqtok.quantizers.distributed import all_reduce_sum

__all__ = ["CodeUsage", "RestartOptions"]


class RestartOptions(QuantizerOptions):
    """Restart of dead codes."""

    restart_threshold: float = Field(
        0.05,
        ge=0,
        lt=1,
        description="a code whose moving-average use falls under this share of uniform use restarts on a latent of the "
        "batch; 0 never restarts",
    )
    decay: float = Field(0.99, ge=0, lt=1, description="decay of the moving averages over training batches")


class CodeUsage(nn.Module):
    """The moving average of how often each code is used, `cluster_size` (K,)."""

    cluster_size: Tensor

    def __init__(self, codebook_size: int, options: RestartOptions) -> None:
        super().__init__()
        self.threshold = options.restart_threshold
        self.decay = options.decay
        self.register_buffer("cluster_size", torch.empty(codebook_size))

    def reset_parameters(self) -> None:
        nn.init.ones_(self.cluster_size)

    def count(self, codes: Tensor) -> Tensor:
        """Move the average towards the use of each code in the batch of all processes; returns that use, (K,)."""
        ones = torch.ones_like(codes, dtype=torch.float32)
        counts = torch.zeros_like(self.cluster_size).index_add_(0, codes, ones)  # bincount would wait for the device
        all_reduce_sum(counts)
        self.cluster_size.lerp_(counts, self.step(counts))
        return counts

    def step(self, counts: Tensor) -> Tensor:
        """How far moving averages go towards this batch, a scalar: 1 - decay, and nowhere for a batch without rows."""
        return (1 - self.decay) * (counts.sum() > 0)

    def restart_dead(self, rows_in_batch: Tensor) -> Tensor:
        """Which codes are dead, bool (K,); they count as used at twice the threshold from now on.

        Twice is long enough for a code to find its latents before it counts as dead again.
        """
        threshold = self.threshold * rows_in_batch / len(self.cluster_size)
        dead = self.cluster_size < threshold
        self.cluster_size.copy_(torch.where(dead, 2 * threshold, self.cluster_size))
        return dead
