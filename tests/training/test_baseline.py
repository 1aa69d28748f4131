"""The training of baselines, in a few steps of a few pixels."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.runs import at_step, differences, rows
from vqtok.baselines import BASELINES, load_baseline
from vqtok.data import ImageDataset, ImageSource, open_splits, to_pixels
from vqtok.errors import ConfigurationError, DataError
from vqtok.training.baseline import train_baseline
from vqtok.training.baseline_config import BaselineTrainingConfig
from vqtok.training.resolution import load_config

SMALL: dict[str, dict[str, Any]] = {
    "vimco": {"num_samples": 2, "num_codebooks": 2, "codebook_size": 5, "code_dim": 3},
    "likelihood-ratio": {"num_codebooks": 2, "codebook_size": 5, "code_dim": 3},
    "iwae": {"num_samples": 2},
}


def make(run: Path, method: str, **changes: Any) -> BaselineTrainingConfig:
    """Eight steps of four images for a tiny network; what is given goes over that."""
    values: dict[str, Any] = {
        "out": str(run),
        "model": {"type": method, **SMALL.get(method, {})},
        "image_size": [16, 16],
        "num_channels": 1,
        "network": {"type": "conv", "hidden_size": 8, "residual_size": 4, "num_residual_blocks": 1},
        "steps": 8,
        "batch_size": 4,
        "learning_rate": 3e-3,
        "warmup_steps": 2,
        "log_every": 2,
        "eval_every": 4,
        "checkpoint_every": 4,
    }
    return BaselineTrainingConfig(**(values | changes))


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[ImageSource, ImageSource]]:
    """Forty blots in two classes, small and large."""
    noise = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("classes")
    y, x = np.mgrid[:16, :16]
    for number in range(40):
        top, left = noise.integers(3, 13, 2)
        blot = 255 * np.exp(-((y - top) ** 2 + (x - left) ** 2) / (4, 20)[number % 2])
        path = folder / ("small", "large")[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(blot.astype(np.uint8)).save(path)
    yield open_splits(str(folder), test_share=0.25)


@pytest.mark.parametrize("method", BASELINES)
def test_a_run_leaves_a_model_and_its_numbers(
    method: str, tmp_path: Path, labelled: tuple[ImageSource, ImageSource]
) -> None:
    run = tmp_path / "run"
    result = train_baseline(make(run, method), *labelled)
    assert (result.model, result.step, result.warnings) == (run / "model", 8, [])
    assert load_config(BaselineTrainingConfig, run / "config.yaml") == make(run, method)
    train, test = rows(run, "train"), rows(run, "test")
    parts = {"autoencoder": {"reconstruction"}, "likelihood-ratio": {"distortion", "rate", "baseline_error"}}
    assert set(train[0]) == {"step", "split", "loss", "learning_rate"} | parts.get(method, {"distortion", "rate"})
    bits = set() if method == "autoencoder" else {"bits_per_dim", "distortion", "rate"}
    assert set(result.metrics) == {"mse", "mse_over_variance"} | bits
    assert result.metrics == {key: value for key, value in test[-1].items() if key not in ("step", "split")}
    with Image.open(run / "samples" / "step-000008.png") as grid:
        below = {"autoencoder": 0, "cvae": 2}.get(method, 3)  # rows of ten; of two classes one each
        assert grid.size == (2 + 10 * 66, 2 + (2 + below) * 66)
    assert load_baseline(run).config.model["type"] == method


@pytest.mark.parametrize("method", ["vae", "cvae", "vimco"])
def test_held_out_numbers_are_those_of_the_saved_model(
    method: str, tmp_path: Path, labelled: tuple[ImageSource, ImageSource]
) -> None:
    result = train_baseline(make(tmp_path / "run", method, bound_samples=3, seed=4), *labelled)
    model: Any = load_baseline(tmp_path / "run")
    batch = ImageDataset(labelled[1], image_size=(16, 16), num_channels=1).__getitems__(range(10))
    images, labels = to_pixels(batch["pixels"]), batch["labels"] if method == "cvae" else None
    found = model.bound(images, labels, 3, torch.Generator().manual_seed(4))
    for name, nats in zip(("distortion", "rate", "bits_per_dim"), found, strict=True):
        assert result.metrics[name] == pytest.approx(float(nats.mean()) / (256 * math.log(2)), rel=1e-5)
    error = (model.reconstruct(images, labels) - images) / 2
    assert result.metrics["mse"] == pytest.approx(float(error.double().square().mean()), rel=1e-5)


@pytest.mark.parametrize(
    ("method", "stop", "parts"), [("vae", 4, 1), ("cvae", 5, 2), ("vimco", 3, 1), ("likelihood-ratio", 5, 1)]
)
def test_resume_is_bit_for_bit(
    method: str,
    stop: int,
    parts: int,
    tmp_path: Path,
    labelled: tuple[ImageSource, ImageSource],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    changes = {"gradient_accumulation_steps": parts, "log_every": 1}
    train_baseline(make(tmp_path / "whole", method, **changes), *labelled)
    part = make(tmp_path / "part", method, **changes)
    with monkeypatch.context() as patch:
        at_step(patch, stop, lambda: signal.raise_signal(signal.SIGTERM))
        assert train_baseline(part, *labelled).step == stop
    torch.manual_seed(1234)
    assert train_baseline(part, *labelled, resume=True).step == 8
    assert differences(tmp_path / "whole", tmp_path / "part") == []
    assert rows(tmp_path / "whole") == rows(tmp_path / "part")


def test_how_often_is_evaluated_changes_nothing_of_what_is_learned(
    tmp_path: Path, labelled: tuple[ImageSource, ImageSource]
) -> None:
    """The noise of evaluations and samples is not that of training."""
    train_baseline(make(tmp_path / "often", "vimco", eval_every=1), *labelled)
    train_baseline(make(tmp_path / "rarely", "vimco", eval_every=8), *labelled)
    assert differences(tmp_path / "often", tmp_path / "rarely") == []


def test_what_can_be_learned_is_learned(tmp_path: Path, labelled: tuple[ImageSource, ImageSource]) -> None:
    changes = {"steps": 150, "batch_size": 16, "eval_every": 150, "checkpoint_every": 150, "learning_rate": 1e-2}
    metrics = train_baseline(make(tmp_path / "run", "vae", **changes), *labelled).metrics
    assert metrics["bits_per_dim"] < 5 and metrics["mse_over_variance"] < 0.7


def test_images_without_labels_are_refused(tmp_path: Path, labelled: tuple[ImageSource, ImageSource]) -> None:
    train, test = (replace(each, classes=None) for each in labelled)
    with pytest.raises(DataError, match="has no labels for all of its images, and a cvae is conditioned on them: name"):
        train_baseline(make(tmp_path / "run", "cvae"), train, test)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"likelihood": "mse"}, "likelihood mse gives no probabilities, and vae is trained with a bound on those"),
        ({"model": "vea"}, r"model.type must be one of autoencoder, vae, .* got 'vea'. Did you mean 'vae'\?"),
        ({"model": {"type": "vimco", "num_samples": 1}}, "model.num_samples must be a whole number from 2 to 4096"),
        ({"model": {"beta": -1.0}}, "model.beta must be a number from 0 to 1000000.0, got -1"),
        ({"bound_samples": 0}, "bound_samples must be a whole number of at least 1 or null, got 0"),
        ({"gradient_checkpointing": True}, "gradient_checkpointing is of vqgan alone, and the network is conv"),
        ({"quantizer": "vq"}, "'quantizer' is not a configuration key"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        make(tmp_path / "run", "vae", **changes)
    assert "\n" not in str(caught.value)
