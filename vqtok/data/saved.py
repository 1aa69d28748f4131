"""What `save_to_disk` wrote, read only where its files name splits and data of their own.

`datasets` joins the names in `dataset_dict.json` and `state.json` to the folder as they are. Whoever made the folder
could so have another dataset of this machine read, or a split written next to the codes folder rather than into it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, DatasetInfo, Features

from vqtok.data.paths import DatasetRoot
from vqtok.errors import CheckpointError, DataError, shortened
from vqtok.schema import read_object

__all__ = ["is_saved", "load_saved", "split_folders"]

SPLITS = "dataset_dict.json"
STATE = "state.json"
END = b"\xff\xff\xff\xff\0\0\0\0"  # of an Arrow stream


def is_saved(folder: Path) -> bool:
    """Whether a folder looks like what `save_to_disk` wrote."""
    return any((folder / file).is_file() for file in (SPLITS, STATE))


def load_saved(folder: Path) -> Dataset | DatasetDict:
    """Load a folder of `save_to_disk`, memory-mapped.

    Raises:
        DataError: it names a split or file that is not in it, its JSON files are damaged, or a file was cut short.
        Exception: whatever `datasets` makes of other damage; FileNotFoundError where the folder is none of its own.
    """
    # In the Hub's cache the files of a snapshot are links into the folder of the repository.
    root = DatasetRoot(str(folder.absolute().parents[1] if folder.absolute().parent.name == "snapshots" else folder))
    if (folder / STATE).is_file() or not (folder / SPLITS).is_file():
        return _load_split(folder, root)
    splits = (place.name for place in split_folders(folder))
    return DatasetDict({split: _load_split(_own(folder, split, root), root) for split in splits})


def split_folders(folder: Path) -> list[Path]:
    """Where the splits of a saved folder lie; the folder itself where it is one.

    Raises:
        DataError: it names a split that is not in it.
    """
    if (folder / STATE).is_file() or not (folder / SPLITS).is_file():
        return [folder]
    splits = _entries(folder / SPLITS, "splits")
    for split in splits:
        if not isinstance(split, str) or Path(split).name != split or split == "..":
            raise DataError(f"{folder} is not read: its split {split!r} is not the name of a folder in it")
    return [folder / split for split in splits]


def _load_split(folder: Path, root: DatasetRoot) -> Dataset:
    files = _entries(folder / STATE, "_data_files") if (folder / STATE).is_file() else None
    if files == []:  # no rows, which `datasets` saves and does not load
        features = DatasetInfo.from_directory(str(folder)).features or Features()
        return Dataset.from_dict({column: [] for column in features}, features=features)
    for file in files or []:
        if not isinstance(file, dict) or not isinstance(file.get("filename"), str):
            raise DataError(f"{folder / STATE} is damaged: an entry of _data_files has no filename")
        _check_end(_own(folder, file["filename"], root))
    # Not the function of this name: it would follow a dataset_dict.json in here, whose splits nobody has looked at.
    return Dataset.load_from_disk(str(folder))


def _check_end(file: Path) -> None:
    """Refuse an Arrow stream without the mark of its end: cut between two record batches it loads, with fewer rows."""
    with suppress(FileNotFoundError), file.open("rb") as opened:
        opened.seek(-min(len(END), file.stat().st_size), os.SEEK_END)
        if opened.read() != END:
            raise DataError(f"{file} was cut short or not finished: it has no mark of its end")


def _own(folder: Path, name: str, root: DatasetRoot) -> Path:
    root.find(os.path.join(folder.absolute(), name), str(folder))
    return folder / name


def _entries(file: Path, key: str) -> list[Any]:
    try:
        entries = read_object(file).get(key)
    except CheckpointError as error:
        raise DataError(str(error)) from error
    if not isinstance(entries, list):
        raise DataError(f"{file} is damaged: {key} must be a list, got {shortened(entries)}")
    return entries
