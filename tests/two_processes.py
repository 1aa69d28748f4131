"""Two processes of one run, as `torchrun` starts them, without a port that another test could have taken."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

__all__ = ["connect", "run_two_processes"]

MEETINGS = count()


def run_two_processes(worker: Callable[[int, Path], Any], folder: Path, *, timeout: float = 240) -> list[Any]:
    """What `worker(rank, folder)` returns in each of two connected processes; a function of a module, to be spawned."""
    context = torch.multiprocessing.get_context("spawn")
    processes = [context.Process(target=process, args=(worker, rank, folder)) for rank in range(2)]
    for each in processes:
        each.start()
    for each in processes:
        each.join(timeout)
    hanging = [each for each in processes if each.is_alive()]
    for each in hanging:
        each.kill()
    assert not hanging, "a process waits for the other"
    assert [each.exitcode for each in processes] == [0, 0]
    return [torch.load(folder / f"results-{rank}.pt", weights_only=False) for rank in range(2)]


def process(worker: Callable[[int, Path], Any], rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    os.environ["ACCELERATE_USE_CPU"] = "true"
    connect(rank, folder)
    torch.save(worker(rank, folder), folder / f"results-{rank}.pt")
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()


def connect(rank: int, folder: Path) -> None:
    """Form a group of the two; a training run ends the one it was in."""
    if not dist.is_initialized():
        meeting = (folder / f"meeting-{next(MEETINGS)}").as_uri()
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=2)
