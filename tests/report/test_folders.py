"""Summaries say what is there, with the numbers of what is there, and refuse what is not ours."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.report.conftest import Left
from vqtok.errors import CheckpointError, DataError
from vqtok.priors import load_prior
from vqtok.report import describe


def test_a_tokenizer_tells_its_sizes(left: Left) -> None:
    summary = describe(left.root / "tokenizer" / "model")
    rows = dict(summary.rows)
    assert summary.kind == "tokenizer"
    assert rows["images"].startswith("16 x 16 pixels, grey")
    assert rows["grid"] == "4 x 4, 16 codes per image"
    assert rows["size"] == "64 bits per image, 0.25 per pixel, 1/32 of 8-bit pixels"
    assert rows["codebook"] == "16 codes of 4 dimensions"
    encoder = sum(math.prod(p.shape) for p in left.tokenizer.encoder.parameters())
    assert rows["encoder"] == f"{encoder:,} parameters"
    assert rows["fingerprint"] == left.tokenizer.fingerprint
    assert rows["metrics"].startswith("none")


def test_a_tokenizer_that_was_evaluated_tells_on_what(left: Left, tmp_path: Path) -> None:
    folder = shutil.copytree(left.root / "tokenizer" / "model", tmp_path / "model")
    metrics = {"dataset": "cifar10", "split": "test", "num_images": 10_000, "mse": 0.003, "ssim": None}
    metrics |= {"bits_in_use": 5.5, "bit_usage": 0.25}
    (folder / "metrics.json").write_text(json.dumps(metrics))
    rows = dict(describe(folder).rows)
    assert rows["measured on"] == "10,000 images of cifar10, split test"
    assert rows["metrics"] == "mse 0.003, bits_in_use 5.5, bit_usage 0.25"
    (folder / "metrics.json").write_text(json.dumps(metrics | {"num_images": 1}))
    assert dict(describe(folder).rows)["measured on"] == "1 image of cifar10, split test"


@pytest.mark.parametrize("metrics", ["{}", '{"dataset": "d", "split": "test", "num_images": "x"}', "[]", "[" * 60000])
def test_metrics_that_are_damaged_are_named(left: Left, tmp_path: Path, metrics: str) -> None:
    folder = shutil.copytree(left.root / "tokenizer" / "model", tmp_path / "model")
    (folder / "metrics.json").write_text(metrics)
    with pytest.raises(CheckpointError, match=r"metrics\.json"):
        describe(folder)


def test_a_prior_tells_its_classes_and_its_tokenizer(left: Left) -> None:
    summary = describe(left.root / "prior" / "model")
    rows = dict(summary.rows)
    assert summary.kind == "prior"
    assert rows["architecture"] == "Llama transformer: hidden_size 16, num_hidden_layers 1, num_attention_heads 2"
    assert rows["classes"] == "2: cat, <dog>"
    assert rows["tokenizer"] == f"{left.tokenizer.fingerprint[:12]} (runs/digits/model)"
    parameters = sum(p.numel() for p in load_prior(left.root / "prior" / "model").parameters())
    assert rows["parameters"] == f"{parameters:,}"


def test_codes_tell_their_use_from_the_array(left: Left) -> None:
    summary = describe(left.root / "codes")
    rows = dict(summary.rows)
    assert summary.kind == "codes"
    shares = np.bincount(left.codes["test"].ravel(), minlength=16) / left.codes["test"].size
    perplexity = math.exp(-sum(share * math.log(share) for share in shares if share))
    assert rows["test"] == f"3 images, perplexity {perplexity:.4g}, {(shares > 0).sum()} of 16 codes in use"
    assert rows["train"].startswith("6 images") and rows["train"].endswith("10 of 16 codes in use")
    assert rows["columns"] == "codes (4 x 4 uint16), label (2 classes)"
    assert rows["bad images"] == "1 could not be read: broken.png"
    assert left.tokenizer.fingerprint[:12] in rows["tokenizer"]


def test_one_split_of_codes_is_codes(left: Left) -> None:
    assert dict(describe(left.root / "codes" / "test").rows)["test"].startswith("3 images")


def test_a_run_tells_its_state(left: Left, tmp_path: Path) -> None:
    rows = dict(describe(left.root / "tokenizer").rows)
    assert rows["trains"] == "a tokenizer on org/digits"
    assert rows["state"] == "finished: 20 steps"
    assert rows["held out, step 20"] == "mse 0.125, perplexity 6.5, held-out usage 0.5"
    assert rows["files"] == "config.yaml, metrics.jsonl, model/, samples/"

    stopped = shutil.copytree(left.root / "prior", tmp_path / "stopped", ignore=shutil.ignore_patterns("model"))
    assert dict(describe(stopped).rows)["state"] == "not finished: step 20 of 20, no checkpoint to go on from"
    checkpoint = stopped / "checkpoints" / "step-000010"
    checkpoint.mkdir(parents=True)
    (checkpoint / "state.json").write_text("{}")
    rows = dict(describe(stopped).rows)
    assert rows["trains"] == "a prior on codes"
    assert rows["state"] == f"stopped at step 20 of 20: goes on with `vqtok train-prior --resume --out {stopped}`"
    assert rows["checkpoints"] == "step-000010"


def test_a_run_tells_what_its_log_warned_of(left: Left, tmp_path: Path) -> None:
    run = shutil.copytree(left.root / "tokenizer", tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 20, "split": "note", "note": "step 20: 3 of 16 codes in use"}\n')
    rows = dict(describe(run).rows)
    assert rows["warning"] == "step 20: 3 of 16 codes in use" and rows["held out, step 20"].startswith("mse 0.125")


def test_a_last_line_that_was_cut_off_is_left_out(left: Left, tmp_path: Path) -> None:
    run = shutil.copytree(left.root / "prior", tmp_path / "run")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 30, "spl')
    assert "held out, step 20" in dict(describe(run).rows)


def test_what_is_not_ours_is_refused_with_what_was_found(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist: name a tokenizer, prior, codes or run folder"):
        describe("nowhere")
    with pytest.raises(DataError, match="it is empty"):
        describe(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(DataError, match="is a file, not a folder"):
        describe(tmp_path / "notes.txt")
    (tmp_path / "config.yaml").write_text("colour: red")
    with pytest.raises(DataError, match=r"neither .* it holds config.yaml, notes.txt"):
        describe(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match=r"neither a tokenizer nor a prior: its config.json is of a 'bert' model"):
        describe(tmp_path)


def test_damaged_files_are_named(left: Left, tmp_path: Path) -> None:
    run = shutil.copytree(left.root / "prior", tmp_path / "run")
    (run / "metrics.jsonl").write_text('{"no": "step"}\n')
    with pytest.raises(CheckpointError, match=r"metrics\.jsonl is damaged"):
        describe(run)
    (run / "config.yaml").write_text("- a list")
    with pytest.raises(CheckpointError, match=r"run/config.yaml must hold key: value lines, found list"):
        describe(run)
    (run / "config.yaml").write_text("of: another program")
    with pytest.raises(DataError, match=r"nor a run of vqtok: it holds config.yaml, metrics.jsonl, model"):
        describe(run)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json cannot be read as JSON"):
        describe(tmp_path)


def test_checkpoints_are_listed_in_the_order_of_their_steps(left: Left, tmp_path: Path) -> None:
    run = shutil.copytree(left.root / "tokenizer", tmp_path / "run")
    for step in ("999999", "1000000"):
        (run / "checkpoints" / f"step-{step}").mkdir(parents=True)
        (run / "checkpoints" / f"step-{step}" / "state.json").write_text("{}")
    assert dict(describe(run).rows)["checkpoints"] == "step-999999, step-1000000"
