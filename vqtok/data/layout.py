"""Which sub-folders of images are splits and which are classes: from the paths alone, seen once and one by one.

Sub-folders `train`, `test`, `validation` (or `val`, ...) are splits where there are no others; folders above them or
above the classes that hold nothing but one other are passed through. Below the splits, the first level of sub-folders
are the classes, whatever is nested in them; a split in which images lie beside them or without any has no labels, and
none has where there are fewer than two classes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Set

from vqtok.errors import DataError

__all__ = ["SPLIT_NAMES", "FolderLayout", "first_folder", "matching_split", "split_group"]

# What splits are called; the first name is ours.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}


class FolderLayout:
    """The folders that some files lie in: only those that may be splits or classes are kept.

    Args:
        files: relative paths.
    """

    def __init__(self, files: Iterable[str] = ()) -> None:
        self._shared: list[str] | None = None  # folders that hold nothing but one other
        self._tops: dict[str | None, set[str | None]] = {}  # the folders below them; in splits, those one level deeper
        self._last: str | None = None
        for file in files:
            self.add(file)

    def add(self, file: str) -> None:
        """See one more path."""
        folder = os.path.dirname(file)
        if folder == self._last:
            return
        self._last = folder
        folders = folder.split(os.sep) if folder else []
        if self._shared is None:
            splits = (depth for depth, each in enumerate(folders) if _is_split(each))
            self._shared = folders[: next(splits, len(folders))]
        common = len(os.path.commonprefix([self._shared, folders]))
        if common < len(self._shared):
            self._tops = {self._shared[common]: set()}
            self._shared = self._shared[:common]
        top, below, *_ = [*folders[common:], None, None]
        seen = self._tops.setdefault(top, set())
        if top is not None and _is_split(top):
            seen.add(below)

    @property
    def shared(self) -> str:
        """The prefix of all files down to where they part or a split begins."""
        return os.path.join(*self._shared, "") if self._shared else ""

    @property
    def tops(self) -> Set[str | None]:
        """The first folders below `shared`, None for files beside them."""
        return self._tops.keys()

    def splits(self, name: str) -> dict[str, tuple[str, Set[str | None]]]:
        """By split the prefix of its files, and the first folders below that, None for files beside them.

        Raises:
            DataError: folders that are splits and others beside them, or two for one split.
        """
        as_splits = {top: split_group(top) for top in self._tops if top is not None and _is_split(top)}
        if set(as_splits) != set(self._tops):
            if len(set(as_splits.values())) > 1:
                rest = sorted(str(top) if top else "images beside them" for top in self._tops if top not in as_splits)
                raise DataError(
                    f"{name} holds the splits {', '.join(sorted(as_splits))} and also {', '.join(rest)}; move those out"
                )
            return {"train": (self.shared, self.tops)}
        if len(set(as_splits.values())) < len(as_splits):
            raise DataError(
                f"{name} holds two folders for one split: {', '.join(sorted(as_splits))}; merge or rename one"
            )
        order = sorted(as_splits, key=lambda top: list(SPLIT_NAMES).index(as_splits[top]))
        return {as_splits[top]: (os.path.join(self.shared, top, ""), self._tops[top]) for top in order}

    def classes(self, name: str) -> list[str]:
        """The folders that are classes, ascending; arguments and errors are those of `splits`."""
        return sorted(
            {
                folder
                for _, folders in self.splits(name).values()
                if None not in folders
                for folder in folders
                if folder is not None
            }
        )

    def notes(self, name: str) -> tuple[str, ...]:
        """The splits whose sub-folders are no classes; arguments and errors are those of `splits`."""
        return tuple(_no_classes(split, found) for split, (_, found) in self.splits(name).items() if {None} < found)


def _no_classes(split: str, folders: Set[str | None]) -> str:
    named = ", ".join(sorted(filter(None, folders))[:3])
    return f"images of the split {split} lie beside the sub-folders {named}, so these are not taken as classes"


def first_folder(file: str, prefix: str = "") -> str | None:
    """The folder that a file lies in, of those directly below a prefix; None where it lies in none."""
    first, separator, _ = file[len(prefix) :].partition(os.sep)
    return first if separator else None


def split_group(name: str) -> str:
    """The usual name of a split: train, validation, test, or the name itself."""
    return next((group for group, names in SPLIT_NAMES.items() if name.lower() in names), name)


def matching_split(splits: Iterable[str], wanted: str) -> str | None:
    """The split of that name, else the first that is usually called the same, else None."""
    found = list(splits)
    if wanted in found:
        return wanted
    return next((split for split in found if split_group(split) == split_group(wanted)), None)


def _is_split(folder: str) -> bool:
    return split_group(folder) in SPLIT_NAMES
