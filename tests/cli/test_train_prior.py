from __future__ import annotations

from pathlib import Path

import pytest
import torch
import typer
import yaml
from datasets import ClassLabel, DatasetDict
from typer.testing import CliRunner

from tests.cli.conftest import Command
from tests.codes.labelled import LABEL, make_codes
from vqtok.errors import ConfigurationError
from vqtok.priors import PixelCNN, PriorBinding, load_prior
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig
from vqtok_cli import train_prior as command

APP = typer.Typer()
APP.command()(command.train_prior)

QUICK = ["--steps", "4", "--batch-size", "8", "--hidden-size", "8", "--num-layers", "1"]


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train_prior(*options: str) -> str:
    result = CliRunner().invoke(APP, list(options), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


@pytest.mark.parametrize("arch", ["transformer", "pixelcnn"])
def test_codes_with_labels_make_a_class_conditional_prior(work: Path, arch: str) -> None:
    DatasetDict({"train": make_codes(24), "test": make_codes(10)}).save_to_disk("codes")
    output = train_prior("codes", "--arch", arch, "--out", "runs/p", *QUICK)
    assert "24 for training, 10 held out" in output
    assert "cat, dog" in output
    assert "next: vqtok sample --prior runs/p --tokenizer runs/tok/model --out samples.png" in output
    assert PriorBinding.from_config(load_prior("runs/p").config) == PriorBinding(
        fingerprint="f" * 64, grid=(2, 2), codebook_size=8, label_names=("cat", "dog"), tokenizer="runs/tok/model"
    )
    saved = yaml.safe_load((work / "runs/p/config.yaml").read_text())
    assert saved["codes"] == "codes"
    assert saved["arch"]["type"] == arch
    assert saved["arch"]["hidden_size"] == 8


def test_a_pixelcnn_reads_the_codes_of_several_codebooks(vqtok: Command, images_folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = VQTokenizerConfig(
        image_size=16,
        num_channels=1,
        network={"type": "conv", "hidden_size": 8, "residual_size": 4, "num_residual_blocks": 1},
        quantizer={"type": "product", "num_codebooks": 3, "each": {"codebook_size": 8, "code_dim": 2}},
    )
    VQTokenizer(config).eval().save_pretrained(tmp_path / "tok")
    quick = ["--steps", 4, "--batch-size", 4, "--hidden-size", 8, "--num-layers", 1]
    for typed in (
        ["tokenize", images_folder, "--tokenizer", "tok", "--out", "codes"],
        ["train-prior", "codes", "--arch", "pixelcnn", "--set", "arch.num_depth_layers=2", "--out", "runs/p", *quick],
        ["sample", "--prior", "runs/p", "--num-images", 2],
        ["inspect", "runs/p"],
    ):
        code, said, complained = vqtok(*typed)
        assert code == 0, complained
    assert "2 images on samples.png" in vqtok("sample", "--prior", "runs/p", "--num-images", 2, "--overwrite")[1]
    prior = load_prior("runs/p")
    assert PriorBinding.from_config(prior.config).num_codebooks == 3
    assert (type(prior), len(prior.head.layers)) == (PixelCNN, 2)


def test_of_many_classes_the_first_are_named(work: Path) -> None:
    names = [f"class-{number}" for number in range(500)]
    make_codes(24, {"label": ClassLabel(names=names)}).save_to_disk("codes")
    output = train_prior("codes", "--out", "runs/p", *QUICK)
    (line,) = [line.split(maxsplit=1)[1] for line in output.splitlines() if line.split()[:1] == ["classes"]]
    assert line == f"500: {', '.join(names[:20])}, ..."


def test_a_finished_run_is_not_written_over_and_a_cut_one_goes_on(work: Path) -> None:
    make_codes(30).save_to_disk("codes")
    assert "3 of the 30 images of train are held out" in train_prior("codes", "--out", "runs/p", *QUICK)
    with pytest.raises(ConfigurationError, match="--resume"):
        train_prior("codes", "--out", "runs/p", *QUICK)
    (work / "runs/p/model").rename(work / "whole")
    train_prior("--resume", "--out", "runs/p")
    assert (work / "runs/p/model/model.safetensors").read_bytes() == (work / "whole/model.safetensors").read_bytes()


@pytest.mark.parametrize("missing", [-1, None])
def test_a_test_split_without_labels_is_passed_over(work: Path, missing: int | None) -> None:
    unlabelled = make_codes(4).remove_columns("label").add_column("label", [missing] * 4, feature=LABEL["label"])
    unlabelled.info.description = make_codes(1).info.description
    DatasetDict({"train": make_codes(20), "test": unlabelled, "validation": make_codes(6)}).save_to_disk("codes")
    output = train_prior("codes", "--out", "runs/p", *QUICK)
    assert "the split test has no labels: validation (6 images) is used to test on" in output
    assert "20 for training, 6 held out" in output
    DatasetDict({"train": make_codes(20), "test": unlabelled}).save_to_disk("two")
    output = train_prior("two", "--out", "runs/q", *QUICK)
    assert "the split test has no labels, so it is not used" in output and "18 for training, 2 held out" in output


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--steps", "-1"], "steps must be a whole number of at least 1, got -1"),
        (["--arch", "pixelcn"], "Did you mean 'pixelcnn'"),
        (
            ["--arch", "pixelcnn", "--num-heads", "2"],
            "arch.num_heads is not an option of arch.type 'pixelcnn', which has",
        ),
        (["--set", "arch.hiden_size=8"], "Did you mean 'hidden_size'"),
        (["--set", "stepps=8"], "Did you mean 'steps'"),
    ],
)
def test_mistakes_are_refused(work: Path, options: list[str], message: str) -> None:
    make_codes(20).save_to_disk("codes")
    with pytest.raises(ConfigurationError, match=message):
        train_prior("codes", *options)
    assert not (work / "runs").exists()
