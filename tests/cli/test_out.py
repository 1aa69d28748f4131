"""`--out` of tokenize and detokenize: on a volume, beside files that appear, and after signals that end the process."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from tests.cli.conftest import Command
from vqtok.codes import load_codes
from vqtok.tokenizer import VQTokenizer

# The command as it is installed, but for a tokenizer that never comes back from its work.
ENDLESS = """
import sys, time
from vqtok.tokenizer import VQTokenizer
from vqtok_cli.main import main
def work(*_, **__):
    print("working", flush=True)
    time.sleep(600)
VQTokenizer.encode = VQTokenizer.detokenize = work
main()
"""


@pytest.fixture
def made(vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer) -> Path:
    """A working folder with `images`, the tokenizer `tok` and what it made of them, `codes`."""
    tiny_tokenizer.save_pretrained("tok")
    assert vqtok("tokenize", "images", "--tokenizer", "tok", "--out", "codes")[0] == 0
    return Path.cwd()


@contextmanager
def endless(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    """A command in a process of its own that is in the midst of its work."""
    command = [sys.executable, "-c", ENDLESS, *arguments]
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
    assert (code, complained) == (2, f"vqtok: error: {message.format(mount)}\n")
    assert os.listdir(mount) == []


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
    assert (code, notes.read_text()) == (2, "mine")
    line = complained.splitlines()[-1]
    assert line.startswith("vqtok: error: notes.txt appeared in new while it was being written, and is left alone: ")
    kept = Path(line.rpartition("the finished work is in ")[2])
    assert len(list(kept.rglob("*.png"))) == 12 if arguments[0] == "detokenize" else len(load_codes(kept)) == 12


@pytest.mark.parametrize("arguments", [["tokenize", "images", "--out", "new"], ["detokenize", "codes", "--out", "new"]])
def test_sigterm_leaves_nothing_behind(made: Path, arguments: list[str]) -> None:
    before = everything(made)
    with endless(*arguments, "--tokenizer", "tok") as process:
        assert everything(made) != before
        for _ in range(2):  # as `timeout` does, which signals the process and then its group
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    assert everything(made) == before


def test_what_sigkill_left_is_removed_by_the_next_run_which_says_so(made: Path) -> None:
    with endless("tokenize", "images", "--out", "new", "--tokenizer", "tok") as process:
        process.kill()
        assert process.wait(60) == -signal.SIGKILL
    left = [name for name in everything(made) if Path(name).name.startswith(".")]
    assert left
    command = [Path(sys.executable).with_name("vqtok"), "tokenize", "images", "--out", "new", "--tokenizer", "tok"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert run.stderr == f"removed {left[0]}, which a run that was killed had left behind\n"
    assert len(load_codes("new")) == 12
    assert [name for name in everything(made) if Path(name).name.startswith(".")] == []
