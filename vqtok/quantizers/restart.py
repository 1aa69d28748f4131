"""How often each code is used, which codes are dead, and where they restart.

A codebook that starts far from the latents leaves most codes without a single latent, and a code without latents never
moves. The remedy since Jukebox (Dhariwal et al. 2020, appendix A): put a code whose use has fallen under a threshold on
a latent of the current batch.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from vqtok.options import TrainingOnly
from vqtok.quantizers.base import BatchPart, QuantizerOptions
from vqtok.quantizers.distributed import rank_and_size

__all__ = ["BatchUsage", "CodeUsage", "RestartOptions", "forget"]


RESTARTS_PER_ROW = 1 / 4  # at most, in a batch


class RestartOptions(QuantizerOptions):
    """Restart of dead codes."""

    restart_threshold: Annotated[float, TrainingOnly()] = Field(
        0.05,
        ge=0,
        lt=1,
        description="a code whose moving-average use falls under this share of uniform use restarts on a latent of the "
        "batch; 0 never restarts",
    )
    decay: Annotated[float, TrainingOnly()] = Field(
        0.99,
        ge=0,
        lt=1,
        description="decay of the moving averages over training batches; less in the first ones, (1 + t) / (10 + t) "
        "after t of them",
    )


@dataclass(frozen=True, kw_only=True)
class BatchUsage:
    """What a whole batch, of all processes and parts, did to the codes.

    Attributes:
        sums: (K, d), the sum of the rows of each code, zeros unless asked for; of a restarted code the row that it
            restarts on.
        restarted: bool (K,), which codes restart.
        step: scalar, how far moving averages go towards this batch: 1 - decay, and 0 for a batch without rows.
    """

    sums: Tensor
    restarted: Tensor
    step: Tensor


class CodeUsage(nn.Module):
    """The moving average of how often each code is used in a batch, `cluster_size` (K,), and the restart of dead codes.

    Even use is an average too, `rows_in_batch` / K: what restarts add to the counts must not raise it. A code is dead
    when its average is under `restart_threshold` of even use. So an unused code is dead after log(restart_threshold) /
    log(decay) batches, 298 by default, whatever K and the batch size are. In the next batch it restarts on a row picked
    at random, and counts as used at twice the threshold, which is long enough to find its latents before it counts as
    dead again. Of more dead codes than a quarter of the rows of a batch about as many restart as that, any of them:
    else many would share a row.

    While an encoder has hardly learned anything its latents move far from one batch to the next and leave codes behind.
    So the first batches count for more: after t of them the decay is at most (1 + t) / (10 + t), as moving averages of
    weights begin in TensorFlow. A code that two batches leave unused is dead there, and comes to life as soon as it has
    a latent.

    What a batch adds is collected, over its parts where it is computed in several, and summed over all processes by
    whoever owns this, in one collective. A code that restarts needs no sum of its rows, so the row that it restarts on
    travels in the place of that sum.

    Where an optimizer moves the codes, `restarted` (K,) says which restarted since its last step; fp16 skips some.
    """

    cluster_size: Tensor
    rows_in_batch: Tensor
    restarted: Tensor

    def __init__(self, codebook_size: int, options: RestartOptions, *, keep_sums: bool = False) -> None:
        super().__init__()
        self.threshold = options.restart_threshold
        self.decay = options.decay
        self.keep_sums = keep_sums
        self.collected: list[Tensor] = []
        self.restarting = torch.empty(0, dtype=torch.bool)
        self.register_buffer("cluster_size", torch.empty(codebook_size))
        self.register_buffer("rows_in_batch", torch.empty(()))
        if not keep_sums:
            self.register_buffer("restarted", torch.empty(codebook_size, dtype=torch.bool))

    def reset_parameters(self) -> None:
        self.begin_evenly(len(self.cluster_size))
        if not self.keep_sums:
            nn.init.zeros_(self.restarted)

    def begin_evenly(self, rows_in_batch: int) -> None:
        """Every code counts as used evenly by the first batch."""
        nn.init.constant_(self.cluster_size, rows_in_batch / len(self.cluster_size))
        nn.init.constant_(self.rows_in_batch, rows_in_batch)

    def even_use(self) -> Tensor:
        """The average of a code that is used as often as the others, a scalar."""
        return self.rows_in_batch / len(self.cluster_size)

    def dead(self) -> Tensor:
        """Which codes are dead: bool (K,)."""
        return self.cluster_size < self.threshold * self.even_use()

    def collect(
        self, rows: Tensor, codes: Tensor, noise: Tensor, part: BatchPart, *, weight: Tensor | float = 1.0
    ) -> None:
        """Add a part of the batch.

        Args:
            rows, codes: (N, d) and int64 (N,).
            noise: whole numbers below 2^31, the same on every process and for all parts: int64 (2, K).
            part: which part of the batch this is.
            weight: 1, or 0 for rows that do not count.
        """
        weights = rows.new_ones(len(rows)) * weight
        counts = torch.zeros_like(self.cluster_size).index_add_(0, codes, weights)  # bincount would wait for the device
        sums = rows.new_zeros(len(counts), rows.shape[1])
        if self.keep_sums:
            sums.index_add_(0, codes, rows * weight)
        self.restarting = self.choose_dead(noise[1])
        if self.threshold > 0:
            counts, sums = self.place_dead(rows, counts, sums, noise[0], part, weight)
        found = [counts, sums, weights.sum()[None]]
        if self.collected and not part.first:  # a first part begins anew, whatever a batch that was given up left
            found = [old + new for old, new in zip(self.collected, found, strict=True)]
        self.collected = found

    def choose_dead(self, noise: Tensor) -> Tensor:
        """Which codes restart in this batch: bool (K,)."""
        dead = self.dead()
        share = RESTARTS_PER_ROW * self.rows_in_batch / dead.sum().clamp(min=1)
        return dead & ((noise >> 7) < share * 2**24)  # whole numbers below 2^24 are exact as float32

    def place_dead(
        self, rows: Tensor, counts: Tensor, sums: Tensor, noise: Tensor, part: BatchPart, weight: Tensor | float
    ) -> tuple[Tensor, Tensor]:
        """Counts and sums where a restarting code has 1 and its row if that is in this part of this process, else 0, 0.

        `noise` / 2^31 says where in the whole batch the row lies, where the processes follow each other, in each its
        parts; all of that comes once for every stage. All parts are taken to have as many rows as this one; where they
        have not, some rows are picked more often.
        """
        rank, size = rank_and_size()
        scaled = noise * (part.stages * size * part.number)
        place = (part.stage * size + rank) * part.number + part.index
        here = (scaled >> 31 == place) & (weight != 0) & (len(rows) > 0)
        index = (scaled & (2**31 - 1)) * len(rows) >> 31
        picked = rows[index] if len(rows) else torch.zeros_like(sums)
        return (
            torch.where(self.restarting, here.to(counts.dtype), counts),
            torch.where(self.restarting[:, None], picked * here[:, None], sums),
        )

    def end_batch(self, batches_seen: Tensor) -> BatchUsage:
        """Move the average, restart what is dead, and begin the next batch; what was collected is summed already.

        `batches_seen` is how many training batches there were before this one, a scalar on the device.
        """
        counts, sums, rows = self.collected
        self.collected = []
        restarted = self.restarting & (counts > 0)
        step = (1 - self.decay_after(batches_seen)) * (rows[0] > 0)
        even = self.even_use()
        moved = self.cluster_size.lerp(counts.masked_fill(self.restarting, 0), step)
        self.cluster_size.copy_(torch.where(restarted, 2 * self.threshold * even, moved))
        self.rows_in_batch.lerp_(rows[0], step)
        return BatchUsage(sums=sums, restarted=restarted, step=step)

    def decay_after(self, batches: Tensor) -> Tensor:
        """The decay after so many batches, a scalar on the device."""
        return ((1 + batches) / (10 + batches)).clamp(max=self.decay)

    def batches_until_full_decay(self) -> int:
        """After how many batches the decay is that of the options: (1 + t) / (10 + t) = decay."""
        return math.ceil((10 * self.decay - 1) / (1 - self.decay))


@torch.no_grad()
def forget(optimizer: torch.optim.Optimizer, codebook: nn.Parameter, codes: Tensor) -> None:
    """Clear the gradient of some codes, bool (K,), and what an optimizer remembers, so that its step leaves them."""
    for tensor in (codebook.grad, *optimizer.state.get(codebook, {}).values()):
        if isinstance(tensor, Tensor) and tensor.shape == codebook.shape:
            tensor.masked_fill_(codes[:, None], 0.0)
