"""Several processes on this machine, one device each: they are handed shards, and replaced where they die."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType, ModuleType
from typing import Any

import torch

from vqtok.codes.encoder import Encoder
from vqtok.codes.lending import borrowed
from vqtok.codes.origin import planned_rows
from vqtok.codes.plan import Shard, read_plan
from vqtok.codes.receipt import Receipt
from vqtok.codes.schedule import ATTEMPTS, Probe, Schedule, Task
from vqtok.codes.shard import Job, probe_rows, tokenize_shard
from vqtok.errors import DataError, VqtokError
from vqtok.hub import be_patient
from vqtok.store import Store
from vqtok.threads import end_at_once

__all__ = ["WorkerOptions", "do_work", "open_job", "tokenize_in_processes", "unseen"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WorkerOptions:
    """What a worker needs to know, in a form that can be sent to another process or machine.

    Attributes:
        place: the codes folder, which holds the plan.
        tokenizer: folder of the tokenizer, None where it was put beside the plan, see `lending.py`.
        device: where it works.
        threads: how many batches this process works on at a time, and of torch.
        stop_on_error: see `Job`.
    """

    place: str
    tokenizer: str | None
    device: str
    threads: int
    stop_on_error: bool


def open_job(options: WorkerOptions, report: Callable[[int], None] = lambda images: None) -> Job:
    """Load what a worker needs; the tokenizer is the one that the plan names.

    Raises:
        VqtokError: the codes folder is not to be seen from here, or the tokenizer cannot be loaded or is another.
    """
    from vqtok.tokenizer import VQTokenizer

    torch.set_num_threads(options.threads)
    store = Store(options.place)
    plan = read_plan(store)
    if plan is None:
        raise unseen(options.place)
    with borrowed(store) if options.tokenizer is None else nullcontext(options.tokenizer) as folder:
        tokenizer: Any = VQTokenizer.from_pretrained(folder)
    encoder = Encoder(tokenizer.to(options.device), plan.request.precision)
    plan.spec.check(tokenizer)
    return Job(
        plan=plan,
        store=store,
        encoder=encoder,
        rows=planned_rows(plan, store),
        stop_on_error=options.stop_on_error,
        report=report,
    )


def unseen(place: str) -> DataError:
    """What to say where this machine does not have the codes folder that another began."""
    return DataError(
        f"there is no plan in {place} on {socket.gethostname()}: --out must be a folder that all machines share, or an "
        "address such as s3://bucket/codes"
    )


def do_work(work: Task | Probe, job: Job) -> Receipt | None:
    """Make a shard, or decode some of its rows; gives the receipt of a shard."""
    if isinstance(work, Probe):
        probe_rows(work.start, work.stop, work.shard, job, skip=work.skip)
        return None
    return tokenize_shard(work.shard, job, skip=work.skip, attempts=work.attempts)


def tokenize_in_processes(
    shards: Iterable[Shard], options: list[WorkerOptions], report: Callable[[int], None]
) -> Iterator[tuple[Shard, Receipt]]:
    """Make shards by one process for each of the options; gives each with its receipt, in the order they are done.

    A process that dies is replaced, and what it did is handed out again; see `Schedule`.

    Raises:
        VqtokError: what a worker meets that no second try mends, a shard that cannot be made, or processes that die
            before they have any work.
    """
    schedule = Schedule(shards)
    workers = [_Worker(each) for each in options]
    failures = 0  # of processes that were started, in a row
    try:
        while not schedule.is_finished:
            for worker in workers:
                if worker.is_free and (work := schedule.next()) is not None:
                    worker.give(work)
            ready = wait([worker.connection for worker in workers])
            for worker in [worker for worker in workers if worker.connection in ready]:
                answer = worker.answer()
                if isinstance(answer, int):
                    report(answer)
                    continue
                done = worker.take()
                if isinstance(answer, _Died):
                    logger.warning("a process of tokenize died (%s), and is replaced", answer.why)
                    workers[workers.index(worker)] = _Worker(worker.options)
                    if done is not None:
                        schedule.died(done, answer.why)
                    elif (failures := failures + 1) > ATTEMPTS:
                        raise DataError(f"no process can be started to work on images: {answer.why}")
                    continue
                if isinstance(answer, BaseException):
                    raise answer
                failures = 0
                if done is not None:
                    schedule.done(done)
                    if isinstance(answer, Receipt):
                        yield done.shard, answer
    finally:
        for worker in workers:
            worker.stop()


@dataclass(frozen=True)
class _Died:
    why: str


class _Worker:
    """A process and the connection to it; it answers once when it is ready, and then all that it is given."""

    def __init__(self, options: WorkerOptions) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would share what CUDA and OpenMP have begun
        self.options = options
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(target=_serve, args=(theirs, options), daemon=True)
        with _without_main():
            self.process.start()
        theirs.close()
        self.work: Task | Probe | None = None
        self.is_ready = False

    @property
    def is_free(self) -> bool:
        return self.is_ready and self.work is None

    def give(self, work: Task | Probe) -> None:
        self.work = work
        with suppress(OSError):  # it is dead, which `answer` says
            self.connection.send(work)

    def take(self) -> Task | Probe | None:
        """What it answers to; None where it says that it is ready."""
        work, self.work = self.work, None
        self.is_ready = True
        return work

    def answer(self) -> Any:
        """A number of images, a receipt, None, or what went wrong."""
        try:
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode or 0
            return _Died(signal.strsignal(-code) or f"signal {-code}" if code < 0 else f"exit status {code}")

    def stop(self) -> None:
        """End the process, which removes what it had not finished."""
        self.connection.close()
        self.process.terminate()
        self.process.join()


@contextmanager
def _without_main() -> Iterator[None]:
    """Start a process that does not run the caller's script again: it then needs no `if __name__ == "__main__"`."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _serve(connection: Connection, options: WorkerOptions) -> None:
    """Work until there is no more, or the process that asked for it is gone."""
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # which the terminal sends to all; the parent ends this process
    _end_with_parent()
    be_patient()
    try:
        job = open_job(options, report=connection.send)
        connection.send(None)
        while True:
            work = connection.recv()
            connection.send(do_work(work, job))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return
    except VqtokError as error:
        with suppress(OSError):
            connection.send(error)
    except SystemExit as left:
        end_at_once(int(str(left.code)))
        raise
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # nothing is left to clean up, and it would cut the end short


def _leave(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # it comes twice where the group is signalled, which would cut this short
    sys.exit(128 + number)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
