"""Splits of any name are tokenized, one of them without looking at the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import Dataset, DatasetDict, Features
from PIL import Image

from vqtok.codes import codes_array, load_codes, tokenize_dataset
from vqtok.data import open_all, open_images, open_splits
from vqtok.errors import DataError
from vqtok.tokenizer import VQTokenizer


def images(count: int = 2) -> Dataset:
    noise = np.random.default_rng(count)
    rows = [Image.fromarray(noise.integers(0, 256, (16, 16), dtype=np.uint8)) for _ in range(count)]
    return Dataset.from_dict({"image": rows}, features=Features({"image": datasets.Image()}))


def saved(folder: Path, splits: dict[str, Any]) -> Path:
    DatasetDict(splits).save_to_disk(folder / "set")
    return folder / "set"


def test_names_of_splits_that_datasets_refuses_are_kept(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> None:
    source = saved(tmp_path, {"fold-1": images(2), "fold 2": images(3), "train": images(4)})
    codes = tokenize_dataset(source, tiny_tokenizer, tmp_path / "codes", progress=False)
    assert {split: (len(rows), str(rows.split)) for split, rows in codes.items()} == {
        "fold-1": (2, "None"),
        "fold 2": (3, "None"),
        "train": (4, "train"),
    }
    one = tokenize_dataset(source, tiny_tokenizer, tmp_path / "one", split="fold-1", progress=False)
    assert np.array_equal(codes_array(one), codes_array(load_codes(tmp_path / "codes" / "fold-1")))


@pytest.mark.parametrize(
    "unusable", [images().select([]), images().filter(lambda _: False), Dataset.from_dict({"caption": ["a"]})]
)
def test_a_split_is_tokenized_whatever_the_others_are(
    tmp_path: Path, tiny_tokenizer: VQTokenizer, unusable: Dataset
) -> None:
    source = saved(tmp_path, {"train": images(4), "more": unusable})
    assert len(tokenize_dataset(source, tiny_tokenizer, tmp_path / "codes", split="train", progress=False)) == 4
    assert len(open_images(str(source), test_share=0)) == 4


def test_splits_without_rows_are_left_out_and_said(tmp_path: Path) -> None:
    name = str(saved(tmp_path, {"train": images(4), "test": images().select([])}))
    (source,) = open_all(name).values()
    assert len(source) == 4 and source.notes == ("left out as splits without rows: test",)
    train, test = open_splits(name)
    assert (len(train), len(test)) == (3, 1) and source.notes[0] in train.notes
    with pytest.raises(DataError, match=r"has no split validation with rows; found: train \(4 rows\)"):
        open_all(name, split="validation")
    images().select([]).save_to_disk(tmp_path / "nothing")
    with pytest.raises(DataError, match="nothing has no rows"):
        open_all(str(tmp_path / "nothing"))


def test_the_split_without_images_is_named(tmp_path: Path) -> None:
    name = str(saved(tmp_path, {"train": images(), "texts": Dataset.from_dict({"caption": ["a"]})}))
    with pytest.raises(DataError, match="the split texts of .* has no column of images"):
        open_all(name)
