"""Metadata files beside images: which images there are, and what else is known of each.

`datasets` reads them one by one; what no file names, or two do, is said here.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, Image, Value, concatenate_datasets

from vqtok.data.folders import Paths, left_out
from vqtok.data.layout import SPLIT_NAMES, FolderLayout, first_folder, split_group
from vqtok.data.tables import build, loading, table_builder
from vqtok.errors import DataError
from vqtok.text import counted

__all__ = ["is_metadata", "read_metadata"]

METADATA = {"metadata.csv": "csv", "metadata.jsonl": "json", "metadata.parquet": "parquet"}
LONGEST_LINE = 1 << 24  # characters


def is_metadata(path: Path) -> bool:
    """Whether a file says which images there are: called metadata, with a column file_name and at least one row.

    Raises:
        DataError: it speaks of file_name, but not as such a file does.
    """
    kind = METADATA.get(path.name)
    if kind is None or not path.is_file():
        return False
    names = None
    with suppress(OSError, ValueError, RecursionError, pa.ArrowException):
        if kind == "parquet":
            return "file_name" in pq.read_schema(path).names and pq.read_metadata(path).num_rows > 0
        with path.open(encoding="utf-8-sig") as file:
            lines = iter(lambda: file.readline(LONGEST_LINE), "")
            first = next(filter(str.strip, lines), "")
            if kind == "csv" and not any(map(str.strip, lines)):
                return False
        names = json.loads(first) if kind == "json" else first.strip().replace('"', "").split(",")
    if isinstance(names, dict | list) and "file_name" in names:
        return True
    with path.open("rb") as content:
        if re.search(rb"\bfile_name\b", content.read(1 << 16).replace(b"\0", b"")):  # UTF-16 has a zero a letter
            form = "an object of JSON a line" if kind == "json" else "commas between the columns"
            raise DataError(
                f"{path} speaks of file_name and is not understood: save it as UTF-8 text with {form}, or move it out"
            )
    return False


def read_metadata(
    folder: Path, name: str, files: Sequence[str], images: Paths
) -> tuple[dict[str, Dataset], tuple[str, ...]]:
    """The rows of metadata files beside images, whose splits are those of a folder of images; and notes.

    Their column file_name is the path of the image below the folder.

    Args:
        files: those that are metadata, relative to the folder.
        images: all images there are, relative to the folder.

    Raises:
        DataError: files that cannot be read or name no images below them, no rows, or splits and others beside them;
            images outside the folders of all of the files, or a split of which they name none.
    """
    own = os.path.join(os.path.realpath(folder), "")
    with loading(name):
        # One by one: read together, whichever comes first decides the columns of all.
        tables = [_read_rows(name, own, file) for file in files]
        paths = [_image_paths(table, own) for table in tables]
        tables = [_with_file_names(table, found) for table, found in zip(tables, paths, strict=True)]
        repeated = _repeated(name, files, paths)
        named = [path for found in paths for path in found]
        unnamed = _find_unnamed(folder, name, files, images, named)
        layout = FolderLayout(named)
        splits = {split: _below(prefix, tables, paths) for split, (prefix, _) in layout.splits(name).items()}
    notes = [*repeated, *([left_out("images that no metadata file names", unnamed)] if unnamed else [])]
    classes = layout.classes(name)
    if len(classes) > 1 and not any("label" in table.features for table in tables):
        notes.append(_no_classes(classes))
    return splits, tuple(notes)


def _repeated(name: str, files: Sequence[str], paths: Sequence[Sequence[str]]) -> list[str]:
    """Notes on images that one file names several times, as for several captions of each: that may be meant.

    Raises:
        DataError: two files name the same image, which would silently be two.
    """
    owners: dict[str, str] = {}
    notes = []
    for file, found in zip(files, paths, strict=True):
        counts = Counter(filter(None, found))  # a row may name none
        for image in counts:
            if owners.setdefault(image, file) != file:
                raise DataError(f"{name}: {image} is named by both {owners[image]} and {file}; keep it in one of them")
        if several := [image for image, count in counts.items() if count > 1]:
            notes.append(
                f"{file} names {counted(len(several), 'image')} more than once ({several[0]}, ...): every row is an "
                "image of its own, and one that is held out to test on may also be trained on"
            )
    return notes


def _find_unnamed(folder: Path, name: str, files: Sequence[str], images: Paths, named: Sequence[str]) -> list[str]:
    """The images that no metadata file names, where that may be meant.

    Raises:
        DataError: it cannot be: no file speaks for their folder, or they are a whole split or all there is.
    """
    known = set(named)
    unnamed = [image for image in images if image not in known]
    if len(unnamed) == len(images) and not (folder / named[0]).is_file():  # images need no suffix to be named
        raise DataError(
            f"{name} holds {counted(len(images), 'image')} ({images[0]}, ...), and {files[0]} names none of what is "
            f"there but {named[0]}; write every file_name as the path below the metadata file, suffix included"
        )
    shared = FolderLayout(images).shared
    tops = {top for image in unnamed if (top := first_folder(image, shared)) and split_group(top) in SPLIT_NAMES}
    for split in [os.path.join(shared, top) for top in sorted(tops)]:
        if any(path.startswith(os.path.join(split, "")) for path in known):
            continue
        inside = [image for image in unnamed if image.startswith(os.path.join(split, ""))]
        raise DataError(
            f"{name} holds {counted(len(inside), 'image')} in {split}, and no metadata file names any of them; name "
            f"them in {split}/metadata.csv, remove the metadata files ({files[0]}, ...), or move {split} out"
        )
    folders = tuple({os.path.join(os.path.dirname(file), "") for file in files})
    outside = [] if "" in folders else [image for image in unnamed if not image.startswith(folders)]
    if outside:
        raise DataError(
            f"{name} holds {counted(len(outside), 'image')} outside the folder of every metadata file "
            f"({outside[0]}, ...): {files[0]} names only images below it; move {os.path.dirname(files[0])} out or name "
            "it as the dataset, or name all images in one metadata file above them"
        )
    return unnamed


def _no_classes(classes: Sequence[str]) -> str:
    named = ", ".join([*classes[:3], *(["..."] if len(classes) > 3 else [])])
    return (
        f"the sub-folders {named} are not taken as classes, since metadata files say what the images are; a column "
        "label in them gives classes"
    )


def _read_rows(name: str, own: str, file: str) -> Dataset:
    """The rows of one file, with a column image.

    Raises:
        DataError: its column file_name is no text, or another is called image.
    """
    try:
        table = build(table_builder("imagefolder", {"train": [own + file]}), own)["train"]
    except ValueError as error:
        if "must be present as dictionary key" not in str(error):
            raise
        raise DataError(
            f"{name}: {file} has file_names that are no text; write every file_name as the path below the metadata "
            "file, suffix included"
        ) from error
    if not isinstance(table.features["image"], Image):
        raise DataError(
            f"{name}: {file} has a column image beside file_name, which leads to the images; rename the column image"
        )
    return table


def _image_paths(table: Dataset, own: str) -> list[str]:
    images = table.select_columns(["image"]).with_format("arrow")[:]["image"]
    return [(path or "").removeprefix(own) for path in pc.struct_field(images, "path").to_pylist()]


def _with_file_names(table: Dataset, paths: Sequence[str]) -> Dataset:
    """Rows that say what their images are called, as those of a folder of images do; `datasets` drops that column."""
    if "file_name" in table.column_names:
        return table
    names = [Path(path).as_posix() if path else None for path in paths]
    named: Dataset = table.add_column("file_name", names, feature=Value("string"))
    return named


def _below(prefix: str, tables: Sequence[Dataset], paths: Sequence[Sequence[str]]) -> Dataset:
    """The rows of all tables whose paths begin so; a column that a table lacks holds nulls."""
    below = [[row for row, path in enumerate(found) if path.startswith(prefix)] for found in paths]
    return concatenate_datasets([table.select(rows) for table, rows in zip(tables, below, strict=True) if rows])
