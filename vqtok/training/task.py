"""What the loop asks of a thing that is trained."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from PIL import Image
from torch import Tensor

from vqtok.training.optimization import OptimizedModel

__all__ = ["Report", "Task", "sum_over_processes"]


def sum_over_processes(sums: Tensor) -> list[float]:
    """The sums (M,) of this process, on the host, added to those of all others."""
    found = gather_object([sums.tolist()])
    return [math.fsum(values) for values in zip(*found, strict=True)]


@dataclass(kw_only=True)
class Report:
    """What is told of training or of an evaluation.

    Attributes:
        metrics: numbers for a row of metrics.jsonl and for the tracker.
        summary: the same in a few words, for the screen.
        warnings, notes: lines for the user; metrics.jsonl keeps them too.
    """

    metrics: dict[str, float]
    summary: str
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


class Task(ABC):
    """Says what a batch, a step, an evaluation, an image grid and the saved model are; the loop says when.

    A task is built with the accelerator of its run, once the seed is set, and refuses then what it cannot train: there
    is no run folder yet. All processes call the same methods in the same order, but for `sample_grid`.

    Attributes:
        models: each with its optimizer. One that is trained against another stands here beside it.
        unit: what speed is counted in, such as "images".
        units_per_step: how many of them a step takes, over all processes and accumulated parts.
    """

    models: Sequence[OptimizedModel]
    unit: str
    units_per_step: int

    @abstractmethod
    def batches(self, start: int) -> Iterator[tuple[Tensor, ...]]:
        """This process's batches, without end, from that of the step that follows `start` steps.

        Each is some tensors with a row for every image, by which the loop splits it into parts.
        """

    def write_records(self, run: Path) -> None:
        """Called on the main process once the run folder is its own: what is kept beside the configuration."""
        return

    def initialize(self, parts: Sequence[tuple[Tensor, ...]]) -> None:
        """Called before the first step of a run with all parts of its batch, if there are several."""
        return

    @abstractmethod
    def step(self, part: tuple[Tensor, ...]) -> dict[str, Tensor]:
        """Train on a part of a batch; returns the loss and its parts, scalars that stay on the device."""

    def after_step(self) -> None:
        """Called once all parts of a batch went through `step` and the weights moved."""
        return

    @abstractmethod
    def training_report(self, losses: dict[str, float], step: int, *, last: bool) -> Report:
        """What to log of training beside the mean losses since the last look."""

    @abstractmethod
    def evaluate(self, step: int, *, last: bool) -> Report:
        """Numbers on held-out data; leaves the models in evaluation mode."""

    def sample_grid(self) -> Image.Image | None:
        """An image that shows what has been learned so far, on the main process only."""
        return None

    @abstractmethod
    def saved_model(self) -> Any:
        """What `model/` is made of with its `save_pretrained`."""
