"""Anything with images in it as one thing: rows of an encoded image, perhaps a label, and what else there is.

readers.py says what a name means and columns.py where the images and labels are. Here the splits are settled: a data
set without held-out images gets some, by a seeded share of its training split, and says so.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
from datasets import Dataset, Image, Value

from vqtok.data.columns import Labels, find_image_column, find_labels
from vqtok.data.held_out import find_held_out, held_out_rows, training_split
from vqtok.data.layout import matching_split, split_group
from vqtok.data.paths import DatasetRoot
from vqtok.data.readers import read_splits
from vqtok.data.reading import InCache, NamedSplits
from vqtok.data.record import SplitRecord, digest_of_names, name_column
from vqtok.data.stored import StoredImage, row_name, stored_cells
from vqtok.data.tables import loading
from vqtok.errors import ConfigurationError, DataError, did_you_mean
from vqtok.text import counted

__all__ = ["ImageSource", "open_all", "open_images", "open_splits"]

RECORDED_AT_ONCE = 8192  # rows whose names are in memory


@dataclass(frozen=True, kw_only=True)
class ImageSource:
    """One split of a dataset with images.

    Attributes:
        dataset: all its columns, the images as they are stored: {"bytes": ..., "path": ...}.
        image_column: where the images are.
        classes: where the labels are and what they mean, if anywhere and for every row; see `columns.py`.
        name: the dataset as the user gave it.
        resolved: the Hub id or absolute path behind it.
        split: as the dataset calls it.
        revision: the commit on the Hub, where there is one.
        root: where paths in the dataset may lead.
        notes: what the user should be told, such as images held out for testing.
        undivided: the split that this is a share of, if it is.
    """

    dataset: Dataset
    image_column: str
    classes: Labels | None = None
    name: str
    resolved: str
    split: str
    revision: str | None = None
    root: DatasetRoot = DatasetRoot()
    notes: tuple[str, ...] = ()
    undivided: ImageSource | None = None

    def __len__(self) -> int:
        return len(self.dataset)

    @property
    def label_column(self) -> str | None:
        """Where the labels are, if anywhere."""
        return self.classes.column if self.classes else None

    @property
    def label_names(self) -> tuple[str, ...] | None:
        """What the classes are called, if there are any."""
        return self.classes.names if self.classes else None

    def labels(self) -> npt.NDArray[np.int64] | None:
        """The class of every row, int64 (N,) in [0, len(label_names)), or None where there are no labels."""
        return self.classes.of(self.dataset, self.name) if self.classes else None

    def stored(self, indices: Sequence[int]) -> list[StoredImage]:
        """The images of some rows, not decoded yet."""
        rows = indices if isinstance(indices, range) else list(indices)
        cells = stored_cells(self._images[rows][self.image_column])
        return [
            StoredImage(
                name=self._row_name(index, cell),
                content=cell["bytes"],
                path=cell["path"],
                column=self.image_column,
                root=self.root,
            )
            for index, cell in zip(indices, cells, strict=True)
        ]

    def record(self) -> SplitRecord:
        """What is kept of the split, all of it, to know it again."""
        whole = self.undivided or self
        names = name_column(whole.dataset.features)
        tables = whole.dataset.select_columns([names]).with_format("arrow").iter(RECORDED_AT_ONCE) if names else None
        return SplitRecord(
            split=whole.split,
            rows=len(whole),
            revision=whole.revision,
            names=digest_of_names(tables) if tables else None,
        )

    def _row_name(self, index: int, cell: dict[str, Any]) -> str:
        """What an error calls a row: its file, or its number and the name of the dataset."""
        if cell["bytes"] is None and cell["path"] is not None:
            return str(cell["path"])
        file = cell["path"]
        if not file and "__key__" in self.dataset.column_names:  # of a row of a tar file
            file = self.dataset.select_columns(["__key__"])[index]["__key__"]
        return row_name(index, self.name, self.split, file)

    @cached_property
    def _images(self) -> Dataset:
        return self.dataset.select_columns([self.image_column]).with_format("arrow")


def open_images(
    dataset: str,
    *,
    split: str = "train",
    image_column: str | None = None,
    label_column: str | None = None,
    revision: str | None = None,
    config: str | None = None,
    test_share: float = 0.1,
    seed: int = 0,
) -> ImageSource:
    """One split of a dataset.

    "train" and "test" are those of `open_splits`, so that they never share an image: where the dataset has no
    held-out split, a seeded share of its training split is "test" and only the rest is "train". `open_all` gives every
    split as it is.

    Args:
        dataset: `mnist-mini`, `mnist`, `cifar10`, a Hub id (`org/name` or `org/name@revision`), a folder of images,
            what `save_to_disk` wrote, or a folder or file of a kind that `readers.py` lists.
        split: "train", "test", or any split that the dataset has; `valid`, `val` and `dev` also find `validation`.
        image_column, label_column: found as `columns.py` says where not given.
        revision: branch, tag or commit of a dataset on the Hub.
        config: which configuration of a dataset that has several, on the Hub or in a folder.
        test_share: part of the training split that is held out where there is no other; 0 holds nothing out.
        seed: decides which images are held out.

    Raises:
        DataError: no such dataset, split or column, or no images in it; the message says what was found.
        HubError: the Hub does not have it, does not give it, or cannot be reached.
    """
    _check_share(test_share)
    named = read_splits(dataset, revision, config, reading=InCache())
    if split in named.splits or split_group(split) not in ("train", "test"):
        chosen = _find_split(named, dataset, split)
        if split_group(split) != "train":
            return _source(named, dataset, chosen, image_column, label_column)
    train, test = _split_up(named, dataset, image_column, label_column, test_share, seed)
    if split_group(split) == "train":
        return train
    if test is None:
        raise DataError(f"{dataset} has no test split (found: {_listed(named.splits)}); give a test_share above 0")
    return test


def open_splits(
    dataset: str,
    *,
    image_column: str | None = None,
    label_column: str | None = None,
    revision: str | None = None,
    config: str | None = None,
    test_share: float = 0.1,
    seed: int = 0,
) -> tuple[ImageSource, ImageSource]:
    """The images to train on and those to test on. Arguments and errors are those of `open_images`.

    The test images are the split `test`, else `validation`, else a seeded share of the training split.
    """
    _check_share(test_share)
    if test_share == 0:
        raise ConfigurationError("test_share must be above 0 to have images to test on, got 0")
    train, test = _split_up(
        read_splits(dataset, revision, config, reading=InCache()), dataset, image_column, label_column, test_share, seed
    )
    assert test is not None
    return train, test


def open_all(
    dataset: str,
    *,
    split: str | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    revision: str | None = None,
    config: str | None = None,
) -> dict[str, ImageSource]:
    """Every split that a dataset has, or the one asked for, by its name there; nothing is held out.

    Arguments and errors are those of `open_images`.
    """
    named = read_splits(dataset, revision, config, reading=InCache())
    chosen = named.splits if split is None else [_find_split(named, dataset, split)]
    return {split: _source(named, dataset, split, image_column, label_column) for split in chosen}


def _check_share(test_share: float) -> None:
    if not 0 <= test_share < 1:
        raise ConfigurationError(f"test_share must be at least 0 and below 1, got {test_share}")


def _split_up(
    named: NamedSplits[Dataset],
    name: str,
    image_column: str | None,
    label_column: str | None,
    test_share: float,
    seed: int,
) -> tuple[ImageSource, ImageSource | None]:
    chosen = _find_training_split(named, name)
    train = _source(named, name, chosen, image_column, label_column)
    if label_column and not train.classes:
        raise DataError(f"the column {label_column} of {name} has rows without a label; choose another or none")
    split, notes = find_held_out(named.splits, chosen, train.classes)
    if split is None:
        return _hold_out(train, test_share, seed) if test_share else (train, None)
    test = _source(named, name, split, image_column, label_column)
    return replace(train, notes=(*train.notes, *notes)), replace(test, notes=(*test.notes, *notes))


def _hold_out(train: ImageSource, test_share: float, seed: int) -> tuple[ImageSource, ImageSource]:
    train_rows, test_rows, note = held_out_rows(
        len(train), share=test_share, seed=seed, name=train.name, split=train.split
    )
    notes = (*train.notes, note)
    return (
        replace(train, dataset=train.dataset.select(train_rows), notes=notes, undivided=train),
        replace(train, dataset=train.dataset.select(test_rows), split="test", notes=notes, undivided=train),
    )


def _find_training_split(named: NamedSplits[Dataset], name: str) -> str:
    return training_split(named.splits) or _find_split(named, name, "train")


def _find_split(named: NamedSplits[Dataset], name: str, split: str) -> str:
    if (found := matching_split(named.splits, split)) is not None:
        return found
    raise DataError(
        f"{name} has no split {split} with rows; found: {_listed(named.splits)}.{did_you_mean(split, named.splits)}"
    )


def _source(
    named: NamedSplits[Dataset], name: str, split: str, image_column: str | None, label_column: str | None
) -> ImageSource:
    dataset = named.splits[split]
    where = name if len(named.splits) == 1 else f"the split {split} of {name}"
    image_column = find_image_column(dataset, where, image_column)
    stored = dataset.features[image_column]
    if isinstance(stored, Value) and stored.dtype.endswith("_view"):  # of polars; images cannot be cast from it
        dataset = dataset.cast_column(image_column, Value(stored.dtype.removesuffix("_view")))
    labels, notes = find_labels(named.splits, name, label_column)
    if labels and not labels.are_in(dataset):
        notes = (f"the split {split} has no labels in the column {labels.column} for all of its rows",)
        labels = None
    with loading(name):
        images = dataset.with_format(None).cast_column(image_column, Image(decode=False))
    return ImageSource(
        dataset=images,
        image_column=image_column,
        classes=labels,
        name=name,
        resolved=named.resolved,
        split=split,
        revision=named.revision,
        root=named.root,
        notes=(*named.notes, *notes),
    )


def _listed(splits: dict[str, Dataset]) -> str:
    return ", ".join(f"{split} ({counted(len(dataset), 'row')})" for split, dataset in splits.items())
