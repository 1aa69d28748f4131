"""`--out` of tokenize and detokenize: on a volume, beside files that appear, and after signals that end the process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.cli.conftest import Command
from vqtok.codes import load_codes, planning
from vqtok.data.opening import OpenedRows, open_rows
from vqtok.errors import DataError
from vqtok.tokenizer import VQTokenizer

VQTOK = Path(sys.executable).with_name("vqtok")
# The command as it is installed, but for a tokenizer that never comes back from its work.
ENDLESS = """
import sys, time
from vqtok.tokenizer import VQTokenizer
from vqtok_cli.main import main
def work(*_, **__):
    print("working", flush=True)
    time.sleep(600)
encode = VQTokenizer.encode
def begin(*arguments):
    return encode(*arguments) if calls.append(1) or len(calls) <= {after} else work()
calls = []
VQTokenizer.encode, VQTokenizer.detokenize = begin, work
main()
"""


@pytest.fixture
def made(vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer) -> Path:
    """A working folder with `images`, the tokenizer `tok` and what it made of them, `codes`."""
    tiny_tokenizer.save_pretrained("tok")
    assert vqtok("tokenize", "images", "--tokenizer", "tok", "--out", "codes")[0] == 0
    return Path.cwd()


@contextmanager
def endless(*arguments: str, after: int = 0) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own that is in the midst of its work, after so many batches of it."""
    command = [sys.executable, "-c", ENDLESS.format(after=after), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        assert "working\n" in iter(process.stdout.readline, "")
        yield process
        process.kill()


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_a_mounted_volume_is_filled(vqtok: Command, made: Path, mount: Path) -> None:
    assert vqtok("tokenize", "images", "--tokenizer", "tok", "--out", mount)[::2] == (0, "")
    assert len(load_codes(mount)) == 12
    (made / "images" / "cat" / "00.png").unlink()
    assert vqtok("tokenize", "images", "--tokenizer", "tok", "--out", mount, "--overwrite")[::2] == (0, "")
    assert len(load_codes(mount)) == 11
    assert not [name for name in os.listdir(mount) if name.startswith(".")]


def test_images_are_decoded_into_a_mounted_volume(vqtok: Command, made: Path, mount: Path) -> None:
    assert vqtok("detokenize", "codes", "--tokenizer", "tok", "--out", mount)[::2] == (0, "")
    assert sorted(os.listdir(mount)) == ["cat", "dog"] and len(list(mount.rglob("*.png"))) == 12


@pytest.mark.parametrize("split", ["{}/victim", "../victim", "../codes/../victim"])
def test_images_are_decoded_into_the_folder_and_nowhere_else(vqtok: Command, made: Path, split: str) -> None:
    shutil.move("codes", "victim")
    Path("codes").mkdir()
    Path("codes/dataset_dict.json").write_text(json.dumps({"splits": [split.format(made)]}))
    before = everything(made)
    code, _, complained = vqtok("detokenize", "codes", "--tokenizer", "tok", "--out", "a/b/c/new")
    assert (code, everything(made)) == (2, before)
    assert complained.startswith("vqtok: error: ") and complained.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("size=8k", "the disk is full: {} was not written; free some space or choose another folder"),
        ("ro", "cannot write {}: Read-only file system; choose another folder"),
    ],
)
@pytest.mark.parametrize("arguments", [["tokenize", "images"], ["detokenize", "codes"]], ids=lambda words: words[0])
def test_a_volume_that_is_full_or_read_only_is_one_line(
    vqtok: Command, made: Path, mount: Path, arguments: list[str], change: str, message: str
) -> None:
    subprocess.run(["mount", "-o", f"remount,{change}", mount], check=True)
    code, _, complained = vqtok(*arguments, "--tokenizer", "tok", "--out", mount)
    filled = arguments[0] == "tokenize" and change != "ro"  # of the two pages the lock and codes.json have one each
    named = mount / "README.md" if filled else mount
    assert (code, complained) == (2, f"vqtok: error: {message.format(named)}\n")
    assert not [name for name in everything(mount) if Path(name).name.startswith(".")]
    assert os.listdir(mount) == (["codes.json"] if filled else [])


