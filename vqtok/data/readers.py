"""What a dataset's name means, and its splits as it has them: built in, on the Hub, on this disk.

mnist-mini                  in the package, see sample/README.md
mnist, cifar10              short for ylecun/mnist and uoft-cs/cifar10
org/name, org/name@revision a dataset on the Hub; no code of it is executed
a folder                    images (see `image_folder_splits`), `save_to_disk` output, or parquet and arrow files
a file                      parquet or arrow
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, DatasetDict, Features, load_dataset, load_from_disk
from datasets.exceptions import DatasetNotFoundError

from vqtok.data.folders import image_folder_splits, list_files
from vqtok.data.formats import SUFFIXES
from vqtok.data.images import one_line
from vqtok.errors import DataError, HubError, did_you_mean

__all__ = ["KNOWN", "NamedSplits", "read_splits"]

SAMPLE = Path(__file__).parent / "sample" / "mnist-mini.parquet"
KNOWN = {"cifar10": "uoft-cs/cifar10", "mnist": "ylecun/mnist", "mnist-mini": "mnist-mini"}
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*(@[\w./-]+)?")
TABLES = {".parquet": "parquet", ".arrow": "arrow"}


@dataclass(frozen=True, kw_only=True)
class NamedSplits:
    """A dataset as its source has it.

    Attributes:
        splits: by name, in the source's order.
        resolved: the Hub id or the absolute path behind the name.
        revision: the commit on the Hub, where there is one.
        notes: what the user should know.
    """

    splits: dict[str, Dataset]
    resolved: str
    revision: str | None = None
    notes: tuple[str, ...] = ()


def read_splits(dataset: str, revision: str | None = None) -> NamedSplits:
    """Find a dataset by name and read its splits.

    Raises:
        DataError: the name means nothing, or what it names holds no data that can be read.
        HubError: the Hub does not have it, does not give it, or cannot be reached.
    """
    path = Path(dataset).expanduser()
    if dataset in KNOWN:
        found = _read_sample() if dataset == "mnist-mini" else _read_hub(KNOWN[dataset], revision)
        if not path.exists():
            return found
        note = f"{dataset} is the built-in name for {found.resolved}; the folder here is ./{dataset}"
        return NamedSplits(splits=found.splits, resolved=found.resolved, revision=found.revision, notes=(note,))
    if path.exists() or not HUB_ID.fullmatch(dataset):
        if revision is not None:
            raise DataError(f"a revision belongs to a dataset on the Hub, but {dataset} is none; leave it out")
        return _read_path(path, dataset)
    repository, _, at_revision = dataset.partition("@")
    return _read_hub(repository, revision or at_revision or None)


def _read_sample() -> NamedSplits:
    table = pq.read_table(SAMPLE)
    names = Features.from_arrow_schema(table.schema)["split"].names
    splits = {
        name: Dataset(table.filter(pc.field("split") == number).drop_columns(["split"]).combine_chunks())
        for number, name in enumerate(names)
    }
    return NamedSplits(splits=splits, resolved="mnist-mini")


def _read_hub(repository: str, revision: str | None) -> NamedSplits:
    try:
        loaded = load_dataset(repository, revision=revision)
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
    except Exception as error:  # load_dataset parses what strangers uploaded: it may raise anything
        raise DataError(f"{repository} on the Hub cannot be loaded: {one_line(error)}") from error
    return NamedSplits(splits=dict(loaded), resolved=repository, revision=_commit(loaded) or revision)


def _commit(loaded: DatasetDict) -> str | None:
    """The commit that the files came from: `datasets` names the folder of its cache after it."""
    folders = (Path(file["filename"]).parent.name for split in loaded.values() for file in split.cache_files)
    return next((folder for folder in folders if re.fullmatch("[0-9a-f]{40}", folder)), None)


def _read_path(path: Path, name: str) -> NamedSplits:
    resolved = str(path.absolute())
    if path.is_dir():
        if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
            return NamedSplits(splits=_load(name, load_from_disk, resolved), resolved=resolved)
        return _read_folder(path, name)
    if path.is_file():
        if path.suffix.lower() not in TABLES:
            what = "one image; give the folder that it is in" if path.suffix.lower() in SUFFIXES else "neither"
            raise DataError(f"a dataset in one file must be parquet or arrow, but {name} is {what}")
        return NamedSplits(splits=_load_tables(name, [resolved]), resolved=resolved)
    known = ", ".join(sorted(KNOWN))
    raise DataError(
        f"there is no folder or file {name}, and it is neither built in ({known}) nor a Hub id like org/name."
        f"{did_you_mean(name.lower(), KNOWN)}"
    )


def _read_folder(path: Path, name: str) -> NamedSplits:
    files = list_files(path)
    resolved = str(path.absolute())
    tables = [file for file in files.others if os.path.splitext(file)[1].lower() in TABLES]
    if files.images and tables:
        raise DataError(
            f"{name} holds {len(files.images)} images and {len(tables)} parquet or arrow files ({tables[0]}, ...); "
            "name a folder with one kind, or one of the files"
        )
    if tables:
        return NamedSplits(splits=_load(name, load_dataset, resolved), resolved=resolved)
    if not files.images:
        found = (
            f"{len(files.others)} files, none of them an image ({files.others[0]}, ...)" if files.others else "no files"
        )
        raise DataError(
            f"{name} holds {found}; give a folder of images (.png, .jpg, ..., in sub-folders named after their class "
            "where there are classes), of parquet or arrow files, or what save_to_disk wrote"
        )
    splits, notes = image_folder_splits(path, name, files.images)
    return NamedSplits(splits=splits, resolved=resolved, notes=(*notes, *files.notes()))


def _load(name: str, load: Any, *args: Any, **kwargs: Any) -> dict[str, Dataset]:
    try:
        loaded = load(*args, **kwargs)
    except Exception as error:  # files of any origin
        if isinstance(error, IndexError) or "corresponds to no data" in str(error):  # what `datasets` makes of no rows
            raise DataError(f"{name} has no rows") from error
        raise DataError(f"{name} cannot be loaded: {one_line(error)}") from error
    return dict(loaded) if isinstance(loaded, dict) else {str(loaded.split or "train"): loaded}


def _load_tables(name: str, files: list[str]) -> dict[str, Dataset]:
    return _load(name, load_dataset, TABLES[Path(files[0]).suffix.lower()], data_files=files)
