"""What a dataset's name means, and its splits as it has them: built in, on the Hub, on this disk.

mnist-mini                  in the package, see sample/README.md
mnist, cifar10              short for ylecun/mnist and uoft-cs/cifar10
org/name, org/name@revision a dataset on the Hub; no code of it is executed
a folder of images          see `folders.py`; where it has a metadata.csv, metadata.jsonl or metadata.parquet with a
                            column file_name, the rows are those, with their other columns
what save_to_disk wrote
files/train-{000..007}.tar  files of rows by a pattern: braces as in a shell, and *, ? and **
s3://bucket/train-*.tar     files of rows at an address, by a pattern or in a folder
a folder or file of rows    parquet, arrow, csv, tsv, json, jsonl, or tar in the form of webdataset, read by the
                            `datasets` library; paths in them are relative to their folder and do not leave it
"""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, DatasetBuilder, Features, load_dataset_builder
from datasets.exceptions import DatasetNotFoundError
from datasets.packaged_modules.cache.cache import Cache
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.file_download import repo_folder_name

from vqtok.data.folders import Paths, left_out, list_files
from vqtok.data.formats import SUFFIXES
from vqtok.data.globs import is_address, is_pattern, local_path, matching_addresses, matching_files
from vqtok.data.metadata import is_metadata, read_metadata
from vqtok.data.paths import DatasetRoot
from vqtok.data.reading import NamedSplits, Reading
from vqtok.data.saved import is_saved, load_saved
from vqtok.data.tables import (
    KINDS,
    WITH_IMAGES,
    loading,
    read_files,
    read_table,
    read_tables,
    table_kind,
    with_any_suffix,
)
from vqtok.errors import DataError, HubError, did_you_mean, one_line
from vqtok.names import KNOWN, is_hub_id
from vqtok.retries import persistently
from vqtok.text import counted

__all__ = ["read_splits"]

S = TypeVar("S")

SAMPLE = Path(__file__).parent / "sample" / "mnist-mini.parquet"


def read_splits(
    dataset: str, revision: str | None = None, config: str | None = None, *, reading: Reading[S]
) -> NamedSplits[S]:
    """Find a dataset by name and read its splits, save those without rows.

    Args:
        revision: branch, tag or commit of a dataset on the Hub.
        config: which configuration of a dataset that has several.
        reading: what becomes of its files.

    Raises:
        DataError: the name means nothing, what it names holds no data that can be read, or it has several
            configurations and none of them is chosen; the message lists them.
        HubError: the Hub does not have it, does not give it, or cannot be reached.
    """
    try:
        found = _read(dataset, revision, config, reading)
    except PermissionError as error:
        raise DataError(f"{dataset} cannot be read: {error.strerror} ({error.filename})") from error
    empty = [split for split, rows in found.splits.items() if len(rows) == 0]  # type: ignore[arg-type]
    if not empty:
        return found
    if len(empty) == len(found.splits):
        raise DataError(f"{dataset} has no rows")
    splits = {split: rows for split, rows in found.splits.items() if split not in empty}
    return replace(found, splits=splits, notes=(*found.notes, left_out("splits without rows", empty)))


def _read(dataset: str, revision: str | None, config: str | None, reading: Reading[S]) -> NamedSplits[S]:
    dataset = local_path(dataset)
    path = Path(os.path.expanduser(dataset))  # Path.expanduser raises for an unknown user
    if dataset in KNOWN:
        if dataset == "mnist-mini":
            _refuse_config(dataset, config)
            found = NamedSplits(splits=reading.keep(_sample()), resolved="mnist-mini")
        else:
            found = _read_hub(KNOWN[dataset], revision, config, reading)
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
        if not path.exists() and (is_pattern(dataset) or is_address(dataset)):
            _refuse_config(dataset, config)
            return _read_pattern(dataset, reading)
        return _read_path(path, dataset, config, reading)
    return _read_hub(repository, revision or at_revision or None, config, reading)


def _read_pattern(name: str, reading: Reading[S]) -> NamedSplits[S]:
    with loading(name):
        if is_address(name):
            folder, files = persistently(lambda: matching_addresses(name), f"listing {name}")
        else:
            folder, files = matching_files(os.path.expanduser(name))
    strange = [file for file in files if table_kind(file) is None]
    if strange and is_address(name) and strange[0].lower().endswith(tuple(SUFFIXES)):
        raise DataError(
            f"{name} holds images in files of their own ({strange[0]}, ...), which are read from a disk only: put them "
            "into tar or parquet files, or copy or mount them"
        )
    if strange and not is_pattern(name) and len(files) == 1:
        raise DataError(f"{name} is no file of rows ({KINDS})")
    if strange:
        raise DataError(f"a pattern must match only files of rows ({KINDS}), but {name} matches {strange[0]}")
    own = os.path.join(folder if is_address(name) else os.path.realpath(folder), "")
    splits, notes = read_files(own, name, files, reading.build)
    root = DatasetRoot() if is_address(name) else DatasetRoot(folder)
    return NamedSplits(splits=splits, resolved=folder, root=root, notes=notes)


def _sample() -> dict[str, Dataset]:
    table = pq.read_table(SAMPLE)
    names = Features.from_arrow_schema(table.schema)["split"].names
    return {
        name: Dataset(table.filter(pc.field("split") == number).drop_columns(["split"]).combine_chunks())
        for number, name in enumerate(names)
    }


