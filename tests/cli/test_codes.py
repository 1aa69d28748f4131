"""Codes bound, pushed, and used from the Hub, as a user types it."""

from __future__ import annotations

import shutil
from pathlib import Path

import datasets
import pytest

from tests.cli.conftest import Command
from tests.cli.test_hub import on_the_hub
from vqtok.codes import load_codes, read_spec, tokenize_dataset
from vqtok.tokenizer import VQTokenizer

COMMANDS = """
import json, sys
import datasets
from vqtok_cli.main import app

datasets.disable_progress_bars()
for arguments in json.loads(sys.argv[1]):
    app(arguments, standalone_mode=False)
"""
TINY_PRIOR = ["--arch", "pixelcnn", "--set", "arch.hidden_size=8", "--set", "arch.num_layers=1", "--steps", "1"]


@pytest.fixture
def codes(tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer) -> Path:
    """Codes of twelve images, and `tok`, the tokenizer that made them."""
    tiny_tokenizer.save_pretrained(tmp_path / "tok")
    tokenizer = VQTokenizer.from_pretrained(tmp_path / "tok")
    tokenize_dataset(images_folder, tokenizer, tmp_path / "codes", progress=False)
    return tmp_path / "codes"


def test_codes_are_pushed_trained_on_decoded_and_inspected_by_their_id(tmp_path: Path, codes: Path) -> None:
    decode = ["detokenize", "org/codes", "--tokenizer", "tok"]
    done = on_the_hub(
        tmp_path,
        ["push", "codes", "org/codes"],
        ["inspect", "org/codes"],
        ["train-prior", "org/codes", "--out", "run", "--batch-size", "4", *TINY_PRIOR],
        [*decode, "--out", "whole"],
        [*decode, "--out", "streamed", "--streaming", "--batch-size", "5"],
        script=COMMANDS,
    )
    assert done.returncode == 0, done.stderr
    spec = read_spec(codes)
    assert "/datasets/org/codes\nnext: vqtok train-prior org/codes --out runs/prior\n" in done.stdout
    assert "  images      12 train\n" in done.stdout
    assert "org/codes: codes\n" in done.stdout and f"  tokenizer   {spec.fingerprint[:12]}\n" in done.stdout
    assert (tmp_path / "run" / "model" / "config.json").is_file()
    whole, streamed = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.png")}
        for name in ("whole", "streamed")
    )
    assert whole == streamed and len(whole) == 12 and Path("cat/00.png") in whole


def test_codes_of_another_tokenizer_are_refused_from_the_hub(
    tmp_path: Path, codes: Path, tiny_tokenizer: VQTokenizer
) -> None:
    tiny_tokenizer.quantizer.codebook.data.add_(1.0)
    tiny_tokenizer.save_pretrained(tmp_path / "other")
    for arguments in (
        ["train-prior", "org/codes", "--tokenizer", "other", "--out", "run", "--batch-size", "4", *TINY_PRIOR],
        ["detokenize", "org/codes", "--tokenizer", "other", "--streaming"],
    ):
        done = on_the_hub(tmp_path, ["push", "codes", "org/codes"], arguments, script=COMMANDS)
        assert done.returncode != 0 and "MismatchError" in done.stderr
        assert tiny_tokenizer.fingerprint[:12] in done.stderr


def test_codes_back_from_pandas_are_bound(tmp_path: Path, codes: Path, vqtok: Command) -> None:
    lost = datasets.Dataset.from_pandas(load_codes(codes).to_pandas())
    lost.save_to_disk(tmp_path / "lost")
    lost.to_parquet(tmp_path / "lost.parquet")
    for place in ("lost", "lost.parquet"):
        for command in ("inspect", "detokenize", "train-prior"):
            status, _, complained = vqtok(command, place)
            assert status == 2 and f"`vqtok bind {place} --tokenizer <tokenizer>`" in complained
            assert complained.count("\n") == 1
        status, printed, _ = vqtok("bind", place, "--tokenizer", "tok")
        assert status == 0 and f"codes of 12 images in {place} bound to tokenizer" in printed
        assert printed.endswith(f"next: vqtok train-prior {place} --out runs/prior\n")
        assert vqtok("inspect", place)[0] == 0
        assert vqtok("detokenize", place, "--tokenizer", "tok", "--out", f"images-{place}")[0] == 0
        assert len(list((tmp_path / f"images-{place}").rglob("*.png"))) == 12


def test_what_cannot_be_bound_is_one_line(
    tmp_path: Path, codes: Path, vqtok: Command, tiny_tokenizer: VQTokenizer
) -> None:
    tiny_tokenizer.quantizer.codebook.data.add_(1.0)
    tiny_tokenizer.save_pretrained(tmp_path / "other")
    shutil.copytree(codes, tmp_path / "copy")
    for arguments, complaint in (
        (("copy", "--tokenizer", "other"), "pass overwrite (--overwrite) if that is wrong"),
        (("images", "--tokenizer", "tok"), "no codes at images"),
        (("org/codes", "--tokenizer", "tok"), "is on the Hub and cannot be bound there"),
    ):
        status, _, complained = vqtok("bind", *arguments)
        assert status == 2 and complaint in complained and complained.count("\n") == 1
    assert vqtok("bind", "copy", "--tokenizer", "other", "--overwrite")[0] == 0
    assert read_spec(tmp_path / "copy").fingerprint == tiny_tokenizer.fingerprint
