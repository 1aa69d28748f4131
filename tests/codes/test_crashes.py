"""An image that crashes the process which decodes it is found, named and passed over, on this machine."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.codes.crashing import OPTIONS, crash_decoders, save_images, tokenize_without
from tests.written_codes import contents
from vqtok.codes import drivers, read_bad_images, tokenize_images
from vqtok.errors import DataError
from vqtok.tokenizer import VQTokenizer

UNGUARDED = """
from vqtok.codes import tokenize_images
from vqtok.tokenizer import VQTokenizer

print("once")
tokenize_images("images", VQTokenizer.from_pretrained("tokenizer"), "codes", num_processes=2, shard_rows=4)
"""

DEAD = """
import os, signal, sys

if "--multiprocessing-fork" in sys.orig_argv:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_an_image_that_crashes_one_of_several_processes_is_left_out(
    tmp_path: Path, tiny_tokenizer: VQTokenizer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    crash_decoders(tmp_path / "site", monkeypatch)
    images = save_images(tmp_path / "images", 6, named="crashing")
    done = tokenize_images(images, tiny_tokenizer, tmp_path / "codes", num_processes=2, **OPTIONS)
    assert [image.name for image in done.bad] == ["03-crashing.png"]
    assert read_bad_images(tmp_path / "codes")["reason"].to_pylist() == [
        "03-crashing.png: the process that decoded it crashed"
    ]
    assert "a process of tokenize died (Segmentation fault), and is replaced" in caplog.messages
    tokenize_without(3, images, tiny_tokenizer, tmp_path / "without" / "codes", monkeypatch)
    assert contents(tmp_path / "codes") == contents(tmp_path / "without" / "codes")


@pytest.mark.slow
def test_the_command_that_an_image_crashed_finds_it_when_it_is_run_again(
    tmp_path: Path, tiny_tokenizer: VQTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    crash_decoders(tmp_path / "site", monkeypatch)
    save_images(tmp_path / "images", 6, named="crashing")
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    command = [sys.executable, "-m", "vqtok_cli.main", "tokenize", "images", "--tokenizer", "tokenizer"]
    command += ["--batch-size", "2", "--shard-rows", "2", "--max-bad-share", "1"]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert first.returncode == -signal.SIGSEGV
    second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert second.returncode == 0, second.stderr
    assert "03-crashing.png; bad_images.parquet in codes lists them" in second.stdout
    monkeypatch.chdir(tmp_path)
    tokenize_without(3, Path("images"), VQTokenizer.from_pretrained("tokenizer"), tmp_path / "a" / "codes", monkeypatch)
    assert contents(tmp_path / "codes") == contents(tmp_path / "a" / "codes")


def test_more_images_than_are_quick_to_do_again_are_done_by_another_process(
    tmp_path: Path, tiny_tokenizer: VQTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = save_images(tmp_path / "images", 6)
    tokenize_images(images, tiny_tokenizer, tmp_path / "one" / "codes", **OPTIONS)
    monkeypatch.setattr(drivers, "QUICK", 5)
    monkeypatch.setattr(drivers, "tokenize_shard", None)
    tokenize_images(images, tiny_tokenizer, tmp_path / "codes", **OPTIONS)
    assert contents(tmp_path / "codes") == contents(tmp_path / "one" / "codes")


def test_processes_that_die_before_they_have_work_are_no_fault_of_the_images(
    tmp_path: Path, tiny_tokenizer: VQTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(DEAD)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    images = save_images(tmp_path / "images", 4)
    with pytest.raises(DataError, match=r"^no process can be started to work on images: Killed$"):
        tokenize_images(images, tiny_tokenizer, tmp_path / "codes", num_processes=2, **OPTIONS)
    monkeypatch.undo()
    assert tokenize_images(images, tiny_tokenizer, tmp_path / "codes", **OPTIONS).bad == ()


def test_a_script_needs_no_guard_to_use_several_processes(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> None:
    save_images(tmp_path / "images", 8)
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    (tmp_path / "script.py").write_text(UNGUARDED)
    ended = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert (ended.returncode, ended.stdout) == (0, "once\n"), ended.stderr
