"""A folder of images as splits with labels, all of it from the names of its files and folders: nothing is read yet."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Image, Value

from vqtok.data.entries import folder_entries, sub_folders
from vqtok.data.formats import SUFFIXES
from vqtok.data.layout import FolderLayout, first_folder

__all__ = ["FolderFiles", "Paths", "image_folder_splits", "label_features", "left_out", "list_files"]


class Paths(Protocol):
    """Paths in the order that they are found: a list, or what keeps most of them on the disk."""

    def append(self, path: str, /) -> None: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[str]: ...

    def __getitem__(self, index: Literal[0], /) -> str: ...


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

    images: Paths = field(default_factory=list[str])
    others: Paths = field(default_factory=list[str])
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


def left_out(reason: str, paths: Paths) -> str:
    """The note on files that are not read."""
    return f"left out as {reason}: {paths[0]}" + (f" and {len(paths) - 1:,} more" if len(paths) > 1 else "")


def list_files(root: Path, found: FolderFiles | None = None) -> FolderFiles:
    """List what lies below a folder, following links to other folders and files wherever they lead.

    Of the links in a folder that is itself reached by a link, only those to folders that are not read already.

    Args:
        found: where to put the paths, by default into lists in memory.

    Raises:
        DataError: a folder that may not be read.
    """
    found = found or FolderFiles()
    for kind, path in _walk(root):
        if kind == "file":
            kind = "images" if os.path.splitext(path)[1].lower() in SUFFIXES else "others"
        readable = os.fsencode(path).decode(errors="backslashreplace")
        if readable != path:
            kind, path = "unnamed", readable
        getattr(found, kind).append(path)
    return found


def image_folder_splits(root: Path, name: str, images: Paths) -> tuple[dict[str, Dataset], tuple[str, ...]]:
    """The splits of a folder of image files, as rows of image (only its path), file_name and label; and notes.

    Which folders are splits and classes is said in `layout.py`; a split without classes has no labels.

    Args:
        images: paths below `root`, as `list_files` gives them.

    Raises:
        DataError: sub-folders that are splits and others beside them, or two for one split.
    """
    layout = FolderLayout(images)
    splits = {}
    for split, (prefix, _) in layout.splits(name).items():
        files = [file for file in images if file.startswith(prefix)]
        features = Features({"image": Image(decode=False), "file_name": Value("string")})
        columns: dict[str, Any] = {"image": _paths(root, files), "file_name": [Path(file).as_posix() for file in files]}
        if labels := label_features(layout, name, split):
            features |= labels
            columns["label"] = [labels["label"].str2int(first_folder(file, prefix)) for file in files]
        splits[split] = Dataset(pa.table(columns, schema=Features(features).arrow_schema))
    return splits, layout.notes(name)


def label_features(layout: FolderLayout, name: str, split: str) -> dict[str, ClassLabel]:
    """The column of labels that a split of a folder of images has, if it has one."""
    classes = layout.classes(name)
    _, folders = layout.splits(name)[split]
    return {"label": ClassLabel(names=classes)} if len(classes) > 1 and None not in folders else {}


def _walk(root: Path) -> Iterator[tuple[str, str]]:
    """Everything below a folder in the order of `folder_entries`, each with its kind."""
    left = _links_left_out(root)
    folders: list[tuple[str, Iterator[tuple[str, str]]]] = [("", folder_entries(root))]
    while folders:
        folder, entries = folders[-1]
        for kind, name in entries:
            path = os.path.join(folder, name)
            if kind in ("file", "special") or path in left:
                yield left.get(path, kind), path
            else:
                folders.append((path, folder_entries(root / path)))
                break
        else:
            folders.pop()


def _links_left_out(root: Path) -> dict[str, str]:
    """Links to folders that are not followed, by path: "cycles" and "repeats".

    Folders are looked at in rounds: those reached by no link, by one link, by two. A link behind a link is followed
    only to a folder that no earlier round reads: folders that link to each other would else multiply their images
    without end.
    """
    left: dict[str, str] = {}
    read: set[str] = set()
    # Paths below the root, with the real paths of the folders whose links led there and, last, its own.
    folders: list[tuple[str, tuple[str, ...]]] = [("", (os.path.realpath(root),))]
    first = True
    while folders:
        links: list[tuple[str, tuple[str, ...]]] = []
        while folders:
            folder, above = folders.pop()
            read.add(above[-1])
            for name, linked in sub_folders(root / folder):
                path = os.path.join(folder, name)
                if not linked:
                    folders.append((path, (*above[:-1], os.path.join(above[-1], name))))
                elif _lies_in(above, real := os.path.realpath(root / path)):
                    left[path] = "cycles"
                else:
                    links.append((path, (*above, real)))
        for path, above in sorted(links):
            if not first and above[-1] in read:
                left[path] = "repeats"
            else:
                folders.append((path, above))
                read.add(above[-1])
        first = False
    return left


def _lies_in(folders: Sequence[str], other: str) -> bool:
    """Whether one of some folders is another or lies in it."""
    return any(os.path.join(folder, "").startswith(os.path.join(other, "")) for folder in folders)


def _paths(root: Path, files: list[str]) -> pa.StructArray:
    base = os.path.abspath(root)
    paths = pa.array([os.path.join(base, file) for file in files], pa.string())
    return pa.StructArray.from_arrays([pa.nulls(len(files), pa.binary()), paths], ["bytes", "path"])
