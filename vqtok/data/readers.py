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

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, DatasetBuilder, Features, load_dataset_builder
from datasets.exceptions import DatasetNotFoundError
from huggingface_hub.constants import HF_HUB_CACHE
from huggingface_hub.file_download import repo_folder_name

from vqtok.data.folders import image_folder_splits, list_files
from vqtok.data.formats import SUFFIXES
from vqtok.data.images import one_line
from vqtok.data.paths import DatasetRoot
from vqtok.data.saved import is_saved, load_saved
from vqtok.errors import DataError, HubError, did_you_mean

__all__ = ["KNOWN", "NamedSplits", "read_splits"]

SAMPLE = Path(__file__).parent / "sample" / "mnist-mini.parquet"
KNOWN = {"cifar10": "uoft-cs/cifar10", "mnist": "ylecun/mnist", "mnist-mini": "mnist-mini"}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
# Files of rows, by the name of their builder in `datasets`.
TABLES = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".tar": "webdataset",
}
KINDS = "parquet, arrow, csv, json, jsonl or tar (webdataset)"
ALONE = {".parquet", ".arrow"}  # beside images the other kinds are taken for notes on them, and left out
METADATA = {"metadata.csv": "csv", "metadata.jsonl": "json", "metadata.parquet": "parquet"}


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
    """Find a dataset by name and read its splits.

    Args:
        revision: branch, tag or commit of a dataset on the Hub.
        config: which configuration of a dataset that has several.

    Raises:
        DataError: the name means nothing, what it names holds no data that can be read, or it has several
            configurations and none of them is chosen; the message lists them.
        HubError: the Hub does not have it, does not give it, or cannot be reached.
    """
    path = Path(dataset).expanduser()
    if dataset in KNOWN:
        if dataset == "mnist-mini":
            _refuse_config(dataset, config)
        found = _read_sample() if dataset == "mnist-mini" else _read_hub(KNOWN[dataset], revision, config)
        if not path.exists():
            return found
        return replace(
            found, notes=(f"{dataset} is the built-in name for {found.resolved}; the folder here is ./{dataset}",)
        )
    if path.exists() or not HUB_ID.fullmatch(dataset):
        if revision is not None:
            raise DataError(f"a revision belongs to a dataset on the Hub, but {dataset} is none; leave it out")
        return _read_path(path, dataset, config)
    repository, _, at_revision = dataset.partition("@")
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
    try:
        builder = load_dataset_builder(repository, config, revision=revision)
        splits = _build(builder, f"hf://datasets/{repository}@")
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
    except DataError:
        raise
    except Exception as error:  # `datasets` parses what strangers uploaded: it may raise anything
        _refuse_choice(repository, config, error)
        raise DataError(f"{repository} on the Hub cannot be loaded: {one_line(error)}") from error
    folder = Path(HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="dataset")
    return NamedSplits(
        splits=splits, resolved=repository, revision=_commit(splits) or revision, root=DatasetRoot(str(folder))
    )


def _commit(splits: dict[str, Dataset]) -> str | None:
    """The commit that the files came from: `datasets` names the folder of its cache after it."""
    folders = (Path(file["filename"]).parent.name for split in splits.values() for file in split.cache_files)
    return next((folder for folder in folders if re.fullmatch("[0-9a-f]{40}", folder)), None)


def _build(builder: DatasetBuilder, own: str) -> dict[str, Dataset]:
    """Read what a builder of `datasets` found, but only files of the dataset's own: its README.md can name any.

    Args:
        own: what their paths begin with; a folder ends with a separator.
    """
    prefixes = (own,) if own.startswith("hf://") else (own, os.path.realpath(own) + own[len(own.rstrip(os.sep)) :])
    for file in [file for files in (builder.config.data_files or {}).values() for file in files]:
        if ".." in Path(file).parts or not str(file).startswith(prefixes):
            raise DataError(f"the dataset names the file {file}, which is not its own, so it is not read")
    builder.download_and_prepare()
    return dict(builder.as_dataset())


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
            f"{name} has several configurations: {', '.join(names)}; choose one with --dataset-config"
        ) from error
    raise DataError(
        f"{name} has no configuration {config}, only {', '.join(names)}.{did_you_mean(config, names)}"
    ) from error


