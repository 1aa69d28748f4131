"""How far a run is, and how fast: a bar where somebody watches, plain lines where the output goes to a file."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import torch
from tqdm import tqdm

from vqtok.text import printable

__all__ = ["Progress", "Stopwatch"]


class Progress:
    """What a run says on stderr while it trains.

    Args:
        start, steps: steps done and steps in all.
        silent: say nothing, as all processes but one do.
    """

    def __init__(self, start: int, steps: int, *, silent: bool) -> None:
        self.steps, self.silent = steps, silent
        self.bar = tqdm(total=steps, initial=start, unit="step", disable=silent or not sys.stderr.isatty())

    def advance(self) -> None:
        """A step is done."""
        self.bar.update()

    def training(self, step: int, line: str) -> None:
        """Say how training goes: at the end of the bar, or in a line of its own."""
        if self.bar.disable:
            self.write(f"step {step}/{self.steps}: {line}")
        self.bar.set_postfix_str(printable(line))

    def write(self, line: str) -> None:
        """Say something that stays, above the bar; it may hold names of files of others."""
        if not self.silent:
            tqdm.write(printable(line), file=sys.stderr)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()


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
