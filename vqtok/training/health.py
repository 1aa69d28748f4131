"""Whether the codebook is alive in training: the use of its codes over the last images, not over the last batch.

A batch of 32 images of 64 positions holds 2,048 codes and cannot show that 8,192 are in use. So every batch's codes
are counted on the device into the newest of a ring of buckets, each of which holds the counts of some steps; a new
bucket takes the place of the oldest. Nothing there waits for the host, and processes meet only when somebody looks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from vqtok.quantizers import CodeCounting, CodeUse, DimensionUse, even_use, too_few_in_use
from vqtok.text import counted
from vqtok.training.advice import remedies
from vqtok.training.config import TokenizerTrainingConfig

__all__ = ["CodeUseWindow", "UsageAlarm", "usage_warning"]

# The window's end is known to one part in so many, and to one in fewer where so many counts would be more than 128 MiB.
BUCKETS, FEWEST_BUCKETS = 16, 4
COUNTERS = 2**24


def usage_warning(config: TokenizerTrainingConfig, use: CodeUse | DimensionUse, where: str) -> str | None:
    """A line on too few codes in use: how many, where, and what to try. None where enough are in use.

    Too few are less than `usage_warning` times what even use of all codes would show in as many places.
    """
    if not too_few_in_use(use, config.usage_warning):
        return None
    advice = remedies(config)
    tried = f". Try {', '.join(advice)}" if advice else ""
    return f"{use} {where}{even_use(use)}, under usage_warning {config.usage_warning:g}{tried}"


class CodeUseWindow:
    """How often each code was used over the last images of all processes.

    A bucket holds the steps of a sixteenth of the window, at least one, and the window as many buckets as fit; of a
    very large codebook of learned vectors a bucket holds more, down to four in a window. So a
    full window never holds more than `images`, or one batch where that is more, and less by under two buckets.

    Args:
        counting: what is counted.
        images: N, the length of the window.
        batch_size: images of a step, over all processes and accumulated parts.
        accelerator: says where the counts lie and which processes to add.
    """

    def __init__(self, counting: CodeCounting, *, images: int, batch_size: int, accelerator: Accelerator) -> None:
        self.counting = counting
        self.accelerator = accelerator
        self.batch_size = batch_size
        most = min(BUCKETS, max(FEWEST_BUCKETS, COUNTERS // math.prod(counting.shape)))
        self.steps_a_bucket = max(1, images // (most * batch_size))
        buckets = max(1, images // (self.steps_a_bucket * batch_size))
        self.counts = torch.zeros(buckets, *counting.shape, dtype=torch.int64, device=accelerator.device)
        self.steps = 0

    def add(self, parts: Iterable[Tensor]) -> None:
        """Count this process's codes of a step: those of each part, (B, h, w) or (B, h, w, Q), negative ones left out.

        Where the step begins a bucket, what that held of the oldest steps is forgotten.
        """
        bucket = self.counts[self.steps // self.steps_a_bucket % len(self.counts)]
        if self.steps % self.steps_a_bucket == 0:
            bucket.zero_()
        for codes in parts:
            self.counting.add(bucket, codes)
        self.steps += 1

    @property
    def full(self) -> bool:
        """Whether the window has been filled once."""
        return self.steps >= len(self.counts) * self.steps_a_bucket

    @property
    def images(self) -> int:
        """Images of all processes that are in the window now."""
        in_newest = (self.steps - 1) % self.steps_a_bucket + 1
        return min(self.steps, (len(self.counts) - 1) * self.steps_a_bucket + in_newest) * self.batch_size

    def totals(self) -> Tensor:
        """Counts (T, S) over the window and all processes, on the host; every process must ask.

        The sum of all processes is left with the first one and the others start from nothing. So the state of the
        first, which is the one that a checkpoint keeps, is whole after each look.
        """
        if self.accelerator.num_processes > 1:
            self.counts = self.accelerator.reduce(self.counts, reduction="sum")
        totals = self.counts.sum(dim=0).cpu()
        if not self.accelerator.is_main_process:
            self.counts.zero_()
        return totals

    def state_dict(self) -> dict[str, Any]:
        return {"counts": self.counts, "steps": self.steps, "steps_a_bucket": self.steps_a_bucket}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved window, or from an empty one where it was of another length."""
        if (state["counts"].shape, state["steps_a_bucket"]) == (self.counts.shape, self.steps_a_bucket):
            self.steps = state["steps"]
            self.counts.copy_(state["counts"] if self.accelerator.is_main_process else torch.zeros_like(self.counts))


class UsageAlarm:
    """Says when too few codes are in use (see `usage_warning`), once until enough were in use again, and when that is.

    The window has to be full, so that the codes that happened to come first are no alarm; at the end of a run it is
    looked at as it is.
    """

    def __init__(self, config: TokenizerTrainingConfig) -> None:
        self.config = config
        self.fallen = False

    def look(
        self, window: CodeUseWindow, use: CodeUse | DimensionUse, step: int, *, last: bool
    ) -> tuple[list[str], list[str]]:
        """Warnings and notes on the use over the window after a step, none where there is nothing to say."""
        where = f"over the last {counted(window.images, 'training image')}"
        fallen, warning = self.fallen, usage_warning(self.config, use, where)
        if window.full:
            self.fallen = warning is not None
        if warning and not fallen and (window.full or last):
            return [f"step {step}: {warning}"], []
        if fallen and not warning and window.full:
            return [], [f"step {step}: recovered: {use} {where}"]
        return [], []

    def state_dict(self) -> dict[str, Any]:
        return {"fallen": self.fallen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.fallen = bool(state["fallen"])
