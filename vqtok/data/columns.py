"""Which columns of a dataset hold the images and the labels: found by their feature type, or named by the user."""

from __future__ import annotations

import numpy as np
from datasets import ClassLabel, Dataset, Image, Value
from datasets.features.features import FeatureType

from vqtok.errors import DataError, did_you_mean

__all__ = ["find_image_column", "find_label_column"]


def find_image_column(dataset: Dataset, name: str, given: str | None) -> str:
    """The column with an Image feature; a named one may also hold paths or encoded files.

    Raises:
        DataError: there is none, there are several and none is named, or the named one holds no images.
    """
    features = dataset.features
    if given is not None:
        _check_exists(features, name, given)
        if not (
            _holds_images(features[given]) or _is(features[given], "binary", "large_binary", "string", "large_string")
        ):
            raise DataError(
                f"the column {given} of {name} holds no images; its columns are {_listed_columns(features)}"
            )
        return given
    found = [column for column, feature in features.items() if _holds_images(feature)]
    if not found:
        raise DataError(
            f"{name} has no column of images; its columns are {_listed_columns(features)}. If one of them holds "
            "paths or encoded files, name it as image column"
        )
    if len(found) > 1:
        raise DataError(f"{name} has several columns of images: {', '.join(found)}; name one of them as image column")
    return str(found[0])


def find_label_column(dataset: Dataset, name: str, given: str | None) -> tuple[str | None, tuple[str, ...]]:
    """The column called label, if it is a ClassLabel or integers, else the only ClassLabel; and what to tell the user.

    Raises:
        DataError: the named column does not exist, holds no labels, or not for every row.
    """
    features = dataset.features
    if given is not None:
        _check_exists(features, name, given)
        if not _holds_labels(features[given]):
            raise DataError(
                f"the column {given} of {name} holds no labels (a ClassLabel or integers); its columns are "
                f"{_listed_columns(features)}"
            )
        if not _all_labelled(dataset, given):
            raise DataError(f"the column {given} of {name} has rows without a label; choose another or none")
        return given, ()
    found = [column for column, feature in features.items() if isinstance(feature, ClassLabel)]
    if "label" in features and _holds_labels(features["label"]):
        found = ["label"]
    if len(found) > 1:
        return None, (f"there are several columns of labels, so none is used: {', '.join(found)}; name one to use it",)
    if found and not _all_labelled(dataset, found[0]):
        return None, (f"the column {found[0]} has rows without a label, so it is not used",)
    return (found[0] if found else None), ()


def _check_exists(features: dict[str, FeatureType], name: str, column: str) -> None:
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


def _is(feature: FeatureType, *dtypes: str) -> bool:
    return isinstance(feature, Value) and feature.dtype in dtypes


def _all_labelled(dataset: Dataset, column: str) -> bool:
    """Hub test splits without labels carry -1 or null."""
    values = dataset.select_columns([column]).with_format("arrow")[:][column]
    return values.null_count == 0 and int(np.min(np.asarray(values))) >= 0


def _listed_columns(features: dict[str, FeatureType]) -> str:
    return ", ".join(
        f"{column} ({feature.dtype if isinstance(feature, Value) else type(feature).__name__})"
        for column, feature in features.items()
    )
