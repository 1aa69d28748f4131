"""What a dataset's name means, and its splits as it has them: built in, on the Hub, on this disk.

mnist-mini                  in the package, see sample/README.md
mnist, cifar10              short for ylecun/mnist and uoft-cs/cifar10
org/name, org/name@revision a dataset on the Hub; no code of it is executed
a folder of images          see `folders.py`; where it has a metadata.csv, metadata.jsonl or metadata.parquet with a
                            column file_name, the rows are those, with their other columns
what save_to_disk wrote
a folder or file of rows    parquet, arrow, csv, tsv, json, jsonl, or tar in the form of webdataset, read by the
                            `datasets` library; paths in them are relative to their folder and do not leave it
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Features, load_dataset_builder
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.file_download import repo_folder_name

from vqtok.data.folders import image_folder_splits, left_out, list_files
from vqtok.data.formats import SUFFIXES
from vqtok.data.metadata import is_metadata, read_metadata
from vqtok.data.paths import DatasetRoot
from vqtok.data.saved import is_saved, load_saved
from vqtok.data.tables import (
    KINDS,
    WITH_IMAGES,
    build,
    loading,
    read_table,
    read_tables,
    table_kind,
)
from vqtok.errors import DataError, HubError, did_you_mean, one_line
from vqtok.names import KNOWN, is_hub_id
from vqtok.text import counted

__all__ = ["NamedSplits", "read_splits"]

SAMPLE = Path(__file__).parent / "sample" / "mnist-mini.parquet"


@dataclass(frozen=True, kw_only=True)
class NamedSplits:
    """A dataset as its source has it.

    Attributes:
        splits: by name, in the source's order.
        resolved: the Hub id or the absolute path behind the name.
        revision: the commit on the Hub, where there is one.
        root: where paths in the dataset may lead.
        notes: what the user should know.
    """

    splits: dict[str, Dataset]
    resolved: str
    revision: str | None = None
    root: DatasetRoot = DatasetRoot()
    notes: tuple[str, ...] = ()


def read_splits(dataset: str, revision: str | None = None, config: str | None = None) -> NamedSplits:
    """Find a dataset by name and read its splits, save those without rows.

    Args:
        revision: branch, tag or commit of a dataset on the Hub.
        config: which configuration of a dataset that has several.

    Raises:
        DataError: the name means nothing, what it names holds no data that can be read, or it has several
            configurations and none of them is chosen; the message lists them.
        HubError: the Hub does not have it, does not give it, or cannot be reached.
    """
    try:
        found = _read(dataset, revision, config)
    except PermissionError as error:
        raise DataError(f"{dataset} cannot be read: {error.strerror} ({error.filename})") from error
    empty = [split for split, rows in found.splits.items() if len(rows) == 0]
    if not empty:
        return found
    if len(empty) == len(found.splits):
        raise DataError(f"{dataset} has no rows")
    splits = {split: rows for split, rows in found.splits.items() if split not in empty}
    return replace(found, splits=splits, notes=(*found.notes, left_out("splits without rows", empty)))


def _read(dataset: str, revision: str | None, config: str | None) -> NamedSplits:
    path = Path(os.path.expanduser(dataset))  # Path.expanduser raises for an unknown user
    if dataset in KNOWN:
        if dataset == "mnist-mini":
            _refuse_config(dataset, config)
        found = _read_sample() if dataset == "mnist-mini" else _read_hub(KNOWN[dataset], revision, config)
        if not path.exists():
            return found
        return replace(
            found, notes=(f"{dataset} is the built-in name for {found.resolved}; the folder here is ./{dataset}",)
        )
    repository, _, at_revision = dataset.partition("@")
    if at_revision and not path.exists() and (folder := Path(os.path.expanduser(repository))).is_dir():
        raise DataError(
            f"a revision belongs to a dataset on the Hub, but {folder} is a folder here; leave @{at_revision} out"
        )
    if path.exists() or not is_hub_id(repository):
        if revision is not None:
            raise DataError(f"a revision belongs to a dataset on the Hub, but {dataset} is none; leave it out")
        return _read_path(path, dataset, config)
    return _read_hub(repository, revision or at_revision or None, config)


def _read_sample() -> NamedSplits:
    table = pq.read_table(SAMPLE)
    names = Features.from_arrow_schema(table.schema)["split"].names
    splits = {
        name: Dataset(table.filter(pc.field("split") == number).drop_columns(["split"]).combine_chunks())
        for number, name in enumerate(names)
    }
    return NamedSplits(splits=splits, resolved="mnist-mini")


def _read_hub(repository: str, revision: str | None, config: str | None) -> NamedSplits:
    with loading(repository, config):
        try:
            builder = load_dataset_builder(repository, config, revision=revision)
            splits = build(builder, f"hf://datasets/{repository}@")
        except DatasetNotFoundError as error:
            message = one_line(error)
            if repository not in KNOWN.values() and revision is None:
                message = f"{message.rstrip('.')}; there is no folder of that name either."
            raise HubError(message + did_you_mean(repository, set(KNOWN.values()) - {repository})) from error
        except ConnectionError as error:  # OfflineModeIsEnabled is one
            raise HubError(
                f"the Hub cannot be reached for {repository} and it is not in the cache ({one_line(error)}); "
                "mnist-mini and folders on this disk need no network"
            ) from error
    folder = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="dataset")
    return NamedSplits(
        splits=splits, resolved=repository, revision=_commit(splits) or revision, root=DatasetRoot(str(folder))
    )


def _commit(splits: dict[str, Dataset]) -> str | None:
    """The commit that the files came from: `datasets` names the folder of its cache after it."""
    folders = (Path(file["filename"]).parent.name for split in splits.values() for file in split.cache_files)
    return next((folder for folder in folders if re.fullmatch("[0-9a-f]{40}", folder)), None)


def _refuse_config(name: str, config: str | None) -> None:
    if config is not None:
        raise DataError(f"{name} has no configurations, got {config!r}: leave dataset_config out")


def _read_path(path: Path, name: str, config: str | None) -> NamedSplits:
    resolved = str(path.absolute())
    if resolved != os.fsencode(resolved).decode(errors="replace"):
        raise DataError(f"the path of {os.fsencode(name).decode(errors='replace')} is not UTF-8; rename it")
    if path.is_dir():
        if is_saved(path):
            _refuse_config(name, config)
            with loading(name):
                saved = load_saved(path)
            return _named(dict(saved) if isinstance(saved, dict) else {str(saved.split or "train"): saved}, resolved)
        return _read_folder(path, name, config)
    _refuse_config(name, config)
    if path.is_file():
        kind = table_kind(path.name)
        if kind is None:
            what = "one image; give the folder that it is in" if path.suffix.lower() in SUFFIXES else "none of these"
            raise DataError(f"a dataset in one file must be {KINDS}, but {name} is {what}")
        return replace(_named(read_table(path, name, kind), resolved), root=DatasetRoot(str(path.parent)))
    if path.exists():
        raise DataError(f"{name} is neither a folder nor a regular file")
    known = ", ".join(sorted(KNOWN))
    raise DataError(
        f"there is no folder or file {name}, and it is neither built in ({known}) nor a Hub id like org/name."
        f"{did_you_mean(name.lower(), KNOWN)}"
    )


def _read_folder(path: Path, name: str, config: str | None) -> NamedSplits:
    files = list_files(path)
    resolved = str(path.absolute())
    tables = {file: kind for file in files.others if (kind := table_kind(file))}
    metadata = [file for file in tables if files.images and is_metadata(path / file)]
    alone = [file for file, kind in tables.items() if kind in WITH_IMAGES and file not in metadata]
    if files.images and alone:
        raise DataError(
            f"{name} holds {counted(len(files.images), 'image')} and "
            f"{counted(len(alone), 'parquet, arrow or tar file')} ({alone[0]}, ...); name a folder with one kind, or "
            "one of the files"
        )
    if tables and not files.images:
        splits, notes = read_tables(path, name, files.others, config)
        return _named(splits, resolved, (*notes, *replace(files, others=[]).notes()))
    _refuse_config(name, config)
    if not files.images:
        others = files.others
        found = f"{counted(len(others), 'file')}, none of them an image ({others[0]}, ...)" if others else "no files"
        raise DataError(
            f"{name} holds {found}; give a folder of images (.png, .jpg, ..., in sub-folders named after their class "
            f"where there are classes), of files of rows ({KINDS}), or what save_to_disk wrote"
        )
    if metadata:
        splits, notes = read_metadata(path, name, metadata, files.images)
        rest = replace(files, others=[file for file in files.others if file not in metadata])
        return _named(splits, resolved, (*notes, *rest.notes()))
    splits, notes = image_folder_splits(path, name, files.images)
    root = DatasetRoot(resolved, follow_links=True)
    return NamedSplits(splits=splits, resolved=resolved, root=root, notes=(*notes, *files.notes()))


def _named(splits: dict[str, Dataset], folder: str, notes: tuple[str, ...] = ()) -> NamedSplits:
    return NamedSplits(splits=splits, resolved=folder, root=DatasetRoot(folder), notes=notes)
