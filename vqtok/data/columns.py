"""Which columns of a dataset hold the images and the labels, and what the labels mean: one rule for images and codes.

The column of labels is the one that the user names; else the one called label, if it is a ClassLabel or integers; else
the only ClassLabel; else integers called cls, as webdataset archives have them. A ClassLabel brings the names of its
classes. Of integers the distinct values of all splits, in ascending order, are the classes, and their digits the
names: 3, 5, 7 and 3000000 are four classes. A row without a label holds null or a negative number, as test splits on
the Hub do with -1. A split in which any row has no label counts as a split without labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Image, Value
from datasets.features.features import FeatureType

from vqtok.errors import DataError, did_you_mean

__all__ = ["Labels", "find_image_column", "find_labels"]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The classes of a dataset's images.

    Attributes:
        column: where they are.
        names: what they are called; class i is names[i].
        values: what the column holds for each class, ascending.
    """

    column: str
    names: tuple[str, ...]
    values: tuple[int, ...]

    def are_in(self, dataset: Dataset) -> bool:
        """Whether every row of a split has a label."""
        return self.column in dataset.column_names and _all_labelled(_stored(dataset, self.column))

    def of(self, dataset: Dataset, name: str) -> npt.NDArray[np.int64]:
        """The class of every row of a split, int64 (N,) in [0, len(names)).

        Raises:
            DataError: a row without a label, or with one that is none of the classes.
        """
        stored = _stored(dataset, self.column)
        if not _all_labelled(stored):
            raise DataError(f"the column {self.column} of {name} has rows without a label")
        found: npt.NDArray[np.int64] = stored.to_numpy().astype(np.int64)
        values = np.array(self.values, dtype=np.int64)
        classes = np.searchsorted(values, found).clip(max=len(values) - 1)
        unknown = found[values[classes] != found]
        if len(unknown):
            raise DataError(
                f"the column {self.column} of {name} holds {unknown[0]}, which is none of its {len(values)} classes"
            )
        return classes


def find_image_column(dataset: Dataset, name: str, given: str | None) -> str:
    """The column with an Image feature, else the one called image; a named one may also hold paths or encoded files.

    Raises:
        DataError: there is none, there are several and none is named, or the named one holds no images.
    """
    features = dataset.features
    if given is not None:
        _check_exists(features, name, given)
        if not _may_hold_images(features[given]):
            raise DataError(
                f"the column {given} of {name} holds no images; its columns are {_listed_columns(features)}"
            )
        return given
    found = [str(column) for column, feature in features.items() if _holds_images(feature)]
    if not found and "image" in features and _may_hold_images(features["image"]):
        found = ["image"]
    if not found:
        raise DataError(
            f"{name} has no column of images; its columns are {_listed_columns(features)}. If one of them holds "
            "paths or encoded files, name it as image column"
        )
    if len(found) > 1:
        raise DataError(f"{name} has several columns of images: {', '.join(found)}; name one of them as image column")
    return found[0]


def find_labels(
    splits: Mapping[str, Dataset], name: str, given: str | None, *, must_choose: bool = False
) -> tuple[Labels | None, tuple[str, ...]]:
    """The classes of a dataset, by the rule at the top of this file, and what to tell the user.

    Args:
        splits: all that it has; they share their columns.
        name: what an error calls the dataset.
        given: the column that the user names.
        must_choose: refuse several columns that could hold the labels, rather than use none of them.

    Raises:
        DataError: the named column does not exist, holds no labels, or in no split for every row; or several columns
            hold labels and none is named.
    """
    features = next(iter(splits.values())).features
    if given is not None:
        _check_exists(features, name, given)
        if not _holds_labels(features[given]):
            raise DataError(
                f"the column {given} of {name} holds no labels; labels are a ClassLabel or integers, and its columns "
                f"are {_listed_columns(features)}"
            )
        if not any(_all_labelled(_stored(split, given)) for split in splits.values()):
            raise DataError(f"the column {given} of {name} has rows without a label; choose another or none")
        return _labels(splits, given), ()
    found = _label_columns(features)
    if len(found) > 1:
        columns = ", ".join(found)
        if must_choose:
            raise DataError(f"several columns of {name} hold labels: name one of {columns} with --label-column")
        return None, (f"there are several columns of labels, so none is used: {columns}; name one to use it",)
    if not found:
        return None, ()
    if not any(_all_labelled(_stored(split, found[0])) for split in splits.values()):
        return None, (f"the column {found[0]} has rows without a label, so it is not used",)
    return _labels(splits, found[0]), ()


def _label_columns(features: Mapping[str, FeatureType]) -> list[str]:
    if "label" in features and _holds_labels(features["label"]):
        return ["label"]
    found = [column for column, feature in features.items() if isinstance(feature, ClassLabel)]
    return found or [column for column in ("cls",) if column in features and _holds_labels(features[column])]


def _labels(splits: Mapping[str, Dataset], column: str) -> Labels:
    feature = next(iter(splits.values())).features[column]
    if isinstance(feature, ClassLabel):
        return Labels(column=column, names=tuple(feature.names), values=tuple(range(len(feature.names))))
    distinct = set().union(*(pc.unique(_stored(split, column)).to_pylist() for split in splits.values()))
    values = tuple(sorted(value for value in distinct if value is not None and value >= 0))
    return Labels(column=column, names=tuple(map(str, values)), values=values)


def _check_exists(features: Mapping[str, FeatureType], name: str, column: str) -> None:
    if column not in features:
        raise DataError(
            f"{name} has no column {column}; its columns are {_listed_columns(features)}."
            f"{did_you_mean(column, features)}"
        )


def _holds_images(feature: FeatureType) -> bool:
    stored = isinstance(feature, dict) and set(feature) == {"bytes", "path"}  # parquet that forgot its features
    return isinstance(feature, Image) or stored


def _holds_labels(feature: FeatureType) -> bool:
    return isinstance(feature, ClassLabel) or (isinstance(feature, Value) and "int" in feature.dtype)


def _may_hold_images(feature: FeatureType) -> bool:
    dtypes = ("binary", "large_binary", "string", "large_string")
    return _holds_images(feature) or (isinstance(feature, Value) and feature.dtype in dtypes)


def _stored(dataset: Dataset, column: str) -> pa.ChunkedArray:
    return dataset.select_columns([column]).with_format("arrow")[:][column]


def _all_labelled(stored: pa.ChunkedArray) -> bool:
    return stored.null_count == 0 and (len(stored) == 0 or pc.min(stored).as_py() >= 0)


def _listed_columns(features: Mapping[str, FeatureType]) -> str:
    return ", ".join(
        f"{column} ({feature.dtype if isinstance(feature, Value) else type(feature).__name__})"
        for column, feature in features.items()
    )
