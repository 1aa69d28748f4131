"""Rows of a dataset beside what `open_all` gives of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from vqtok.data import ImageSource, image_array, open_all
from vqtok.data.opening import OpenedRows, open_rows
from vqtok.data.rows import Rows


def opened(name: str | Path, folder: Path, **options: Any) -> OpenedRows:
    """The rows of a dataset, described as JSON and opened again."""
    found = open_rows(str(name), folder=folder, **options)
    for split, rows in found.splits.items():
        again = Rows.from_json(json.loads(json.dumps(rows.to_json(folder))), folder)
        assert again == rows
        found.splits[split] = again
    return found


def row_levels(rows: Rows, start: int = 0, stop: int | None = None, size: int = 3) -> list[int]:
    """The level of every image of a range."""
    stop = len(rows) if stop is None else stop
    images = [image for batch in rows.read(start, stop, size) for image in batch.images]
    return [int(image_array(image.data(), num_channels=1, size=(1, 1))[0, 0, 0]) for image in images]


def row_columns(rows: Rows, columns: list[str]) -> dict[str, list[Any]]:
    """The other columns of all rows."""
    return dict(pa.concat_tables(batch.columns for batch in rows.read(0, len(rows), 2, columns)).to_pydict())


def assert_same(name: str | Path, folder: Path, **options: Any) -> OpenedRows:
    """The rows of every split are those of `open_all`: their order, names, images and other columns."""
    wanted = open_all(str(name), **options)
    found = opened(name, folder, **options)
    assert list(found.splits) == list(wanted)
    for split, source in wanted.items():
        assert_same_split(found.splits[split], source)
        assert (found.resolved, found.revision) == (source.resolved, source.revision)
        assert set(found.notes) <= set(source.notes)
    return found


def assert_same_split(rows: Rows, source: ImageSource) -> None:
    assert (len(rows), rows.image_column, rows.split) == (len(source), source.image_column, source.split)
    assert rows.features == source.dataset.features
    images = [image for batch in rows.read(0, len(rows), 2) for image in batch.images]
    for image, same in zip(images, source.stored(range(len(source))), strict=True):
        assert image.data() == same.data()
        assert same.name in (image.name, str(same.data())) or rows.kind == "listing"
    others = [column for column in source.dataset.column_names if column != source.image_column]
    if others:
        assert row_columns(rows, others) == source.dataset.select_columns(others).with_format("arrow")[:].to_pydict()
