"""The rows of several files of one kind as one table, read in any range, with the features that it has."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import Protocol

import pyarrow as pa
from datasets import Features
from datasets.table import CastError, table_cast
from tqdm import tqdm

from vqtok.data.row_arrow import ArrowFormat
from vqtok.data.row_files import FoundFile, RowFile, check_bytes, check_rows, find_file, reading
from vqtok.data.row_parquet import ParquetFormat
from vqtok.data.row_tar import TarFormat
from vqtok.errors import DataError, VqtokError, one_line
from vqtok.retries import Attempts, persistently

__all__ = ["KINDS", "FileTable", "RowFormat", "measure_files"]

MEASURING_THREADS = 16  # files whose headers are read at a time: most of that is waiting


class RowFormat(Protocol):
    """How the rows of one kind of file are counted and read."""

    def measure(self, found: FoundFile) -> tuple[RowFile, pa.Schema | None]:
        """Count the rows of a file without reading them; and its schema, where it has one.

        Raises:
            Exception: the file is damaged or was cut short; `row_files.reading` knows which ones.
        """

    def read(self, found: FoundFile, planned: RowFile, start: int, stop: int, features: Features) -> Iterator[pa.Table]:
        """The rows [start, stop) of a file, in tables of any length that fit into memory.

        Args:
            features: the columns that are wanted; a file need not have all, and types may be others.
        """


FORMATS: dict[str, RowFormat] = {
    "parquet": ParquetFormat(),
    "arrow": ArrowFormat(),
    "listing": ArrowFormat(),  # of images in files of their own, see listing.py
    "tar": TarFormat(),
    "webdataset": TarFormat(by_suffix=True),  # a column for every suffix, where somebody declared them so
}
KINDS = tuple(FORMATS)


@dataclass(frozen=True, kw_only=True)
class FileTable:
    """Rows that lie in files.

    Attributes:
        kind: one of `KINDS`.
        features: all columns.
        files: in the order of their rows.
        streaming: read files of the Hub where they are, rather than download them.
    """

    kind: str
    features: Features
    files: tuple[RowFile, ...]
    streaming: bool = False

    def __len__(self) -> int:
        return self._ends[-1] if self.files else 0

    def read(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The rows [start, stop) in tables of any length, of the columns asked for with their features.

        Raises:
            DataError: a file that is not what the plan saw, or cannot be read; names it and says both.
            HubError: the Hub does not give it.
        """
        features = Features({column: self.features[column] for column in columns})
        number = bisect.bisect_right(self._ends, start)
        while start < stop:
            file = self.files[number]
            first = self._ends[number] - file.rows
            end = min(stop, self._ends[number])
            yield from self._read_file(file, start - first, end - first, features)
            start, number = end, number + 1

    def _read_file(self, file: RowFile, start: int, stop: int, features: Features) -> Iterator[pa.Table]:
        """The rows of one file; where a server that is busy or a connection that breaks ends that, from there on."""
        rows, attempts = start, Attempts(f"reading {file.path}")
        while rows < stop:
            try:
                with reading(file.path, file):
                    found = find_file(file.path, streaming=self.streaming, planned=file)
                    check_bytes(found, file)
                    for table in FORMATS[self.kind].read(found, file, rows, stop, features):
                        rows += table.num_rows
                        attempts = Attempts(attempts.doing)
                        yield table_cast(table, features.arrow_schema)
                break
            except VqtokError as error:
                if not attempts.again(error):
                    raise
        if rows != stop:
            check_rows(file, rows)

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(file.rows for file in self.files))


def measure_files(
    kind: str,
    paths: Sequence[str],
    *,
    features: Features | None,
    name: str,
    streaming: bool = False,
    progress: bool = False,
) -> tuple[RowFile, ...]:
    """Count the rows and bytes of files, several at a time.

    Args:
        features: what their columns must fit to, if that is not known yet.
        name: what a bar calls the dataset.
        progress: show a bar on a terminal.

    Raises:
        DataError: a file that cannot be read, was cut short, or has other columns; names it.
    """

    def found(path: str) -> tuple[RowFile, pa.Schema | None]:
        with reading(path):
            return FORMATS[kind].measure(find_file(path, streaming=streaming))

    def measure(path: str) -> RowFile:
        rows, schema = persistently(lambda: found(path), f"reading {path}")
        if schema is not None and features is not None:
            try:
                table_cast(schema.empty_table(), features.arrow_schema)
            except (CastError, TypeError, ValueError, pa.ArrowException) as error:
                raise DataError(f"{path} has other columns than {paths[0]}: {one_line(error)}") from error
        return rows

    hidden = None if progress else True
    with (
        ThreadPoolExecutor(min(MEASURING_THREADS, len(paths) or 1)) as pool,
        tqdm(total=len(paths), desc=f"counting {name}", unit=" files", delay=2.0, disable=hidden) as bar,
    ):
        files = []
        for file in pool.map(measure, paths):
            files.append(file)
            bar.update()
    return tuple(files)
