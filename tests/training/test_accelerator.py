from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vqtok.errors import ConfigurationError
from vqtok.training import accelerator
from vqtok.training.accelerator import build_accelerator
from vqtok.training.config import LoopConfig


def make(**values: Any) -> LoopConfig:
    return LoopConfig(**({"out": "runs/x"} | values))


def test_a_batch_that_does_not_divide_by_the_processes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accelerator.Accelerator, "num_processes", 3)
    with pytest.raises(ConfigurationError, match="batch_size 32 must divide by 3 processes x 2 gradient"):
        build_accelerator(make(gradient_accumulation_steps=2))


def test_a_tracker_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacking(*_: Any, **__: Any) -> None:
        raise ImportError("No module named 'wandb'")

    monkeypatch.setattr(accelerator, "Accelerator", lacking)
    with pytest.raises(
        ConfigurationError, match=r"the tracker 'wandb' is not installed: pip install 'vqtok\[trackers\]'"
    ):
        build_accelerator(make(tracker="wandb", out=str(tmp_path)))
