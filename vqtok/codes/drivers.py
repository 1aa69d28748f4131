"""Who makes the shards of a plan on this machine: this process, or others that it can lose.

An image can crash the library that decodes it, and with it the process. Another process that dies is replaced and the
image found, see `schedule.py`, but takes seconds to start: 5 on two cores, against the 0.4 that 60 small images take.
So a call does the work itself where that is quick to do again, and not where the call before it died.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch

from vqtok.codes.encoder import Encoder
from vqtok.codes.options import SHARD_ROWS
from vqtok.codes.origin import planned_rows
from vqtok.codes.plan import Plan, Shard
from vqtok.codes.receipt import Receipt
from vqtok.codes.shard import Job, tokenize_shard
from vqtok.codes.workers import WorkerOptions, tokenize_in_processes
from vqtok.store import Store

__all__ = ["Driver", "Made", "Work", "by_processes", "devices_for", "on_this_machine"]

Made = Iterator[tuple[Shard, Receipt]]
Driver = Callable[[Sequence[Shard], "Work"], Made]
QUICK = SHARD_ROWS
"""Images that a process encodes itself: half a minute of work at 2,500 images a second."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What is to be done, as every driver is told it; most fields are those of `Job`."""

    plan: Plan
    store: Store
    encoder: Encoder
    stop_on_error: bool
    report: Callable[[int], None]
    died_before: bool
    """Whether the last call for this folder crashed or was killed."""


def on_this_machine(shards: Sequence[Shard], work: Work, *, number: int) -> Made:
    """Make shards by so many processes of this machine."""
    if not shards:
        return iter(())
    quick = sum(shard.stop - shard.start for shard in shards) <= QUICK
    if number == 1 and quick and not work.died_before:
        return here(shards, work)
    return by_processes(shards, work, devices_for(work.encoder.device, min(number, len(shards))))


def here(shards: Iterable[Shard], work: Work) -> Made:
    """Make shards in this process, which ends where an image crashes it."""
    job = Job(
        plan=work.plan,
        store=work.store,
        encoder=work.encoder,
        rows=planned_rows(work.plan, work.store),
        stop_on_error=work.stop_on_error,
        report=work.report,
    )
    yield from ((shard, tokenize_shard(shard, job)) for shard in shards)


def by_processes(shards: Iterable[Shard], work: Work, devices: Sequence[str], *, sharing: int | None = None) -> Made:
    """Make shards by a process for each of the devices, which load the tokenizer from a folder.

    Args:
        sharing: how many processes share the cores of this machine, where there are more than these.
    """
    threads = max(1, torch.get_num_threads() // (sharing or len(devices)))
    with tempfile.TemporaryDirectory(prefix="vqtok-") as folder:
        work.encoder.tokenizer.save_pretrained(folder)
        options = [
            WorkerOptions(
                place=work.store.place,
                tokenizer=folder,
                device=device,
                threads=threads,
                stop_on_error=work.stop_on_error,
            )
            for device in devices
        ]
        yield from tokenize_in_processes(shards, options, work.report)


def devices_for(device: torch.device, number: int) -> list[str]:
    """The devices of so many processes: GPUs of the machine in turn, from the given one on, else all the same."""
    if device.type != "cuda":
        return [str(device)] * number
    count, first = torch.cuda.device_count(), device.index or 0
    return [f"cuda:{(first + index) % count}" for index in range(number)]
