"""Grids of codes as a column of Arrow, whose memory they share, and back."""

from __future__ import annotations

from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vqtok.codes.spec import COLUMN, Grids
from vqtok.errors import DataError

__all__ = ["check_offsets", "grid_array", "grid_feature", "grids_in", "view"]


def grid_array(grids: npt.NDArray[Any], feature: Grids) -> pa.ExtensionArray:
    """Turn grids (B, h, w[, Q]) into a column of `Array2D` or `Array3D` that shares their memory."""
    storage: pa.Array = pa.array(grids.reshape(-1))
    for length in reversed(grids.shape[1:]):
        offsets = pa.array(np.arange(0, len(storage) + 1, length, dtype=np.int32))
        storage = pa.ListArray.from_arrays(offsets, storage)
    return pa.ExtensionArray.from_storage(feature(), storage)


def grid_feature(dataset: datasets.Dataset) -> Grids:
    """The feature of the column of grids.

    Raises:
        DataError: there is no such column.
    """
    feature = dataset.features.get(COLUMN)
    if not isinstance(feature, Grids):
        columns = ", ".join(dataset.column_names)
        raise DataError(f"no column {COLUMN!r} of code grids here, only {columns}: make codes with `vqtok tokenize`")
    return feature


def view(chunk: pa.Array, feature: Grids) -> npt.NDArray[Any]:
    """View the values under the nested lists of a chunk as (n, *shape), whose lengths and places the file itself says.

    Args:
        chunk: grids as `datasets` types them, or the nested lists alone.
        feature: what they should be.

    Raises:
        DataError: some rows have no codes, or not as many of them.
    """
    check_offsets(chunk, feature)
    return _values(chunk, feature)


def grids_in(chunk: pa.Array, feature: Grids) -> npt.NDArray[Any]:
    """The same, but of the places of lists only the first and last are read: `check_offsets` looks at all.

    Raises:
        DataError: rows without codes, more or fewer codes than so many grids have, or codes of another type.
    """
    grids = _values(chunk, feature)
    if grids.dtype != feature.dtype:
        raise _other_grids(feature)
    return grids


def check_offsets(chunk: pa.Array, feature: Grids) -> None:
    """Read the places of all lists of a chunk, an eighth of its bytes at 16x16 codes, and look that each is a grid's.

    Raises:
        DataError: lists of other lengths than the shape says, or without values.
    """
    values = _lists(chunk)
    try:
        values.validate(full=True)
        for length in feature.shape:
            if (np.diff(values.offsets) != length).any():
                raise ValueError
            values = values.flatten()
    except (ValueError, AttributeError) as error:
        raise _other_grids(feature) from error


def _values(chunk: pa.Array, feature: Grids) -> npt.NDArray[Any]:
    values = _lists(chunk)
    try:
        for _ in feature.shape:
            values.validate()  # Arrow would read outside of the file
            values = values.flatten()
        values.validate()
        grids: npt.NDArray[Any] = values.to_numpy(zero_copy_only=True)
        return grids.reshape(len(chunk), *feature.shape)
    except (ValueError, AttributeError) as error:  # of Arrow also where a code is missing
        raise _other_grids(feature) from error


def _lists(chunk: pa.Array) -> pa.Array:
    if chunk.null_count:
        raise DataError(f"{chunk.null_count} rows have no codes: drop them with `dataset.filter`")
    return chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk


def _other_grids(feature: Grids) -> DataError:
    shape = " x ".join(map(str, feature.shape))
    return DataError(f"some grids are not {shape} codes, as their column says: tokenize the images again")
