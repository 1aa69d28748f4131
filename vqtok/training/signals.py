"""Ctrl-C and SIGTERM as a request to save and leave."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

import torch
from accelerate import Accelerator

__all__ = ["StopRequest", "stop_on_signals"]


class StopRequest:
    """Whether a signal asked the run to save and leave."""

    EVERY = 10
    """Steps between two agreements of several processes; a single one looks at every step."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None

    def __call__(self, accelerator: Accelerator, step: int) -> bool:
        """Whether to stop after this step; all processes give the same answer."""
        if accelerator.num_processes == 1:
            return self.signal is not None
        if step % self.EVERY:
            return False
        number = int(accelerator.gather(torch.tensor([int(self.signal or 0)], device=accelerator.device)).max())
        self.signal = signal.Signals(number) if number else None
        return self.signal is not None


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Turn Ctrl-C and SIGTERM into a request while the loop runs; a second Ctrl-C interrupts at once.

    Outside of the main thread, where Python lets nobody handle signals, they do what they did before.
    """
    request = StopRequest()

    def handle(number: int, frame: FrameType | None) -> None:
        if request.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        request.signal = signal.Signals(number)

    handled = (signal.SIGINT, signal.SIGTERM) if current_thread() is main_thread() else ()
    before = {number: signal.signal(number, handle) for number in handled}
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
