"""Two gloo processes on a part of the batch each do what one process does on the whole of it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from tests.two_processes import connect, run_two_processes
from vqtok.data import ImageDataset, open_splits, to_pixels
from vqtok.data.loading import sampled_rows
from vqtok.errors import DataError, TrainingError
from vqtok.training import images as image_tasks
from vqtok.training import loop, tokenizer
from vqtok.training.config import TokenizerTrainingConfig
from vqtok.training.tokenizer import train_tokenizer


def config(run: Path, **changes: Any) -> TokenizerTrainingConfig:
    values: dict[str, Any] = {
        "out": str(run),
        "image_size": [16, 16],
        "num_channels": 1,
        "network": {"type": "conv", "hidden_size": 8, "residual_size": 4, "num_residual_blocks": 1},
        "quantizer": {"type": "ema", "codebook_size": 16, "code_dim": 4, "restart_threshold": 0.5},
        "steps": 12,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "warmup_steps": 2,
        "log_every": 2,
        "eval_every": 6,
        "checkpoint_every": 12,
        "usage_window": 24,  # three steps, so that runs of twelve go around
        "usage_warning": 1.0,
    }
    return TokenizerTrainingConfig(**(values | changes))


def train(images: Path, run: Path, *, changes: dict[str, Any] | None = None, **options: Any) -> Any:
    return train_tokenizer(config(run, **(changes or {})), *open_splits(str(images), test_share=0.25), **options)


def held_out_images_decoded(images: Path, run: Path) -> list[int]:
    """Of ten held-out images, looked at four at a time and decoded when they are asked for."""
    seen: list[int] = []

    class Watched(ImageDataset):
        def read(self, indices: Any) -> Any:
            if len(self) == 10:
                seen.extend(indices)
            return super().read(indices)

    image_tasks.ImageDataset = partial(Watched, memory_limit=0)
    image_tasks.EVALUATED_AT_ONCE = 4
    with patch.object(tokenizer.TokenizerTask, "sample_grid", return_value=None):
        train(images, run)
    image_tasks.ImageDataset, image_tasks.EVALUATED_AT_ONCE = ImageDataset, 128
    return sorted(set(seen))


EVALUATED = sampled_rows(10, 8)
UNREADABLE = {"share": EVALUATED[4:], "all": EVALUATED}
"""Of the eight held-out images that are evaluated, by four; the second process has those from the fifth on."""


def evaluated(images: Path, run: Path) -> Any:
    """What an evaluation gives, or why it gives nothing."""
    changes = {"steps": 2, "checkpoint_every": 2, "eval_images": 8, "max_unreadable": 0.9, "usage_warning": 0.0}
    image_tasks.ImageDataset, image_tasks.EVALUATED_AT_ONCE = partial(ImageDataset, memory_limit=0), 4
    try:
        return train(images, run, changes=changes).metrics
    except DataError as error:
        return str(error)
    finally:
        image_tasks.ImageDataset, image_tasks.EVALUATED_AT_ONCE = ImageDataset, 128


def worker(rank: int, folder: Path) -> dict[str, Any]:
    """One of the two processes."""
    results: dict[str, Any] = {}
    images = folder / "images"
    with warnings.catch_warnings(action="error"):
        train(images, folder / "two")
        connect(rank, folder)
        train(images, folder / "parts", changes={"gradient_accumulation_steps": 2})

    learning_rate_at = loop.learning_rate_at

    def interrupted(done: int, config: Any) -> float:
        if done == 3 and rank == 1:
            signal.raise_signal(signal.SIGTERM)
        return learning_rate_at(done, config)

    connect(rank, folder)
    loop.learning_rate_at = interrupted
    stopped = train(images, folder / "part")
    results["stopped"] = (stopped.step, stopped.stopped_by, stopped.model)
    loop.learning_rate_at = learning_rate_at
    connect(rank, folder)
    train(images, folder / "part", resume=True)

    connect(rank, folder)
    results["decoded"] = held_out_images_decoded(images, folder / "shares")

    for name in UNREADABLE:
        connect(rank, folder)
        results[name] = evaluated(folder / f"unreadable-{name}", folder / f"evaluated-{name}")

    connect(rank, folder)
    image_tasks.to_pixels = lambda pixels: to_pixels(pixels) * (torch.nan if rank == 1 else 1)
    try:
        train(images, folder / "broken")
    except TrainingError as error:
        results["broken"] = str(error)
    return results


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images, and the runs of the two processes on them."""
    folder = tmp_path_factory.mktemp("two")
    noise = np.random.default_rng(0)
    (folder / "images").mkdir()
    for number in range(40):
        image = noise.integers(0, 256, (4, 4), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
        Image.fromarray(image).save(folder / "images" / f"{number:02d}.png")
    for name, broken in UNREADABLE.items():
        images = shutil.copytree(folder / "images", folder / f"unreadable-{name}")
        held_out = open_splits(str(images), test_share=0.25)[1]
        for index in broken:
            Path(held_out.stored([index])[0].name).write_text("no image at all")
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> list[dict[str, Any]]:
    return run_two_processes(worker, folder)


PART = {"codebook_size": 16, "code_dim": 4, "restart_threshold": 0.5}
COMPILED = {
    "vq": {"type": "vq", **PART},
    "residual": {"type": "residual", "num_codebooks": 2, "each": {"type": "ema", **PART}},
}


def compiled_worker(rank: int, folder: Path) -> None:
    """Two processes of a compiled run each."""
    for name, quantizer in COMPILED.items():
        connect(rank, folder)
        torch._dynamo.reset()
        train(folder / "images", folder / f"compiled-{name}", changes={"quantizer": quantizer, "compile": True})


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor compiles C++")
def test_two_compiled_processes_are_one_that_is_not(folder: Path, tmp_path: Path) -> None:
    run_two_processes(compiled_worker, folder, timeout=540)
    for name, quantizer in COMPILED.items():
        train(folder / "images", tmp_path / name, changes={"quantizer": quantizer})
        one, two = (
            load_file(run / "model" / "model.safetensors") for run in (tmp_path / name, folder / f"compiled-{name}")
        )
        for key, tensor in one.items():
            torch.testing.assert_close(tensor, two[key], rtol=1e-3, atol=1e-4, msg=f"{name} {key}")


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.usefixtures("results")
@pytest.mark.parametrize("run", ["two", "parts"])
def test_training_is_that_of_one_process(run: str, folder: Path, tmp_path: Path) -> None:
    """Also where each computes its share in two parts."""
    train(folder / "images", tmp_path / "one")
    one, two = (load_file(run / "model" / "model.safetensors") for run in (tmp_path / "one", folder / run))
    for key, tensor in one.items():
        torch.testing.assert_close(tensor, two[key], rtol=1e-4, atol=1e-5, msg=key)
    for alone, together in zip(rows(tmp_path / "one"), rows(folder / run), strict=True):
        assert alone.keys() == together.keys()
        for name in alone.keys() - {"images_per_second", "split", "note"}:
            assert alone[name] == pytest.approx(together[name], rel=1e-4), name


def test_a_signal_to_one_process_stops_both_and_the_run_goes_on_exactly(
    folder: Path, results: list[dict[str, Any]]
) -> None:
    assert [result["stopped"] for result in results] == [(10, signal.SIGTERM, None)] * 2
    two, part = (load_file(folder / run / "model" / "model.safetensors") for run in ("two", "part"))
    assert all(torch.equal(tensor, part[key]) for key, tensor in two.items())
    whole = [{**row, "images_per_second": 0} for row in rows(folder / "two")]
    assert whole == [{**row, "images_per_second": 0} for row in rows(folder / "part")]


def test_each_process_decodes_its_share_of_the_held_out_images(folder: Path, results: list[dict[str, Any]]) -> None:
    assert [result["decoded"] for result in results] == [[0, 1, 2, 3, 8, 9], [4, 5, 6, 7]]
    shares, two = ([row for row in rows(folder / name) if "mse" in row][-1] for name in ("shares", "two"))
    assert shares["mse"] == pytest.approx(two["mse"], rel=1e-6)


def test_a_process_that_can_read_nothing_of_its_share_stops_none(folder: Path, results: list[dict[str, Any]]) -> None:
    """They refuse together what none of them can read, and save what is due first."""
    first, second = (result["share"] for result in results)
    assert first == second and first["unreadable_images"] == 4 and first["mse"] > 0
    for result in results:
        assert result["all"].startswith("none of the 10 images of ") and " can be read, such as: " in result["all"]
    assert (folder / "evaluated-all" / "checkpoints" / "step-000002").is_dir()


def test_a_loss_that_is_not_finite_on_one_process_stops_both(folder: Path, results: list[dict[str, Any]]) -> None:
    for result in results:
        assert "not finite at step 1: loss nan" in result["broken"]
    assert not (folder / "broken" / "model").exists()
    assert not (folder / "broken" / "checkpoints").exists()


def test_torchrun_alone_starts_a_run_of_several_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(
        "ACCELERATE_USE_CPU", raising=False
    )  # which `accelerate launch --cpu` sets, and torchrun does not
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "vqtok_cli.main", "train"]
    tiny = ["--hidden-size=8", "--codebook-size=16", "--code-dim=4", "--steps=2", "--batch-size=4", "--out=run"]
    command = [sys.executable, *launch, *tiny, "--set=eval_images=8"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("tokenizer written to run/model") == 1