def _read_hub(repository: str, revision: str | None, config: str | None, reading: Reading[S]) -> NamedSplits[S]:
    with loading(repository, config):
        try:
            builder = with_any_suffix(load_dataset_builder(repository, config, revision=revision))
            notes = _from_cache(repository, revision, builder) if isinstance(builder, Cache) else ()
            splits = reading.build(builder, f"hf://datasets/{repository}@")
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
        splits=splits,
        resolved=repository,
        revision=_commit(builder) or revision,
        root=DatasetRoot(str(folder)),
        notes=notes,
    )


def _from_cache(repository: str, revision: str | None, builder: DatasetBuilder) -> tuple[str, ...]:
    """What to tell the user of what is not from the Hub: `datasets` then reads what it cached last, whatever was asked.

    Raises:
        HubError: a commit was asked for, and that is another.
    """
    commit = _commit(builder)
    if revision in (None, commit):
        return ()
    if re.fullmatch("[0-9a-f]{40}", str(revision)):
        raise HubError(
            f"the Hub cannot be reached for {repository} at {revision}, and the cache has it at {commit}: try again "
            "with a network, or ask for that one"
        )
    return (f"the Hub is not reached: {repository} is read from the cache at {commit}, which may not be {revision}",)


def _commit(builder: DatasetBuilder) -> str | None:
    """The commit that the files come from, or came from where only the cache has them: its folders are called so."""
    files = (str(file) for files in (builder.config.data_files or {}).values() for file in files)
    found = (re.match("hf://datasets/[^@]+@([0-9a-f]{40})/", file) for file in files)
    return next((match[1] for match in found if match), None) or (
        match[0] if (match := re.match("[0-9a-f]{40}", builder.hash or "")) else None
    )


def _refuse_config(name: str, config: str | None) -> None:
    if config is not None:
        raise DataError(f"{name} has no configurations, got {config!r}: leave dataset_config out")


def _read_path(path: Path, name: str, config: str | None, reading: Reading[S]) -> NamedSplits[S]:
    resolved = str(path.absolute())
    if resolved != os.fsencode(resolved).decode(errors="replace"):
        raise DataError(f"the path of {os.fsencode(name).decode(errors='replace')} is not UTF-8; rename it")
    if path.is_dir():
        if is_saved(path):
            _refuse_config(name, config)
            with loading(name):
                saved = load_saved(path)
            splits = dict(saved) if isinstance(saved, dict) else {str(saved.split or "train"): saved}
            return _named(reading.keep(splits), resolved)
        return _read_folder(path, name, config, reading)
    _refuse_config(name, config)
    if path.is_file():
        kind = table_kind(path.name)
        if kind is None:
            what = "one image; give the folder that it is in" if path.suffix.lower() in SUFFIXES else "none of these"
            raise DataError(f"a dataset in one file must be {KINDS}, but {name} is {what}")
        return NamedSplits(
            splits=read_table(path, name, kind, reading.build),
            resolved=resolved,
            root=DatasetRoot(str(path.parent)),
        )
    if path.exists():
        raise DataError(f"{name} is neither a folder nor a regular file")
    known = ", ".join(sorted(KNOWN))
    raise DataError(
        f"there is no folder or file {name}, and it is neither built in ({known}) nor a Hub id like org/name."
        f"{did_you_mean(name.lower(), KNOWN)}"
    )


def _read_folder(path: Path, name: str, config: str | None, reading: Reading[S]) -> NamedSplits[S]:
    files = list_files(path, reading.new_files(path))
    resolved = str(path.absolute())
    if not files.images:
        if not any(map(table_kind, files.others)):
            _refuse_config(name, config)
            raise DataError(_no_images(name, files.others))
        splits, notes = read_tables(path, name, files.others, config, reading.build)
        return _named(splits, resolved, (*notes, *replace(files, others=[]).notes()))
    metadata = [file for file in files.others if table_kind(file) and is_metadata(path / file)]
    alone = [file for file in files.others if table_kind(file) in WITH_IMAGES and file not in metadata]
    if alone:
        raise DataError(
            f"{name} holds {counted(len(files.images), 'image')} and "
            f"{counted(len(alone), 'parquet, arrow or tar file')} ({alone[0]}, ...); name a folder with one kind, or "
            "one of the files"
        )
    _refuse_config(name, config)
    if metadata:
        tables, notes = read_metadata(path, name, metadata, files.images)
        rest = replace(files, others=[file for file in files.others if file not in metadata])
        return _named(reading.metadata(path, tables), resolved, (*notes, *rest.notes()))
    splits, notes = reading.image_folder(path, name, files.images)
    root = DatasetRoot(resolved, follow_links=True)
    return NamedSplits(splits=splits, resolved=resolved, root=root, notes=(*notes, *files.notes()))


def _no_images(name: str, others: Paths) -> str:
    found = f"{counted(len(others), 'file')}, none of them an image ({others[0]}, ...)" if others else "no files"
    return (
        f"{name} holds {found}; give a folder of images (.png, .jpg, ..., in sub-folders named after their class "
        f"where there are classes), of files of rows ({KINDS}), or what save_to_disk wrote"
    )


def _named(splits: dict[str, S], folder: str, notes: tuple[str, ...] = ()) -> NamedSplits[S]:
    return NamedSplits(splits=splits, resolved=folder, root=DatasetRoot(folder), notes=notes)
