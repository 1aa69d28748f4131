"""One image as a dataset stores it: its bytes, or a path to follow with care."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from vqtok.data.images import open_file
from vqtok.data.paths import DatasetRoot
from vqtok.errors import DataError, one_line
from vqtok.text import counted

__all__ = ["StoredImage", "row_name", "stored_cells"]


@dataclass(frozen=True, kw_only=True)
class StoredImage:
    """An image that is not decoded yet.

    Attributes:
        name: what an error calls it.
        content: the bytes of an encoded image, if the dataset holds them.
        path: else where it is, as the dataset says.
        column: where the dataset has it.
        root: where its path may lead.
        size: bytes of the file behind the path when the dataset was listed, if that is known.
    """

    name: str
    content: bytes | None
    path: str | None
    column: str
    root: DatasetRoot
    size: int | None = None

    def read(self, most: int) -> bytes:
        """The bytes of the encoded image, wherever it lies.

        Raises:
            DataError: as `data`, or it cannot be read, or has more than `most` bytes.
        """
        found = self.data()
        if isinstance(found, bytes):
            self._check_kept(len(found), most)
            return found
        with open_file(found, self.name) as file:
            self._check_kept(os.fstat(file.fileno()).st_size, most)
            try:
                return file.read()
            except OSError as error:
                raise DataError(f"{self.name} cannot be read: {one_line(error)}") from error

    def _check_kept(self, size: int, most: int) -> None:
        if size > most:
            raise DataError(f"{self.name} has {size:,} bytes, and an image that is kept may have {most:,}")

    def data(self) -> bytes | Path:
        """What to decode: the bytes, else the file that the path leads to.

        Raises:
            DataError: there is neither, the path leads out of the dataset's own folder, or the file has another size
                than when it was listed.
        """
        if self.content is not None:
            return self.content
        if self.path is None:
            raise DataError(f"{self.name} holds no image in the column {self.column}")
        file = self.root.find(self.path, self.name)
        if self.size is not None and file.is_file() and (now := os.path.getsize(file)) != self.size:
            raise DataError(
                f"{self.name} has changed: it had {counted(self.size, 'byte')} when it was listed, and has {now:,} now"
            )
        return file


def stored_cells(images: pa.ChunkedArray) -> list[dict[str, Any]]:
    """A column of struct<bytes, path> as {"bytes": bytes | None, "path": str | None} each."""
    contents = pc.struct_field(images, "bytes").to_pylist()
    paths = pc.struct_field(images, "path").cast(pa.binary()).to_pylist()  # whoever wrote them may not know UTF-8
    names = [None if path is None else path.decode(errors="backslashreplace") for path in paths]
    return [{"bytes": content, "path": name} for content, name in zip(contents, names, strict=True)]


def row_name(row: int, name: str, split: str, file: str | None) -> str:
    """What an error calls a row whose image is no file of its own; `file` is what the dataset calls it, if anything."""
    return f"row {row} of {name}, split {split}{f' ({file})' if file else ''}"
