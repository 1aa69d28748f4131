"""The training loop of a tokenizer, in a few steps of a few pixels."""

from __future__ import annotations

import json
import math
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file

from tests.training.runs import at_step, make, rows
from vqtok.data import ImageDataset, ImageSource, to_pixels
from vqtok.data.loading import sampled_rows
from vqtok.errors import ConfigurationError, DataError
from vqtok.tokenizer import VQTokenizer
from vqtok.training.config import TokenizerTrainingConfig
from vqtok.training.images import open_training_images
from vqtok.training.resolution import load_config
from vqtok.training.tokenizer import train_tokenizer


def test_a_run_leaves_a_model_and_its_numbers(tmp_path: Path, sources: tuple[ImageSource, ImageSource]) -> None:
    run = tmp_path / "run"
    result = train_tokenizer(make(run), *sources)
    assert (result.model, result.step, result.stopped_by) == (run / "model", 8, None)
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "images.json",
        "metrics.jsonl",
        "model",
        "samples",
    ]
    assert load_config(TokenizerTrainingConfig, run / "config.yaml") == make(run)
    train, test = rows(run, "train"), rows(run, "test")
    assert [row["step"] for row in train] == [2, 4, 6, 8]
    assert [row["step"] for row in test] == [4, 8]
    assert set(train[0]) == {
        "step",
        "split",
        "loss",
        "reconstruction",
        "commitment",
        "perplexity",
        "usage",
        "dead_codes",
        "learning_rate",
    }
    for row in train:
        assert row["loss"] == pytest.approx(row["reconstruction"] + 0.25 * row["commitment"], rel=1e-5)
        assert 1 <= row["perplexity"] <= 16 * row["usage"] + 1e-4
    assert [row["learning_rate"] for row in train] == pytest.approx([3e-3, 2.8e-3, 1.5e-3, 0.201e-3], rel=0.01)
    assert result.metrics == {key: value for key, value in test[-1].items() if key not in ("step", "split")}


def test_held_out_numbers_are_those_of_the_saved_model(
    tmp_path: Path, sources: tuple[ImageSource, ImageSource]
) -> None:
    result = train_tokenizer(make(tmp_path / "run"), *sources)
    pixels = to_pixels(ImageDataset(sources[1], image_size=(16, 16), num_channels=1).__getitems__(range(10))["pixels"])
    assert result.model is not None
    model = VQTokenizer.from_pretrained(result.model)
    codes = model.encode(pixels)
    before, after = (pixels.double().numpy() + 1) / 2, (model.decode(codes).double().numpy() + 1) / 2
    shares = np.bincount(codes.flatten().numpy(), minlength=16) / codes.numel()
    entropy = -sum(share * math.log(share) for share in shares if share)
    assert result.metrics["mse"] == pytest.approx(((after - before) ** 2).mean(), rel=1e-5)
    assert result.metrics["mse_over_variance"] == pytest.approx(((after - before) ** 2).mean() / before.var(), rel=1e-5)
    assert result.metrics["perplexity"] == pytest.approx(math.exp(entropy), rel=1e-5)
    assert result.metrics["usage"] == (shares > 0).mean()


def test_held_out_numbers_of_some_images_are_not_those_of_the_first(
    tmp_path: Path, sources: tuple[ImageSource, ImageSource]
) -> None:
    """Of a split in the order of its classes, the first would be of some classes only."""
    result = train_tokenizer(make(tmp_path / "run", eval_images=4), *sources)
    assert result.model is not None
    model, images = (
        VQTokenizer.from_pretrained(result.model),
        ImageDataset(sources[1], image_size=(16, 16), num_channels=1),
    )
    pixels = to_pixels(images.__getitems__(sampled_rows(10, 4))["pixels"])
    error = (model.decode(model.encode(pixels)) - pixels) / 2
    assert result.metrics["mse"] == pytest.approx(error.double().square().mean().item(), rel=1e-5)


def test_what_can_be_learned_is_learned(tmp_path: Path, sources: tuple[ImageSource, ImageSource]) -> None:
    config = make(tmp_path / "run", steps=120, batch_size=16, eval_every=120, checkpoint_every=120, learning_rate=1e-2)
    assert train_tokenizer(config, *sources).metrics["mse_over_variance"] < 0.5


