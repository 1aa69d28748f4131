"""Codes back to image files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from tqdm import tqdm

from vqtok.batches import check_batch_size
from vqtok.codes.binding import AnyCodes, splits_of
from vqtok.codes.columns import view
from vqtok.codes.reader import codes_array, read_spec
from vqtok.codes.spec import COLUMN, CodesSpec
from vqtok.folders import new_folder

if TYPE_CHECKING:
    from vqtok.tokenizer import VQTokenizer

__all__ = ["detokenize_dataset", "image_file_names"]

BATCH_SIZE = 64
LONGEST_NAME, LONGEST_PATH = 230, 2000  # bytes; disks take 255 and 4096, some of which --out and numbers need
MOST_PARTS = 100  # of a path; Python makes and removes folders by recursion, which ends at a thousand
WRITING_THREADS = 2  # Pillow compresses without holding Python's lock


def detokenize_dataset(
    codes: AnyCodes, tokenizer: VQTokenizer, out: str | Path, *, batch_size: int = BATCH_SIZE, progress: bool = True
) -> int:
    """Decode every grid as a PNG.

    An image is named after its `file_name`, sub-folders included, with the suffix .png; without that column, after its
    row: 000000.png. Several splits become one folder each.

    Args:
        codes: what `load_codes` gives, streamed or not.
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
    spec = read_spec(codes)
    spec.check(tokenizer)
    splits = splits_of(codes)
    counts = [len(split) for split in splits.values() if isinstance(split, datasets.Dataset)]
    total = sum(counts) if len(counts) == len(splits) else None
    decoded = 0
    with (
        new_folder(Path(out)) as folder,
        tqdm(total=total, desc="decoding", unit=" images", disable=None if progress else True) as bar,
        ThreadPoolExecutor(WRITING_THREADS) as pool,
    ):
        for name, split in splits.items():
            place = folder / name if len(splits) > 1 else folder
            known = isinstance(split, datasets.Dataset)
            for grids, names in named_grids(split, batch_size) if known else streamed(split, spec, batch_size):
                for parent in {name.rpartition("/")[0] for name in names}:
                    (place / parent).mkdir(parents=True, exist_ok=True)
                with torch.inference_mode():
                    images = tokenizer.detokenize(grids)
                paths = [place / name for name in names]
                list(pool.map(lambda image, path: image.save(path, format="PNG"), images, paths))
                bar.update(len(images))
                decoded += len(images)
    return decoded


def named_grids(dataset: datasets.Dataset, batch_size: int) -> Iterator[tuple[npt.NDArray[Any], list[str]]]:
    """Batches of grids (B, h, w[, Q]) and the names of their images."""
    grids = codes_array(dataset)
    columns = [column for column in ("file_name",) if column in dataset.column_names]
    names = image_file_names(file_names(dataset.select_columns(columns).with_format("arrow")[:], len(dataset)))
    for start in range(0, len(grids), batch_size):
        yield grids[start : start + batch_size], names[start : start + batch_size]


def streamed(
    dataset: datasets.IterableDataset, spec: CodesSpec, batch_size: int
) -> Iterator[tuple[npt.NDArray[Any], list[str]]]:
    """The same of a stream, whose later names nobody knows yet: of two of one name only the second gets its number."""
    names = Names()
    for rows in dataset.with_format("arrow").iter(batch_size):
        grids = np.concatenate([view(chunk, spec.feature) for chunk in rows.column(COLUMN).chunks])
        yield grids, [names.of(file) for file in file_names(rows, len(grids))]


def file_names(rows: pa.Table, count: int) -> list[object]:
    """What so many images are called, None where nothing says so or it is not UTF-8."""

    def value(cell: pa.Scalar) -> object:
        with suppress(UnicodeDecodeError):
            return cell.as_py()
        return None

    return [value(cell) for cell in rows.column("file_name")] if "file_name" in rows.column_names else [None] * count


class Names:
    """PNG names for the rows of a stream, one after the other, each of its own."""

    def __init__(self) -> None:
        self.rows = 0
        self.files: set[str] = set()
        self.folders: set[str] = set()

    def of(self, file: object) -> str:
        """The name for the next row, by the rules of `image_file_names` as far as what came before goes."""
        number, stem = f"{self.rows:06d}", _stem(file)
        self.rows += 1
        name = f"{number if stem is None else stem}.png"
        if not self._is_free(name):
            name = f"{stem}-{number}.png" if stem and not self._is_below_a_file(stem) else f"{number}.png"
        while not self._is_free(name):
            name = f"{name.removesuffix('.png')}_.png"
        self.files.add(name.casefold())
        self.folders |= {str(folder) for folder in PurePosixPath(name.casefold()).parents}
        return name

    def _is_free(self, name: str) -> bool:
        taken = name.casefold() in self.files or name.casefold() in self.folders
        return not taken and not self._is_below_a_file(name)

    def _is_below_a_file(self, name: str) -> bool:
        return any(str(folder) in self.files for folder in PurePosixPath(name.casefold()).parents)


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
