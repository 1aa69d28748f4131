"""How far a run is, and how fast."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["Stopwatch"]


class Stopwatch:
    """Seconds spent on training steps, without those in which something else was done."""

    def __init__(self) -> None:
        self.began = time.perf_counter()

    def lap(self) -> float:
        """Seconds since the last lap."""
        before, self.began = self.began, time.perf_counter()
        return self.began - before

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave out what is done inside; the steps before it are finished on the device first."""
        if torch.accelerator.is_available():
            torch.accelerator.synchronize()
        paused = time.perf_counter()
        yield
        self.began += time.perf_counter() - paused
