"""Each tracker for real, without a network: the command runs, and its numbers are in the files of the tracker."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TINY = ["--codebook-size=16", "--code-dim=4", "--hidden-size=8", "--batch-size=4", "--steps=4", "--set=log_every=2"]
NUMBERS = ["train/loss", "train/usage", "train/images_per_second", "test/mse"]


def run_with(tracker: str, folder: Path, images: Path) -> list[dict[str, float]]:
    """Train with a tracker; the rows of metrics.jsonl."""
    vqtok = Path(sys.executable).parent / "vqtok"
    command = [vqtok, "train", "--dataset", images, "--out", "tracked-run", "--tracker", tracker, *TINY]
    environment = os.environ | {
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "TRACKIO_DIR": str(folder),
        "HF_HUB_OFFLINE": "1",
    }
    done = subprocess.run(
        [*command, "--tracker", tracker, *TINY],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in (folder / "tracked-run" / "metrics.jsonl").read_text().splitlines()]


def test_wandb_gets_every_number(tmp_path: Path, images_folder: Path) -> None:
    pytest.importorskip("wandb")
    run_with("wandb", tmp_path, images_folder)
    (file,) = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    logged = file.read_bytes()
    for name in (*NUMBERS, "checkpoint_every"):
        assert name.encode() in logged


def test_trackio_gets_every_number(tmp_path: Path, images_folder: Path) -> None:
    pytest.importorskip("trackio")
    rows = run_with("trackio", tmp_path, images_folder)
    with sqlite3.connect(tmp_path / "tracked-run.db") as database:
        logged = [(step, json.loads(text)) for step, text in database.execute("select step, metrics from metrics")]
    for row in rows:
        numbers = {f"{row['split']}/{name}": value for name, value in row.items() if name not in ("step", "split")}
        assert row["split"] == "note" or (row["step"], numbers) in logged
