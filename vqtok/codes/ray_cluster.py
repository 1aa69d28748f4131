"""Shards made by the machines of a Ray cluster: one actor a device, items are shards, results are receipts.

These are plain actors and not Ray Data, which was tried on the same cases: it too survives the loss of an actor or of a
node, but hands an image that crashes its decoder to actor after actor for ever, since it retries without a bound.

Actors are told where the codes folder is, and find plan and tokenizer there; no weights, pixels or codes go through
Ray's object store. Retries are counted by `Schedule`, and actors that die are replaced here.
"""

from __future__ import annotations

import logging
import math
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from vqtok.codes.drivers import Made, Work
from vqtok.codes.lending import lent
from vqtok.codes.plan import Shard
from vqtok.codes.receipt import Receipt
from vqtok.codes.schedule import ATTEMPTS, Probe, Schedule, Task
from vqtok.codes.shard import Job
from vqtok.codes.workers import WorkerOptions, do_work, open_job
from vqtok.errors import ConfigurationError, DataError, VqtokError, one_line
from vqtok.hub import be_patient
from vqtok.store import is_url
from vqtok.text import counted

__all__ = ["Cluster", "by_actors", "connected"]

PLACED_WITHIN = 300.0
"""Seconds until an actor has to be placed somewhere; a cluster that grows on demand needs minutes for a machine."""

