"""What lies in one folder, sorted, in memory that does not grow with it."""

from __future__ import annotations

import heapq
import os
import tempfile
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa

from vqtok.errors import DataError

__all__ = ["folder_entries", "sub_folders"]

KINDS = ("file", "special", "folder", "linked folder")
FOLDER = KINDS.index("folder")
RUN = 1 << 14  # entries that are sorted at a time
BLOCK = 1 << 9  # entries of each run that are merged at a time
SCHEMA = pa.schema({"last": pa.bool_(), "name": pa.binary(), "kind": pa.uint8()})

Entry = tuple[bool, bytes, int]  # whether it comes last, as folders do; its name; its kind


def folder_entries(folder: Path) -> Iterator[tuple[str, str]]:
    """The kind and name of all that is in a folder and not hidden, files before folders, each in the order of names.

    A kind is "file", also for a link that leads to nothing; "folder"; "linked folder"; or "special" for pipes, devices
    and links that lead to themselves.

    Raises:
        DataError: the folder may not be read.
    """
    for _, name, kind in _in_order(_scan(folder)):  # UTF-8 sorts as its characters do
        yield KINDS[kind], os.fsdecode(name)


def sub_folders(folder: Path) -> list[tuple[str, bool]]:
    """The names of the folders in a folder that are not hidden, and whether each is a link, in no order.

    Raises:
        DataError: the folder may not be read.
    """
    entries = ((os.fsdecode(name), KINDS[kind]) for _, name, kind in _scan(folder))
    return [(name, kind == "linked folder") for name, kind in entries if kind in ("folder", "linked folder")]


def _in_order(entries: Iterator[Entry]) -> Iterator[Entry]:
    """The same entries, sorted: where there are many, runs of them in a temporary file, merged."""
    run = _next_run(entries)
    if len(run) < RUN:
        yield from run
        return
    with tempfile.TemporaryFile(prefix="vqtok-") as file:
        runs = []
        blocks = 0
        with pa.ipc.new_file(pa.PythonFile(file, "w"), SCHEMA) as writer:
            while run:
                columns = zip(SCHEMA.names, zip(*run, strict=True), strict=True)
                writer.write_table(pa.table({name: list(values) for name, values in columns}, SCHEMA), BLOCK)
                runs.append(range(blocks, blocks := blocks + -(-len(run) // BLOCK)))
                run = _next_run(entries)
        reader = pa.ipc.open_file(pa.PythonFile(file, "r"))
        yield from heapq.merge(*(_read(reader, numbers) for numbers in runs))


def _next_run(entries: Iterator[Entry]) -> list[Entry]:
    return sorted(islice(entries, RUN))


def _read(reader: pa.ipc.RecordBatchFileReader, blocks: range) -> Iterator[Entry]:
    for number in blocks:
        yield from zip(*(column.to_pylist() for column in reader.get_batch(number).columns), strict=True)


def _scan(folder: Path) -> Iterator[Entry]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.name.startswith((".", "__MACOSX")):
                    kind = KINDS.index(_kind(entry))
                    yield kind >= FOLDER, os.fsencode(entry.name), kind
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read: {error.strerror}") from error


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            return "linked folder" if entry.is_symlink() else "folder"
        dangling = entry.is_symlink() and not os.path.exists(entry.path)
        return "file" if entry.is_file() or dangling else "special"
    except OSError:  # a link that leads to itself
        return "special"
