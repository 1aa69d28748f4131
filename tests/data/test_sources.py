"""Datasets by name: what is found, what it is called, how it is split, and what is said when it cannot be."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Features
from PIL import Image

from tests.data.images import digits, encoded, levels, save
from vqtok.data import ImageFormat, native_format, open_all, open_images, open_splits, readers
from vqtok.errors import ConfigurationError, DataError


def test_mnist_mini_is_balanced_in_every_prefix_and_named() -> None:
    train, test = open_splits("mnist-mini")
    assert (len(train), len(test)) == (12_000, 2_000)
    assert train.label_names == test.label_names == tuple("0123456789") and train.notes == test.notes == ()
    assert (train.resolved, train.split, test.split, train.revision) == ("mnist-mini", "train", "test", None)
    for source in (train, test):
        labels = source.labels()
        assert labels is not None and labels.dtype == np.int64
        assert labels.tolist() == list(range(10)) * (len(source) // 10)
    assert native_format(train) == ImageFormat(sizes=((28, 28),), num_channels=1)
    assert readers.SAMPLE.stat().st_size < 3_000_000


def test_a_folder_called_like_a_built_in_set_is_pointed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist-mini").mkdir()
    (note,) = open_images("mnist-mini").notes
    assert "./mnist-mini" in note


def test_a_test_split_is_held_out_disjoint_complete_seeded_and_said(tmp_path: Path) -> None:
    for number in range(50):
        save(tmp_path / f"{number:02d}.png", number)
    train, test = open_splits(str(tmp_path))
    assert (len(train), len(test), train.split, test.split) == (45, 5, "train", "test")
    assert sorted(levels(train) + levels(test)) == list(range(50))
    assert levels(train) == sorted(levels(train)) and levels(test) == sorted(levels(test))
    said = "there is no test split: 5 of the 50 images of train are held out to test on (test_share 0.1, seed 0)"
    assert train.notes == test.notes == (said,)
    assert levels(open_images(str(tmp_path), split="test")) == levels(test)
    assert levels(open_images(str(tmp_path), split="train")) == levels(train)
    assert levels(open_splits(str(tmp_path), seed=1)[1]) != levels(test)
    assert len(open_splits(str(tmp_path), test_share=0.5)[1]) == 25
    assert len(open_images(str(tmp_path), test_share=0)) == 50 == len(open_all(str(tmp_path))["train"])
    with pytest.raises(DataError, match=r"no test split \(found: train \(50 rows\)\)"):
        open_images(str(tmp_path), split="test", test_share=0)


def test_validation_stands_in_for_a_test_split(tmp_path: Path) -> None:
    save(tmp_path / "training" / "1.png", 1)
    save(tmp_path / "valid" / "2.png", 2)
    train, test = open_splits(str(tmp_path))
    assert (levels(train), levels(test), test.split) == ([1], [2], "validation")
    assert "validation (1 image) is used to test on" in train.notes[0]
    assert levels(open_images(str(tmp_path), split="test")) == [2]


def test_tiny_sets_and_senseless_shares(tmp_path: Path) -> None:
    save(tmp_path / "1.png", 1)
    with pytest.raises(DataError, match="has 1 image and no test split"):
        open_splits(str(tmp_path))
    save(tmp_path / "2.png", 2)
    assert [len(part) for part in open_splits(str(tmp_path), test_share=0.99)] == [1, 1]
    for share in (-0.1, 1.0):
        with pytest.raises(ConfigurationError, match="at least 0 and below 1"):
            open_images(str(tmp_path), test_share=share)
    with pytest.raises(ConfigurationError, match="above 0"):
        open_splits(str(tmp_path), test_share=0)


def test_a_missing_split_says_which_there_are(tmp_path: Path) -> None:
    DatasetDict({"test": digits(3), "validation": digits(2)}).save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match=r"no split train with rows; found: test \(3 rows\), validation \(2 rows\)"):
        open_splits(str(tmp_path / "set"))
    with pytest.raises(DataError, match="no split validatoin.*Did you mean 'validation'"):
        open_images(str(tmp_path / "set"), split="validatoin")


def test_a_single_split_of_any_name_is_trained_on(tmp_path: Path) -> None:
    DatasetDict({"everything": digits(10)}).save_to_disk(tmp_path / "set")
    train, test = open_splits(str(tmp_path / "set"))
    assert (train.split, len(train), len(test)) == ("everything", 9, 1)
    assert len(open_images(str(tmp_path / "set"), split="everything")) == 10


def test_a_row_without_an_image_is_named(tmp_path: Path) -> None:
    Dataset.from_dict({"image": [None]}, features=Features({"image": datasets.Image()})).save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match=r"row 0 of .*set, split train holds no image"):
        native_format(open_all(str(tmp_path / "set"))["train"])


def test_the_form_of_images_is_that_of_those_that_are_there(tmp_path: Path) -> None:
    image = {"bytes": encoded(Image.new("L", (28, 28)), "PNG"), "path": None}
    pq.write_table(pa.table({"image": [None, image, image]}), tmp_path / "some.parquet")
    assert native_format(open_images(str(tmp_path / "some.parquet"))) == ImageFormat(sizes=((28, 28),), num_channels=1)
