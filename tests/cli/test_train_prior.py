from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
import yaml
from datasets import Array2D, ClassLabel, Dataset, DatasetDict, Features, Value
from typer.testing import CliRunner

from vqtok.errors import ConfigurationError, DataError
from vqtok.priors import PriorBinding, load_prior
from vqtok.training.prior_config import PriorTrainingConfig
from vqtok_cli import train_prior as command

APP = typer.Typer()
APP.command()(command.train_prior)

SPEC = {
    "format": "vqtok-codes",
    "version": 1,
    "grid": [2, 2],
    "codebook_size": 8,
    "num_codebooks": 1,
    "fingerprint": "f" * 64,
    "repository": "runs/tok/model",
    "revision": None,
    "preprocessing": {},
    "vqtok_version": "0",
}
LABEL = {"label": ClassLabel(names=["cat", "dog"])}
QUICK = ["--steps", "4", "--batch-size", "8", "--hidden-size", "8", "--num-layers", "1"]


def make_codes(count: int, columns: dict[str, Any] | None = None) -> Dataset:
    """Grids of one code each, 0 1 2 ... 7 0 1 ..., whose classes alternate."""
    columns = LABEL if columns is None else columns
    grids = np.broadcast_to((np.arange(count) % 8)[:, None, None], (count, 2, 2))
    values = {"codes": list(grids.astype(np.uint16))} | {name: [row % 2 for row in range(count)] for name in columns}
    dataset = Dataset.from_dict(values, features=Features({"codes": Array2D((2, 2), "uint16")} | columns))
    dataset.info.description = json.dumps(SPEC)
    return dataset


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


def test_a_finished_run_is_not_written_over_and_a_cut_one_goes_on(work: Path) -> None:
    make_codes(30).save_to_disk("codes")
    assert "3 images held out" in train_prior("codes", "--out", "runs/p", *QUICK)
    with pytest.raises(ConfigurationError, match="--resume"):
        train_prior("codes", "--out", "runs/p", *QUICK)
    (work / "runs/p/model").rename(work / "whole")
    train_prior("--resume", "--out", "runs/p")
    assert (work / "runs/p/model/model.safetensors").read_bytes() == (work / "whole/model.safetensors").read_bytes()


def config(**changes: Any) -> PriorTrainingConfig:
    return PriorTrainingConfig(**({"out": "runs/p", "codes": "codes"} | changes))


def test_the_grids_and_classes_are_the_folders(work: Path) -> None:
    DatasetDict({"train": make_codes(5), "validation": make_codes(3)}).save_to_disk("codes")
    binding, train, test, notes = command.open_grids(config())
    assert train.codes[:, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert train.labels is not None
    assert train.labels.tolist() == [0, 1, 0, 1, 0]
    assert (len(test), binding.label_names) == (3, ("cat", "dog"))
    assert notes == ["there is no test split: validation (3 images) is used to test on"]


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


def test_integer_labels_are_as_many_classes_as_they_have_values(work: Path) -> None:
    codes = make_codes(40, {}).add_column("label", [3, 7, 3_000_000, 5] * 10)
    codes.info.description = make_codes(1).info.description
    codes.save_to_disk("codes")
    binding, train, test, _ = command.open_grids(config())
    assert binding.label_names == ("3", "5", "7", "3000000")
    assert train.labels is not None and test.labels is not None
    assert sorted({*train.labels.tolist(), *test.labels.tolist()}) == [0, 1, 2, 3]
    assert "3, 5, 7, 3000000" in train_prior("codes", "--out", "runs/p", *QUICK)


@pytest.mark.parametrize(
    ("columns", "changes", "names"),
    [
        ({}, {}, None),
        (LABEL, {"unconditional": True}, None),
        ({"label": Value("int64")}, {}, ("0", "1")),
        ({"kind": LABEL["label"], "row": Value("int64")}, {}, ("cat", "dog")),
        ({"kind": LABEL["label"], "sort": LABEL["label"]}, {"label_column": "sort"}, ("cat", "dog")),
        ({"label": LABEL["label"], "fine_label": LABEL["label"]}, {}, ("cat", "dog")),
    ],
)
def test_classes_come_from_the_column_of_labels(
    work: Path, columns: dict[str, Any], changes: dict[str, Any], names: tuple[str, ...] | None
) -> None:
    make_codes(20, columns).save_to_disk("codes")
    binding, train, _, notes = command.open_grids(config(**changes))
    assert binding.label_names == names
    assert (train.labels is None) == (names is None)
    assert any("no labels" in note for note in notes) == (not columns)


def test_a_label_column_that_is_none_is_refused(work: Path) -> None:
    make_codes(20, {"kind": LABEL["label"], "sort": LABEL["label"]}).save_to_disk("codes")
    with pytest.raises(DataError, match="name one of kind, sort with --label-column"):
        command.open_grids(config())
    with pytest.raises(DataError, match="codes has no column knd; its columns are .* Did you mean 'kind'"):
        command.open_grids(config(label_column="knd"))


def test_a_folder_without_training_codes_is_refused(work: Path) -> None:
    with pytest.raises(DataError, match="codes"):
        command.open_grids(config())
    DatasetDict({"test": make_codes(5)}).save_to_disk("codes")
    with pytest.raises(DataError, match="no split 'train', only test"):
        command.open_grids(config())


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
