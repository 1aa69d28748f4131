"""Rows of a Parquet file: only the columns asked for, of the row groups that a range touches."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features

from vqtok.data.row_files import FoundFile, RowFile, check_rows

__all__ = ["ParquetFormat"]

BUFFER = 4 << 20  # bytes of a column that are read at a time, rather than the whole of it in a row group
BATCH = 256  # rows at most
HARDLY = 8  # times that encoded images compress at most
BATCH_BYTES = 64 << 20  # of them, by the mean of their row groups: of images, Arrow hands on up to 2 GB at a time


class ParquetFormat:
    """See `row_table.RowFormat`."""

    def measure(self, found: FoundFile) -> tuple[RowFile, pa.Schema]:
        with found.open() as file, pq.ParquetFile(file) as parquet:
            rows = RowFile(path=found.path, bytes=found.size, rows=parquet.metadata.num_rows)
            return rows, parquet.schema_arrow

    def read(self, found: FoundFile, planned: RowFile, start: int, stop: int, features: Features) -> Iterator[pa.Table]:
        with found.open() as file, pq.ParquetFile(file, buffer_size=BUFFER, pre_buffer=False) as parquet:
            check_rows(planned, parquet.metadata.num_rows)
            groups, first = _groups(parquet.metadata, start, stop)
            columns = [column for column in features if column in parquet.schema_arrow.names]
            size = _batch_rows(parquet.metadata, groups, columns)
            for batch in parquet.iter_batches(size, row_groups=groups, columns=columns, use_threads=False):
                begin, end = max(start - first, 0), min(stop - first, batch.num_rows)
                first += batch.num_rows
                if begin < end:
                    yield pa.Table.from_batches([batch.slice(begin, end - begin)])
                if first >= stop:
                    return


def _groups(metadata: pq.FileMetaData, start: int, stop: int) -> tuple[list[int], int]:
    """The row groups that a range touches, and the row that the first of them begins with."""
    groups: list[int] = []
    first = begin = 0
    for group in range(metadata.num_row_groups):
        end = begin + metadata.row_group(group).num_rows
        if begin < stop and start < end:
            first = first if groups else begin
            groups.append(group)
        begin = end
    return groups, first


def _batch_rows(metadata: pq.FileMetaData, groups: list[int], columns: list[str]) -> int:
    """How many rows of these row groups may be read at a time: of large images fewer."""
    found = [metadata.row_group(group) for group in groups]
    largest = max((group.total_byte_size // max(1, group.num_rows) for group in found), default=0)
    for group in found:
        for chunk in map(group.column, range(group.num_columns)):
            if chunk.path_in_schema.partition(".")[0] in columns and _may_repeat(chunk):
                largest = max(largest, chunk.total_uncompressed_size)
    return max(1, min(BATCH, BATCH_BYTES // max(1, largest)))


def _may_repeat(chunk: pq.ColumnChunkMetaData) -> bool:
    """Whether each row may hold as much as the whole: one value that all rows refer to, which is stored once.

    A file of a kilobyte can so become gigabytes. Encoded images do not compress.
    """
    by_reference = any("DICTIONARY" in encoding for encoding in chunk.encodings)
    return by_reference and bool(chunk.total_uncompressed_size > HARDLY * max(1, chunk.total_compressed_size))
