"""The images of one split in a fixed order, any range of them, from the files as they lie.

Nothing is copied into a cache and nothing is kept in memory: a range opens the files that it touches, reads its rows
and closes them. Files are counted once, when they are planned; whoever reads them later compares. Rows are described by
a JSON object, and opening one on another machine reads and lists nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from datasets import Features, Image
from datasets.table import table_cast
from pydantic import Field, NonNegativeInt

from vqtok.data.paths import DatasetRoot
from vqtok.data.row_files import RowFile, is_url
from vqtok.data.row_table import KINDS, FileTable
from vqtok.data.stored import StoredImage, row_name, stored_cells
from vqtok.errors import DataError
from vqtok.schema import checked

__all__ = ["SIZE_COLUMN", "RowBatch", "Rows"]

SIZE_COLUMN = "__bytes__"  # of a listing: the size of the file that an image is in, as the plan saw it
KEY_COLUMN = "__key__"  # of a tar file: the name of a row


@dataclass(frozen=True, kw_only=True)
class RowBatch:
    """Some rows of a split that follow each other.

    Attributes:
        start: the number of the first in the split.
        images: one each.
        columns: the other columns that were asked for; without rows where that is none.
    """

    start: int
    images: list[StoredImage]
    columns: pa.Table

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True, kw_only=True)
class Rows:
    """One split.

    Attributes:
        table: its files and columns.
        image_column: where the images are.
        name: the dataset as the user gave it.
        split: as the dataset calls it.
        root: where paths in it may lead.
    """

    table: FileTable
    image_column: str
    name: str
    split: str
    root: DatasetRoot = DatasetRoot()

    def __len__(self) -> int:
        return len(self.table)

    @property
    def kind(self) -> str:
        """How the rows lie: parquet, arrow, tar, webdataset, or listing for images in files of their own."""
        return self.table.kind

    @property
    def files(self) -> tuple[RowFile, ...]:
        """The files of rows, in order."""
        return self.table.files

    @cached_property
    def features(self) -> Features:
        """All columns of the dataset, the image column as Image(decode=False)."""
        columns = {column: feature for column, feature in self.table.features.items() if column != SIZE_COLUMN}
        return Features({**columns, self.image_column: Image(decode=False)})

    def read(self, start: int, stop: int, size: int, columns: Sequence[str] = ()) -> Iterator[RowBatch]:
        """The rows [start, stop), `size` at a time, the last batch shorter.

        Args:
            columns: those wanted beside the images; no others are read where the files allow it.

        Raises:
            DataError: a file that is not what the plan saw, or cannot be read; names it and says both.
            HubError: the Hub does not give it.
        """
        if not 0 <= start <= stop <= len(self) or size < 1:
            raise DataError(f"{self.name} has {len(self):,} rows, asked for {start:,} to {stop:,}, {size:,} at a time")
        unknown = [column for column in columns if column not in self.features or column == self.image_column]
        if unknown:
            raise DataError(f"{self.name} has no column {unknown[0]} beside its images")
        hidden = [SIZE_COLUMN] if self.kind == "listing" else [KEY_COLUMN] if KEY_COLUMN in self.table.features else []
        wanted = dict.fromkeys([self.image_column, *columns, *hidden])
        for table in _in_batches(self.table.read(start, stop, list(wanted)), size):
            yield RowBatch(start=start, images=self._images(table, start), columns=table.select(list(columns)))
            start += table.num_rows

    def _images(self, table: pa.Table, start: int) -> list[StoredImage]:
        schema = Features({self.image_column: Image(decode=False)}).arrow_schema
        cells = stored_cells(table_cast(table.select([self.image_column]), schema).column(0))
        keys = table[KEY_COLUMN].to_pylist() if KEY_COLUMN in table.column_names else [None] * len(cells)
        sizes = table[SIZE_COLUMN].to_pylist() if SIZE_COLUMN in table.column_names else [None] * len(cells)
        images = []
        for row, (cell, key, size) in enumerate(zip(cells, keys, sizes, strict=True), start):
            content, path = cell["bytes"], cell["path"]
            alone = content is None and path is not None  # an image in a file of its own is called after that
            name = str(path) if alone else row_name(row, self.name, self.split, path or key)
            images.append(
                StoredImage(name=name, content=content, path=path, column=self.image_column, root=self.root, size=size)
            )
        return images

    def to_json(self, base: str | os.PathLike[str] | None = None) -> dict[str, Any]:
        """A JSON object that says all of it.

        Args:
            base: a folder that may move; files below it are described from there.
        """
        files = [
            {key: value for key, value in asdict(file).items() if value} | {"path": _relative(file.path, base)}
            for file in self.files
        ]
        return {
            "kind": self.kind,
            "name": self.name,
            "split": self.split,
            "image_column": self.image_column,
            "features": self.table.features.to_dict(),
            "root": asdict(self.root),
            "streaming": self.table.streaming,
            "files": files,
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any], base: str | os.PathLike[str] | None = None) -> Rows:
        """The rows of such an object; nothing is read.

        Args:
            base: where the folder of `to_json` is now; it may be an address.

        Raises:
            DataError: the object is none of `to_json`.
        """
        found = checked(_Description, values, name="the description of rows", error=DataError)
        if found.kind not in KINDS:
            raise DataError(f"the rows are of the kind {found.kind}, and only {', '.join(KINDS)} are known")
        files = (
            RowFile(
                path=_absolute(file.path, base),
                bytes=file.bytes,
                rows=file.rows,
                marks=tuple((row, byte) for row, byte in file.marks),
                sha256=file.sha256,
            )
            for file in found.files
        )
        try:
            features = Features.from_dict(found.features)
        except (TypeError, ValueError, KeyError, AttributeError) as error:
            raise DataError(f"the features in the description of rows are damaged: {error}") from error
        if found.image_column not in features:
            raise DataError(f"the description of rows has no column {found.image_column}, where their images are to be")
        return cls(
            table=FileTable(kind=found.kind, features=features, files=tuple(files), streaming=found.streaming),
            image_column=found.image_column,
            name=found.name,
            split=found.split,
            root=DatasetRoot(**asdict(found.root)),
        )


@dataclass(frozen=True)
class _File:
    path: str
    bytes: NonNegativeInt = 0
    rows: Annotated[int, Field(ge=0, lt=2**48)] = 0
    marks: list[tuple[int, int]] = field(default_factory=list)
    sha256: str | None = None


@dataclass(frozen=True)
class _Root:
    folder: str | None
    follow_links: bool


@dataclass(frozen=True)
class _Description:
    kind: str
    name: str
    split: str
    image_column: str
    features: dict[str, Any]
    root: _Root
    streaming: bool
    files: list[_File]


def _in_batches(tables: Iterator[pa.Table], size: int) -> Iterator[pa.Table]:
    """The same rows in tables of `size` rows, the last shorter."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        while rows + table.num_rows >= size:
            yield pa.concat_tables([*waiting, table.slice(0, size - rows)])
            table, waiting, rows = table.slice(size - rows), [], 0
        if table.num_rows:
            waiting.append(table)
            rows += table.num_rows
    if waiting:
        yield pa.concat_tables(waiting)


def _relative(path: str, base: str | os.PathLike[str] | None) -> str:
    prefix = os.path.join(os.path.abspath(base), "") if base is not None else ""
    return Path(path.removeprefix(prefix)).as_posix() if prefix and path.startswith(prefix) else path


def _absolute(path: str, base: str | os.PathLike[str] | None) -> str:
    if os.path.isabs(path) or is_url(path):
        return path
    if base is None:
        raise DataError(f"the rows are described from a folder, which is not given: {path}")
    where = os.fspath(base)
    return f"{where.rstrip('/')}/{path}" if is_url(where) else os.path.join(os.path.abspath(where), path)