def test_several_codebooks_are_counted_apart(tmp_path: Path, sources: tuple[ImageSource, ImageSource]) -> None:
    """Also where a training batch leaves some of them out, which is no use of any code."""
    each = {"type": "ema", "codebook_size": 8, "code_dim": 4}
    quantizer = {"type": "residual", "num_codebooks": 3, "stage_dropout": 0.9, "each": each}
    result = train_tokenizer(make(tmp_path / "run", quantizer=quantizer, steps=4), *sources)
    for row in rows(tmp_path / "run", "train"):
        assert row["usage"] == pytest.approx(1 - row["dead_codes"] / 24) and 1 <= row["perplexity"] <= 8
    assert result.model is not None
    pixels = to_pixels(ImageDataset(sources[1], image_size=(16, 16), num_channels=1).__getitems__(range(10))["pixels"])
    columns = VQTokenizer.from_pretrained(result.model).encode(pixels).reshape(-1, 3).T.numpy()
    shares = np.stack([np.bincount(column, minlength=8) for column in columns]) / columns.shape[1]
    entropies = [-sum(share * math.log(share) for share in row if share) for row in shares]
    assert result.metrics["perplexity"] == pytest.approx(np.exp(entropies).mean(), rel=1e-5)
    assert result.metrics["dead_codes"] == (shares == 0).sum()