def _refuse_config(name: str, config: str | None) -> None:
    if config is not None:
        raise DataError(f"{name} has no configurations, got {config!r}: leave --dataset-config out")


def _read_path(path: Path, name: str, config: str | None) -> NamedSplits:
    resolved = str(path.absolute())
    if path.is_dir():
        if is_saved(path):
            _refuse_config(name, config)
            return _named(_load(name, partial(load_saved, path)), resolved)
        return _read_folder(path, name, config)
    _refuse_config(name, config)
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix not in TABLES:
            what = "one image; give the folder that it is in" if suffix in SUFFIXES else "none of these"
            raise DataError(f"a dataset in one file must be {KINDS}, but {name} is {what}")
        options = {"sep": "\t"} if suffix == ".tsv" else {}
        builder = partial(load_dataset_builder, TABLES[suffix], data_files=[resolved], **options)
        return replace(
            _named(_load(name, lambda: _build(builder(), resolved)), resolved), root=DatasetRoot(str(path.parent))
        )
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
    tables = [file for file in files.others if os.path.splitext(file)[1].lower() in TABLES]
    metadata = [file for file in tables if _is_metadata(path / file)]
    alone = [file for file in tables if os.path.splitext(file)[1].lower() in ALONE and file not in metadata]
    if files.images and alone:
        raise DataError(
            f"{name} holds {len(files.images)} images and {len(alone)} parquet or arrow files ({alone[0]}, ...); "
            "name a folder with one kind, or one of the files"
        )
    if files.images and metadata:
        _refuse_config(name, config)
        builder = partial(load_dataset_builder, "imagefolder", data_dir=resolved)
        return _named(_load(name, lambda: _build(builder(), os.path.join(resolved, ""))), resolved)
    if tables and not files.images:
        builder = partial(load_dataset_builder, resolved, config)
        return _named(_load(name, lambda: _build(builder(), os.path.join(resolved, "")), config), resolved)
    _refuse_config(name, config)
    if not files.images:
        others = files.others
        found = f"{len(others)} files, none of them an image ({others[0]}, ...)" if others else "no files"
        raise DataError(
            f"{name} holds {found}; give a folder of images (.png, .jpg, ..., in sub-folders named after their class "
            f"where there are classes), of files of rows ({KINDS}), or what save_to_disk wrote"
        )
    splits, notes = image_folder_splits(path, name, files.images)
    root = DatasetRoot(resolved, follow_links=True)
    return NamedSplits(splits=splits, resolved=resolved, root=root, notes=(*notes, *files.notes()))


def _is_metadata(path: Path) -> bool:
    """Whether a file says which images there are: called metadata, with a column file_name."""
    kind = METADATA.get(path.name)
    if kind is None:
        return False
    try:
        if kind == "parquet":
            return "file_name" in pq.read_schema(path).names
        with path.open(encoding="utf-8-sig") as file:
            first = file.readline(1 << 16)
        names = json.loads(first) if kind == "json" else first.strip().replace('"', "").split(",")
    except (OSError, ValueError, pa.ArrowException):
        return False
    return "file_name" in names


def _named(splits: dict[str, Dataset], folder: str) -> NamedSplits:
    return NamedSplits(splits=splits, resolved=folder, root=DatasetRoot(folder))


def _load(name: str, load: Callable[[], Any], config: str | None = None) -> dict[str, Dataset]:
    try:
        loaded = load()
    except DataError:
        raise
    except Exception as error:  # files of any origin
        _refuse_choice(name, config, error)
        if isinstance(error, IndexError) or "corresponds to no data" in str(error):  # what `datasets` makes of no rows
            raise DataError(f"{name} has no rows") from error
        raise DataError(f"{name} cannot be loaded: {one_line(error)}") from error
    return dict(loaded) if isinstance(loaded, dict) else {str(loaded.split or "train"): loaded}
