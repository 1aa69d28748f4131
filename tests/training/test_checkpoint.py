from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from torch import nn

from tests.training.runs import PowerCut
from vqtok.errors import CheckpointError, ConfigurationError
from vqtok.training.checkpoint import (
    checkpoint_to_resume,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
    save_model,
)


class Trained:
    """A layer and its optimizer in the hands of an accelerator, one step from the start."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.accelerator = Accelerator(cpu=True)
        layer = nn.Linear(3, 2)
        optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
        self.layer, self.optimizer = self.accelerator.prepare(layer, optimizer)
        self.step()

    def step(self) -> None:
        self.optimizer.zero_grad()
        self.layer(torch.randn(4, 3)).square().sum().backward()
        self.optimizer.step()

    @property
    def weight(self) -> torch.Tensor:
        return self.layer.weight.detach().clone()


@pytest.fixture
def trained() -> Trained:
    return Trained()


def names(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def test_weights_optimizer_and_random_numbers_come_back(trained: Trained, tmp_path: Path) -> None:
    assert save_checkpoint(trained.accelerator, tmp_path, 5, keep=2) == tmp_path / "checkpoints" / "step-000005"
    trained.step()
    expected = trained.weight
    for _ in range(3):
        trained.step()
    assert load_checkpoint(trained.accelerator, tmp_path / "checkpoints" / "step-000005") == 5
    trained.step()
    assert torch.equal(trained.weight, expected)


def test_only_the_newest_are_kept(trained: Trained, tmp_path: Path) -> None:
    for step in (9, 10, 100, 1_000_000):
        save_checkpoint(trained.accelerator, tmp_path, step, keep=2)
    assert names(tmp_path) == ["step-000100", "step-1000000"]
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-1000000"


def test_a_checkpoint_in_which_somebody_put_a_file_stays(trained: Trained, tmp_path: Path) -> None:
    save_checkpoint(trained.accelerator, tmp_path, 1, keep=1)
    mine = tmp_path / "checkpoints" / "step-000001" / "notes.txt"
    mine.write_text("mine")
    for step in (1, 2, 3):
        save_checkpoint(trained.accelerator, tmp_path, step, keep=1)
    assert names(tmp_path) == ["step-000001", "step-000003"]
    assert mine.read_text() == "mine"
    assert load_checkpoint(trained.accelerator, mine.parent) == 1


def test_only_whole_checkpoints_count(trained: Trained, tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    save_checkpoint(trained.accelerator, tmp_path, 3, keep=2)
    for name in (".step-000009.partial", "step-000008", "step-last", "other"):
        (tmp_path / "checkpoints" / name).mkdir()
    for name in (".step-000009.partial", "step-last"):
        (tmp_path / "checkpoints" / name / "state.json").write_text("{}")
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-000003"


@pytest.mark.parametrize("moment", ["save_state", "replace"])
def test_a_crash_in_the_middle_of_writing_leaves_the_old_one(
    moment: str, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(trained.accelerator, tmp_path, 1, keep=1)
    old = trained.weight
    trained.step()

    def cut(folder: Any, *_: Any) -> None:
        Path(folder, "model.safetensors").write_bytes(b"half of it")
        raise PowerCut

    target = trained.accelerator if moment == "save_state" else os
    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        patch.setattr(target, moment, cut)
        save_checkpoint(trained.accelerator, tmp_path, 2, keep=1)
    assert newest_checkpoint(tmp_path) == tmp_path / "checkpoints" / "step-000001"
    now = trained.weight
    assert load_checkpoint(trained.accelerator, tmp_path / "checkpoints" / "step-000001") == 1
    assert torch.equal(trained.weight, old) and not torch.equal(old, now)
    (tmp_path / "checkpoints" / ".step-000001.partial").mkdir()  # as a run that was killed leaves it
    save_checkpoint(trained.accelerator, tmp_path, 2, keep=1)
    assert names(tmp_path) == ["step-000002"]


FULL = [
    OSError(28, "No space left on device"),
    RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos 64\nvs 0"),
    SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
]


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_a_full_disk_is_one_line_and_the_last_good_checkpoint_stays(
    error: Exception, trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: str) -> None:
        Path(folder, "model.safetensors").write_bytes(b"half of it")
        raise error

    monkeypatch.setattr(trained.accelerator, "save_state", full)
    with pytest.raises(CheckpointError, match=r"step-000002: .*; there is no earlier checkpoint"):
        save_checkpoint(trained.accelerator, tmp_path, 2, keep=1)
    monkeypatch.undo()
    save_checkpoint(trained.accelerator, tmp_path, 1, keep=1)
    monkeypatch.setattr(trained.accelerator, "save_state", full)
    with pytest.raises(
        CheckpointError, match=r"cannot write .*step-000002: .*; the newest good .*step-000001"
    ) as caught:
        save_checkpoint(trained.accelerator, tmp_path, 2, keep=1)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == ["step-000001"]


@pytest.mark.parametrize("error", FULL, ids=lambda error: type(error).__name__)
def test_a_full_disk_leaves_the_model_that_was_there(error: Exception, tmp_path: Path) -> None:
    class Model:
        full = False

        def save_pretrained(self, folder: Path) -> None:
            (folder / "weights").write_text("half" if self.full else "whole")
            if self.full:
                raise error

    model = Model()
    save_model(model, tmp_path)
    model.full = True
    with pytest.raises(
        CheckpointError, match="cannot write the model .*free some space and go on with --resume"
    ) as caught:
        save_model(model, tmp_path)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "weights").read_text() == "whole"


@pytest.mark.parametrize("size", [0, 20, 200])
@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.bin", "random_states_0.pkl", "state.json"])
def test_a_file_that_is_cut_off_is_one_line(name: str, size: int, trained: Trained, tmp_path: Path) -> None:
    folder = save_checkpoint(trained.accelerator, tmp_path, 5, keep=1)
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[: min(size, len(data) - 1)])
    with pytest.raises(CheckpointError, match="cannot read the checkpoint .*step-000005") as caught:
        load_checkpoint(trained.accelerator, folder)
    assert "\n" not in str(caught.value)


def test_as_many_processes_go_on_as_wrote_it(trained: Trained, tmp_path: Path) -> None:
    folder = save_checkpoint(trained.accelerator, tmp_path, 5, keep=1)
    (folder / "state.json").write_text(json.dumps({"step": 5, "num_processes": 2}))
    with pytest.raises(CheckpointError, match="written by 2 processes and cannot go on in 1: start as many as then"):
        load_checkpoint(trained.accelerator, folder)


def test_a_run_does_not_go_back(trained: Trained, tmp_path: Path) -> None:
    assert checkpoint_to_resume(tmp_path, 5) is None
    folder = save_checkpoint(trained.accelerator, tmp_path, 5, keep=1)
    assert checkpoint_to_resume(tmp_path, 5) == folder
    with pytest.raises(ConfigurationError, match="is at step 5 already: steps must be at least that, got 4"):
        checkpoint_to_resume(tmp_path, 4)
