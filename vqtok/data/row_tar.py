"""Rows of a tar file in the form of webdataset: what lies side by side and has the same name up to its first dot.

An archive that is cut between two members, or whose next header is damaged, ends without an error wherever it is read.
So its headers are walked up to the mark of its end, two blocks of zeros, and the data of a member only where its row is
asked for. Names, fields and their contents are those of `datasets` and of `shards.py`.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from typing import IO, Any, NamedTuple

import pyarrow as pa
from datasets import Dataset, Features, Image, Value
from datasets.packaged_modules.webdataset.webdataset import WebDataset, base_plus_ext

from vqtok.data.row_files import FoundFile, RowFile, mark
from vqtok.data.shards import Shards, bounded

__all__ = ["TarFormat"]

ROWS, BYTES = 64, 64 << 20  # that are made at a time, of which a table of large images has few


class Member(NamedTuple):
    """A file in an archive, and the number of the row that it belongs to."""

    row: int
    info: tarfile.TarInfo


class TarFormat:
    """See `row_table.RowFormat`.

    Args:
        by_suffix: leave images in columns called as their files end, as `datasets` does, rather than as `shards.py`.
    """

    def __init__(self, *, by_suffix: bool = False) -> None:
        self.by_suffix = by_suffix

    def measure(self, found: FoundFile) -> tuple[RowFile, None]:
        rows, marks = 0, list[tuple[int, int]]()
        with found.open() as file, tarfile.open(fileobj=file, mode="r:") as archive:
            for member in _members(archive, file, 0):
                mark(marks, member.row, member.info.offset)
                rows = member.row + 1
        return RowFile(path=found.path, bytes=found.size, rows=rows, marks=tuple(marks)), None

    def read(self, found: FoundFile, planned: RowFile, start: int, stop: int, features: Features) -> Iterator[pa.Table]:
        row, byte = max((each for each in planned.marks if each[0] <= start), default=(0, 0))
        with found.open() as file:
            file.seek(byte)
            with tarfile.open(fileobj=file, mode="r:") as archive:
                members = self._contents(archive, _members(archive, file, row), start, stop, features)
                examples: list[dict[str, Any]] = []
                size = 0
                for example in WebDataset._get_pipeline_from_tar(found.path, bounded(members)):
                    examples.append(example if self.by_suffix else Shards.renamed(example, features))
                    size += sum(len(value) for value in example.values() if isinstance(value, bytes))
                    if len(examples) == ROWS or size >= BYTES:
                        yield _table(examples, features)
                        examples, size = [], 0
                if examples:
                    yield _table(examples, features)

    def _contents(
        self, archive: tarfile.TarFile, members: Iterator[Member], start: int, stop: int, features: Features
    ) -> Iterator[tuple[str, IO[bytes] | None]]:
        """The names and contents of the members of some rows; what is in no column that is wanted is left empty."""
        for number, member in enumerate(members):
            if member.row >= stop:
                return
            if member.row < start:
                continue
            key, field = base_plus_ext(member.info.name)
            if field in features or (not self.by_suffix and Shards.column(field, features) in features):
                yield member.info.name, archive.extractfile(member.info)
            else:
                yield f"{key}.{number} left out", io.BytesIO()


def _members(archive: tarfile.TarFile, file: IO[bytes], row: int) -> Iterator[Member]:
    """The files of an archive from where it is opened on, the first of them in the row of that number.

    Raises:
        ValueError: it was cut short.
        tarfile.TarError: so it was, or it is damaged.
    """
    last = None
    while (info := archive.next()) is not None:
        archive.members = []  # type: ignore[attr-defined]  # else it keeps all of them
        if info.issparse():
            raise ValueError(f"{info.name} is sparse: most of it is not in the archive")
        if not info.isreg() or os.path.basename(info.name).startswith((".", "__")):
            continue
        key, _ = base_plus_ext(info.name)
        if key is None:
            continue
        row += last is not None and key != last
        last = key
        yield Member(row, info)
    file.seek(archive.offset)
    if (block := file.read(tarfile.BLOCKSIZE)) != tarfile.NUL * tarfile.BLOCKSIZE:
        how = "is damaged" if len(block) == tarfile.BLOCKSIZE else "was cut short or not finished"
        raise ValueError(f"it {how}: after {archive.offset:,} bytes there is no mark of the end")


def _table(examples: list[dict[str, Any]], features: Features) -> pa.Table:
    columns = {}
    for column, feature in features.items():
        if isinstance(feature, Image):  # what `datasets` makes of it, without a writer of its own
            cells = [
                None if content is None else {"bytes": content, "path": f"{example['__key__']}.{column}"}
                for example in examples
                for content in (example.get(column),)
            ]
            columns[column] = pa.array(cells, feature.pa_type)
        elif isinstance(feature, Value):
            found = (example.get(column) for example in examples)
            columns[column] = pa.array(
                [None if value is None else feature.encode_example(value) for value in found], feature.pa_type
            )
        else:
            values = {column: [example.get(column) for example in examples]}
            columns[column] = Dataset.from_dict(values, features=Features({column: feature})).data.column(column)
    return pa.table(columns)
