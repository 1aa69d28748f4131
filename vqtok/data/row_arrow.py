"""Rows of an Arrow IPC stream or file, as `datasets` and vqtok itself write them.

A stream has no table of contents, and one that is cut between two record batches ends without an error wherever it is
read. So the headers of its messages are walked here, which touches none of the rows, up to the mark of its end. On this
machine each record batch is mapped into memory while its rows are read, and no longer.

https://arrow.apache.org/docs/format/Columnar.html#encapsulated-message-format
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import IO, NamedTuple

import pyarrow as pa
from datasets import Features

from vqtok.data.row_files import FoundFile, RowFile, mark

__all__ = ["ArrowFormat"]

MAGIC = b"ARROW1"
RECORD_BATCH = 3  # MessageHeader in Message.fbs
ROWS = 1000  # of a record batch that are handed on at a time


class Message(NamedTuple):
    """Where a message lies; `rows` is that of a record batch, None for any other."""

    start: int
    end: int
    rows: int | None


class ArrowFormat:
    """See `row_table.RowFormat`."""

    def measure(self, found: FoundFile) -> tuple[RowFile, pa.Schema]:
        rows, marks = 0, list[tuple[int, int]]()
        with found.open() as file:
            schema, first = _schema(file, found.size)
            for message in _messages(file, first, found.size):
                if message.rows is None:
                    raise ValueError("it holds dictionaries, which are not read")
                mark(marks, rows, message.start)
                rows += message.rows
        return RowFile(path=found.path, bytes=found.size, rows=rows, marks=tuple(marks)), schema

    def read(self, found: FoundFile, planned: RowFile, start: int, stop: int, features: Features) -> Iterator[pa.Table]:
        with found.open() as file:
            schema, _ = _schema(file, found.size)
            columns = [column for column in features if column in schema.names]
            row, byte = max((each for each in planned.marks if each[0] <= start), default=(0, found.size))
            for message in _messages(file, byte, found.size):
                begin, end = max(start - row, 0), min(stop - row, message.rows or 0)
                row += message.rows or 0
                if begin < end:
                    batch = pa.ipc.read_record_batch(_load(found, file, message), schema).select(columns)
                    batch.validate(full=True)
                    for first in range(begin, end, ROWS):
                        yield pa.Table.from_batches([batch.slice(first, min(ROWS, end - first))])
                if row >= stop:
                    return


def _load(found: FoundFile, file: IO[bytes], message: Message) -> pa.ipc.Message:
    if found.local is not None:
        mapped = pa.memory_map(found.local)  # stays for as long as its rows are in use
        mapped.seek(message.start)
        return pa.ipc.read_message(mapped)
    file.seek(message.start)
    return pa.ipc.read_message(pa.BufferReader(file.read(message.end - message.start)))


def _schema(file: IO[bytes], size: int) -> tuple[pa.Schema, int]:
    """The schema of a stream or file, and where what follows it begins."""
    begin = 8 if file.read(len(MAGIC)) == MAGIC else 0
    if begin:
        file.seek(size - len(MAGIC))
        if file.read() != MAGIC:
            raise ValueError("it was cut short: its end is missing")
    first = next(_messages(file, begin, size), None)
    if first is None:
        raise ValueError("it has no schema")
    file.seek(begin)
    return pa.ipc.read_schema(pa.py_buffer(file.read(first.end - begin))), first.end


def _messages(file: IO[bytes], byte: int, size: int) -> Iterator[Message]:
    """The messages from a place in a stream on, up to the mark of its end.

    Raises:
        ValueError: it was cut short.
    """
    while True:
        file.seek(byte)
        prefix = file.read(8)
        if len(prefix) < 8:
            raise ValueError(f"it was cut short or not finished: after {byte:,} bytes there is no mark of the end")
        marker, length = struct.unpack("<ii", prefix)
        skipped = 8
        if marker != -1:  # as Arrow wrote before 0.15
            skipped, length = 4, marker
        if length == 0:
            return
        if length < 0 or byte + skipped + length > size:
            raise ValueError(f"it was cut short or is damaged after {byte:,} bytes")
        file.seek(byte + skipped)
        rows, body = _header(file.read(length))
        end = byte + skipped + length + body
        if body < 0 or end > size:
            raise ValueError(f"it was cut short: a message ends at byte {end:,} of {size:,}")
        yield Message(byte, end, rows)
        byte = end


def _header(buffer: bytes) -> tuple[int | None, int]:
    """The rows of a record batch, and the bytes that follow the header of a message; a flatbuffer, see Message.fbs."""
    (table,) = struct.unpack_from("<I", buffer)
    (kind,) = _field(buffer, table, 1, "<B")
    (body,) = _field(buffer, table, 3, "<q")
    if kind != RECORD_BATCH:
        return None, body
    (offset,) = _field(buffer, table, 2, "<I")
    batch = _place(buffer, table, 2) + offset
    (rows,) = _field(buffer, batch, 0, "<q")
    if rows < 0:
        raise ValueError("a record batch says that it has fewer than no rows")
    return rows, body


def _field(buffer: bytes, table: int, number: int, kind: str) -> tuple[int]:
    place = _place(buffer, table, number)
    return struct.unpack_from(kind, buffer, place) if place else (0,)


def _place(buffer: bytes, table: int, number: int) -> int:
    """Where a field of a table lies, 0 where it has its default."""
    (back,) = struct.unpack_from("<i", buffer, table)
    fields = table - back
    (size,) = struct.unpack_from("<H", buffer, fields)
    if 4 + 2 * number >= size:
        return 0
    (offset,) = struct.unpack_from("<H", buffer, fields + 4 + 2 * number)
    return table + offset if offset else 0
