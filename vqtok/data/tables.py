"""Files of rows, alone or in a folder, through the builders of `datasets`.

Which files are read is said here and not left to a builder, which keeps of a folder only files whose names hold a word
like test where one does, and takes brackets in a path for a pattern. Only a README.md with configurations decides.
"""

from __future__ import annotations

import glob
import logging
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from datasets import Dataset, DatasetBuilder, IterableDataset, load_dataset_builder
from datasets.data_files import FILES_TO_IGNORE, SPLIT_KEYWORDS
from datasets.exceptions import DatasetGenerationError
from datasets.packaged_modules.parquet.parquet import ParquetConfig
from datasets.packaged_modules.webdataset.webdataset import WebDataset
from huggingface_hub import DatasetCard

from vqtok.data.folders import left_out
from vqtok.data.layout import SPLIT_NAMES
from vqtok.data.shards import Shards
from vqtok.errors import DataError, VqtokError, did_you_mean, one_line

__all__ = [
    "KINDS",
    "WITH_IMAGES",
    "Build",
    "build",
    "check_own",
    "loading",
    "open_tables",
    "read_files",
    "read_table",
    "read_tables",
    "stream",
    "table_builder",
    "table_kind",
    "with_any_suffix",
]

S = TypeVar("S")
Build = Callable[[DatasetBuilder, str], dict[str, S]]

# The kind of a file by its suffix: the name of a builder in `datasets`, or tsv.
TABLES = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".csv": "csv",
    ".tsv": "tsv",
    ".json": "json",
    ".jsonl": "json",
    ".tar": "webdataset",
}
KINDS = "parquet, arrow, csv, tsv, json, jsonl or tar (webdataset)"
COMPRESSED = {".7z", ".bz2", ".gz", ".lz4", ".rar", ".tbz2", ".tgz", ".txz", ".xz", ".zip", ".zst"}
WITH_IMAGES = {"parquet", "arrow", "webdataset"}  # files of the other kinds beside these are notes on them
SHARD = re.compile(r"^data/(\w+(?:\.\w+)*)-\d{5}-of-\d{5}[^/]*$")  # as push_to_hub names them


def table_kind(file: str) -> str | None:
    """The kind of a file of rows by its name, None for any other and for what `datasets` itself writes beside rows."""
    return None if os.path.basename(file) in FILES_TO_IGNORE else TABLES.get(os.path.splitext(file)[1].lower())


def read_table(file: Path, name: str, kind: str, build: Build[S]) -> dict[str, S]:
    """The rows of one file, as the split train.

    Args:
        build: what makes splits of the files that a builder of `datasets` found, given what their paths begin with.

    Raises:
        DataError: it cannot be read, or has no rows.
    """
    own = os.path.join(os.path.realpath(file.parent), file.name)
    with loading(name):
        return build(table_builder(kind, {"train": [own]}), own)


def read_tables(
    folder: Path, name: str, files: Iterable[str], config: str | None, build: Build[S]
) -> tuple[dict[str, S], tuple[str, ...]]:
    """The rows of a folder by split, and what to tell the user.

    Splits are those that a README.md names, else those that the names of all files say, else train.

    Args:
        files: all that are no images, relative to the folder; those that have a `table_kind` are read.
        config: which configuration of a README.md that has several.
        build: as in `read_table`.

    Raises:
        DataError: files that cannot be read or are of several kinds, no rows, or splits and other files beside them.
    """
    with loading(name, config):
        builder, own, notes = open_tables(folder, name, files, config)
        return build(builder, own), notes


def open_tables(
    folder: Path, name: str, files: Iterable[str], config: str | None
) -> tuple[DatasetBuilder, str, tuple[str, ...]]:
    """The builder for the rows of a folder, what the paths of its own files begin with, and what to tell the user.

    Arguments and errors are those of `read_tables`; nothing is read yet.
    """
    own = os.path.join(os.path.realpath(folder), "")
    with loading(name, config):
        if config is not None or _has_configurations(folder):
            return with_any_suffix(load_dataset_builder(own, config)), own, ()
        builder, notes = _builder_for(own, name, files)
        return builder, own, notes


