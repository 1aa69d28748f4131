from __future__ import annotations

import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from tests.training.runs import make
from vqtok.data import ImageSource
from vqtok.training.signals import StopRequest, stop_on_signals
from vqtok.training.tokenizer import train_tokenizer


def test_a_signal_becomes_a_request_while_the_loop_runs() -> None:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    accelerator = Accelerator(cpu=True)
    for number in before:
        with stop_on_signals() as stop:
            assert not stop(accelerator, 1)
            signal.raise_signal(number)
            assert stop(accelerator, 2)
            assert stop.signal == number
    assert {number: signal.getsignal(number) for number in before} == before


def test_a_second_interrupt_does_not_wait() -> None:
    with pytest.raises(KeyboardInterrupt), stop_on_signals():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)


def test_training_in_another_thread_leaves_signals_alone(
    tmp_path: Path, sources: tuple[ImageSource, ImageSource]
) -> None:
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(train_tokenizer, make(tmp_path / "run", steps=1), *sources).result().step == 1


def test_several_processes_agree_every_ten_steps() -> None:
    class Pair:
        """The other process got SIGTERM, this one nothing."""

        num_processes, device = 2, torch.device("cpu")

        def gather(self, mine: torch.Tensor) -> torch.Tensor:
            return torch.cat([mine, torch.tensor([int(signal.SIGTERM)])])

    request: Any = StopRequest()
    assert [request(Pair(), step) for step in (8, 9, 10)] == [False, False, True]
    assert request.signal == signal.SIGTERM
