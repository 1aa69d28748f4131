"""Processes that a launcher started share the shards of one plan, and end together."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.codes.crashing import save_images
from tests.written_codes import contents
from vqtok.codes import tokenize_images
from vqtok.errors import ConfigurationError
from vqtok.tokenizer import VQTokenizer

LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]  # as accelerate does
TOKENIZE = ["-m", "vqtok_cli.main", "tokenize", "images", "--tokenizer", "tokenizer", "--shard-rows", "2"]


@pytest.fixture
def folder(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> Path:
    save_images(tmp_path / "images", 12)
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    return tmp_path


def launch(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LAUNCH, *TOKENIZE, *options], cwd=folder, capture_output=True, text=True, timeout=300)


def test_two_launched_processes_make_the_bytes_that_one_makes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ended = launch(folder)
    assert ended.returncode == 0, ended.stderr
    assert "device      cpu of 2 processes" in ended.stdout
    assert ended.stdout.count("codes of 12 images written to codes") == 1
    monkeypatch.chdir(folder)
    tokenizer = VQTokenizer.from_pretrained("tokenizer")
    tokenize_images("images", tokenizer, folder / "one" / "codes", shard_rows=2, progress=False)
    assert contents(folder / "codes") == contents(folder / "one" / "codes")


def test_what_ends_one_process_ends_all_with_one_line(folder: Path) -> None:
    (folder / "images" / "11.png").write_bytes(b"no image")
    ended = launch(folder, "--on-error", "stop")
    assert ended.returncode != 0
    lines = [line for line in ended.stderr.splitlines() if line.startswith("vqtok: error: ")]
    assert len(lines) == 1 and "11.png" in lines[0]
    assert not (folder / "codes" / ".owner.txt").exists()


def test_a_launched_process_does_not_start_others(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    tokenizer = VQTokenizer.from_pretrained(folder / "tokenizer")
    for wrong in ({"num_processes": 2}, {"executor": "ray"}):
        with pytest.raises(ConfigurationError, match="accelerate launch and torchrun start the processes themselves"):
            tokenize_images(folder / "images", tokenizer, folder / "codes", **wrong)
