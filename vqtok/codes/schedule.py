"""What is to be done next, for drivers whose workers may die: shards, and parts of those that keep killing workers.

An image can crash the library that decodes it, and with it the process. A shard whose worker died `ATTEMPTS` times is
therefore looked through: workers decode its halves, the halves of the half that kills them, and so on down to the one
row, which is then left out of the shard and named like any other image that cannot be read. Workers also die by chance,
so that one row is tried again before it is given up.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import islice

from vqtok.codes.plan import Shard
from vqtok.errors import DataError

__all__ = ["ATTEMPTS", "Probe", "Schedule", "Task"]

ATTEMPTS = 3
CRASHED = "the process that decoded it crashed"  # whichever way, so that the bytes do not depend on the driver


@dataclass(frozen=True, kw_only=True)
class Task:
    """A shard to be made.

    Attributes:
        skip: rows that are left out, with the reason.
        attempts: how often it was begun, this time included.
    """

    shard: Shard
    skip: dict[int, str]
    attempts: int


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Rows [start, stop) of a shard to be decoded only, to see whether the worker lives.

    Attributes:
        skip: rows that are known to kill it, with the reason.
        again: whether a worker died of it before.
    """

    shard: Shard
    start: int
    stop: int
    skip: dict[int, str]
    again: bool = False


@dataclass
class _State:
    attempts: int = 0
    since_probed: int = 0
    probes: int = 0  # given out or waiting
    skip: dict[int, str] = field(default_factory=dict)
    found: bool = True  # whether the last look through found a row, or there was none


class Schedule:
    """Hands out work until every shard is done.

    Args:
        shards: those that are still to be done, in the order in which they are given out. Each is asked for when a
            worker is free for it, so that several schedules can share them.

    A driver calls `next` for a free worker, then `done` or `died` with what it was given.
    """

    def __init__(self, shards: Iterable[Shard]) -> None:
        self._shards = iter(shards)
        self._waiting: deque[Shard | Probe] = deque()
        self._states: dict[str, _State] = {}
        self._out = 0

    @property
    def is_finished(self) -> bool:
        """Whether nothing is being worked on, nothing waits, and no shard is left to be asked for."""
        return not self._out and not self._has_next()

    def next(self) -> Task | Probe | None:
        """The next piece of work; None where there is none at the moment."""
        if not self._has_next():
            return None
        self._out += 1
        item = self._waiting.popleft()
        if isinstance(item, Probe):
            return item
        state = self._states.setdefault(item.name, _State())
        state.attempts += 1
        state.since_probed += 1
        return Task(shard=item, skip=dict(state.skip), attempts=state.attempts)

    def done(self, work: Task | Probe) -> None:
        """The worker lived."""
        self._out -= 1
        if isinstance(work, Task):
            self._states.pop(work.shard.name)
        else:
            self._probed(work)

    def died(self, work: Task | Probe, why: str) -> None:
        """The worker died of it, or with it.

        Args:
            why: how, for the error.

        Raises:
            DataError: the shard was begun `ATTEMPTS` times since it was looked through.
        """
        self._out -= 1
        state = self._states[work.shard.name]
        if isinstance(work, Probe):
            if work.stop - work.start == 1 and not work.again:
                state.probes += 1
                self._waiting.appendleft(replace(work, again=True))
            elif work.stop - work.start == 1:
                state.skip[work.start] = CRASHED
                state.found = True
            else:
                self._look_through(work.shard, work.start, work.stop)
            self._probed(work)
        elif state.since_probed < ATTEMPTS:
            self._waiting.appendleft(work.shard)
        elif not state.found:
            raise DataError(
                f"the shard {work.shard.name} (rows {work.shard.start:,} to {work.shard.stop - 1:,}) cannot be made: "
                f"its worker died {state.attempts} times ({why}), though its images can be decoded; is there too "
                "little memory?"
            )
        else:
            state.found = False
            self._look_through(work.shard, work.shard.start, work.shard.stop)

    def _has_next(self) -> bool:
        if not self._waiting:
            self._waiting.extend(islice(self._shards, 1))
        return bool(self._waiting)

    def _look_through(self, shard: Shard, start: int, stop: int) -> None:
        middle, state = (start + stop) // 2, self._states[shard.name]
        for first, last in ((start, middle), (middle, stop)):
            if first < last:
                state.probes += 1
                self._waiting.appendleft(Probe(shard=shard, start=first, stop=last, skip=dict(state.skip)))

    def _probed(self, probe: Probe) -> None:
        """Once all parts were looked at, the shard is tried again without what was found."""
        state = self._states[probe.shard.name]
        state.probes -= 1
        if state.probes == 0:
            state.since_probed = 0
            self._waiting.appendleft(probe.shard)
