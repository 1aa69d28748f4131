from __future__ import annotations

import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from vqtok.errors import ConfigurationError, TrainingError
from vqtok.tokenizer import VQTokenizer
from vqtok.training import loop
from vqtok.training.config import LoopConfig
from vqtok.training.loop import (
    LossWindow,
    StopRequest,
    build_accelerator,
    build_optimizer,
    learning_rate_at,
    stop_on_signals,
)


def make(**values: Any) -> LoopConfig:
    return LoopConfig(**({"out": "runs/x"} | values))


def test_the_learning_rate_warms_up_and_falls_along_a_cosine_to_zero() -> None:
    config = make(learning_rate=2.0, warmup_steps=4, steps=14)
    rates = [learning_rate_at(step, config) for step in range(15)]
    assert rates[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert rates[9] == pytest.approx(1.0)
    assert rates[12] == pytest.approx(1 + math.cos(math.pi * 0.8))
    assert rates[14] == pytest.approx(0)
    assert learning_rate_at(0, make(learning_rate=2.0, warmup_steps=0, steps=1)) == 2.0
    assert learning_rate_at(1, make(learning_rate=2.0, warmup_steps=8, steps=2)) == pytest.approx(0.5)


def test_biases_and_codebooks_do_not_decay(tiny_tokenizer: VQTokenizer) -> None:
    codebook = torch.nn.Parameter(tiny_tokenizer.quantizer.codebook.clone())
    del tiny_tokenizer.quantizer.codebook
    tiny_tokenizer.quantizer.codebook = codebook
    decayed, plain = build_optimizer(tiny_tokenizer, make(weight_decay=0.1, learning_rate=0.5)).param_groups
    assert (decayed["weight_decay"], plain["weight_decay"], decayed["lr"], plain["lr"]) == (0.1, 0.0, 0.5, 0.5)
    assert {parameter.ndim for parameter in decayed["params"]} == {4}
    assert {parameter.ndim for parameter in plain["params"]} == {1, 2}
    assert any(parameter is codebook for parameter in plain["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(list(tiny_tokenizer.parameters()))


def test_a_window_of_losses_gives_its_means_and_starts_anew() -> None:
    window, accelerator = LossWindow(), Accelerator(cpu=True)
    for value in (1.0, 2.0, 6.0):
        window.add({"loss": torch.tensor(value, requires_grad=True), "commitment": torch.tensor(10 * value)})
    assert window.close(accelerator, step=3) == pytest.approx({"loss": 3.0, "commitment": 30.0})
    window.add({"loss": torch.tensor(5.0), "commitment": torch.tensor(7.0)})
    assert window.close(accelerator, step=4) == {"loss": 5.0, "commitment": 7.0}


@pytest.mark.parametrize(("parts", "step"), [(1, 18), (2, 19)])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_its_step_and_parts(parts: int, step: int, value: float) -> None:
    window, accelerator = LossWindow(), Accelerator(cpu=True)
    accelerator.gradient_accumulation_steps = parts
    for number in range(4):  # the window ends with step 20; two steps of two parts, or four of one
        broken = number == 1
        window.add({"loss": torch.tensor(value if broken else 1.0), "reconstruction": torch.tensor(0.5)})
    with pytest.raises(TrainingError, match=rf"not finite at step {step}: loss {value}, reconstruction 0.5; the last"):
        window.close(accelerator, step=20)
    accelerator.gradient_accumulation_steps = 1


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


def test_several_processes_agree_every_ten_steps() -> None:
    class Pair:
        """The other process got SIGTERM, this one nothing."""

        num_processes, device = 2, torch.device("cpu")

        def gather(self, mine: torch.Tensor) -> torch.Tensor:
            return torch.cat([mine, torch.tensor([int(signal.SIGTERM)])])

    request: Any = StopRequest()
    assert [request(Pair(), step) for step in (8, 9, 10)] == [False, False, True]
    assert request.signal == signal.SIGTERM


def test_a_batch_that_does_not_divide_by_the_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop.Accelerator, "num_processes", 3)
    with pytest.raises(ConfigurationError, match="batch_size 32 must divide by 3 processes x 2 gradient"):
        build_accelerator(make(gradient_accumulation_steps=2))


def test_a_tracker_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: Any, **__: Any) -> None:
        raise ImportError("No module named 'wandb'")

    monkeypatch.setattr(loop, "Accelerator", lacking)
    with pytest.raises(
        ConfigurationError, match=r"the tracker 'wandb' is not installed: pip install 'vqtok\[trackers\]'"
    ):
        build_accelerator(make(tracker="wandb", out=str(tmp_path)))
