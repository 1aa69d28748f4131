"""Metadata files beside images: which images there are, and what else is known of each.

`datasets` reads them one by one; what no file names, or two do, is said here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, concatenate_datasets

from vqtok.data.folders import group_by_split
from vqtok.data.tables import build, loading, table_builder

__all__ = ["is_metadata", "read_metadata"]

METADATA = {"metadata.csv": "csv", "metadata.jsonl": "json", "metadata.parquet": "parquet"}


def is_metadata(path: Path) -> bool:
    """Whether a file says which images there are: called metadata, with a column file_name and at least one row."""
    kind = METADATA.get(path.name)
    if kind is None:
        return False
    try:
        if kind == "parquet":
            return "file_name" in pq.read_schema(path).names and pq.read_metadata(path).num_rows > 0
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline(1 << 16)
            if kind == "csv" and not any(map(str.strip, file)):
                return False
        names = json.loads(first) if kind == "json" else first.strip().replace('"', "").split(",")
    except (OSError, ValueError, RecursionError, pa.ArrowException):
        return False
    return isinstance(names, dict | list) and "file_name" in names


def read_metadata(folder: Path, name: str, files: Sequence[str]) -> dict[str, Dataset]:
    """The rows of metadata files beside images, whose splits are those of a folder of images.

    Args:
        files: those that are metadata, relative to the folder.

    Raises:
        DataError: files that cannot be read or name no images below them, no rows, or splits and others beside them.
    """
    own = os.path.join(os.path.realpath(folder), "")
    with loading(name):
        # One by one: read together, whichever comes first decides the columns of all.
        tables = [build(table_builder("imagefolder", {"train": [own + file]}), own)["train"] for file in files]
        paths = [_image_paths(table, own) for table in tables]
        groups = group_by_split(name, [path for found in paths for path in found])
        return {split: _below(prefix, tables, paths) for split, (prefix, _) in groups.items()}


def _image_paths(table: Dataset, own: str) -> list[str]:
    images = table.select_columns(["image"]).with_format("arrow")[:]["image"]
    return [(path or "").removeprefix(own) for path in pc.struct_field(images, "path").to_pylist()]


def _below(prefix: str, tables: Sequence[Dataset], paths: Sequence[Sequence[str]]) -> Dataset:
    """The rows of all tables whose paths begin so; a column that a table lacks holds nulls."""
    below = [[row for row, path in enumerate(found) if path.startswith(prefix)] for found in paths]
    return concatenate_datasets([table.select(rows) for table, rows in zip(tables, below, strict=True) if rows])
