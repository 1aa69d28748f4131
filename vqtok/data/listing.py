"""Images in files of their own as rows: a listing on the disk rather than a list in memory.

    plan/train/00000.arrow   image (its path below the folder), file_name, label or other columns, __bytes__

A tree of a million files is walked twice in memory that does not grow: once for the names, of which the splits and
classes follow, and once for the sizes. Each file of a listing holds the rows of one shard.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, Features, Image, Value
from tqdm import tqdm

from vqtok.data.folders import FolderFiles, label_features
from vqtok.data.layout import FolderLayout, first_folder
from vqtok.data.row_table import FileTable, measure_files
from vqtok.data.rows import SIZE_COLUMN
from vqtok.files import NO_ACCESS, NO_ROOM, in_one_line

__all__ = ["DiskPaths", "listed_files", "write_dataset", "write_images", "write_metadata"]

CHUNK = 8192  # rows that are in memory at a time
STAT_THREADS = 8  # a network file system takes its time
STAT_PATHS = 512  # that a thread looks at at a time
PATHS = pa.schema({"path": pa.string()})


class DiskPaths:
    """Paths in the order that they are appended, most of them in a temporary file; see `folders.Paths`.

    Args:
        bar: what counts them for the user.
    """

    def __init__(self, bar: tqdm[Any] | None = None) -> None:
        self._file = tempfile.NamedTemporaryFile(prefix="vqtok-", suffix=".arrow")  # noqa: SIM115  gone with this object
        self._writer = pa.ipc.new_stream(self._file, PATHS)
        self._waiting: list[str] = []
        self._first: str | None = None
        self._written = 0
        self._bar = bar

    def append(self, path: str, /) -> None:
        """Add a path, which is UTF-8."""
        if self._first is None:
            self._first = path
        self._waiting.append(path)
        if len(self._waiting) == CHUNK:
            self._flush()

    def __len__(self) -> int:
        return self._written + len(self._waiting)

    def __iter__(self) -> Iterator[str]:
        self._flush()
        if self._written:
            with open(self._file.name, "rb") as file, pa.ipc.open_stream(file) as batches:
                for batch in batches:
                    yield from batch.column(0).to_pylist()

    def __getitem__(self, index: Literal[0], /) -> str:
        if self._first is None or index:
            raise IndexError(index)
        return self._first

    def _flush(self) -> None:
        if self._waiting:
            self._writer.write_batch(pa.record_batch({"path": self._waiting}, schema=PATHS))
            self._file.flush()
            self._written += len(self._waiting)
            if self._bar is not None:
                self._bar.update(len(self._waiting))
            self._waiting = []


def listed_files(root: Path, *, progress: bool) -> FolderFiles:
    """Where `folders.list_files` may put a tree of any size; progress on a terminal is by images."""
    bar = tqdm(desc=f"listing {root}", unit=" images", delay=2.0, leave=False, disable=None if progress else True)
    return FolderFiles(images=DiskPaths(bar), others=DiskPaths())


def write_images(
    root: Path, name: str, images: Iterable[str], folder: Path, *, shard_rows: int, progress: bool = False
) -> tuple[dict[str, FileTable], tuple[str, ...]]:
    """Write the listing of a folder of images, one file for every `shard_rows` rows of a split.

    Splits and classes are those of `layout.py`, the order is that of the paths given, and the columns are those of
    `folders.image_folder_splits`, but with paths from `root` on.

    Args:
        name: what an error calls the dataset.
        images: paths below `root`; read several times.

    Raises:
        DataError: folders that are splits and others beside them; a full disk.
        ConfigurationError: the folder cannot be written.
    """
    layout = FolderLayout(images)
    hidden = None if progress else True
    splits = {}
    for split, (prefix, _) in layout.splits(name).items():
        labels = label_features(layout, name, split)
        features = Features({"image": Image(decode=False), "file_name": Value("string"), **labels})
        files = (file for file in images if file.startswith(prefix))

        def tables(files: Iterator[str] = files, labels: Mapping[str, Any] = labels, prefix: str = prefix) -> Any:
            while some := list(islice(files, CHUNK)):
                columns = {"image": _path_column(some), "file_name": [Path(file).as_posix() for file in some]}
                if labels:
                    columns["label"] = [labels["label"].str2int(first_folder(file, prefix)) for file in some]
                yield columns, some

        with tqdm(desc=f"sizes of {split}", unit=" images", delay=2.0, leave=False, disable=hidden) as bar:
            splits[split] = _write_listing(root, folder / split, features, tables(), shard_rows, bar)
    return splits, layout.notes(name)


def write_metadata(
    root: Path, splits: Mapping[str, Dataset], folder: Path, *, shard_rows: int, progress: bool = False
) -> dict[str, FileTable]:
    """Write the rows of `metadata.read_metadata` as a listing, with all their columns and paths from `root` on."""
    own = os.path.join(os.path.realpath(root), "")
    hidden = None if progress else True
    written = {}
    for split, rows in splits.items():
        features = Features({**rows.features, "image": Image(decode=False)})

        def tables(rows: Dataset = rows) -> Any:
            for start in range(0, len(rows), CHUNK):
                table = rows.with_format("arrow")[start : start + CHUNK]
                found = pc.struct_field(table["image"], "path").to_pylist()
                some = [path and path.removeprefix(own) for path in found]
                yield {name: table[name] for name in table.column_names} | {"image": _path_column(some)}, some

        with tqdm(total=len(rows), desc=f"sizes of {split}", unit=" images", delay=2.0, disable=hidden) as bar:
            written[split] = _write_listing(root, folder / split, features, tables(), shard_rows, bar)
    return written


def write_dataset(rows: Dataset, folder: Path, *, shard_rows: int) -> FileTable:
    """Write small rows that lie in no file as they are, or in one that other machines have not."""
    tables = (rows.with_format("arrow")[start : start + CHUNK] for start in range(0, len(rows), CHUNK))
    paths = _write_shards(folder, rows.features.arrow_schema, tables, shard_rows)
    return _table("arrow", rows.features, paths)


def _write_listing(
    root: Path, folder: Path, features: Features, chunks: Iterator[Any], shard_rows: int, bar: tqdm[Any]
) -> FileTable:
    features = Features({**features, SIZE_COLUMN: Value("int64")})

    def tables(pool: ThreadPoolExecutor) -> Iterator[pa.Table]:
        for columns, paths in chunks:
            parts = (paths[start : start + STAT_PATHS] for start in range(0, len(paths), STAT_PATHS))
            sizes = pool.map(lambda part: [_size(root, path) for path in part], parts)
            yield pa.table({**columns, SIZE_COLUMN: list(chain(*sizes))}, schema=features.arrow_schema)
            bar.update(len(paths))

    with ThreadPoolExecutor(STAT_THREADS) as pool:
        paths = _write_shards(folder, features.arrow_schema, tables(pool), shard_rows)
    return _table("listing", features, paths)


def _write_shards(folder: Path, schema: pa.Schema, tables: Iterable[pa.Table], shard_rows: int) -> list[str]:
    """Write rows as Arrow files of `shard_rows` each, 00000.arrow and so on."""
    paths: list[str] = []
    writer, room = None, 0
    with in_one_line(folder, NO_ROOM | NO_ACCESS):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            for table in tables:
                while table.num_rows:
                    if not room:
                        if writer is not None:
                            writer.close()
                        paths.append(os.path.abspath(folder / f"{len(paths):05d}.arrow"))
                        writer, room = pa.ipc.new_stream(paths[-1], schema), shard_rows
                    part = table.slice(0, room)
                    assert writer is not None
                    writer.write_table(part)
                    room, table = room - part.num_rows, table.slice(part.num_rows)
        finally:
            if writer is not None:
                writer.close()
    return paths


def _table(kind: str, features: Features, paths: list[str]) -> FileTable:
    files = []
    for file in measure_files(kind, paths, features=features, name=kind):
        with open(file.path, "rb") as content:
            files.append(replace(file, sha256=hashlib.file_digest(content, "sha256").hexdigest()))
    return FileTable(kind=kind, features=features, files=tuple(files))


def _path_column(paths: Sequence[str | None]) -> pa.StructArray:
    return pa.StructArray.from_arrays(
        [pa.nulls(len(paths), pa.binary()), pa.array(paths, pa.string())], ["bytes", "path"]
    )


def _size(root: Path, path: str | None) -> int | None:
    """The size of a file, None where it is gone already, which reading it will say."""
    try:
        return os.stat(os.path.join(root, path)).st_size if path else None
    except (OSError, ValueError):
        return None
