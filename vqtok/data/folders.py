"""A folder of images as splits with labels, all of it from the names of its files and folders: nothing is read yet."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Image, Value

from vqtok.data.formats import SUFFIXES
from vqtok.errors import DataError

__all__ = [
    "SPLIT_NAMES",
    "FolderFiles",
    "class_folders",
    "first_folder",
    "group_by_split",
    "image_folder_splits",
    "left_out",
    "list_files",
    "shared_folders",
    "split_group",
]

# What splits are called; the first name is ours.
SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}


@dataclass(frozen=True)
class FolderFiles:
    """What lies below a folder, as relative paths, files before folders; hidden files and folders are not looked at.

    Attributes:
        images: files with the suffix of an image.
        others: all other files.
        cycles: links to a folder that they lie in, which are not followed.
        repeats: links behind other links to a folder that is read already, which are not followed.
        special: named pipes, devices, links that lead only to themselves and other entries that are no regular files,
            which are never opened.
        unnamed: files whose names are not UTF-8, as Arrow and JSON need them; here with escapes.
    """

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    cycles: list[str] = field(default_factory=list)
    repeats: list[str] = field(default_factory=list)
    special: list[str] = field(default_factory=list)
    unnamed: list[str] = field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        """What was left out, for the user."""
        reasons = {
            "no images by their names": self.others,
            "links to a folder that they lie in": self.cycles,
            "links to a folder that is read already": self.repeats,
            "no regular files": self.special,
            "names that are not UTF-8": self.unnamed,
        }
        return tuple(left_out(reason, paths) for reason, paths in reasons.items() if paths)


def left_out(reason: str, paths: Sequence[str]) -> str:
    """The note on files that are not read."""
    return f"left out as {reason}: {paths[0]}" + (f" and {len(paths) - 1:,} more" if len(paths) > 1 else "")


def list_files(root: Path) -> FolderFiles:
    """List what lies below a folder, following links to other folders and files wherever they lead.

    Of the links in a folder that is itself reached by a link, only those to folders that are not read already.

    Raises:
        DataError: a folder that may not be read.
    """
    found = FolderFiles()
    for kind, path in sorted(_walk(root), key=lambda found: _in_order(found[1])):
        if kind == "file":
            kind = "images" if os.path.splitext(path)[1].lower() in SUFFIXES else "others"
        readable = os.fsencode(path).decode(errors="backslashreplace")
        if readable != path:
            kind, path = "unnamed", readable
        getattr(found, kind).append(path)
    return found


def image_folder_splits(root: Path, name: str, images: list[str]) -> tuple[dict[str, Dataset], tuple[str, ...]]:
    """The splits of a folder of image files, as rows of image (only its path), label and file_name; and notes.

    Sub-folders `train`, `test`, `validation` (or `val`, ...) are splits where there are no others; folders above them
    or above the classes that hold nothing but one other are passed through. Below the splits, the
    first level of sub-folders are the classes, whatever is nested in them; a split in which images lie beside them or
    without any has no labels, and none has where there are fewer than two classes.

    Args:
        images: paths below `root`, as `list_files` gives them.

    Raises:
        DataError: sub-folders that are splits and others beside them, or two for one split.
    """
    groups = group_by_split(name, images)
    folders, classes = class_folders(groups)
    number = {label: index for index, label in enumerate(classes)}
    splits = {}
    for split, (prefix, files) in groups.items():
        features = Features({"image": Image(decode=False), "file_name": Value("string")})
        columns: dict[str, Any] = {"image": _paths(root, files), "file_name": [Path(file).as_posix() for file in files]}
        if len(classes) > 1 and None not in folders[split]:
            features["label"] = ClassLabel(names=classes)
            columns["label"] = [number[first_folder(file, prefix) or ""] for file in files]
        splits[split] = Dataset(pa.table(columns, schema=features.arrow_schema))
    return splits, tuple(_no_classes(split, found) for split, found in folders.items() if {None} < found)


def class_folders(groups: Mapping[str, tuple[str, Sequence[str]]]) -> tuple[dict[str, set[str | None]], list[str]]:
    """The first level of sub-folders by split, None for images beside them; and those that are classes, ascending.

    Args:
        groups: what `group_by_split` gives.
    """
    folders = {split: {first_folder(file, prefix) for file in files} for split, (prefix, files) in groups.items()}
    return folders, sorted({folder for found in folders.values() if None not in found for folder in found if folder})


def _no_classes(split: str, folders: Set[str | None]) -> str:
    named = ", ".join(sorted(filter(None, folders))[:3])
    return f"images of the split {split} lie beside the sub-folders {named}, so these are not taken as classes"


def split_group(name: str) -> str:
    """The usual name of a split: train, validation, test, or the name itself."""
    return next((group for group, names in SPLIT_NAMES.items() if name.lower() in names), name)


def _walk(root: Path) -> Iterator[tuple[str, str]]:
    """Everything below a folder, each with its kind, in no order.

    Folders are read in rounds: those reached by no link, by one link, by two. A link behind a link is followed only to
    a folder that was not read before: folders that link to each other would else multiply their images without end.
    """
    read: set[str] = set()
    # paths below the root, with the real paths of the folders whose links led there and, last, its own
    folders: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(root),))]
    first = True
    while folders:
        links: list[tuple[str, tuple[str, ...]]] = []
        while folders:
            folder, above = folders.pop()
            read.add(above[-1])
            for kind, entry in _entries(os.path.join(root, folder)):
                path = os.path.join(folder, entry.name)
                if kind != "folder":
                    yield kind, path
                elif not entry.is_symlink():
                    folders.append((path, (*above[:-1], os.path.join(above[-1], entry.name))))
                elif _lies_in(above, real := os.path.realpath(entry.path)):
                    yield "cycles", path
                else:
                    links.append((path, (*above, real)))
        for path, above in sorted(links):
            if not first and above[-1] in read:
                yield "repeats", path
            else:
                folders.append((path, above))
                read.add(above[-1])
        first = False


def _entries(folder: str) -> list[tuple[str, os.DirEntry[str]]]:
    """What is in a folder, each with its kind, hidden names left out."""
    try:
        with os.scandir(folder) as entries:
            return [(_kind(entry), entry) for entry in entries if not entry.name.startswith((".", "__MACOSX"))]
    except OSError as error:
        raise DataError(f"the folder {folder} cannot be read: {error.strerror}") from error


def _lies_in(folders: Sequence[str], other: str) -> bool:
    """Whether one of some folders is another or lies in it."""
    return any(os.path.join(folder, "").startswith(os.path.join(other, "")) for folder in folders)


def _in_order(path: str) -> tuple[tuple[bool, str], ...]:
    """Sorts files before folders."""
    *folders, name = path.split(os.sep)
    return (*((True, folder) for folder in folders), (False, name))


def _kind(entry: os.DirEntry[str]) -> str:
    try:
        if entry.is_dir():
            return "folder"
        dangling = entry.is_symlink() and not os.path.exists(entry.path)
        return "file" if entry.is_file() or dangling else "special"
    except OSError:  # a link that leads to itself
        return "special"


def _paths(root: Path, files: list[str]) -> pa.StructArray:
    base = os.path.abspath(root)
    paths = pa.array([os.path.join(base, file) for file in files], pa.string())
    return pa.StructArray.from_arrays([pa.nulls(len(files), pa.binary()), paths], ["bytes", "path"])


def first_folder(file: str, prefix: str = "") -> str | None:
    """The folder that a file lies in, of those directly below a prefix; None where it lies in none."""
    first, separator, _ = file[len(prefix) :].partition(os.sep)
    return first if separator else None


def group_by_split(name: str, images: list[str]) -> dict[str, tuple[str, list[str]]]:
    """The splits that the top folders of some files are: by split the prefix of its files, and the files.

    Folders above that hold nothing but one other, as archives unpack to, do not count.

    Raises:
        DataError: folders that are splits and others beside them, or two for one split.
    """
    shared = shared_folders(images)
    tops = {first_folder(file, shared) for file in images}
    as_splits = {top: split_group(top) for top in tops if top is not None and split_group(top) in SPLIT_NAMES}
    if set(as_splits) != tops:
        if len(set(as_splits.values())) > 1:
            rest = sorted(str(top) if top else "images beside them" for top in tops - set(as_splits))
            raise DataError(
                f"{name} holds the splits {', '.join(sorted(as_splits))} and also {', '.join(rest)}; move those out"
            )
        return {"train": (shared, images)}
    if len(set(as_splits.values())) < len(as_splits):
        raise DataError(f"{name} holds two folders for one split: {', '.join(sorted(as_splits))}; merge or rename one")
    order = sorted(as_splits, key=lambda top: list(SPLIT_NAMES).index(as_splits[top]))
    prefixes = {as_splits[top]: os.path.join(shared, top, "") for top in order}
    return {split: (prefix, [file for file in images if file.startswith(prefix)]) for split, prefix in prefixes.items()}


def shared_folders(files: Sequence[str]) -> str:
    """The prefix of all files down to where they part or a split begins."""
    prefix = ""
    while len(tops := {first_folder(file, prefix) for file in files}) == 1:
        (top,) = tops
        if top is None or split_group(top) in SPLIT_NAMES:
            break
        prefix = os.path.join(prefix, top, "")
    return prefix
