"""Datasets by name: what is found, what it is called, how it is split, and what is said when it cannot be."""

from __future__ import annotations

from pathlib import Path

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features

from tests.data.images import Builder, digits, levels, save
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
    assert "validation (1 images) is used to test on" in train.notes[0]
    assert levels(open_images(str(tmp_path), split="test")) == [2]


def test_tiny_sets_and_senseless_shares(tmp_path: Path) -> None:
    save(tmp_path / "1.png", 1)
    with pytest.raises(DataError, match="has one image and no test split"):
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


def saved(folder: Path, dataset: Dataset) -> str:
    dataset.save_to_disk(folder / "set")
    return str(folder / "set")


def test_several_image_columns_must_be_chosen_from(tmp_path: Path) -> None:
    name = saved(tmp_path, digits(4).add_column("file", ["p.png"] * 4))
    save(tmp_path / "set" / "p.png", 7)
    source = open_all(name, image_column="file")["train"]
    assert levels(source) == [7] * 4  # a column of paths, since it was named
    two = saved(
        tmp_path / "two",
        Dataset.from_dict({"a": [None], "b": [None]}).cast(Features({"a": datasets.Image(), "b": datasets.Image()})),
    )
    with pytest.raises(DataError, match="several columns of images: a, b; name one"):
        open_all(two)
    assert open_all(two, image_column="b")["train"].image_column == "b"
    with pytest.raises(DataError, match="no column c; its columns are a .Image., b .Image."):
        open_all(two, image_column="c")


def test_sets_without_images_or_rows_are_refused_with_what_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = saved(tmp_path, Dataset.from_dict({"text": ["a"], "label": [1]}))
    with pytest.raises(DataError, match=r"no column of images; its columns are text \(string\), label \(int64\)"):
        open_images(words)
    with pytest.raises(DataError, match="the column label of .* holds no images"):
        open_images(words, image_column="label")
    nothing = digits(4).select([])
    nothing.to_parquet(tmp_path / "empty.parquet")
    for name in (saved(tmp_path / "empty", nothing), str(tmp_path / "empty.parquet")):
        with pytest.raises(DataError, match="has no rows"):
            open_images(name)
    monkeypatch.setattr(readers, "load_dataset_builder", lambda *_, **__: Builder(DatasetDict({"train": nothing})))
    with pytest.raises(DataError, match="org/name has no rows"):
        open_images("org/name")


def test_labels_are_found_by_type_or_named(tmp_path: Path) -> None:
    fine, coarse = ClassLabel(names=["x", "y"]), ClassLabel(names=["z"])
    both = digits(2, fine=[1, 0], coarse=[0, 0], size=[5, 6], missing=[0, -1])
    both = both.cast_column("fine", fine).cast_column("coarse", coarse)
    name = saved(tmp_path, both)
    source = open_all(name)["train"]
    assert source.label_column is None and "several columns of labels, so none is used: fine, coarse" in source.notes[0]
    named = open_all(name, label_column="fine")["train"]
    assert named.label_names == ("x", "y") and named.labels().tolist() == [1, 0] and named.notes == ()  # type: ignore[union-attr]
    assert open_all(name, label_column="size")["train"].labels().tolist() == [0, 1]  # type: ignore[union-attr]
    assert open_all(name, label_column="size")["train"].label_names == ("5", "6")
    for column, complaint in (("image", "holds no labels"), ("missing", "rows without a label"), ("fin", "'fine'")):
        with pytest.raises(DataError, match=complaint):
            open_all(name, label_column=column)
    only = open_all(saved(tmp_path / "one", both.remove_columns("fine")))["train"]
    assert only.label_column == "coarse"


def test_a_label_that_is_missing_somewhere_is_not_used(tmp_path: Path) -> None:
    for number, labels in enumerate(([0, -1], [0, None])):
        source = open_all(saved(tmp_path / str(number), digits(2, label=labels)))["train"]
        assert source.label_column is None and "rows without a label" in source.notes[0]


def test_a_row_without_an_image_is_named(tmp_path: Path) -> None:
    name = saved(tmp_path, Dataset.from_dict({"image": [None]}, features=Features({"image": datasets.Image()})))
    with pytest.raises(DataError, match=r"row 0 of .*set, split train holds no image"):
        native_format(open_all(name)["train"])
