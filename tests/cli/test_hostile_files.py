"""Folders from elsewhere whose files hang who reads them: every command says so in one line, or passes them over."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.tiny import TINY
from vqtok.tokenizer import VQTokenizer

RUN = "out: run\nsteps: 3\ncheckpoint_every: 3\n"
BOMB = RUN + "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 10))
DEEP = "[" * 200_000


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """Fail instead of hanging."""

    def fail(*_: object) -> None:
        raise TimeoutError("the command hangs")

    before = signal.signal(signal.SIGALRM, fail)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def run(vqtok: Command, tiny_tokenizer: VQTokenizer, images_folder: Path) -> Path:
    """A run folder without a configuration."""
    tiny_tokenizer.save_pretrained("runs/one/model")
    return Path("runs/one")


def zero(path: Path) -> None:
    path.symlink_to("/dev/zero")


def bomb(path: Path) -> None:
    path.write_text(BOMB)


def long(path: Path) -> None:
    path.write_text(f"{RUN}a: {'x' * 2**24}\n")


def deep(path: Path) -> None:
    path.write_text(f"{RUN}a: {DEEP}\n")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (bomb, "an alias in line 5: write the value itself there"),
        (os.mkfifo, "it is a device or pipe, not a file"),
        (zero, "it is a device or pipe, not a file"),
        (long, "it is longer than 16,777,216 bytes"),
        (deep, "a value that cannot be read, "),
    ],
)
def test_a_configuration_that_would_hang_its_reader(
    vqtok: Command, run: Path, make: Callable[[Path], None], reason: str
) -> None:
    make(run / "config.yaml")
    code, _, complained = vqtok("train", "--resume", "--out", run)
    assert code == 2 and complained.count("\n") == 1
    assert reason in complained or "there is no run to resume in runs/one" in complained
    if make is not os.mkfifo:  # which the user may mean
        named = ("--config", run / "config.yaml", "--dataset", "images", "--out", "new")
        code, _, complained = vqtok("train", *named, *TINY)
        assert code == 2 and complained.count("\n") == 1
        assert reason in complained or (make is zero and "it is longer than 16,777,216 bytes" in complained)
    assert vqtok("inspect", run)[0] == 2
    assert vqtok("inspect", run / "model")[0] == 0
    code, _, complained = vqtok("evaluate", "--tokenizer", run, "--dataset", "images", "--split", "train")
    assert code == 0, complained
    code, _, complained = vqtok("evaluate", "--tokenizer", run)
    assert code == 2 and "no run beside runs/one/model says what it was trained on" in complained


@pytest.mark.parametrize("make", [os.mkfifo, zero, long, lambda path: path.write_text(DEEP)])
def test_a_model_that_cannot_be_read_does_not_hide_the_newest_run(
    vqtok: Command, run: Path, make: Callable[[Path], None]
) -> None:
    (run.parent / "x" / "model").mkdir(parents=True)
    make(run.parent / "x" / "model" / "config.json")
    code, printed, complained = vqtok("evaluate", "--dataset", "images")
    assert code == 0 and "runs/one/model" in printed, complained
    code, _, complained = vqtok("inspect", run.parent / "x" / "model")
    assert code == 2 and complained.count("\n") == 1


@pytest.mark.usefixtures("run")
def test_the_configuration_that_a_user_names_may_be_a_pipe(vqtok: Command, tmp_path: Path) -> None:
    """As in `--config <(sed ... config.yaml)`."""
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_text, args=["dataset: images\nseed: 7\n"])
    writer.start()
    code, _, complained = vqtok("train", "--config", tmp_path / "pipe", "--out", "new", *TINY)
    writer.join()
    assert code == 0, complained
    assert "seed: 7\n" in Path("new/config.yaml").read_text()


DAMAGED_STATES = {
    "[]": "must hold a JSON object, found list",
    '{"step": null, "num_processes": 1}': "is damaged: step: input should be a valid integer, got None",
    '{"step": 4, "num_processes": []}': "is damaged: num_processes: input should be a valid integer, got []",
    '{"step": 1e400, "num_processes": 1}': "is damaged: step: ",
    '{"step": 4}': "is damaged: num_processes is missing",
}


def test_a_damaged_state_of_a_checkpoint_is_one_line(vqtok: Command, images_folder: Path) -> None:
    assert vqtok("train", "--dataset", "images", "--out", "run", *TINY)[0] == 0
    state = Path("run/checkpoints/step-000004/state.json")
    for text, reason in DAMAGED_STATES.items():
        state.write_text(text)
        code, _, complained = vqtok("train", "--resume", "--out", "run", "--steps=5")
        assert code == 2, complained
        (line,) = [line for line in complained.splitlines() if line.startswith("vqtok: error: ")]
        assert line.startswith("vqtok: error: cannot read the checkpoint run/checkpoints/step-000004: ")
        assert reason in line and line.endswith("; delete it to go on from an earlier one")
    state.parent.rename("gone")
    assert vqtok("train", "--resume", "--out", "run", "--steps=5")[0] == 0
