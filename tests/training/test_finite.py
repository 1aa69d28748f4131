"""Numbers that are not finite stop a run before they are saved."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tests.training.runs import at_step, make
from vqtok.data import ImageSource, to_pixels
from vqtok.errors import TrainingError
from vqtok.training import tokenizer
from vqtok.training.tokenizer import train_tokenizer


def test_a_loss_that_is_not_finite_stops_the_run_before_it_is_saved(
    tmp_path: Path, sources: tuple[ImageSource, ImageSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of step 6 falls before the numbers of step 8 are due, and must not be written."""
    broken = False

    def break_it() -> None:
        nonlocal broken
        broken = True

    monkeypatch.setattr(tokenizer, "to_pixels", lambda pixels: to_pixels(pixels) * (math.nan if broken else 1.0))
    at_step(monkeypatch, 5, break_it)
    config = make(tmp_path / "run", log_every=8, checkpoint_every=3, keep_checkpoints=1)
    with pytest.raises(TrainingError, match="not finite at step 5: loss nan, reconstruction nan, commitment nan; the"):
        train_tokenizer(config, *sources)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000003"]
    assert not (tmp_path / "run" / "model").exists()
    monkeypatch.undo()
    assert train_tokenizer(config, *sources, resume=True).model is not None