def test_a_disk_that_fills_up_loses_nothing_and_the_next_run_goes_on(vqtok: Command, made: Path, mount: Path) -> None:
    tokenize = ("tokenize", "images", "--tokenizer", "tok", "--shard-rows", "2", "--out")
    assert vqtok(*tokenize, made / "volume-of-another-name" / "volume")[0] == 0
    subprocess.run(["mount", "-o", "remount,size=64k", mount], check=True)
    code, _, complained = vqtok(*tokenize, "volume")
    assert code == 2 and complained.count("\n") == 1
    assert complained.startswith("vqtok: error: the disk is full: volume/")
    whole = [name for name in everything(mount) if name.startswith("receipts/train/")]
    assert 0 < len(whole) < 6 and not [name for name in everything(mount) if Path(name).name.startswith(".")]
    subprocess.run(["mount", "-o", "remount,size=10m", mount], check=True)
    code, said, _ = vqtok(*tokenize, "volume")
    assert code == 0 and f"note: {len(whole)} of 6 shards were there already\n" in said
    assert contents(mount) == contents(made / "volume-of-another-name" / "volume")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of a codes folder but its receipts, which say how often a shard was begun."""
    files = (path for path in folder.rglob("*") if path.is_file() and "receipts" not in path.parts)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.parametrize("arguments", [["tokenize", "images", "--out", "new"], ["detokenize", "codes", "--out", "new"]])
def test_a_file_that_appears_meanwhile_stays(
    vqtok: Command, made: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    notes = made / "new" / "notes.txt"
    notes.parent.mkdir()
    for name in ("encode", "detokenize"):
        work = getattr(VQTokenizer, name)

        def write(self: VQTokenizer, batch: torch.Tensor, work: Callable[..., object] = work) -> object:
            notes.write_text("mine")
            return work(self, batch)

        monkeypatch.setattr(VQTokenizer, name, write)
    code, _, complained = vqtok(*arguments, "--tokenizer", "tok")
    assert notes.read_text() == "mine"
    if arguments[0] == "tokenize":  # which moves nothing into place at the end
        assert code == 0 and len(load_codes("new")) == 12
        return
    line = complained.splitlines()[-1]
    assert code == 2
    assert line.startswith("vqtok: error: notes.txt appeared in new while it was being written, and is left alone: ")
    assert len(list(Path(line.rpartition("the finished work is in ")[2]).rglob("*.png"))) == 12


def test_a_file_that_appears_while_codes_are_replaced_stays(
    vqtok: Command, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = [made / "codes" / name for name in ("notes.txt", "train/notes.txt", "photos/a.png")]

    def open_late(*arguments: Any, **options: Any) -> OpenedRows:
        for path in mine:
            path.parent.mkdir(exist_ok=True)
            path.write_text("mine")
        return open_rows(*arguments, **options)

    monkeypatch.setattr(planning, "open_rows", open_late)
    (made / "images" / "cat" / "00.png").unlink()
    assert vqtok("tokenize", "images", "--tokenizer", "tok", "--overwrite")[0] == 0
    assert [path.read_text() for path in mine] == ["mine"] * 3 and len(load_codes("codes")) == 11


def test_sigterm_leaves_nothing_behind(made: Path) -> None:
    before = everything(made)
    with endless("detokenize", "codes", "--out", "new", "--tokenizer", "tok") as process:
        assert everything(made) != before
        stop(process)
    assert everything(made) == before


def stop(process: subprocess.Popen[str]) -> None:
    for _ in range(2):  # as `timeout` does, which signals the process and then its group
        process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 143


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_codes_that_were_stopped_are_finished_by_the_same_command(made: Path, how: int) -> None:
    arguments = ("tokenize", "images", "--shard-rows", "5", "--batch-size", "5", "--tokenizer", "tok", "--out")
    with endless(*arguments, "new", after=1) as process:
        if how == signal.SIGTERM:
            stop(process)
            assert not [name for name in everything(made / "new") if Path(name).name.startswith(".")]
        else:
            process.kill()
            assert process.wait(60) == -signal.SIGKILL
    with pytest.raises(DataError, match="^the codes in new are not finished: run the same `vqtok tokenize` again"):
        load_codes("new")
    if how == signal.SIGKILL:
        (made / "new" / "train" / ".vqtok-1a2b3c4d.tmp.arrow").touch()
    assert everything(made / "new" / "receipts") == ["train", "train/00000.json"]
    (made / "new" / "train" / "data-00001-of-00003.arrow").write_bytes(b"")  # a shard without a receipt
    run = installed(*arguments, "new")
    assert run.stderr == "" and "note: 1 of 3 shards was there already\n" in run.stdout
    installed(*arguments, "elsewhere/new")
    assert contents(made / "new") == contents(made / "elsewhere" / "new")
    assert [name for name in everything(made) if Path(name).name.startswith(".")] == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_two_processes_that_were_stopped_leave_nothing_in_the_way(made: Path, how: int) -> None:
    arguments = ("tokenize", "images", "--shard-rows", "1", "--batch-size", "1", "--tokenizer", "tok", "--out")
    command = [VQTOK, *arguments, "new", "--num-processes", "2"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, text=True) as process:
        while not list(made.glob("new/receipts/train/*.json")):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(how)
        process.wait(60)
    if how == signal.SIGTERM and process.returncode != 0:  # it may have been quicker
        assert process.returncode == 143
        assert not [name for name in everything(made / "new") if Path(name).name.startswith(".")]
    installed(*arguments, "new", "--num-processes", "2")
    installed(*arguments, "elsewhere/new")
    assert contents(made / "new") == contents(made / "elsewhere" / "new")
    assert [name for name in everything(made) if Path(name).name.startswith(".")] == []


def installed(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([VQTOK, *arguments], capture_output=True, text=True, check=True)


def test_a_first_run_that_was_killed_at_once_is_in_nobodys_way(vqtok: Command, made: Path) -> None:
    (made / "new").mkdir()
    (made / "new" / ".owner.txt").write_text("process 7 on a-machine\n")
    (made / "new" / ".vqtok-1a2b3c4d.tmp.json").write_text("{")
    assert vqtok("tokenize", "images", "--tokenizer", "tok", "--out", "new")[::2] == (0, "")
    assert contents(made / "new").keys() == contents(made / "codes").keys()
