"""The images that a tokenizer held out, told apart by its run alone: those that `open_splits` gives to test on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import Dataset, DatasetDict, Features, Image

from vqtok.codes.held_out import HeldOut, find_held_out_images
from vqtok.data import open_all, open_splits
from vqtok.errors import CheckpointError

RUN = {"out": "runs/x", "steps": 5, "checkpoint_every": 5, "test_share": 0.25, "seed": 3}


@pytest.fixture
def model(tmp_path: Path, images_folder: Path) -> Path:
    """The model/ of a run that was trained on the folder of twelve images."""
    return write_run(tmp_path / "run", dataset=str(images_folder))


def write_run(run: Path, **values: object) -> Path:
    (run / "model").mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(yaml.safe_dump(RUN | values))
    return run / "model"


@pytest.mark.parametrize(("share", "seed"), [(0.25, 3), (0.1, 0), (0.01, 7), (0.99, 1)])
def test_the_rows_are_those_that_training_held_out(
    images_folder: Path, tmp_path: Path, share: float, seed: int
) -> None:
    model = write_run(tmp_path / "run", dataset=str(images_folder), test_share=share, seed=seed)
    held = find_held_out_images(model, str(images_folder), {"train": 12})
    assert held == HeldOut(split="train", total=12, share=share, seed=seed)
    every = open_all(str(images_folder))["train"].dataset["file_name"][:]
    train, test = open_splits(str(images_folder), test_share=share, seed=seed)
    told = held.rows()
    assert [name for name, is_held in zip(every, told, strict=True) if is_held] == test.dataset["file_name"][:]
    assert [name for name, is_held in zip(every, told, strict=True) if not is_held] == train.dataset["file_name"][:]
    assert told.dtype == np.bool_


def test_the_same_images_by_another_name_are_the_same(
    model: Path, images_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images_folder.parent)
    assert find_held_out_images(model, "images", {"train": 12}) is not None
    assert find_held_out_images(str(model), "./images/", {"data": 12}) is not None


@pytest.mark.parametrize(
    "changed",
    [
        {"dataset": "elsewhere"},
        {"dataset_config": "large"},
        {"rows": {"train": 9, "test": 3}},
        {"rows": {"train": 9, "validation": 3}},
        {"rows": {"test": 12}},
        {"rows": {"train": 1}},
        {"tokenizer": None},
        {"tokenizer": "org/vq"},
    ],
    ids=str,
)
def test_where_it_does_not_hold_nothing_is_said(
    model: Path, images_folder: Path, changed: dict[str, object], tmp_path: Path
) -> None:
    given = {"tokenizer": model, "dataset": str(images_folder), "rows": {"train": 12}} | changed
    assert find_held_out_images(**given) is None  # type: ignore[arg-type]


def test_a_dataset_on_the_hub_must_be_of_one_revision(tmp_path: Path) -> None:
    model = write_run(tmp_path / "run", dataset="cifar10", revision="v1")
    for name, revision in (("cifar10", "v1"), ("uoft-cs/cifar10@v1", None), ("uoft-cs/cifar10", "v1")):
        assert find_held_out_images(model, name, {"train": 100}, revision=revision) is not None
    assert find_held_out_images(model, "cifar10", {"train": 100}) is None
    assert find_held_out_images(model, "cifar10@v2", {"train": 100}) is None


def test_a_split_to_test_on_tells_them_apart_as_in_training(tmp_path: Path) -> None:
    pixels = [np.full((4, 4), level, np.uint8) for level in range(4)]
    rows = Dataset.from_dict({"image": pixels}, features=Features({"image": Image()}))
    DatasetDict({"train": rows, "val": rows.select([0])}).save_to_disk(tmp_path / "images")
    model = write_run(tmp_path / "run", dataset=str(tmp_path / "images"))
    train, test = open_splits(str(tmp_path / "images"))
    assert (len(train), test.split) == (4, "val")
    assert find_held_out_images(model, str(tmp_path / "images"), {"train": 4, "val": 1}) is None


def test_beside_a_prior_another_program_or_a_damaged_run(tmp_path: Path) -> None:
    prior = write_run(tmp_path / "prior", codes="codes")
    assert find_held_out_images(prior, "cifar10", {"train": 9}) is None
    (tmp_path / "other" / "model").mkdir(parents=True)
    (tmp_path / "other" / "config.yaml").write_text("dataset: cifar10\n")
    assert find_held_out_images(tmp_path / "other" / "model", "cifar10", {"train": 9}) is None
    with pytest.raises(CheckpointError, match=r"config\.yaml is damaged: seed"):
        find_held_out_images(write_run(tmp_path / "bad", dataset="cifar10", seed="x"), "cifar10", {"train": 9})
