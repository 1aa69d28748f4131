"""The processes that `accelerate launch` or `torchrun` started: they share the shards of one plan, a device each.

The first lists the images, writes the plan and assembles the dataset; all of them take the next shard that is free.
They meet at the launcher's own key-value store: a process group would have a time limit, and a million files take long
to list. Each works through a process of its own, see `drivers.py`, since a launcher ends all where one of its own dies.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from itertools import count
from typing import Any

from torch.distributed import DistError
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from vqtok.codes.drivers import Made, Work, by_processes
from vqtok.codes.plan import Shard
from vqtok.codes.receipt import read_receipt
from vqtok.errors import VqtokError, one_line

__all__ = ["Launch", "OtherProcessError", "is_launched", "launch_size", "local_rank"]

EVERY = 0.2  # seconds between two looks at what the others have done
PATIENCE = 60  # seconds that the first process stays for the others to see that all is done
CALLS = count()  # of this process, which are in the same order in all of them


class OtherProcessError(VqtokError):
    """Another process of the launch failed, and says why."""


def is_launched() -> bool:
    """Whether this process is one of several that a launcher started."""
    return launch_size() > 1


def launch_size() -> int:
    """How many processes a launcher started, 1 where none did."""
    if {"RANK", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        return int(os.environ.get("WORLD_SIZE", "1"))
    return 1


def local_rank() -> int:
    """Which process of this machine it is, and so which GPU is its own."""
    return int(os.environ.get("LOCAL_RANK", "0"))


class Launch:
    """The processes of a launch during one call.

    Attributes:
        rank: number of this process.
        size: how many there are.
    """

    def __init__(self, meeting: str = "env://") -> None:
        store, self.rank, self.size = next(rendezvous(meeting, timeout=timedelta(hours=1)))
        self._store: Any = PrefixStore(f"vqtok-tokenize-{next(CALLS)}", store)
        self._images = 0

    @contextmanager
    def failing_together(self) -> Iterator[None]:
        """End all processes where this one fails.

        Raises:
            OtherProcessError: another one failed.
        """
        try:
            yield
        except OtherProcessError:
            raise
        except DistError as error:  # the store ends with the first process
            raise OtherProcessError(f"the first process is gone: {one_line(error)}") from error
        except BaseException:
            with suppress(DistError):
                self._say("failed")
            raise

    def lead(self, missing: Sequence[Shard], work: Work) -> Made:
        """Make shards together with the others; gives all of them, the own ones first."""

        def report(images: int) -> None:
            """Tell how many images all processes worked through since the last time."""
            before, self._images = self._images, self._store.add("images", images)
            work.report(self._images - before)

        self.announce(missing)
        own = set()
        for shard, receipt in self._make(missing, replace(work, report=report)):
            own.add(shard.name)
            yield shard, receipt
        for shard in missing:
            if shard.name not in own:
                self._wait(f"done/{shard.name}", lambda: report(0))
                yield shard, read_receipt(work.store, shard, work.plan)
        report(0)

    def announce(self, missing: Sequence[Shard]) -> None:
        """Say that the plan is there, and which of its shards are not."""
        self._store.set("missing", json.dumps([shard.name for shard in missing]))

    def follow(self, missing: Sequence[Shard], work: Work) -> Made:
        """Make shards together with the others; gives those of this process."""
        for shard, receipt in self._make(
            missing, replace(work, report=lambda images: self._store.add("images", images))
        ):
            self._say(f"done/{shard.name}")
            yield shard, receipt

    def wait_for_plan(self) -> set[str]:
        """Wait for the first process to announce the names of the shards that are missing."""
        self._wait("missing")
        return set(json.loads(self._store.get("missing")))

    def wait_for_end(self) -> None:
        """Wait until the dataset is there."""
        self._wait("ended")
        self._store.add("left", 1)

    def end(self) -> None:
        """Say that the dataset is there; where the store ends with this process, the others get time to see it."""
        self._say("ended")
        until = time.monotonic() + (0 if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" else PATIENCE)
        while self._store.add("left", 0) < self.size - 1 and time.monotonic() < until:
            time.sleep(EVERY)

    def _make(self, missing: Sequence[Shard], work: Work) -> Made:
        if not missing:
            return iter(())
        device = work.encoder.device
        name = f"cuda:{local_rank()}" if device.type == "cuda" else str(device)
        sharing = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        return by_processes(self._free(missing), work, [name], sharing=sharing)

    def _free(self, missing: Sequence[Shard]) -> Iterator[Shard]:
        """The shards that no other process has taken, each when it is asked for."""
        while (index := self._store.add("taken", 1) - 1) < len(missing):
            self._check()
            yield missing[index]

    def _wait(self, key: str, meanwhile: Callable[[], None] = lambda: None) -> None:
        while not self._store.check([key]):  # `wait` would hear no signal
            self._check()
            meanwhile()
            time.sleep(EVERY)

    def _check(self) -> None:
        if self._store.check(["failed"]):
            raise OtherProcessError("another process failed, and says why")

    def _say(self, key: str) -> None:
        self._store.set(key, "")
