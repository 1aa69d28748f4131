"""Whether the codebook is alive in training: the use of its codes over the last images, not over the last batch.

A batch of 32 images of 64 positions holds 2,048 codes and cannot show that 8,192 are in use. So every batch's codes
are counted on the device into the newest of a ring of buckets, each of which holds the counts of some steps; a new
bucket takes the place of the oldest. Nothing there waits for the host, and processes meet only when somebody looks.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from vqtok.quantizers import perplexity
from vqtok.training.advice import remedies
from vqtok.training.config import TokenizerTrainingConfig

__all__ = ["CodeUseWindow", "UsageAlarm", "add_codes", "code_use", "too_few_in_use", "usage_warning"]

BUCKETS = 16  # the window's end is known to one part in so many; each costs Q x K counts on the device


def add_codes(counts: Tensor, codes: Tensor) -> None:
    """Count codes in place without waiting for the device, which bincount would.

    Args:
        counts: int64 (Q, K), contiguous.
        codes: int64 (B, h, w), or (B, h, w, Q) where Q > 1; -1 stands for no code and is not counted.
    """
    num_codebooks, codebook_size = counts.shape
    columns = codes.reshape(-1, num_codebooks)
    first = codebook_size * torch.arange(num_codebooks, device=counts.device)
    counts.view(-1).index_add_(0, (columns.clamp(min=0) + first).flatten(), (columns >= 0).flatten().to(counts.dtype))


def code_use(counts: Tensor) -> dict[str, float]:
    """What counts (Q, K) say: perplexity, the mean over codebooks; share of all codes in use; codes that are not."""
    in_use = counts > 0
    return {
        "perplexity": float(torch.stack([perplexity(row.double()) for row in counts]).mean()),
        "usage": float(in_use.double().mean()),
        "dead_codes": int((~in_use).sum()),
    }


def attainable_usage(counts: Tensor) -> float:
    """The share of codes in use that is expected of as many even draws, 1 - exp(-n / K): below 1 where K is large."""
    return float(-torch.expm1(-counts.sum(dim=1).double() / counts.shape[1]).mean())


def codes_in_use(counts: Tensor) -> str:
    """Counts (Q, K) in words."""
    return f"{int((counts > 0).sum()):,} of {counts.numel():,} codes in use ({code_use(counts)['usage']:.1%})"


def too_few_in_use(config: TokenizerTrainingConfig, counts: Tensor) -> bool:
    """Whether counts (Q, K) show fewer codes than `usage_warning` times what even use would show."""
    return code_use(counts)["usage"] < config.usage_warning * attainable_usage(counts)


def usage_warning(config: TokenizerTrainingConfig, counts: Tensor, step: int, where: str) -> str:
    """A line on counts (Q, K) that show too few codes: how many, where, and what to try."""
    attainable = attainable_usage(counts)
    even = f", where even use would show {attainable:.0%}" if attainable < 0.95 else ""
    return (
        f"step {step}: {codes_in_use(counts)} {where}{even}, under usage_warning {config.usage_warning:g}. "
        f"Try {', '.join(remedies(config))}"
    )


class CodeUseWindow:
    """How often each code was used over the last images of all processes.

    A bucket holds the steps of a sixteenth of the window, at least one, and the window as many buckets as fit. So a
    full window never holds more than `images`, or one batch where that is more, and less by under two buckets.

    Args:
        num_codebooks, codebook_size: Q and K.
        images: N, the length of the window.
        batch_size: images of a step, over all processes and accumulated parts.
        accelerator: says where the counts lie and which processes to add.
    """

    def __init__(
        self, *, num_codebooks: int, codebook_size: int, images: int, batch_size: int, accelerator: Accelerator
    ) -> None:
        self.accelerator = accelerator
        self.batch_size = batch_size
        self.steps_a_bucket = max(1, images // (BUCKETS * batch_size))
        buckets = max(1, images // (self.steps_a_bucket * batch_size))
        self.counts = torch.zeros(buckets, num_codebooks, codebook_size, dtype=torch.int64, device=accelerator.device)
        self.steps = 0

    def add(self, parts: Iterable[Tensor]) -> None:
        """Count this process's codes of a step: those of each part, (B, h, w) or (B, h, w, Q), negative ones left out.

        Where the step begins a bucket, what that held of the oldest steps is forgotten.
        """
        bucket = self.counts[self.steps // self.steps_a_bucket % len(self.counts)]
        if self.steps % self.steps_a_bucket == 0:
            bucket.zero_()
        for codes in parts:
            add_codes(bucket, codes)
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
        """Counts (Q, K) over the window and all processes, on the host; every process must ask.

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
        return {"counts": self.counts, "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a saved window, or from an empty one where it was of another length."""
        if state["counts"].shape == self.counts.shape:
            self.steps = state["steps"]
            self.counts.copy_(state["counts"] if self.accelerator.is_main_process else torch.zeros_like(self.counts))


class UsageAlarm:
    """Says when too few codes are in use, once until enough were in use again, and when that is.

    Too few are less than `usage_warning` times what even use of all codes would show over as many images. The window
    has to be full, so that the codes that happened to come first are no alarm; at the end of a run it is looked at as
    it is.
    """

    def __init__(self, config: TokenizerTrainingConfig) -> None:
        self.config = config
        self.fallen = False

    def look(self, window: CodeUseWindow, counts: Tensor, step: int, *, last: bool) -> tuple[list[str], list[str]]:
        """Warnings and notes on counts (Q, K) of the window after a step, none where there is nothing to say."""
        where = f"over the last {window.images:,} training images"
        fallen, low = self.fallen, too_few_in_use(self.config, counts)
        if window.full:
            self.fallen = low
        if low and not fallen and (window.full or last):
            return [usage_warning(self.config, counts, step, where)], []
        if fallen and not low and window.full:
            return [], [f"step {step}: recovered: {codes_in_use(counts)} {where}"]
        return [], []

    def state_dict(self) -> dict[str, Any]:
        return {"fallen": self.fallen}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.fallen = bool(state["fallen"])
