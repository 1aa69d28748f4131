"""Runs that stop and go on: bit for bit the run that did not stop."""

from __future__ import annotations

import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.training.runs import PowerCut, at_step, differences, make, rows
from vqtok.data import ImageSource
from vqtok.errors import ConfigurationError, DataError
from vqtok.training.tokenizer import train_tokenizer


@pytest.mark.parametrize(
    ("method", "stop", "parts"), [("ema", 4, 1), ("ema", 5, 2), ("vq", 5, 1), ("gumbel", 3, 2), ("gumbel", 4, 1)]
)
def test_resume_is_bit_for_bit(
    method: str,
    stop: int,
    parts: int,
    tmp_path: Path,
    sources: tuple[ImageSource, ImageSource],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """2N steps are N, a signal, and N more: weights, codebook, optimizer, noise, order of images and numbers."""
    changes = {"gradient_accumulation_steps": parts}
    train_tokenizer(make(tmp_path / "whole", method, **changes), *sources)
    part = make(tmp_path / "part", method, **changes)
    with monkeypatch.context() as patch:
        at_step(patch, stop, lambda: signal.raise_signal(signal.SIGTERM))
        stopped = train_tokenizer(part, *sources)
    assert (stopped.model, stopped.step, stopped.stopped_by) == (None, stop, signal.SIGTERM)
    assert (tmp_path / "part" / "checkpoints" / f"step-{stop:06d}").is_dir()
    torch.manual_seed(1234)
    assert train_tokenizer(part, *sources, resume=True).step == 8
    assert differences(tmp_path / "whole", tmp_path / "part") == []
    whole, resumed = rows(tmp_path / "whole"), rows(tmp_path / "part")
    if stop % 2:  # the stop cut a window of losses in two
        cut = (stop, stop + 1)
        whole, resumed = ([row for row in each if row["step"] not in cut] for each in (whole, resumed))
    assert whole == resumed


def test_a_run_that_was_cut_off_goes_on_from_its_last_checkpoint(
    tmp_path: Path, sources: tuple[ImageSource, ImageSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Checkpoints at 3 and 6 fall into windows of two steps: those rows are the same all the same."""
    train_tokenizer(make(tmp_path / "whole", checkpoint_every=3), *sources)
    part = make(tmp_path / "part", checkpoint_every=3)

    def cut() -> None:
        raise PowerCut

    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        at_step(patch, 6, cut)
        train_tokenizer(part, *sources)
    assert [row["step"] for row in rows(tmp_path / "part", "train")] == [2, 3, 4]
    train_tokenizer(part, *sources, resume=True)
    assert differences(tmp_path / "whole", tmp_path / "part") == []
    assert rows(tmp_path / "whole") == rows(tmp_path / "part")


def test_a_run_that_never_saved_starts_again(
    tmp_path: Path, sources: tuple[ImageSource, ImageSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut() -> None:
        raise PowerCut

    with monkeypatch.context() as patch, pytest.raises(PowerCut):
        at_step(patch, 3, cut)
        train_tokenizer(make(tmp_path / "part"), *sources)
    train_tokenizer(make(tmp_path / "part"), *sources, resume=True)
    train_tokenizer(make(tmp_path / "whole"), *sources)
    assert differences(tmp_path / "whole", tmp_path / "part") == []
    assert rows(tmp_path / "whole") == rows(tmp_path / "part")


def test_a_finished_run_can_go_on_for_longer_or_say_its_numbers_again(
    tmp_path: Path, sources: tuple[ImageSource, ImageSource]
) -> None:
    run = tmp_path / "run"
    first = train_tokenizer(make(run, steps=4), *sources)
    before = (run / "metrics.jsonl").read_text()
    again = train_tokenizer(make(run, steps=4), *sources, resume=True)
    assert (again.model, again.step) == (run / "model", 4)
    assert again.metrics == first.metrics
    assert (run / "metrics.jsonl").read_text() == before
    assert train_tokenizer(make(run, steps=6), *sources, resume=True).step == 6
    config = (run / "config.yaml").read_text()
    with pytest.raises(ConfigurationError, match="is at step 6 already: steps must be at least that, got 5"):
        train_tokenizer(make(run, steps=5), *sources, resume=True)
    assert (run / "config.yaml").read_text() == config


def test_a_signal_in_the_last_step_lets_the_run_finish(
    tmp_path: Path, sources: tuple[ImageSource, ImageSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_step(monkeypatch, 8, lambda: signal.raise_signal(signal.SIGINT))
    result = train_tokenizer(make(tmp_path / "run"), *sources)
    assert result.model == tmp_path / "run" / "model"


def test_a_used_folder_is_not_written_over(tmp_path: Path, sources: tuple[ImageSource, ImageSource]) -> None:
    (tmp_path / "note.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="is not empty: choose another folder with --out"):
        train_tokenizer(make(tmp_path), *sources)
    assert [path.name for path in tmp_path.iterdir()] == ["note.txt"]
    train_tokenizer(make(tmp_path / "run", steps=1), *sources)
    with pytest.raises(ConfigurationError, match="go on with --resume, replace it with --overwrite, or choose another"):
        train_tokenizer(make(tmp_path / "run"), *sources)
    with pytest.raises(ConfigurationError, match="there is no run to resume in"):
        train_tokenizer(make(tmp_path / "none"), *sources, resume=True)
    assert not (tmp_path / "none").exists()


def test_another_commit_of_the_images_is_refused_and_the_record_stays(
    tmp_path: Path, sources: tuple[ImageSource, ImageSource]
) -> None:
    """As many rows may be other images, and others held out."""

    def at(revision: str) -> tuple[ImageSource, ImageSource]:
        train, test = (
            replace(each, revision=revision, undivided=replace(each.undivided, revision=revision))
            for each in sources
            if each.undivided is not None
        )
        return train, test

    run = tmp_path / "run"
    train_tokenizer(make(run, steps=4), *at("1" * 40))
    record = (run / "images.json").read_text()
    with pytest.raises(DataError, match="has commit 2{40}, and the run began with 1{40}: resume it with the images"):
        train_tokenizer(make(run), *at("2" * 40), resume=True)
    assert (run / "images.json").read_text() == record and "1" * 40 in record
    assert train_tokenizer(make(run), *at("1" * 40), resume=True).step == 8
