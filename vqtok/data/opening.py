"""A dataset by name as rows of its files as they lie; what a name means is said in readers.py.

Parquet, Arrow and tar files, and what save_to_disk wrote, are read where they are. Trees of images become a listing,
and what is small (csv, json, mnist-mini, ...) is written beside it, so that any machine that sees the folder can read
it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from datasets import Dataset, DatasetBuilder, Features, Value
from datasets.packaged_modules.arrow.arrow import Arrow
from datasets.packaged_modules.cache.cache import Cache
from datasets.packaged_modules.parquet.parquet import Parquet
from datasets.packaged_modules.webdataset.webdataset import WebDataset

from vqtok.data.columns import find_image_column, find_label_column
from vqtok.data.folders import FolderFiles, Paths
from vqtok.data.layout import matching_split
from vqtok.data.listing import listed_files, write_dataset, write_images, write_metadata
from vqtok.data.readers import read_splits
from vqtok.data.reading import NamedSplits
from vqtok.data.record import SplitRecord, digest_of_names, name_column
from vqtok.data.row_table import FileTable, measure_files
from vqtok.data.rows import Rows
from vqtok.data.shards import Shards
from vqtok.data.tables import build, check_own
from vqtok.errors import DataError, did_you_mean

__all__ = ["SHARD_ROWS", "OpenedRows", "open_rows"]

SHARD_ROWS = 65_536  # of a listing in one file


@dataclass(frozen=True, kw_only=True)
class OpenedRows:
    """A dataset that is found and counted.

    Attributes:
        splits: by name, in the source's order; those without rows are left out.
        names: of all splits that the dataset has, but for those that are known to have no rows: what was not asked for
            may not have been counted.
        resolved: the Hub id or the absolute path behind the name.
        revision: the commit on the Hub, where there is one.
        label_column: where the labels are, by the names and types of the columns: their values are not read.
        notes: what the user should be told.
    """

    splits: dict[str, Rows]
    names: tuple[str, ...]
    resolved: str
    revision: str | None = None
    label_column: str | None = None
    notes: tuple[str, ...] = ()

    def record(self, split: str) -> SplitRecord:
        """What is kept of a split to know it again, as `ImageSource.record` has it; reads the names of its images.

        Raises:
            DataError: a file that cannot be read, or is not what was counted.
            HubError: the Hub does not give it.
        """
        rows = self.splits[split]
        names = name_column(rows.features)
        return SplitRecord(
            split=split,
            rows=len(rows),
            revision=self.revision,
            names=digest_of_names(rows.table.read(0, len(rows), [names])) if names else None,
        )


def open_rows(
    dataset: str,
    *,
    folder: Path,
    split: str | None = None,
    dataset_config: str | None = None,
    image_column: str | None = None,
    revision: str | None = None,
    streaming: bool = False,
    shard_rows: int = SHARD_ROWS,
    progress: bool = False,
) -> OpenedRows:
    """Find a dataset, list it and count its rows and bytes; the rows and their order are those of `open_all`.

    Args:
        dataset: as in `open_all`; also the address of files of rows, such as `s3://bucket/train-*.tar`.
        folder: where listings and small rows are written, one sub-folder a split; new or empty.
        split: one of its splits, by default all of them. Of the others nothing is downloaded.
        dataset_config: which configuration of a dataset that has several.
        image_column: where the images are, where the feature types do not decide.
        revision: branch, tag or commit of a dataset on the Hub.
        streaming: read files of the Hub where they are, rather than download them.
        shard_rows: rows of a file of a listing.
        progress: show bars on a terminal.

    Raises:
        DataError: no such dataset, split or column, no images in it, or files that are damaged or were cut short.
        HubError: the Hub does not have it, does not give it, or cannot be reached.
        ConfigurationError: the folder cannot be written.
    """
    reading = _AsTheyLie(
        folder=folder, name=dataset, split=split, streaming=streaming, shard_rows=shard_rows, progress=progress
    )
    named = read_splits(dataset, revision, dataset_config, reading=reading)
    chosen = list(named.splits) if split is None else [_find_split(list(named.splits), dataset, split)]
    return OpenedRows(
        splits={each: _rows(named, dataset, each, image_column) for each in chosen},
        names=tuple(named.splits if split is None else dict.fromkeys([*reading.seen, *named.splits])),
        resolved=named.resolved,
        revision=named.revision,
        label_column=find_label_column(named.splits),
        notes=named.notes,
    )


def _rows(named: NamedSplits[FileTable], name: str, split: str, image_column: str | None) -> Rows:
    where = name if len(named.splits) == 1 else f"the split {split} of {name}"
    table = named.splits[split]
    return Rows(
        table=table,
        image_column=find_image_column(table, where, image_column),
        name=name,
        split=split,
        root=named.root,
    )


def _find_split(splits: list[str], name: str, wanted: str) -> str:
    found = matching_split(splits, wanted)
    if found is None:
        raise DataError(f"{name} has no split {wanted}; found: {', '.join(splits)}.{did_you_mean(wanted, splits)}")
    return found


@dataclass(frozen=True, kw_only=True)
class _AsTheyLie:
    """What `readers.Reading` asks for, with the arguments of `open_rows`."""

    folder: Path
    name: str
    split: str | None
    streaming: bool
    shard_rows: int
    progress: bool
    seen: list[str] = field(default_factory=list)  # the splits of the dataset that have rows, as far as is known

    def new_files(self, root: Path) -> FolderFiles:
        return listed_files(root, progress=self.progress)

    def build(self, builder: DatasetBuilder, own: str) -> dict[str, FileTable]:
        check_own(builder, own)
        kind = _kind(builder)
        if kind is None:
            if self.streaming and own.startswith("hf://"):
                raise DataError(
                    f"{self.name} holds no parquet, arrow or tar files, and only these can be streamed; leave "
                    "streaming out, which downloads it"
                )
            return self._keep(build(builder, own), in_place=isinstance(builder, Cache))
        files = {str(split): [str(file) for file in paths] for split, paths in builder.config.data_files.items()}
        builder.as_streaming_dataset()  # which finds the columns, and reads no more than that takes
        features = _stored_features(builder.info.features)
        return {
            split: FileTable(
                kind=kind,
                features=features,
                files=measure_files(
                    kind,
                    files[split],
                    features=features,
                    streaming=self.streaming,
                    name=split,
                    progress=self.progress,
                ),
                streaming=self.streaming,
            )
            for split in self._wanted(files)
        }

    def keep(self, splits: Mapping[str, Dataset]) -> dict[str, FileTable]:
        return self._keep(splits, in_place=True)

    def image_folder(self, root: Path, name: str, images: Paths) -> tuple[dict[str, FileTable], tuple[str, ...]]:
        return write_images(root, name, images, self.folder, shard_rows=self.shard_rows, progress=self.progress)

    def metadata(self, root: Path, splits: Mapping[str, Dataset]) -> dict[str, FileTable]:
        wanted = {split: splits[split] for split in self._wanted(splits)}
        return write_metadata(root, wanted, self.folder, shard_rows=self.shard_rows, progress=self.progress)

    def _keep(self, splits: Mapping[str, Dataset], *, in_place: bool) -> dict[str, FileTable]:
        kept = {}
        for split in self._wanted(splits):
            table = _whole_files(splits[split]) if in_place else None
            kept[split] = table or write_dataset(splits[split], self.folder / split, shard_rows=self.shard_rows)
        return kept

    def _wanted(self, splits: Mapping[str, object]) -> list[str]:
        self.seen.extend(name for name, rows in splits.items() if not isinstance(rows, Dataset) or len(rows))
        return list(splits) if self.split is None else [_find_split(list(splits), self.name, self.split)]


def _kind(builder: DatasetBuilder) -> str | None:
    """The kind of a builder's files, None where they are not read as they lie."""
    kinds = {Parquet: "parquet", Arrow: "arrow", Shards: "tar", WebDataset: "webdataset"}
    return next((kind for known, kind in kinds.items() if isinstance(builder, known)), None)


def _stored_features(features: Features) -> Features:
    """The columns that are read: without the place of a tar file, and without views, of which no images can be made."""
    columns = {column: feature for column, feature in features.items() if column != "__url__"}
    for column, feature in columns.items():
        if isinstance(feature, Value) and feature.dtype.endswith("_view"):
            columns[column] = Value(feature.dtype.removesuffix("_view"))
    return Features(columns)


def _whole_files(dataset: Dataset) -> FileTable | None:
    """The files of a dataset whose rows are all rows of them, in their order; None where they are not."""
    paths = [file["filename"] for file in dataset.cache_files]
    if not paths or dataset._indices is not None:
        return None
    files = measure_files("arrow", paths, features=None, name="arrow")
    if sum(file.rows for file in files) != len(dataset):
        return None
    return FileTable(kind="arrow", features=_stored_features(dataset.features), files=files)
