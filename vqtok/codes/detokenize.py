"""Codes back to image files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow as pa
import torch
from tqdm import tqdm

from vqtok.batches import check_batch_size
from vqtok.codes.reader import CodeSet, codes_array, read_spec
from vqtok.folders import new_folder

if TYPE_CHECKING:
    from vqtok.tokenizer import VQTokenizer

__all__ = ["detokenize_dataset", "image_file_names"]

BATCH_SIZE = 64
LONGEST_NAME, LONGEST_PATH = 230, 2000  # bytes; disks take 255 and 4096, some of which --out and numbers need
MOST_PARTS = 100  # of a path; Python makes and removes folders by recursion, which ends at a thousand
WRITING_THREADS = 2  # Pillow compresses without holding Python's lock


def detokenize_dataset(
    codes: CodeSet, tokenizer: VQTokenizer, out: str | Path, *, batch_size: int = BATCH_SIZE, progress: bool = True
) -> int:
    """Decode every grid as a PNG.

    An image is named after its `file_name`, sub-folders included, with the suffix .png; without that column, after its
    row: 000000.png. Several splits become one folder each.

    Args:
        codes: what `load_codes` gives.
        tokenizer: the one that made them.
        out: the folder to write; missing or empty.
        batch_size: grids the tokenizer gets at once.
        progress: show a bar on a terminal.

    Returns:
        How many images were decoded.

    Raises:
        ConfigurationError: `out` is not empty.
        DataError: the dataset holds no codes, or the disk is full.
        MismatchError: another tokenizer made the codes.
    """
    check_batch_size(batch_size)
    read_spec(codes).check(tokenizer)
    splits = codes if isinstance(codes, datasets.DatasetDict) else {"": codes}
    total = sum(len(split) for split in splits.values())
    with (
        new_folder(Path(out)) as folder,
        tqdm(total=total, desc="decoding", unit=" images", disable=None if progress else True) as bar,
    ):
        for name, split in splits.items():
            _write_images(split, tokenizer, folder / name, batch_size=batch_size, bar=bar)
    return total


def _write_images(
    dataset: datasets.Dataset, tokenizer: VQTokenizer, folder: Path, *, batch_size: int, bar: tqdm[Any]
) -> None:
    grids = codes_array(dataset)
    names = image_file_names(_file_names(dataset))
    for parent in {name.rpartition("/")[0] for name in names}:
        (folder / parent).mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(WRITING_THREADS) as pool:
        for start in range(0, len(grids), batch_size):
            with torch.inference_mode():
                images = tokenizer.detokenize(grids[start : start + batch_size])
            paths = [folder / name for name in names[start : start + batch_size]]
            list(pool.map(lambda image, path: image.save(path, format="PNG"), images, paths))
            bar.update(len(images))


def _file_names(dataset: datasets.Dataset) -> list[object]:
    """What the images are called, None where that is not UTF-8."""
    if "file_name" not in dataset.column_names:
        return [None] * len(dataset)

    def value(cell: pa.Scalar) -> object:
        with suppress(UnicodeDecodeError):
            return cell.as_py()
        return None

    return [value(cell) for cell in dataset.select_columns(["file_name"]).with_format("arrow")[:]["file_name"]]


def image_file_names(files: Sequence[object]) -> list[str]:
    """A PNG name for every row, below one folder and each of its own.

    Names are texts or whole numbers. A row without a usable name (none, absolute, too long or too deep for a disk, or
    one that leaves the folder) is named by its number; rows whose names differ only in the suffix get their number
    behind the name: a.jpg and a.png give a-000000.png and a-000001.png.
    """
    width = max(6, len(str(len(files))))
    stems = [_stem(file) for file in files]
    shared = Counter(stem.casefold() for stem in stems if stem is not None)
    folders = {PurePosixPath(folder) for folder in {stem.casefold().rpartition("/")[0] for stem in stems if stem}}
    folders |= {above for folder in folders for above in folder.parents}
    taken = {str(folder).removesuffix(".png") for folder in folders if folder.suffix == ".png"}
    names = []
    for row, stem in enumerate(stems):
        number = f"{row:0{width}d}"
        name = number if stem is None else f"{stem}-{number}" if shared[stem.casefold()] > 1 else stem
        while name.casefold() in taken:  # a file or folder may already be called what this one would get
            name += "_"
        taken.add(name.casefold())
        names.append(f"{name}.png")
    return names


def _stem(file: object) -> str | None:
    """The path without its suffix, or None where it is none, is too long or would not stay below the folder."""
    if isinstance(file, int):
        return str(file)
    if not isinstance(file, str) or not file:
        return None
    path = PurePosixPath(file.replace("\\", "/"))
    if path.is_absolute() or PureWindowsPath(file).drive or ".." in path.parts or "\0" in file or not path.name:
        return None
    if len(path.parts) > MOST_PARTS or len(file.encode()) > LONGEST_PATH:
        return None
    if max(len(part.encode()) for part in path.parts) > LONGEST_NAME:
        return None
    return str(path.with_suffix(""))
