"""Codebooks with more codes than could be counted one by one, from training to the drawings of their health."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vqtok.codes import codes_array, load_codes, tokenize_dataset
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig

GIB = 2**30
COMMANDS = """
import resource, sys
from vqtok_cli.main import main

for arguments in ARGUMENTS:
    sys.argv = ["vqtok", *arguments]
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
TRAIN = ["train", "--dataset", "images", "--out", "run", "--hidden-size", "8", "--steps", "4", "--batch-size", "4"]
COUNTED = "counted by dimension, because 68,719,476,736 codes are too many to count"


def bounded() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (32 * GIB, 32 * GIB))


def run(folder: Path, *commands: list[str]) -> str:
    """What the commands print, one after another in a process that may not reserve more than 32 GiB."""
    script = COMMANDS.replace("ARGUMENTS", repr(list(commands)))
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=folder, preexec_fn=bounded, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    *_, last = done.stdout.splitlines()
    assert int(last.removeprefix("peak ")) * 1024 < 2 * GIB
    return done.stdout + done.stderr


@pytest.mark.usefixtures("images_folder")
def test_a_codebook_of_2_to_the_36_codes_is_trained_evaluated_and_drawn(tmp_path: Path) -> None:
    said = run(
        tmp_path,
        [*TRAIN, "--quantizer", "bsq", "--codebook-size", str(2**36), "--set", "log_every=2"],
        ["evaluate", "--tokenizer", "run", "--dataset", "images", "--split", "train"],
        ["inspect", "run", "--dataset", "images", "--split", "train"],
    )
    assert COUNTED in said
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    for row in (row for row in rows if row["split"] in ("train", "test")):
        assert 0 < row["bits_in_use"] <= 36 and 0 <= row["constant_dimensions"] < 36
        assert row["bit_usage"] == pytest.approx(row["bits_in_use"] / 36)
        assert not {"perplexity", "usage", "dead_codes"} & set(row)
    metrics = json.loads((tmp_path / "run" / "model" / "metrics-train.json").read_text())
    health = json.loads((tmp_path / "run" / "health" / "health.json").read_text())
    assert metrics["codebook_size"] == health["codebook_size"] == 2**36
    assert metrics["bits_in_use"] == pytest.approx(health["bits_in_use"])
    assert {path.name for path in (tmp_path / "run" / "health").iterdir()} == {
        "distances.png",
        "examples.png",
        "frequencies.png",
        "health.json",
        "positions.png",
    }
    assert "codes_in_use" not in metrics and "codes_in_use" not in health


@pytest.mark.usefixtures("images_folder")
def test_codes_past_32_bits_come_back_whole(tmp_path: Path) -> None:
    """2^36 codes do not fit uint32, which would keep the last 32 bits without a word."""
    torch.manual_seed(0)
    config = VQTokenizerConfig(
        image_size=16,
        num_channels=1,
        network={"type": "conv", "hidden_size": 8},
        quantizer={"type": "bsq", "codebook_size": 2**36},
    )
    VQTokenizer(config).save_pretrained(tmp_path / "model")
    said = run(
        tmp_path,
        ["tokenize", "images", "--tokenizer", "model", "--out", "codes"],
        ["inspect", "codes"],
    )
    tokenizer = VQTokenizer.from_pretrained(tmp_path / "model")
    paths = sorted((tmp_path / "images").rglob("*.png"))
    expected = tokenizer.tokenize(paths)
    codes = codes_array(load_codes(tmp_path / "codes", tokenizer=tokenizer))
    assert expected.max() >= 2**32
    np.testing.assert_array_equal(np.sort(codes, axis=None), np.sort(expected.numpy(), axis=None))
    assert f"{len(np.unique(expected))} of 68719476736 codes in use" in said


@pytest.mark.parametrize(
    "quantizer", [{"type": "bsq", "codebook_size": 2**62}, {"type": "fsq", "levels": [1000] * 6}], ids=["bsq", "fsq"]
)
def test_the_largest_codebooks_come_back_from_disk(
    tmp_path: Path, images_folder: Path, quantizer: dict[str, object]
) -> None:
    network = {"type": "conv", "hidden_size": 8}
    made = VQTokenizer(VQTokenizerConfig(image_size=16, num_channels=1, network=network, quantizer=quantizer)).eval()
    made.save_pretrained(tmp_path / "model")
    loaded = VQTokenizer.from_pretrained(tmp_path / "model")
    assert loaded.fingerprint == made.fingerprint
    codes = tokenize_dataset(images_folder, made, tmp_path / "codes", progress=False)
    assert len(load_codes(tmp_path / "codes", tokenizer=loaded)) == len(codes) == 12
