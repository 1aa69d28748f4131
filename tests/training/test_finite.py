"""Numbers that are not finite stop a run before they are saved."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from tests.training.runs import at_step, make
from vqtok.data import ImageSource, to_pixels
from vqtok.errors import TrainingError
from vqtok.tokenizer import VQTokenizer
from vqtok.training import images
from vqtok.training.finite import LossWindow
from vqtok.training.tokenizer import train_tokenizer


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(
    tmp_path: Path, sources: tuple[ImageSource, ImageSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of step 6 falls before the numbers of step 8 are due, and must not be written."""
    broken = False

    def break_it() -> None:
        nonlocal broken
        broken = True

    monkeypatch.setattr(images, "to_pixels", lambda pixels: to_pixels(pixels) * (math.nan if broken else 1.0))
    at_step(monkeypatch, 5, break_it)
    config = make(tmp_path / "run", log_every=8, checkpoint_every=3, keep_checkpoints=1)
    with pytest.raises(TrainingError, match="not finite at step 5: loss nan, reconstruction nan, commitment nan; such"):
        train_tokenizer(config, *sources)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000003"]
    assert not (tmp_path / "run" / "model").exists()
    monkeypatch.undo()
    assert train_tokenizer(config, *sources, resume=True).model is not None


@pytest.mark.parametrize("changes", [{"keep_checkpoints": 1}, {"steps": 1}], ids=["a checkpoint", "the model"])
def test_weights_that_nothing_can_be_computed_with_are_not_saved(
    changes: dict[str, Any], tmp_path: Path, sources: tuple[ImageSource, ImageSource]
) -> None:
    """The loss is that of the weights before the step that broke them."""
    run = tmp_path / "run"
    config = make(run, learning_rate=1e30, warmup_steps=0, log_every=1, checkpoint_every=1, **changes)
    with pytest.raises(TrainingError, match=r"after step 1 .*(inf|nan).*; such weights are not saved.* Try"):
        train_tokenizer(config, *sources)
    assert not (run / "checkpoints").exists() and not (run / "model").exists()


def test_a_model_whose_evaluation_is_not_finite_is_neither_saved_nor_finished(
    tmp_path: Path, sources: tuple[ImageSource, ImageSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, checkpoints = tmp_path / "run", tmp_path / "run" / "checkpoints"
    train_tokenizer(make(run, steps=4), *sources)
    for saved in (["step-000004"], ["step-000004", "step-000008"]):  # and where there is nothing left but to evaluate
        shutil.rmtree(run / "model")
        with (
            monkeypatch.context() as patch,
            pytest.raises(TrainingError, match="after step 8 is not finite: mse nan"),
        ):
            patch.setattr(VQTokenizer, "decode", lambda self, codes: torch.full((len(codes), 1, 16, 16), math.nan))
            train_tokenizer(make(run), *sources, resume=True)
        assert sorted(path.name for path in checkpoints.iterdir()) == saved and not (run / "model").exists()
        train_tokenizer(make(run), *sources, resume=True)


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
    with pytest.raises(TrainingError, match=rf"not finite at step {step}: loss {value}, reconstruction 0.5; such"):
        window.close(accelerator, step=20)
    accelerator.gradient_accumulation_steps = 1
