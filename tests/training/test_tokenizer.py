"""The training loop of a tokenizer, in a few steps of a few pixels."""

from __future__ import annotations

import json
import math
import shutil
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.state import AcceleratorState
from PIL import Image
from safetensors.torch import load_file

from vqtok.data import ImageDataset, ImageSource, open_splits, to_pixels
from vqtok.errors import ConfigurationError, DataError, TrainingError
from vqtok.tokenizer import VQTokenizer
from vqtok.training import loop, tokenizer
from vqtok.training.config import TokenizerTrainingConfig
from vqtok.training.resolution import load_config
from vqtok.training.tokenizer import open_training_images, train_tokenizer

TIMING = "images_per_second"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blots on paper: forty images of 16x16 in which there is something to learn."""
    noise = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("images")
    y, x = np.mgrid[:16, :16]
    for number in range(40):
        top, left = noise.integers(3, 13, 2)
        blot = 255 * np.exp(-((y - top) ** 2 + (x - left) ** 2) / 8)
        Image.fromarray(blot.astype(np.uint8)).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def sources(folder: Path) -> tuple[ImageSource, ImageSource]:
    return open_splits(str(folder), test_share=0.25)


def make(run: Path, method: str = "ema", **changes: Any) -> TokenizerTrainingConfig:
    values: dict[str, Any] = {
        "out": str(run),
        "image_size": [16, 16],
        "num_channels": 1,
        "network": {"type": "conv", "hidden_size": 8, "residual_size": 4, "num_residual_blocks": 1},
        "quantizer": {"type": method, "codebook_size": 16, "code_dim": 4},
        "steps": 8,
        "batch_size": 4,
        "learning_rate": 3e-3,
        "warmup_steps": 2,
        "log_every": 2,
        "eval_every": 4,
        "checkpoint_every": 4,
        "usage_window": 12,  # three steps, so that runs of eight go around
    }
    return TokenizerTrainingConfig(**(values | changes))


def rows(run: Path, split: str | None = None) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != TIMING} for row in found if split in (None, row["split"])]


def at_step(monkeypatch: pytest.MonkeyPatch, step: int, action: Any) -> None:
    """Do something, once, at the beginning of a step."""
    learning_rate_at, actions = loop.learning_rate_at, [action]

    def acting(done: int, config: TokenizerTrainingConfig) -> float:
        if done == step - 1 and actions:
            actions.pop()()
        return learning_rate_at(done, config)

    monkeypatch.setattr(loop, "learning_rate_at", acting)


def differences(one: Path, other: Path, step: int = 8) -> list[str]:
    """What is not the same to the last bit in two runs: weights, buffers, optimizers, random numbers."""
    found = []
    for name in ("model/model.safetensors", f"checkpoints/step-{step:06d}/model.safetensors"):
        first, second = load_file(one / name), load_file(other / name)
        assert list(first) == list(second)
        found += [key for key in first if not torch.equal(first[key], second[key])]
    for name in ("optimizer.bin", "optimizer_1.bin", "random_states_0.pkl"):
        states = [(run / "checkpoints" / f"step-{step:06d}" / name).read_bytes() for run in (one, other)]
        found += [name] if states[0] != states[1] else []
    return found


def test_a_run_leaves_a_model_and_its_numbers(tmp_path: Path, sources: tuple[ImageSource, ImageSource]) -> None:
    run = tmp_path / "run"
    result = train_tokenizer(make(run), *sources)
    assert (result.model, result.step, result.stopped_by) == (run / "model", 8, None)
    assert sorted(path.name for path in run.iterdir()) == [
        "checkpoints",
        "config.yaml",
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
    """Steps of at least 50 ms for 4 images, and evaluations of half a second before and between them."""
    forward, encode = VQTokenizer.forward, VQTokenizer.encode

    def slow_forward(self: VQTokenizer, pixels: torch.Tensor) -> Any:
        time.sleep(0.05)
        return forward(self, pixels)

    def slow_encode(self: VQTokenizer, pixels: torch.Tensor) -> torch.Tensor:
        time.sleep(0.5)
        return encode(self, pixels)

    monkeypatch.setattr(VQTokenizer, "forward", slow_forward)
    monkeypatch.setattr(VQTokenizer, "encode", slow_encode)
    train_tokenizer(make(tmp_path / "run", log_every=4, eval_every=3, checkpoint_every=8), *sources)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    speeds = [row["images_per_second"] for row in map(json.loads, lines) if row["split"] == "train"]
    assert len(speeds) == 2
    assert all(20 < speed <= 4 / 0.05 for speed in speeds)


def test_sheets_show_held_out_images_over_their_reconstructions(
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


def test_a_sheet_has_whole_rows(tmp_path: Path, sources: tuple[ImageSource, ImageSource]) -> None:
    """Thirty images are sixteen over their reconstructions, and no second row where the two would mix."""
    train_tokenizer(make(tmp_path / "run", steps=1), *reversed(sources))
    with Image.open(tmp_path / "run" / "samples" / "step-000001.png") as grid:
        assert grid.size == (2 + 16 * 66, 2 + 2 * 66)


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


class PowerCut(BaseException):
    """Nothing that is caught on the way."""


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


@pytest.mark.filterwarnings("ignore:`torch.jit.*deprecated:DeprecationWarning")  # imported by inductor
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own tracer looks
def test_a_compiled_run_is_the_same_run_and_goes_on_without(
    backend: str, tmp_path: Path, sources: tuple[ImageSource, ImageSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backend "eager" only traces, in a fraction of the time; inductor generates what is run by default."""
    compile, traced = torch.compile, []

    def watched(function: Any) -> Any:
        traced.append(True)
        return compile(function, backend=backend)

    monkeypatch.setattr(torch, "compile", watched)
    fixed = {"type": "ema", "codebook_size": 16, "code_dim": 4, "init": "normal", "restart_threshold": 0.0}
    changes = {"quantizer": fixed} if backend == "inductor" else {}  # which draws other random numbers
    for compiled in (True, False):
        run = tmp_path / str(compiled)
        train_tokenizer(make(run, steps=4, compile=compiled, **changes), *sources)
        train_tokenizer(make(run, compile=not compiled, **changes), *sources, resume=True)
    assert traced == [True, True]
    ones, others = (rows(tmp_path / name, "train") for name in ("True", "False"))
    losses = [row["loss"] for row in ones]
    assert losses[0] == pytest.approx(others[0]["loss"], rel=1e-5)
    assert losses == pytest.approx([row["loss"] for row in others], rel=5e-3)  # rounding makes another code the nearest
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("True", "False"))
    for name, tensor in one.items() if backend == "eager" else ():
        torch.testing.assert_close(tensor, other[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor compiles C++")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.filterwarnings("ignore:`torch.jit.*is deprecated:DeprecationWarning")  # torch's own, as inductor is loaded
def test_a_run_compiled_by_inductor_is_the_same_run(tmp_path: Path, sources: tuple[ImageSource, ImageSource]) -> None:
    """From the first batch on, in which codes are put on latents and then move."""
    each = {"type": "ema", "codebook_size": 16, "code_dim": 4}
    quantizer = {"type": "residual", "num_codebooks": 2, "each": each}
    for compiled in (True, False):
        torch._dynamo.reset()
        config = make(tmp_path / str(compiled), steps=3, log_every=1, quantizer=quantizer, compile=compiled)
        train_tokenizer(config, *sources)
    assert torch._dynamo.utils.counters["inductor"]  # it was not the eager model that ran
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("True", "False"))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-4, atol=1e-4, msg=name)


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


@pytest.mark.parametrize("method", ["ema", "vq"])
def test_a_batch_in_four_parts_is_the_same_step(
    method: str, tmp_path: Path, sources: tuple[ImageSource, ImageSource]
) -> None:
    """Moving averages and restarts included; where codes start on data they start on the first part."""
    quantizer = {"type": method, "codebook_size": 16, "code_dim": 4, "init": "normal"}
    quantizer |= {"restart_threshold": 0.5, "decay": 0.5}
    weights = []
    for parts in (1, 4):
        run = tmp_path / str(parts)
        changes = {"steps": 3, "batch_size": 8, "gradient_accumulation_steps": parts, "quantizer": quantizer}
        train_tokenizer(make(run, **changes), *sources)
        weights.append(load_file(run / "model" / "model.safetensors"))
        weights[-1] |= {"rows": torch.tensor([row["loss"] for row in rows(run, "train")])}
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=1e-5, atol=1e-5, msg=name)


@pytest.fixture
def any_precision() -> Iterator[None]:
    """accelerate holds one precision for a process; a test that wants another has to make it forget."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()


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


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> tuple[ImageSource, ImageSource]:
    """Thirty images for training, two of which are cut off."""
    images = shutil.copytree(folder, tmp_path / "damaged")
    train, test = open_splits(str(images), test_share=0.25)
    for index in (4, 9):
        path = Path(train.row_name(index, train.encoded([index])[0]))
        path.write_bytes(path.read_bytes()[:60])
    return train, test


@pytest.mark.parametrize("limit", [None, 0])
def test_images_that_cannot_be_read_are_counted_and_named_and_resuming_is_exact(
    limit: int | None,
    damaged: tuple[ImageSource, ImageSource],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whether everything is decoded at the start or each batch when it is asked for; eight steps see every image."""
    if limit is not None:
        monkeypatch.setattr(tokenizer, "ImageDataset", partial(ImageDataset, memory_limit=limit))
    changes = {"max_unreadable": 0.1, "usage_warning": 0.0}
    train_tokenizer(make(tmp_path / "whole", **changes), *damaged)
    names = [Path(damaged[0].row_name(index, damaged[0].encoded([index])[0])).name for index in (4, 9)]
    notes = " ".join(row["note"] for row in rows(tmp_path / "whole", "note"))
    assert [notes.count(name) for name in names] == [1, 1]
    assert "cannot be read, and others take their place" in notes
    assert rows(tmp_path / "whole", "train")[-1]["unreadable_images"] == 2
    assert all(row["note"] in capsys.readouterr().err for row in rows(tmp_path / "whole", "note")[:1])

    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda: signal.raise_signal(signal.SIGTERM))
        train_tokenizer(make(tmp_path / "part", **changes), *damaged)
    train_tokenizer(make(tmp_path / "part", **changes), *damaged, resume=True)
    assert differences(tmp_path / "whole", tmp_path / "part") == []
    assert rows(tmp_path / "whole") == rows(tmp_path / "part")


@pytest.mark.parametrize("limit", [None, 0])
def test_too_many_images_that_cannot_be_read_stop_the_run(
    limit: int | None, damaged: tuple[ImageSource, ImageSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of thirty are more than the 1% that is allowed by default."""
    if limit is not None:
        monkeypatch.setattr(tokenizer, "ImageDataset", partial(ImageDataset, memory_limit=limit))
    with pytest.raises(DataError, match=r"of the 30 images of .* cannot be read, more than the 1% that may be skipped"):
        train_tokenizer(make(tmp_path / "run"), *damaged)
    assert not (tmp_path / "run" / "model").exists()


def test_held_out_images_that_cannot_be_read_are_left_out(
    damaged: tuple[ImageSource, ImageSource], tmp_path: Path
) -> None:
    test, train = damaged
    result = train_tokenizer(make(tmp_path / "run", steps=2, max_unreadable=0.1, usage_warning=0.0), train, test)
    assert result.metrics["unreadable_images"] == 2 and result.metrics["mse"] > 0
    (note,) = (row["note"] for row in rows(tmp_path / "run", "note"))
    assert note.startswith("step 2: 2 images held out cannot be read, and are left out: ")
    assert (tmp_path / "run" / "samples" / "step-000002.png").is_file()


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
