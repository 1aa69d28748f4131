"""Two gloo processes on a part of the batch each do what one process does on the whole of it."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from safetensors.torch import load_file

from vqtok.data import open_splits, to_pixels
from vqtok.errors import TrainingError
from vqtok.quantizers import build_quantizer
from vqtok.quantizers.codebook import all_reduce_sum, pick_rows
from vqtok.training import tokenizer as loop
from vqtok.training.config import TokenizerTrainingConfig
from vqtok.training.tokenizer import train_tokenizer

STEPS, BATCH = 5, 8
SPLITS = [(0, 10), (10, 0), (3, 7), (9, 1)]  # rows of the first and of the second process
PLACES = torch.tensor([0.0, 0.29, 0.3, 0.31, 0.5, 0.899, 0.9, 0.999], dtype=torch.float64)
METHODS = ["ema", "vq"]

State = dict[str, torch.Tensor]


def quantize(method: str, share: Callable[[torch.Tensor], torch.Tensor], seed: int) -> State:
    """Some training steps of a quantizer that starts on latents and restarts often; its state and what it did."""
    torch.manual_seed(0)
    options = {"type": method, "codebook_size": 24, "code_dim": 3, "restart_threshold": 0.6, "decay": 0.5}
    quantizer = build_quantizer(options)
    latents = torch.randn(STEPS, BATCH, 3, 4, 4)
    latents += torch.linspace(0, 4, STEPS).view(STEPS, 1, 1, 1, 1)  # they drift, so that codes die
    torch.manual_seed(seed)
    restarts = 0
    for step in range(STEPS):
        output = quantizer(share(latents[step]))
        restarted = 2 * 0.6 * BATCH * 16 / 24  # what cluster_size is set to
        restarts += int((quantizer.cluster_size - restarted).abs().lt(1e-4).sum())
        output.loss.backward() if method == "vq" else None
        for parameter in quantizer.parameters():  # as data parallel training does
            assert parameter.grad is not None
            all_reduce_sum(parameter.grad)
            parameter.grad /= dist.get_world_size() if dist.is_initialized() else 1
            with torch.no_grad():
                parameter -= 0.5 * parameter.grad
            parameter.grad = None
    return {**quantizer.state_dict(), "restarts": torch.tensor(restarts), "codes": output.codes}


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


def train(pictures: Path, run: Path, **options: Any) -> Any:
    return train_tokenizer(config(run), *open_splits(str(pictures), test_share=0.25), **options)


def worker(rank: int, folder: Path) -> None:
    """One of the two processes; leaves its results in files."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "ACCELERATE_USE_CPU": "true"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29400"}
    results: dict[str, Any] = {}

    def connect(name: str) -> None:
        meeting = (folder / f"meet-{name}").as_uri()
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)

    connect("quantizers")
    for method in METHODS:
        results[method] = quantize(method, lambda batch: batch.chunk(2)[rank], seed=100 + rank)
    results["uneven"] = quantize("ema", lambda batch: batch.split([BATCH - 3, 3])[rank], seed=100 + rank)
    rows = torch.arange(10.0)[:, None]
    results["picked"] = [pick_rows(rows.split(split)[rank], PLACES if rank == 0 else 1 - PLACES) for split in SPLITS]
    dist.destroy_process_group()

    pictures = folder / "pictures"
    connect("whole")
    train(pictures, folder / "two")

    learning_rate_at = loop.learning_rate_at

    def interrupted(done: int, config: Any) -> float:
        if done == 3 and rank == 1:
            signal.raise_signal(signal.SIGTERM)
        return learning_rate_at(done, config)

    connect("part")
    loop.learning_rate_at = interrupted
    stopped = train(pictures, folder / "part")
    results["stopped"] = (stopped.step, stopped.stopped_by, stopped.model)
    loop.learning_rate_at = learning_rate_at
    connect("resumed")
    train(pictures, folder / "part", resume=True)

    connect("broken")
    loop.to_pixels = lambda pixels: to_pixels(pixels) * (torch.nan if rank == 1 else 1)
    try:
        train(pictures, folder / "broken")
    except TrainingError as error:
        results["broken"] = str(error)
    torch.save(results, folder / f"results-{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything that the two processes left."""
    folder = tmp_path_factory.mktemp("two")
    noise = np.random.default_rng(0)
    (folder / "pictures").mkdir()
    for number in range(40):
        picture = noise.integers(0, 256, (4, 4), dtype=np.uint8).repeat(4, axis=0).repeat(4, axis=1)
        Image.fromarray(picture).save(folder / "pictures" / f"{number:02d}.png")
    context = torch.multiprocessing.get_context("spawn")
    processes = [context.Process(target=worker, args=(rank, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=240)
    assert [process.exitcode for process in processes] == [0, 0]
    return folder


@pytest.fixture(scope="module")
def results(folder: Path) -> list[dict[str, Any]]:
    return [torch.load(folder / f"results-{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("name", [*METHODS, "uneven"])
def test_the_codebook_is_that_of_one_process(name: str, results: list[dict[str, Any]]) -> None:
    alone = quantize("ema" if name == "uneven" else name, lambda batch: batch, seed=100)
    assert alone["restarts"] >= 10  # and not only on the way where nothing dies
    codes = torch.cat([result[name].pop("codes") for result in results])
    assert torch.equal(codes, alone.pop("codes"))
    for key, tensor in alone.items():
        first, second = (result[name][key] for result in results)
        assert torch.equal(first, second), f"{key} differs between the processes"
        torch.testing.assert_close(first, tensor, rtol=1e-6, atol=1e-6, msg=key)


def test_rows_are_picked_from_the_batch_of_all(results: list[dict[str, Any]]) -> None:
    """Also where one process has none of them, and whatever places the second process drew."""
    for index in range(len(SPLITS)):
        for result in results:
            assert result["picked"][index].flatten().tolist() == [0, 2, 3, 3, 5, 8, 9, 9]


def rows(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_training_is_that_of_one_process(folder: Path, tmp_path: Path) -> None:
    train(folder / "pictures", tmp_path / "one")
    one, two = (load_file(run / "model" / "model.safetensors") for run in (tmp_path / "one", folder / "two"))
    for key, tensor in one.items():
        torch.testing.assert_close(tensor, two[key], rtol=1e-4, atol=1e-5, msg=key)
    for alone, together in zip(rows(tmp_path / "one"), rows(folder / "two"), strict=True):
        assert alone.keys() == together.keys()
        for name in alone.keys() - {"pictures_per_second", "split"}:
            assert alone[name] == pytest.approx(together[name], rel=1e-4), name


def test_a_signal_to_one_process_stops_both_and_the_run_goes_on_exactly(
    folder: Path, results: list[dict[str, Any]]
) -> None:
    assert [result["stopped"] for result in results] == [(10, signal.SIGTERM, None)] * 2
    two, part = (load_file(folder / run / "model" / "model.safetensors") for run in ("two", "part"))
    assert all(torch.equal(tensor, part[key]) for key, tensor in two.items())
    whole = [{**row, "pictures_per_second": 0} for row in rows(folder / "two")]
    assert whole == [{**row, "pictures_per_second": 0} for row in rows(folder / "part")]


def test_a_loss_that_is_not_finite_on_one_process_stops_both(folder: Path, results: list[dict[str, Any]]) -> None:
    for result in results:
        assert "not finite at step 1: loss nan" in result["broken"]
    assert not (folder / "broken" / "model").exists()
    assert not (folder / "broken" / "checkpoints").exists()
