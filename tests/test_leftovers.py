"""Staging folders that are found in `--out`: those of killed runs go, and whatever else is called so stays."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.disk import ALONE, contents
from vqtok.errors import ConfigurationError
from vqtok.folders import check_free, new_folder

STAGING = ".vqtok-1a2b3c4d"


def leftover(out: Path) -> Path:
    """What a run leaves that was killed before anything moved."""
    staging = out / STAGING
    for name in ("new", "old"):
        (staging / name).mkdir(parents=True)
    (staging / "owner.txt").write_text("process 7 on a-machine\n")
    return staging


def linked(folder: str) -> Callable[[Path, Path], None]:
    def change(staging: Path, victim: Path) -> None:
        (staging / "moving.json").write_text("{}")
        (staging / folder).rmdir()
        (staging / folder).symlink_to(victim)

    return change


def journal(moves: object) -> Callable[[Path, Path], None]:
    def change(staging: Path, victim: Path) -> None:
        inode = (victim / "key").stat().st_ino
        (staging / "moving.json").write_text(json.dumps(moves).replace('"INODE"', str(inode)))

    return change


def without_old(staging: Path, victim: Path) -> None:
    (staging / "moving.json").write_text("{}")
    (staging / "old").rmdir()


def linked_itself(staging: Path, victim: Path) -> None:
    shutil.copytree(staging, victim / "staging")
    shutil.rmtree(staging)
    staging.symlink_to(victim / "staging")


def owned_by(text: bytes) -> Callable[[Path, Path], None]:
    return lambda staging, victim: (staging / "owner.txt").write_bytes(text) and None


def linked_owner(staging: Path, victim: Path) -> None:
    (staging / "owner.txt").rename(victim / "owner.txt")
    (staging / "owner.txt").symlink_to(victim / "owner.txt")


FOREIGN = {
    "old is a link": linked("old"),
    "new is a link": linked("new"),
    "it is a link": linked_itself,
    "no old": without_old,
    "a name elsewhere": journal({"../victim/key": "INODE"}),
    "a name above": journal({"..": 1}),
    "a list": journal([]),
    "inodes that are none": journal({"key": None}),
    "deep": lambda staging, victim: (staging / "moving.json").write_text("[" * 10**5) and None,
    "another owner": owned_by(b"me\n"),
    "an owner in no language": owned_by(b"\xff"),
    "the owner is a link": linked_owner,
}


@pytest.mark.parametrize("change", FOREIGN.values(), ids=FOREIGN)
def test_a_folder_that_somebody_prepared_is_left_alone(tmp_path: Path, change: Callable[[Path, Path], None]) -> None:
    victim, out = tmp_path / "victim", tmp_path / "out"
    victim.mkdir()
    (victim / "key").write_text("secret")
    change(leftover(out), victim)
    before = sorted(tmp_path.rglob("*"))
    check_free(out)
    assert sorted(tmp_path.rglob("*")) == before
    with new_folder(out) as folder:
        (folder / "file").write_text("new")
    assert sorted({*tmp_path.rglob("*")} - {*before}) == [out / "file"]


@pytest.mark.parametrize("moves", range(6))
def test_a_process_killed_while_entries_move_leaves_the_old_folder_or_the_new(tmp_path: Path, moves: int) -> None:
    """Two old entries move away and three new ones up; the process dies before each of these moves, and after all."""
    out = tmp_path / "codes"
    (out / "train").mkdir(parents=True)
    for name in ("train/data", "codes.json"):
        (out / name).write_text("old")
    killed = f"""{ALONE}
import os, signal
from pathlib import Path
from vqtok import folders, staging
moves, move = 0, staging.move
def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)
def count(entry, folder):
    global moves
    if moves == {moves}:
        die()
    moves += 1
    move(entry, folder)
staging.move, staging.shutil.rmtree = count, die
with folders.new_folder(Path({str(out)!r}), marker="codes.json", overwrite=True) as folder:
    for name in ("codes.json", "a", "b"):
        (folder / name).write_text("new")
"""
    assert subprocess.run([sys.executable, "-c", killed]).returncode == -signal.SIGKILL
    with pytest.raises(ConfigurationError, match="--overwrite"):
        check_free(out, marker="codes.json")
    old = {"codes.json": "old", "train/data": "old"}
    new = dict.fromkeys(("a", "b", "codes.json"), "new")
    assert contents(out) == (old if moves < 5 else new)
    assert not [name for name in os.listdir(out) if name.startswith(".")]


def test_a_process_killed_at_any_line_leaves_nothing_for_ever(tmp_path: Path) -> None:
    """Each line of the making and of the removal of a staging folder is the last one of a process."""
    script = f"""{ALONE}
import os, signal
from pathlib import Path
from vqtok import files, folders
files.os.fsync = lambda descriptor: None
out, watched = Path({str(tmp_path)!r}), ("make", "discard")
def run(last):
    seen = 0
    def line(frame, event, argument):
        nonlocal seen
        seen += event == "line"
        if seen == last:
            os.kill(os.getpid(), signal.SIGKILL)
        return line
    sys.settrace(lambda frame, event, argument: line if frame.f_code.co_name in watched else None)
    with folders.new_folder(out / str(last)) as folder:
        pass
    os._exit(0)
for last in range(1, 1000):
    child = os.fork()
    if not child:
        run(last)
    if os.waitpid(child, 0)[1] == 0:
        print(last)
        break
"""
    points = int(subprocess.run([sys.executable, "-c", script], capture_output=True, check=True).stdout)
    assert points > 15
    long_ago = time.time() - 3600
    for out in tmp_path.iterdir():
        for path in (out, *out.iterdir()):
            os.utime(path, (long_ago, long_ago))
        check_free(out)
        assert os.listdir(out) == []


def test_a_staging_folder_that_is_just_being_made_stays(tmp_path: Path) -> None:
    (tmp_path / STAGING).mkdir()
    check_free(tmp_path)
    assert os.listdir(tmp_path) == [STAGING]


def test_a_hidden_folder_that_is_not_provably_ours_stays(tmp_path: Path) -> None:
    out = tmp_path / "codes"
    (out / STAGING).mkdir(parents=True)
    (out / STAGING / "diary").write_text("mine")
    os.utime(out / STAGING, (0, 0))
    with new_folder(out) as folder:
        (folder / "file").write_text("new")
    assert contents(out) == {f"{STAGING}/diary": "mine", "file": "new"}


def test_processes_that_fill_one_folder_in_turn_only_ever_wait_for_each_other(tmp_path: Path) -> None:
    script = f"""{ALONE}
import logging, time
from pathlib import Path
from vqtok.errors import VqtokError
from vqtok.folders import new_folder
logging.disable()
end, done = time.time() + 4, 0
while time.time() < end:
    try:
        with new_folder(Path({str(tmp_path / "out")!r}), marker="m", overwrite=True) as folder:
            (folder / "m").write_text("x")
            (folder / "d").mkdir()
            (folder / "d" / "a").write_text("x")
        done += 1
    except VqtokError:
        pass
print(done)
"""
    command = [sys.executable, "-c", script]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    ends = [process.communicate() for process in processes]
    assert [complained for _, complained in ends] == [""] * 3
    assert sum(int(done) for done, _ in ends) > 10
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["d", "m"]