def test_a_codebook_that_collapses_is_told_of_once_also_after_a_stop(
    tmp_path: Path,
    sources: tuple[ImageSource, ImageSource],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    quantizer = {"type": "vq", "codebook_size": 128, "code_dim": 4, "init": "normal", "restart_threshold": 0.0}
    train_tokenizer(make(tmp_path / "whole", quantizer=quantizer), *sources)
    note, _ = rows(tmp_path / "whole", "note")  # and one on held-out images at the end
    assert f"warning: {note['note']}\n" in capsys.readouterr().err
    (row,) = [row for row in rows(tmp_path / "whole", "train") if row["step"] == note["step"]]
    assert note["step"] == 4  # the first look at a full window
    used = 128 - row["dead_codes"]
    assert note["note"].startswith(
        f"step 4: {used} of 128 codes in use ({used / 128:.1%}) over the last 12 training images, "
    )
    assert "Try quantizer.restart_threshold=0.05, quantizer.init=data, " in note["note"]

    with monkeypatch.context() as patch:
        at_step(patch, 6, lambda: signal.raise_signal(signal.SIGTERM))
        train_tokenizer(make(tmp_path / "part", quantizer=quantizer), *sources)
    train_tokenizer(make(tmp_path / "part", quantizer=quantizer), *sources, resume=True)
    assert rows(tmp_path / "part") == rows(tmp_path / "whole")


COLLAPSING = {"type": "vq", "codebook_size": 128, "code_dim": 4, "init": "normal", "restart_threshold": 0.0}


def test_the_window_is_at_most_an_epoch(tmp_path: Path, sources: tuple[ImageSource, ImageSource]) -> None:
    """Thirty images give seven steps of four: over more of them, codes count as used that an epoch never takes."""
    train_tokenizer(make(tmp_path / "run", quantizer=COLLAPSING, usage_window=8192), *sources)
    first, _ = rows(tmp_path / "run", "note")
    assert first["step"] == 8 and "over the last 28 training images" in first["note"]


def test_dead_codes_on_held_out_images_are_told_at_the_end(
    tmp_path: Path, sources: tuple[ImageSource, ImageSource], capsys: pytest.CaptureFixture[str]
) -> None:
    """Though the log says nothing of training: each of its images may use other codes than the next."""
    run = tmp_path / "run"
    result = train_tokenizer(make(run, quantizer=COLLAPSING, usage_window=40, log_every=100), *sources)
    (warning,) = result.warnings
    held_out = rows(run, "test")[-1]
    used = 128 - held_out["dead_codes"]
    assert warning.startswith(f"step 8: {used} of 128 codes in use ({used / 128:.1%}) on 10 held-out images, ")
    assert "under usage_warning 0.5. Try quantizer.restart_threshold=0.05, quantizer.init=data, " in warning
    assert rows(run, "note")[-1]["note"] == warning
    again = train_tokenizer(make(run, quantizer=COLLAPSING, usage_window=40, log_every=100), *sources, resume=True)
    assert again == result
    assert train_tokenizer(make(tmp_path / "healthy"), *sources).warnings == []


def test_speed_is_that_of_training_alone(
    tmp_path: Path, sources: tuple[ImageSource, ImageSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which a step of 4 images takes 50 ms, and an evaluation, before or between them, half a second."""
    forward, encode, now = VQTokenizer.forward, VQTokenizer.encode, [0.0]

    def slow_forward(self: VQTokenizer, pixels: torch.Tensor, **kwargs: Any) -> Any:
        now[0] += 0.05
        return forward(self, pixels, **kwargs)

    def slow_encode(self: VQTokenizer, pixels: torch.Tensor) -> torch.Tensor:
        now[0] += 0.5
        return encode(self, pixels)

    monkeypatch.setattr(VQTokenizer, "forward", slow_forward)
    monkeypatch.setattr(VQTokenizer, "encode", slow_encode)
    monkeypatch.setattr("vqtok.training.progress.time", SimpleNamespace(perf_counter=lambda: now[0]))
    train_tokenizer(make(tmp_path / "run", log_every=4, eval_every=3, checkpoint_every=8), *sources)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    speeds = [row["images_per_second"] for row in map(json.loads, lines) if row["split"] == "train"]
    assert speeds == pytest.approx([4 / 0.05, 4 / 0.05])


def test_image_grids_show_held_out_images_over_their_reconstructions(
    tmp_path: Path, sources: tuple[ImageSource, ImageSource]
) -> None:
    result = train_tokenizer(make(tmp_path / "run", steps=4), *sources)
    assert [path.name for path in (tmp_path / "run" / "samples").iterdir()] == ["step-000004.png"]
    with Image.open(tmp_path / "run" / "samples" / "step-000004.png") as opened:
        grid = opened.copy()
    assert grid.size == (2 + 10 * 66, 2 + 2 * 66)
    pixels = ImageDataset(sources[1], image_size=(16, 16), num_channels=1).__getitems__(range(10))["pixels"]
    assert result.model is not None
    model = VQTokenizer.from_pretrained(result.model)
    decoded = model.detokenize(model.encode(to_pixels(pixels)))
    last = grid.crop((2 + 9 * 66, 2, 66 + 9 * 66, 66)).resize((16, 16), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(np.asarray(last), pixels[9, 0].numpy())
    below = grid.crop((2 + 9 * 66, 68, 66 + 9 * 66, 132)).resize((16, 16), Image.Resampling.NEAREST)
    np.testing.assert_array_equal(np.asarray(below), np.asarray(decoded[9]))


def test_an_image_grid_has_whole_rows(tmp_path: Path, sources: tuple[ImageSource, ImageSource]) -> None:
    """Thirty images are sixteen over their reconstructions, and no second row where the two would mix."""
    train_tokenizer(make(tmp_path / "run", steps=1), *reversed(sources))
    with Image.open(tmp_path / "run" / "samples" / "step-000001.png") as grid:
        assert grid.size == (2 + 16 * 66, 2 + 2 * 66)


def test_a_second_precision_in_one_process_is_refused(tmp_path: Path, sources: tuple[ImageSource, ImageSource]) -> None:
    train_tokenizer(make(tmp_path / "plain", steps=1), *sources)
    with pytest.raises(ConfigurationError, match="precision 'bf16' cannot be used here: .*restart your runtime"):
        train_tokenizer(make(tmp_path / "run", precision="bf16"), *sources)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("any_precision")
def test_half_precision_leaves_weights_and_codebook_in_float32(
    tmp_path: Path, sources: tuple[ImageSource, ImageSource]
) -> None:
    result = train_tokenizer(make(tmp_path / "run", precision="bf16", steps=2), *sources)
    assert result.model is not None
    tensors = load_file(result.model / "model.safetensors")
    assert {tensor.dtype for tensor in tensors.values() if tensor.is_floating_point()} == {torch.float32}
    AcceleratorState._reset_state()
    plain = train_tokenizer(make(tmp_path / "plain", steps=2), *sources)
    assert plain.metrics["mse"] == pytest.approx(result.metrics["mse"], rel=0.2)
    assert plain.metrics["mse"] != result.metrics["mse"]


def test_tensorboard_gets_every_number(tmp_path: Path, sources: tuple[ImageSource, ImageSource]) -> None:
    train_tokenizer(make(tmp_path / "run", tracker="tensorboard", steps=2), *sources)
    events = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("events.out.tfevents.*"))
    for name in (b"train/loss", b"train/perplexity", b"train/images_per_second", b"test/mse", b"test/usage"):
        assert name in events


def test_images_decide_what_is_left_open(folder: Path, tmp_path: Path) -> None:
    config, train, test = open_training_images(make(tmp_path, dataset=str(folder), image_size=None, num_channels=None))
    assert (config.image_size, config.num_channels) == ([16, 16], 1)
    assert (len(train), len(test)) == (36, 4)
    network = {"type": "conv", "hidden_size": 8, "downsample_factor": 32}
    config, _, _ = open_training_images(
        make(tmp_path, dataset=str(folder), image_size=None, num_channels=3, network=network)
    )
    assert (config.image_size, config.num_channels) == ([32, 32], 3)
    with pytest.raises(ConfigurationError, match="image_size must be .* got 0"):  # and not taken for "not given"
        make(tmp_path, dataset=str(folder), image_size=0, num_channels=None)


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"batch_size": 64}, DataError, "has 30 images for training, fewer than one batch of 64"),
        ({"image_size": 18}, ConfigurationError, "18x18 pixels does not divide"),
    ],
)
def test_what_cannot_be_trained_is_refused(
    changes: dict[str, Any],
    error: type[Exception],
    message: str,
    tmp_path: Path,
    sources: tuple[ImageSource, ImageSource],
) -> None:
    with pytest.raises(error, match=message):
        train_tokenizer(make(tmp_path / "run", **changes), *sources)
    assert not (tmp_path / "run").exists()
