"""A codebook of K learned vectors: looking codes up, starting it from latents, restarting codes that died.

A codebook that starts far from the latents leaves most codes without a single latent, and a code without latents never
moves. Two remedies, both from the practice since Jukebox (Dhariwal et al. 2020, appendix A): start on latents of the
first batch, and put a code whose use has fallen under a threshold on a latent of the current batch.
"""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from vqtok.errors import ConfigurationError
from vqtok.quantizers.base import Quantizer, from_rows, to_rows
from vqtok.quantizers.lookup import nearest_codes

__all__ = ["CodebookQuantizer", "all_reduce_sum", "pick_rows"]


def all_reduce_sum(*tensors: Tensor) -> None:
    """Sum each tensor over all processes, in place; nothing to do in a single process."""
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        for tensor in tensors:
            dist.all_reduce(tensor)


def pick_rows(rows: Tensor, positions: Tensor) -> Tensor:
    """The rows at relative places of the batch of all processes, the same on every process.

    Args:
        rows: (N, D), this process's part of the batch; the parts may differ in length and may be empty.
        positions: (M,) in [0, 1); the positions of the first process count.

    Returns:
        (M, D): what one process that held the whole batch, parts in order of rank, would have picked.
    """
    if not (dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1):
        return rows[(positions * rows.shape[0]).long()]
    positions = positions.clone()
    dist.broadcast(positions, 0)
    lengths = torch.zeros(dist.get_world_size(), dtype=torch.int64, device=rows.device)
    lengths[dist.get_rank()] = rows.shape[0]
    dist.all_reduce(lengths)
    begin = lengths[: dist.get_rank()].sum()
    index = (positions * lengths.sum()).long() - begin
    picked = rows.new_zeros(len(positions), rows.shape[1])
    if rows.shape[0] > 0:
        mine = (index >= 0) & (index < rows.shape[0])
        picked = torch.where(mine[:, None], rows[index.clamp(0, rows.shape[0] - 1)], picked)
    dist.all_reduce(picked)
    return picked


class CodebookQuantizer(Quantizer):
    """The part that methods with one learned codebook share; `codebook` is float32 (K, D).

    Args:
        codebook_size: K, at least 2.
        code_dim: D, at least 1.
        start: "latents" puts the codes on latents of the first training batch, "normal" on a normal distribution
            with standard deviation 1 / sqrt(D).
        restart_threshold: a code whose moving-average use falls under this share of uniform use is put on a latent of
            the current batch; 0 never restarts.
        decay: decay of the moving average of use.
    """

    codebook: Tensor
    cluster_size: Tensor
    started: Tensor
    training_state: ClassVar[tuple[str, ...]] = ("cluster_size", "started")

    def __init__(
        self, *, codebook_size: int, code_dim: int, start: str, restart_threshold: float, decay: float
    ) -> None:
        super().__init__()
        if codebook_size < 2:
            raise ConfigurationError(f"quantizer.codebook_size must be at least 2, got {codebook_size}")
        if code_dim < 1:
            raise ConfigurationError(f"quantizer.code_dim must be at least 1, got {code_dim}")
        if start not in ("latents", "normal"):
            raise ConfigurationError(f"quantizer.start must be 'latents' or 'normal', got {start!r}")
        if not 0 <= restart_threshold < 1:
            raise ConfigurationError(f"quantizer.restart_threshold must be in [0, 1), got {restart_threshold}")
        if not 0 <= decay < 1:
            raise ConfigurationError(f"quantizer.decay must be in [0, 1), got {decay}")
        self.codebook_size = codebook_size
        self.code_dim = code_dim
        self.start = start
        self.restart_threshold = restart_threshold
        self.decay = decay
        self._known_started = False
        self.register_buffer("cluster_size", torch.empty(codebook_size))
        self.register_buffer("started", torch.empty((), dtype=torch.bool))

    def reset_parameters(self) -> None:
        nn.init.normal_(self.codebook, std=1 / math.sqrt(self.code_dim))
        nn.init.ones_(self.cluster_size)
        nn.init.zeros_(self.started)

    def encode(self, latents: Tensor) -> Tensor:
        batch, _, height, width = latents.shape
        return nearest_codes(to_rows(latents), self.codebook).view(batch, height, width)

    def decode(self, codes: Tensor) -> Tensor:
        batch, height, width = codes.shape
        return from_rows(nn.functional.embedding(codes.flatten(), self.codebook), (batch, height, width))

    @torch.no_grad()
    def start_once(self, rows: Tensor) -> None:
        """On the first training batch, put the codes where `start` says; rows (N, D)."""
        if self._known_started:
            return
        if not bool(self.started):  # the one look from the host; remembered from then on
            vectors = self.codebook
            if self.start == "latents":
                strata = torch.arange(self.codebook_size, device=rows.device, dtype=torch.float64)
                jitter = torch.rand(self.codebook_size, device=rows.device, dtype=torch.float64)
                vectors = pick_rows(rows, (strata + jitter) / self.codebook_size)
            self.place(vectors, torch.ones_like(self.cluster_size, dtype=torch.bool))
            self.started.fill_(True)
        self._known_started = True

    @torch.no_grad()
    def count_use(self, rows: Tensor, codes: Tensor) -> Tensor:
        """Move `cluster_size` towards the use of each code in the batch of all processes; returns that use, (K,)."""
        counts = torch.bincount(codes, minlength=self.codebook_size).to(rows.dtype)
        all_reduce_sum(counts)
        self.cluster_size.lerp_(counts, 1 - self.decay)
        return counts

    @torch.no_grad()
    def restart_dead(self, rows: Tensor, rows_in_batch: Tensor) -> None:
        """Put every code whose use is under the threshold on a random row of the batch of all processes.

        Nothing here depends on a value the host would have to read, so that an accelerator never waits.
        """
        if self.restart_threshold == 0:
            return
        threshold = self.restart_threshold * rows_in_batch / self.codebook_size
        dead = self.cluster_size < threshold
        positions = torch.rand(self.codebook_size, device=rows.device, dtype=torch.float64)
        picked = pick_rows(rows, positions)
        # Twice the threshold: long enough for the code to find its latents before it counts as dead again.
        self.cluster_size.copy_(torch.where(dead, 2 * threshold, self.cluster_size))
        self.place(picked, dead)

    @torch.no_grad()
    def place(self, vectors: Tensor, chosen: Tensor) -> None:
        """Put the chosen codes, bool (K,), on `vectors` (K, D). Methods with further statistics keep them in step."""
        self.codebook.copy_(torch.where(chosen[:, None], vectors, self.codebook))
