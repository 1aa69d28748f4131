"""Which columns of a dataset hold the images and the labels, and what the labels mean: one rule for images and codes.

The column of labels is the one that the user names; else the one called label, if it is a ClassLabel or integers; else
the only ClassLabel; else integers called cls, as webdataset archives have them. Splits need not have the same columns.
A ClassLabel brings the names of its classes, which every split may number in its own way; without names it counts as
integers. Of these the distinct values of all splits, in ascending order, are the classes, and their digits the names:
3, 5, 7 and 3000000 are four classes. A row without a label holds null, a negative number, as test splits on the Hub do
with -1, or one of 2^63 and more. A split in which any row has no label counts as a split without labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from datasets import ClassLabel, Dataset, Image, Value
from datasets.features.features import FeatureType

from vqtok.errors import DataError, did_you_mean

__all__ = ["Labels", "find_image_column", "find_label_column", "find_labels"]


@dataclass(frozen=True, kw_only=True)
class Labels:
    """The classes of a dataset's images.

    Attributes:
        column: where they are.
        names: what they are called; class i is names[i].
        values: what the column holds for each class where it is not a ClassLabel, ascending.
    """

    column: str
    names: tuple[str, ...]
    values: tuple[int, ...]

    def are_in(self, dataset: Dataset) -> bool:
        """Whether every row of a split has a label."""
        return bool(_holding({"": dataset}, self.column)) and _all_labelled(_stored(dataset, self.column))

    def of(self, dataset: Dataset, name: str) -> npt.NDArray[np.int64]:
        """The class of every row of a split, int64 (N,) in [0, len(names)).

        Raises:
            DataError: a row without a label, or with one that is none of the classes.
        """
        stored = _stored(dataset, self.column)
        if not _all_labelled(stored):
            raise DataError(f"the column {self.column} of {name} has rows without a label")
        found: npt.NDArray[np.int64] = stored.to_numpy().astype(np.int64)
        feature = dataset.features[self.column]
        named = isinstance(feature, ClassLabel) and feature.num_classes > 0
        values = np.array(range(feature.num_classes) if named else self.values, dtype=np.int64)
        positions = np.searchsorted(values, found).clip(max=len(values) - 1)
        unknown = found[values[positions] != found]
        if len(unknown):
            raise DataError(
                f"the column {self.column} of {name} holds {unknown[0]}, which is none of its {len(values)} classes"
            )
        classes: npt.NDArray[np.int64] = np.array(
            [self.names.index(each) for each in feature.names] if named else range(len(values))
        )
        return classes.take(positions)


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
            "paths or encoded files, name it as image_column"
        )
    if len(found) > 1:
        raise DataError(f"{name} has several columns of images: {', '.join(found)}; name one of them as image_column")
    return found[0]


def find_labels(
    splits: Mapping[str, Dataset], name: str, given: str | None, *, must_choose: bool = False
) -> tuple[Labels | None, tuple[str, ...]]:
    """The classes of a dataset, by the rule at the top of this file, and what to tell the user.

    Args:
        splits: all that it has.
        name: what an error calls the dataset.
        given: the column that the user names.
        must_choose: refuse several columns that could hold the labels, rather than use none of them.

    Raises:
        DataError: the named column does not exist, holds no labels, or in no split for every row; or several columns
            hold labels and none is named.
    """
    features = {column: each for split in reversed([*splits.values()]) for column, each in split.features.items()}
    if given is not None:
        _check_exists(features, name, given)
        holding = _holding(splits, given)
        if not holding:
            raise DataError(
                f"the column {given} of {name} holds no labels; labels are a ClassLabel or integers, and its columns "
                f"are {_listed_columns(features)}"
            )
        if not any(_all_labelled(_stored(split, given)) for split in holding.values()):
            raise DataError(f"the column {given} of {name} has rows without a label; choose another or none")
        return _labels(holding, given), ()
    found = _label_columns(splits, list(features))
    if len(found) > 1:
        columns = ", ".join(found)
        if must_choose:
            raise DataError(f"several columns of {name} hold labels: set label_column to one of {columns}")
        return None, (f"there are several columns of labels, so none is used: {columns}; name one to use it",)
    if not found and "label" in features:
        found_type = _listed_columns({"label": features["label"]})
        return None, (f"the column {found_type} is not used: labels are a ClassLabel or integers without empty cells",)
    if not found:
        return None, ()
    holding = _holding(splits, found[0])
    if not any(_all_labelled(_stored(split, found[0])) for split in holding.values()):
        return None, (f"the column {found[0]} has rows without a label, so it is not used",)
    return _labels(holding, found[0]), ()


def find_label_column(splits: Mapping[str, Dataset]) -> str | None:
    """The column that the rule at the top of this file finds by names and types: whether rows lack it is not read."""
    columns = dict.fromkeys(column for split in splits.values() for column in split.features)
    found = _label_columns(splits, list(columns))
    return found[0] if len(found) == 1 else None


def _holding(splits: Mapping[str, Dataset], column: str) -> dict[str, Dataset]:
    """The splits that have labels in a column, if only for some of their rows."""
    return {
        name: split
        for name, split in splits.items()
        if column in split.features and _holds_labels(split.features[column])
    }


def _label_columns(splits: Mapping[str, Dataset], columns: Sequence[str]) -> list[str]:
    if _holding(splits, "label"):
        return ["label"]
    named = [
        column
        for column in columns
        if any(isinstance(split.features.get(column), ClassLabel) for split in splits.values())
    ]
    return named or [column for column in ("cls",) if _holding(splits, column)]


def _labels(holding: Mapping[str, Dataset], column: str) -> Labels:
    features = [split.features[column] for split in holding.values()]
    names = [name for feature in features if isinstance(feature, ClassLabel) for name in feature.names]
    if names:
        distinct_names = tuple(dict.fromkeys(names))
        return Labels(column=column, names=distinct_names, values=tuple(range(len(distinct_names))))
    distinct = set().union(*(pc.unique(_stored(split, column)).to_pylist() for split in holding.values()))
    values = tuple(sorted(value for value in distinct if value is not None and 0 <= value < 2**63))
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
    dtypes = ("binary", "large_binary", "binary_view", "string", "large_string", "string_view")
    return _holds_images(feature) or (isinstance(feature, Value) and feature.dtype in dtypes)


def _stored(dataset: Dataset, column: str) -> pa.ChunkedArray:
    return dataset.select_columns([column]).with_format("arrow")[:][column]


def _all_labelled(stored: pa.ChunkedArray) -> bool:
    return stored.null_count == 0 and (
        len(stored) == 0 or (pc.min(stored).as_py() >= 0 and pc.max(stored).as_py() < 2**63)
    )


def _listed_columns(features: Mapping[str, FeatureType]) -> str:
    return ", ".join(
        f"{column} ({feature.dtype if isinstance(feature, Value) else type(feature).__name__})"
        for column, feature in features.items()
    )