def read_files(own: str, name: str, files: Iterable[str], build: Build[S]) -> tuple[dict[str, S], tuple[str, ...]]:
    """The rows of some files by the splits that their names say; arguments and errors are those of `read_tables`."""
    with loading(name):
        builder, notes = _builder_for(own, name, files)
        return build(builder, own), notes


def _builder_for(own: str, name: str, files: Iterable[str]) -> tuple[DatasetBuilder, tuple[str, ...]]:
    by_kind = defaultdict(list)
    for file in files:
        if kind := table_kind(file):
            by_kind[kind].append(file)
    kinds = sorted(WITH_IMAGES & set(by_kind) or by_kind)
    if len(kinds) > 1:
        found = " and ".join(f"{len(by_kind[kind])} {kind}" for kind in kinds)
        raise DataError(f"{name} holds files of several kinds ({found}); name a folder with one, or a single file")
    (kind,) = kinds
    splits, notes = _by_split(own, name, sorted(by_kind.pop(kind)))
    if by_kind:
        notes = (*notes, left_out(f"no {kind}", sorted(file for others in by_kind.values() for file in others)))
    compressed = [file for file in files if os.path.splitext(file)[1].lower() in COMPRESSED]
    if compressed:
        notes = (*notes, f"{left_out('compressed', compressed)}; unpack what should be read")
    return table_builder(kind, splits), notes


def table_builder(kind: str, splits: Mapping[str, Sequence[str]]) -> DatasetBuilder:
    """The builder of `datasets` for files of one kind, by split; their paths are no patterns."""
    files = {split: [glob.escape(path) for path in paths] for split, paths in splits.items()}
    if kind == "tsv":
        return load_dataset_builder("csv", data_files=files, sep="\t")
    if kind == "webdataset":
        return Shards(data_files=files)
    return load_dataset_builder(kind, data_files=files)


def with_any_suffix(builder: DatasetBuilder) -> DatasetBuilder:
    """The same builder, save that tar files whose columns nobody declared are read as `shards.py` does."""
    if not isinstance(builder, WebDataset) or isinstance(builder, Shards) or builder.info.features is not None:
        return builder
    known = {
        "dataset_name": builder.dataset_name,
        "hash": f"{builder.hash}-image",  # apart from what `datasets` itself keeps of these files
        "base_path": builder.base_path,
        "repo_id": builder.repo_id,
    }
    if builder.repo_id is None:
        return Shards(**known, data_files=builder.config.data_files)
    # Of the Hub the hash tells the files apart. Given to the builder, they would be in the name of its cache, by which
    # `datasets` finds it without a network.
    shards = Shards(**known, config_name=builder.config.name)
    shards.config.data_files = builder.config.data_files
    return shards


def build(builder: DatasetBuilder, own: str) -> dict[str, Dataset]:
    """Read what a builder of `datasets` found into its cache; arguments and errors are those of `check_own`.

    A split without rows has no columns either.
    """
    check_own(builder, own)
    if isinstance(builder.config, ParquetConfig):
        builder.config.batch_size = 1000  # else that of the first row group, which may have no rows
    builder.download_and_prepare()
    return {
        str(split): _rows(builder, str(split)) if info.num_examples else Dataset.from_dict({})
        for split, info in builder.info.splits.items()
    }


def stream(builder: DatasetBuilder, own: str) -> dict[str, IterableDataset]:
    """The splits that a builder of `datasets` found, to be read row by row; see `check_own`."""
    check_own(builder, own)
    return {str(split): rows for split, rows in builder.as_streaming_dataset().items()}