REACHED_WITHIN = 10.0  # seconds

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What actors get of the cluster that this process is connected to.

    Attributes:
        number: how many actors there are at most.
        gpus: of each, 0 or 1.
        cpus: of each.
    """

    ray: Any
    number: int
    gpus: int
    cpus: int

    def __str__(self) -> str:
        return f"up to {counted(self.number, 'actor')} on the Ray cluster, each with {self.each}"

    @property
    def each(self) -> str:
        """What an actor asks for, for messages."""
        return f"{'a GPU and ' if self.gpus else ''}{counted(self.cpus, 'CPU core')}"


@contextmanager
def connected(address: str, *, device: str | None = None, num_processes: int | None = None) -> Iterator[Cluster]:
    """A connection to a Ray cluster; one that is there already is used, and left open.

    Args:
        address: of the cluster, auto for the one that this machine belongs to, local for a new one on this machine.
        device: cuda or cpu; by default a GPU for each actor where the cluster has any.
        num_processes: actors; by default one for each GPU, or for each machine.

    Raises:
        ConfigurationError: ray is not installed, no cluster is there, or it is one of another Ray or Python.
    """
    try:
        import ray
    except ImportError:
        raise ConfigurationError('--executor ray needs the package ray: pip install "vqtok[ray]"') from None
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, address)
    try:
        yield _cluster(ray, device, num_processes)
    finally:
        if ours:
            ray.shutdown()


def by_actors(shards: Sequence[Shard], work: Work, *, cluster: Cluster) -> Made:
    """Make shards by the actors of a cluster; gives each with its receipt, in the order they are done.

    Raises:
        ConfigurationError: no actor can be placed.
        VqtokError: what an actor meets that no second try mends, or a shard that cannot be made.
    """
    if not shards:
        return
    store = work.store
    options = WorkerOptions(
        place=store.place if is_url(store.place) else store.root,
        tokenizer=None,
        device="cuda" if cluster.gpus else "cpu",
        threads=cluster.cpus,
        stop_on_error=work.stop_on_error,
    )
    cluster = replace(cluster, number=min(cluster.number, len(shards)))
    with lent(work.encoder.tokenizer, store):
        for shard, receipt in _Actors(cluster, options).make(Schedule(shards)):
            work.report(shard.stop - shard.start)
            yield shard, receipt


def _connect(ray: Any, address: str) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    before = signal.getsignal(signal.SIGTERM)
    try:
        if found := re.fullmatch(r"([^/]+):(\d+)", address):  # where ray.init would try for five minutes
            socket.create_connection((found[1], int(found[2])), REACHED_WITHIN).close()
        ray.init(address=address, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, RuntimeError, ValueError) as error:
        raise ConfigurationError(
            f"there is no Ray cluster at {address!r} that can be used ({one_line(error)}): start one with "
            "`ray start --head`, or give its address (--ray-address), or local for this machine alone"
        ) from error
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # which ray.init replaces


def _cluster(ray: Any, device: str | None, num_processes: int | None) -> Cluster:
    """How the machines are shared out: all their cores, in parts of which each machine can hold at least one."""
    machines: list[Mapping[str, float]] = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = int(device.startswith("cuda") if device else any(machine.get("GPU") for machine in machines))
    cores = [machine["CPU"] for machine in machines if machine.get("CPU") and (machine.get("GPU") or not gpus)]
    number = num_processes or int(sum(machine.get("GPU", 0) for machine in machines) if gpus else len(cores)) or 1
    cpus = max(1, math.floor(min(*cores, sum(cores) / number))) if cores else 1
    return Cluster(ray=ray, number=number, gpus=gpus, cpus=cpus)


class _Worker:
    """What an actor is: it opens the codes folder when it gets its first work."""

    def __init__(self, options: WorkerOptions) -> None:
        self.options = options
        self.job: Job | None = None

    def start(self) -> None:
        """Answered once the actor is placed and its machine has this package."""
        be_patient()

    def do(self, work: Task | Probe) -> Receipt | VqtokError | None:
        try:
            self.job = self.job or open_job(self.options)
            return do_work(work, self.job)
        except VqtokError as error:
            return error


@dataclass
class _Actor:
    """An actor and what it is doing: it is started, works, or is free."""

    handle: Any
    answer: Any
    work: Task | Probe | None = None


class _Actors:
    """The actors of one call."""

    def __init__(self, cluster: Cluster, options: WorkerOptions) -> None:
        self.cluster, self.options, self.ray = cluster, options, cluster.ray
        self.actors = [self._start() for _ in range(cluster.number)]
        self.placed = time.monotonic()  # when last an actor was
        self.failures = 0  # of actors that were started, in a row

    def make(self, schedule: Schedule) -> Made:
        """Make the shards of a schedule; errors as in `by_actors`."""
        try:
            while not schedule.is_finished:
                self._give_out(schedule)
                self._check_placed()
                busy = [actor.answer for actor in self.actors if actor.answer is not None]
                for answer in self.ray.wait(busy, num_returns=1, timeout=1.0)[0]:
                    actor = next(each for each in self.actors if each.answer == answer)
                    if (made := self._answered(actor, schedule)) is not None:
                        yield made
        finally:
            self._end()

    def _give_out(self, schedule: Schedule) -> None:
        for actor in self.actors:
            if actor.answer is None and (work := schedule.next()) is not None:
                actor.work, actor.answer = work, actor.handle.do.remote(work)

    def _start(self) -> _Actor:
        options = {"num_gpus": self.cluster.gpus, "num_cpus": self.cluster.cpus, "scheduling_strategy": "SPREAD"}
        handle = self.ray.remote(_Worker).options(**options, max_restarts=0).remote(self.options)
        return _Actor(handle, handle.start.remote())

    def _answered(self, actor: _Actor, schedule: Schedule) -> tuple[Shard, Receipt] | None:
        work, actor.work = actor.work, None
        try:
            answer, actor.answer = self.ray.get(actor.answer), None
        except self.ray.exceptions.RayError as error:
            self._died(actor, work, _why(error), schedule)
            return None
        if isinstance(answer, VqtokError):
            raise answer
        self.failures = 0
        if work is not None:
            schedule.done(work)
        return (work.shard, answer) if isinstance(work, Task) and isinstance(answer, Receipt) else None

    def _died(self, actor: _Actor, work: Task | Probe | None, why: str, schedule: Schedule) -> None:
        logger.warning("an actor of tokenize died (%s), and is replaced", why)
        self.ray.kill(actor.handle)  # which may be only out of reach
        self.actors[self.actors.index(actor)] = self._start()
        if work is not None:
            schedule.died(work, why)
            return
        self.failures += 1
        if self.failures > ATTEMPTS:
            raise DataError(f"no actor can be started on the Ray cluster: {why}")

    def _check_placed(self) -> None:
        if any(actor.work is not None or actor.answer is None for actor in self.actors):
            self.placed = time.monotonic()
        if time.monotonic() - self.placed > PLACED_WITHIN:
            free = self.ray.available_resources()
            raise ConfigurationError(
                f"no actor could be placed on the Ray cluster for {PLACED_WITHIN:.0f} seconds: each asks for "
                f"{self.cluster.each}, and of all machines {free.get('GPU', 0):.0f} GPUs and {free.get('CPU', 0):.0f} "
                "CPU cores are free; wait for others to leave, or give --device and --num-processes that fit"
            )

    def _end(self) -> None:
        """End all actors, and wait until they are gone, so that what they were writing can be removed."""
        for actor in self.actors:
            self.ray.kill(actor.handle)
        busy = [actor.answer for actor in self.actors if actor.work is not None]
        if busy:
            self.ray.wait(busy, num_returns=len(busy), timeout=10)


def _why(error: Exception) -> str:
    """How what Ray says begins, which goes on with ids and advice, or what was raised in the actor."""
    cause = getattr(error, "cause", None)
    return one_line(cause) if isinstance(cause, Exception) else re.split(r"[.:\n]", str(error))[0]
