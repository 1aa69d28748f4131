"""Work is handed out again when a worker dies, a bounded number of times, and what kills it is found by halving."""

from __future__ import annotations

import random

import pytest

from vqtok.codes.plan import Shard
from vqtok.codes.schedule import ATTEMPTS, Probe, Schedule, Task
from vqtok.errors import DataError


def make_shards(*rows: int) -> list[Shard]:
    starts = [sum(rows[:index]) for index in range(len(rows))]
    return [
        Shard(split="train", index=index, number=len(rows), start=start, stop=start + length, format="arrow")
        for index, (start, length) in enumerate(zip(starts, rows, strict=True))
    ]


def work_through(schedule: Schedule, deadly: set[int], workers: int = 1, seed: int = 0) -> tuple[dict[str, Task], int]:
    """Let workers die of the deadly rows that they decode; gives the last task of each shard, and how many died."""
    choose = random.Random(seed)
    finished, deaths, busy = {}, 0, []
    while not schedule.is_finished:
        while len(busy) < workers and (work := schedule.next()):
            busy.append(work)
        work = busy.pop(choose.randrange(len(busy)))
        area = (work.start, work.stop) if isinstance(work, Probe) else (work.shard.start, work.shard.stop)
        if any(area[0] <= row < area[1] and row not in work.skip for row in deadly):
            deaths += 1
            schedule.died(work, "signal 11")
            continue
        schedule.done(work)
        if isinstance(work, Task):
            assert work.shard.name not in finished
            finished[work.shard.name] = work
    return finished, deaths


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("deadly", [set(), {0}, {136}, {70, 71}, {3, 64, 99, 136}])
def test_every_shard_is_done_once_without_the_rows_that_kill(workers: int, deadly: set[int]) -> None:
    finished, deaths = work_through(Schedule(make_shards(64, 1, 72)), deadly, workers)
    assert list(sorted(finished)) == ["train/00000", "train/00001", "train/00002"]
    assert {row for task in finished.values() for row in task.skip} == deadly
    reasons = {reason for task in finished.values() for reason in task.skip.values()}
    assert reasons <= {"the process that decoded it crashed"}
    assert deaths <= len(deadly) * (ATTEMPTS + 9)  # log2(72) and two


def test_a_worker_that_died_by_chance_costs_one_attempt() -> None:
    schedule = Schedule(make_shards(10))
    first = schedule.next()
    assert isinstance(first, Task) and first.attempts == 1
    schedule.died(first, "killed")
    second = schedule.next()
    assert isinstance(second, Task) and second.attempts == 2 and not second.skip
    schedule.done(second)
    assert schedule.is_finished


def test_a_shard_that_kills_whatever_is_left_out_ends_the_work() -> None:
    schedule = Schedule(make_shards(10, 10))
    with pytest.raises(DataError, match=r"train/00001 \(rows 10 to 19\).*died 6 times \(signal 9\)"):
        while work := schedule.next():
            if isinstance(work, Task) and work.shard.index == 1:
                schedule.died(work, "signal 9")
            else:
                schedule.done(work)


def test_a_shard_that_kills_beside_a_row_that_is_known_to_ends_the_work() -> None:
    schedule = Schedule(make_shards(8))
    with pytest.raises(DataError, match=r"train/00000 .* died 9 times \(signal 9\)"):
        while work := schedule.next():
            if isinstance(work, Task):
                schedule.died(work, "signal 9")
            elif work.start <= 3 < work.stop and 3 not in work.skip:
                schedule.died(work, "signal 11")
            else:
                schedule.done(work)


def test_a_worker_that_dies_by_chance_of_the_only_row_it_looks_at_costs_no_image() -> None:
    schedule, chance = Schedule(make_shards(8)), True
    while work := schedule.next():
        if chance and isinstance(work, Probe) and (work.start, work.stop) == (2, 3):
            chance = False
            schedule.died(work, "its node is gone")
        elif isinstance(work, Task) and 3 in work.skip:
            schedule.done(work)
            assert not chance and list(work.skip) == [3]
        elif (isinstance(work, Task) or work.start <= 3 < work.stop) and 3 not in work.skip:
            schedule.died(work, "signal 11")
        else:
            schedule.done(work)
    assert schedule.is_finished