def check_own(builder: DatasetBuilder, own: str) -> None:
    """Refuse files that a builder found and that are not the dataset's own: its README.md can name any.

    Args:
        own: what their paths begin with; a folder ends with a separator and is no link.

    Raises:
        DataError: names the file.
    """
    for file in [file for files in (builder.config.data_files or {}).values() for file in files]:
        if ".." in Path(file).parts or not str(file).startswith(own):
            raise DataError(f"the dataset names the file {file}, which is not its own, so it is not read")
        if os.path.expandvars(file) != file:  # as `datasets` does without asking
            raise DataError(f"the path {file} holds an environment variable, which would be replaced; rename it")


def _rows(builder: DatasetBuilder, split: str) -> Dataset:
    rows: Dataset = builder.as_dataset(split)
    # Of a tar file: the path of it on this machine, or in the cache.
    return rows.remove_columns("__url__") if {"__key__", "__url__"} <= set(rows.column_names) else rows


@contextmanager
def loading(name: str, config: str | None = None) -> Iterator[None]:
    """Turn whatever `datasets` raises into one line: it parses what strangers made.

    Raises:
        DataError: it raised anything; of several configurations the message lists the names.
    """
    reports = logging.getLogger("datasets.packaged_modules")
    before = reports.level
    reports.setLevel(logging.CRITICAL)  # they log what they raise
    try:
        yield
    except VqtokError:
        raise
    except Exception as error:
        _refuse_choice(name, config, error)
        cause = error.__cause__ if isinstance(error, DatasetGenerationError) and error.__cause__ else error
        raise DataError(f"{name} cannot be loaded: {one_line(cause)}") from error
    finally:
        reports.setLevel(before)


def _refuse_choice(name: str, config: str | None, error: Exception) -> None:
    """Say which configurations there are, where `datasets` complains of them.

    Raises:
        DataError: that is what the error is about.
    """
    found = re.search(r"(?:available configs|Available): \[(.*?)\]", str(error), re.DOTALL)
    if found is None:
        return
    names = re.findall(r"'([^']*)'", found[1])
    if config is None:
        raise DataError(
            f"{name} has several configurations: {', '.join(names)}; set dataset_config to one of them"
        ) from error
    raise DataError(
        f"{name} has no configuration {config}, only {', '.join(names)}.{did_you_mean(config, names)}"
    ) from error


def _has_configurations(folder: Path) -> bool:
    card = folder / "README.md"
    return card.is_file() and "configs" in DatasetCard.load(card, ignore_metadata_errors=True).data


def _by_split(own: str, name: str, files: Sequence[str]) -> tuple[dict[str, list[str]], tuple[str, ...]]:
    """The paths of the files of each split, and a note where only some of the files name one."""
    named = _named_splits(files)
    for file, found in named.items():
        if len(found) > 1:
            raise DataError(f"{name} holds {file}, which names the splits {' and '.join(found)}; rename it to name one")
    order = [*SPLIT_NAMES, *sorted({split for found in named.values() for split in found} - set(SPLIT_NAMES))]
    splits = {split: paths for split in order if (paths := [own + file for file in files if split in named[file]])}
    rest = [file for file in files if not named[file]]
    if not rest:
        return splits, ()
    if len(splits) > 1:
        raise DataError(f"{name} holds the splits {', '.join(splits)} and also {rest[0]}; move what is no split out")
    note = f"all {len(files):,} files are taken as one split, since {rest[0]} does not say which it belongs to"
    return {"train": [own + file for file in files]}, (note,) if splits else ()


def _named_splits(files: Sequence[str]) -> dict[str, list[str]]:
    """The splits that each path names: where shards do only theirs count, else where folders do only those.

    This is the rule of `datasets`, which would let files decide that are not read and pass over a folder like __x.
    """
    shards = {file: SHARD.findall(file) for file in files}
    folders = {file: _split_words(os.path.dirname(file)) for file in files}
    names = {file: _split_words(os.path.basename(file)) for file in files}
    return next((rule for rule in (shards, folders) if any(rule.values())), names)


def _split_words(path: str) -> list[str]:
    words = re.split("[-._ 0-9/]", path)
    return [str(split) for split, names in SPLIT_KEYWORDS.items() if not set(names).isdisjoint(words)]
