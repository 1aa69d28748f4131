"""`--out` of train: one process at a time has a run, and a folder that cannot be made or read is one line."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.disk import ALONE, umask
from vqtok.errors import ConfigurationError
from vqtok.locks import locked
from vqtok.tokenizer import VQTokenizer
from vqtok.training import loop

TINY = ["--codebook-size=16", "--code-dim=4", "--hidden-size=8", "--batch-size=4", "--steps=2"]
LOCK = f"""{ALONE}
import time
from pathlib import Path
from vqtok.locks import locked
from vqtok.tokenizer import VQTokenizer
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


@contextmanager
def at_work(run: str) -> Iterator[int]:
    """Another process that has the run; it is killed at the end."""
    with subprocess.Popen([sys.executable, "-c", LOCK, run], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "locked\n"
        yield process.pid
        process.kill()


@pytest.fixture
def train(vqtok: Command, images_folder: Path) -> Command:
    return lambda *arguments: vqtok("train", "--dataset", "images", *TINY, *arguments)


def test_a_run_is_trained_by_one_process_at_a_time(train: Command) -> None:
    for arguments in (["--out", "run"], ["--resume", "--out", "run", "--steps=3"]):
        with at_work("run") as pid:
            code, _, complained = train(*arguments)
            assert code == 2
            line = complained.splitlines()[-1]
            assert line.startswith(f"vqtok: error: process {pid} on ")
            assert line.endswith(" is at work in run: wait for it, or choose another folder")
        assert train(*arguments)[0] == 0  # the lock ended with its process


def test_names_of_files_do_not_reach_the_terminal_as_they_are(vqtok: Command, images_folder: Path) -> None:
    Path("images/cat/\x1b[2Jevil\u202e.png").write_text("no image")
    code, printed, complained = vqtok("train", "--dataset", "images", *TINY, "--out", "run", "--set=max_unreadable=0.5")
    assert code == 0 and "\x1b" not in printed + complained and "\u202e" not in printed + complained
    assert r"\x1b[2Jevil\u202e.png" in complained


def test_the_lock_is_held_to_the_end_and_leaves_nothing(train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    save = loop.save_model
    looked = []

    def look(model: Any, run: Path) -> None:
        with pytest.raises(ConfigurationError, match=f"process {os.getpid()} on .* is at work in run"), locked(run):
            pass
        looked.append(run)
        save(model, run)

    monkeypatch.setattr(loop, "save_model", look)
    assert train("--out", "run")[0] == 0
    assert len(looked) == 1
    assert sorted(os.listdir("run")) == [
        "checkpoints",
        "config.yaml",
        "images.json",
        "metrics.jsonl",
        "model",
        "samples",
    ]


def test_where_there_are_no_locks_a_run_goes_on(train: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def without(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", without)
    assert train("--out", "run")[0] == 0


def test_the_owner_file_is_never_another_file(train: Command) -> None:
    """A run folder may have come from elsewhere, with anything where a process leaves its name."""
    assert train("--out", "run")[0] == 0
    Path("precious.txt").write_text("mine")
    owner = Path("run/.owner.txt")
    for make in (
        lambda: owner.symlink_to("../precious.txt"),
        lambda: owner.symlink_to("../new.txt"),
        lambda: owner.hardlink_to("precious.txt"),
        lambda: os.mkfifo(owner),
        lambda: owner.mkdir(),
    ):
        make()
        code, _, complained = train("--resume", "--out", "run", "--steps=3")
        assert (code, Path("precious.txt").read_text()) == (2, "mine")
        assert complained.splitlines()[-1] == (
            "vqtok: error: run/.owner.txt is a link or no file, and is left alone: delete it and run again"
        )
        assert not Path("new.txt").exists() and os.path.lexists(owner)
        owner.rmdir() if owner.is_dir() else owner.unlink()
    assert train("--resume", "--out", "run", "--steps=3")[0] == 0


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_permissions_of_weights_and_checkpoints_follow_the_umask(train: Command, mask: int, mode: int) -> None:
    with umask(mask):
        assert train("--out", "run")[0] == 0
    files = [path for path in Path("run").rglob("*") if path.is_file()]
    assert {path.name: path.stat().st_mode & 0o777 for path in files} == {path.name: mode for path in files}
    assert len([path for path in files if path.suffix == ".safetensors"]) == 2


def test_the_root_of_a_new_volume_holds_a_run(train: Command) -> None:
    Path("run/lost+found").mkdir(parents=True)
    assert train("--out", "run")[0] == 0
    assert Path("run/model").is_dir() and Path("run/lost+found").is_dir()


@pytest.mark.parametrize(
    ("row", "number"),
    [("", 1), ("x", 1), ("{}", 1), ('{"step": 1}', 1), ('{"step": 1, "split": "test", "a": 1e0}\n[]', 2)],
)
def test_metrics_that_are_damaged_are_one_line_on_resuming(train: Command, row: str, number: int) -> None:
    assert train("--out", "run")[0] == 0
    Path("run/metrics.jsonl").write_text(f"{row}\n")
    code, _, complained = train("--resume", "--out", "run", "--steps=3")
    assert code == 2 and complained.splitlines()[-1] == (
        "vqtok: error: run/metrics.jsonl is damaged: every line must be an object with step and split, "
        f"which line {number} is not"
    )


@pytest.mark.parametrize("out", ["file/run", "dangling", "loop", "/proc/run", "/sys/run", "x" * 300])
@pytest.mark.parametrize(
    "command",
    [
        ["train", "--dataset", "images", *TINY],
        ["demo"],
        ["tokenize", "images", "--tokenizer", "tok"],
        ["evaluate", "--tokenizer", "tok", "--dataset", "images"],
        ["inspect", "tok", "--dataset", "images", "--num-images", "2"],
    ],
    ids=lambda command: command[0],
)
def test_an_out_that_cannot_be_made_is_one_line(
    vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer, command: list[str], out: str
) -> None:
    tiny_tokenizer.save_pretrained("tok")
    Path("file").touch()
    Path("dangling").symlink_to("/proc/none/below")
    Path("loop").symlink_to("loop")
    code, _, complained = vqtok(*command, "--out", out)
    assert code == 2 and complained.splitlines()[-1].startswith("vqtok: error: ")
    assert sorted(os.listdir()) == ["dangling", "file", "images", "loop", "tok"]


@pytest.mark.parametrize(
    "command",
    [
        ["train", "--dataset", "images", *TINY],
        ["demo"],
        ["tokenize", "images"],
        ["train-prior", "codes", "--steps=1", "--batch-size=4"],
    ],
    ids=lambda command: command[0],
)
def test_an_out_that_is_not_utf_8_is_refused_before_any_work(
    vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer, command: list[str]
) -> None:
    """Neither Arrow nor safetensors could read it back."""
    tiny_tokenizer.save_pretrained("runs/tok/model")
    assert vqtok("tokenize", "images", "--out", "codes")[0] == 0
    code, said, complained = vqtok(*command, "--out", os.fsdecode(b"caf\xe9"))
    assert code == 2 and "step 1" not in said
    assert complained == "vqtok: error: the path of caf\N{REPLACEMENT CHARACTER} is not UTF-8: choose another folder\n"
    assert sorted(os.listdir()) == ["codes", "images", "runs"]


@pytest.mark.parametrize(
    "command",
    [
        ["inspect", "{}"],
        ["evaluate", "--tokenizer", "{}"],
        ["tokenize", "{}", "--tokenizer", "tok"],
        ["tokenize", "images", "--tokenizer", "{}"],
        ["detokenize", "{}"],
        ["train", "--dataset", "{}"],
        ["train", "--config", "{}"],
        ["train-prior", "{}"],
        ["sample", "--prior", "{}"],
        ["push", "{}", "org/name"],
    ],
    ids=" ".join,
)
def test_a_path_that_is_too_long_is_one_line(
    vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer, command: list[str]
) -> None:
    tiny_tokenizer.save_pretrained("tok")
    for path in ("x" * 300, "loop"):
        Path("loop").unlink(missing_ok=True)
        Path("loop").symlink_to("loop")
        code, _, complained = vqtok(*(word.format(path) for word in command))
        assert code == 2 and complained.splitlines()[-1].startswith("vqtok: error: ")
