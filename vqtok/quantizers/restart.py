"""A codebook that stays alive: how often each code is used, and a new place for codes that died.

A codebook that starts far from the latents leaves most codes without a single latent, and a code without latents never
moves. The remedy since Jukebox (Dhariwal et al. 2020, appendix A): put a code whose use has fallen under a threshold on
a latent of the current batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vqtok.errors import ConfigurationError
from vqtok.quantizers.codebook import CodebookQuantizer
from vqtok.quantizers.distributed import all_reduce_sum, pick_rows, random_numbers

__all__ = ["RestartingQuantizer"]


class RestartingQuantizer(CodebookQuantizer):
    """A codebook whose codes can be placed anew; `cluster_size` (K,) is the moving average of their use.

    Args:
        restart_threshold: a code whose moving-average use falls under this share of uniform use is put on a latent of
            the current batch; 0 never restarts.
        decay: decay of the moving average of use.
        shared: see CodebookQuantizer.
    """

    cluster_size: Tensor
    training_state: tuple[str, ...] = ("cluster_size", "started")

    def __init__(self, *, restart_threshold: float = 0.05, decay: float = 0.99, **shared: Any) -> None:
        super().__init__(**shared)
        if not 0 <= restart_threshold < 1:
            raise ConfigurationError(f"quantizer.restart_threshold must be in [0, 1), got {restart_threshold}")
        if not 0 <= decay < 1:
            raise ConfigurationError(f"quantizer.decay must be in [0, 1), got {decay}")
        self.restart_threshold = restart_threshold
        self.decay = decay
        self.register_buffer("cluster_size", torch.empty(self.codebook_size))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.ones_(self.cluster_size)

    @torch.no_grad()
    def learn(self, rows: Tensor, codes: Tensor) -> None:
        counts = self.count_use(codes)
        self.restart_dead(rows, counts.sum())

    @torch.no_grad()
    def count_use(self, codes: Tensor) -> Tensor:
        """Move `cluster_size` towards the use of each code in the batch of all processes; returns that use, (K,)."""
        ones = torch.ones_like(codes, dtype=torch.float32)
        counts = torch.zeros_like(self.cluster_size).index_add_(0, codes, ones)  # bincount would wait for the device
        all_reduce_sum(counts)
        self.cluster_size.lerp_(counts, self.step(counts))
        return counts

    def step(self, counts: Tensor) -> Tensor:
        """How far moving averages go towards this batch, a scalar: 1 - decay, and nowhere for a batch without rows."""
        return (1 - self.decay) * (counts.sum() > 0)

    @torch.no_grad()
    def restart_dead(self, rows: Tensor, rows_in_batch: Tensor) -> None:
        """Put every code whose use is under the threshold on a random row of the batch of all processes.

        Nothing here depends on a value the host would have to read, so that an accelerator never waits.
        """
        if self.restart_threshold == 0:
            return
        threshold = self.restart_threshold * rows_in_batch / self.codebook_size
        dead = self.cluster_size < threshold
        picked = pick_rows(rows, random_numbers(self.codebook_size, rows.device))
        # Twice the threshold: long enough for the code to find its latents before it counts as dead again.
        self.cluster_size.copy_(torch.where(dead, 2 * threshold, self.cluster_size))
        self.place(picked, dead)
