"""Read codes folders: as a dataset, or as one array of grids that shares memory with the file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vqtok.codes.spec import COLUMN, SIDECAR, CodesSpec
from vqtok.data.saved import load_saved
from vqtok.errors import CheckpointError, DataError, MismatchError, shortened
from vqtok.schema import read_object

if TYPE_CHECKING:
    from vqtok.tokenizer import VQTokenizer

__all__ = [
    "CodeSet",
    "check_offsets",
    "codes_array",
    "grid_feature",
    "grids_in",
    "load_codes",
    "read_broken",
    "read_spec",
]

MOST_SIDECAR = 2**30  # bytes; it names every image that could not be read

CodeSet: TypeAlias = datasets.Dataset | datasets.DatasetDict


def load_codes(path: str | Path, tokenizer: VQTokenizer | None = None) -> CodeSet:
    """Load a codes folder, memory-mapped.

    Args:
        path: what `vqtok tokenize --out` wrote, or one split of it.
        tokenizer: where given, the one that must have made the codes.

    Returns:
        `DatasetDict` where the folder holds several splits, else `Dataset`; column `codes` and those of the source.

    Raises:
        DataError: the folder is missing, damaged, or holds no codes.
        MismatchError: another tokenizer made the codes.
    """
    codes = _load(Path(path))
    spec = read_spec(codes, name=str(path), folder=Path(path))
    for split in codes.values() if isinstance(codes, datasets.DatasetDict) else [codes]:
        if split.features.get(COLUMN) != spec.feature:
            raise DataError(
                f"{path} should have a column {COLUMN!r} of {spec.feature}, found {split.features.get(COLUMN)}: "
                "tokenize the images again"
            )
    if tokenizer is not None:
        spec.check(tokenizer)
    return codes


def read_spec(codes: CodeSet | str | Path, *, name: str = "the dataset", folder: Path | None = None) -> CodesSpec:
    """Say which tokenizer made these codes and what a grid looks like.

    Args:
        codes: a dataset of codes, or a codes folder.
        name: what an error calls the dataset.
        folder: where to look for the sidecar if the dataset lost its description.

    Raises:
        DataError: neither description nor sidecar tells.
        MismatchError: the dataset mixes codes of several tokenizers.
    """
    if isinstance(codes, str | Path):
        return read_spec(_load(Path(codes)), name=str(codes), folder=Path(codes))
    splits = codes.values() if isinstance(codes, datasets.DatasetDict) else [codes]
    specs = [spec for split in splits for spec in _described(split.info.description, name=name)]
    if not specs and folder is not None and (folder / SIDECAR).is_file():
        specs = [CodesSpec.from_dict(_sidecar(folder), name=str(folder / SIDECAR))]
    if not specs:
        raise DataError(f"{name} does not describe codes of vqtok: make codes with `vqtok tokenize`")
    if len({(spec.fingerprint, spec.shape) for spec in specs}) > 1:
        found = ", ".join(sorted({spec.fingerprint[:12] for spec in specs}))
        raise MismatchError(f"{name} mixes codes of several tokenizers ({found}): keep the codes of one")
    return specs[0]


def read_broken(path: str | Path) -> list[str]:
    """Name the images that could not be read when the codes folder `path` was made.

    Raises:
        DataError: the folder has no readable `codes.json`.
    """
    broken = _sidecar(Path(path)).get("broken", [])
    if not isinstance(broken, list):
        raise DataError(f"{Path(path) / SIDECAR} is damaged: broken must be a list of names, got {shortened(broken)}")
    return [str(name) for name in broken]


def codes_array(dataset: datasets.Dataset) -> npt.NDArray[Any]:
    """All grids as one array, in the order of the rows; `CodesDataset` reads them without holding them all.

    Returns:
        uint16 or wider, (N, h, w), or (N, h, w, Q) where Q > 1. A read-only view of the file where the dataset
        is one chunk and its rows are neither selected nor shuffled; a copy otherwise.

    Raises:
        DataError: there is no column of code grids, or some rows have none.
    """
    feature = grid_feature(dataset)
    column = dataset.data.column(COLUMN).chunks
    for chunk in column:
        check_offsets(chunk, feature)
    chunks = [grids_in(chunk, feature) for chunk in column if len(chunk)]
    if not chunks:
        return np.empty((0, *feature.shape), dtype=feature.dtype)
    indices = dataset._indices
    if indices is None:
        return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    rows = indices.column(0).to_numpy()
    return _take(chunks, rows)


def grid_feature(dataset: datasets.Dataset) -> datasets.Array2D | datasets.Array3D:
    """The feature of the column of grids.

    Raises:
        DataError: there is no such column.
    """
    feature = dataset.features.get(COLUMN)
    if not isinstance(feature, datasets.Array2D | datasets.Array3D):
        columns = ", ".join(dataset.column_names)
        raise DataError(f"no column {COLUMN!r} of code grids here, only {columns}: make codes with `vqtok tokenize`")
    return feature


def grids_in(chunk: pa.ExtensionArray, feature: datasets.Array2D | datasets.Array3D) -> npt.NDArray[Any]:
    """View the values under the nested lists of a chunk as (n, *shape), reading only the first and last place of each.

    Raises:
        DataError: rows without codes, or more or fewer codes than so many grids have.
    """
    if chunk.null_count:
        raise DataError(f"{chunk.null_count} rows have no codes: drop them with `dataset.filter`")
    values = chunk.storage
    try:
        for _ in feature.shape:
            values.validate()  # Arrow would read outside of the file
            values = values.flatten()
        values.validate()
        view: npt.NDArray[Any] = values.to_numpy(zero_copy_only=True)
        if view.dtype != feature.dtype:
            raise ValueError
        return view.reshape(len(chunk), *feature.shape)
    except ValueError as error:  # of Arrow also where a code is missing
        raise _other_grids(feature) from error


def check_offsets(chunk: pa.ExtensionArray, feature: datasets.Array2D | datasets.Array3D) -> None:
    """Read the places of all lists of a chunk, an eighth of its bytes at 16x16 codes, and look that each is a grid's.

    Raises:
        DataError: lists of other lengths than the shape says, or without values.
    """
    if chunk.null_count:
        raise DataError(f"{chunk.null_count} rows have no codes: drop them with `dataset.filter`")
    values = chunk.storage
    try:
        values.validate(full=True)
        for length in feature.shape:
            if (np.diff(values.offsets) != length).any():
                raise ValueError
            values = values.flatten()
    except ValueError as error:
        raise _other_grids(feature) from error


def _other_grids(feature: datasets.Array2D | datasets.Array3D) -> DataError:
    shape = " x ".join(map(str, feature.shape))
    return DataError(f"some grids are not {shape} codes, as their column says: tokenize the images again")


def _take(chunks: list[npt.NDArray[Any]], rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Pick rows out of chunks that follow one another, copying only those."""
    if len(chunks) == 1:
        picked: npt.NDArray[Any] = chunks[0][rows]
        return picked
    taken = np.empty((len(rows), *chunks[0].shape[1:]), dtype=chunks[0].dtype)
    start = 0
    for chunk in chunks:
        mine = (rows >= start) & (rows < start + len(chunk))
        taken[mine] = chunk[rows[mine] - start]
        start += len(chunk)
    return taken


def _load(path: Path) -> CodeSet:
    if not path.is_dir():
        raise DataError(f"no codes folder at {path}: make one with `vqtok tokenize <images> --out {path}`")
    try:
        return load_saved(path)
    except FileNotFoundError:
        raise DataError(f"{path} is not a codes folder: make one with `vqtok tokenize <images> --out codes`") from None
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError, pa.ArrowException) as error:
        reason = (str(error).splitlines() or ["?"])[0]
        raise DataError(f"the codes in {path} are damaged ({reason}): tokenize the images again") from error


def _described(description: str, *, name: str) -> list[CodesSpec]:
    """The specs in a description: one, or several where `concatenate_datasets` joined them with empty lines."""
    if not isinstance(description, str):
        raise DataError(f"{name} is damaged: its description must be text, got {shortened(description)}")
    parts = [part.strip() for part in description.split("\n\n")]
    return [CodesSpec.from_json(part, name=name) for part in parts if part.startswith("{")]


def _sidecar(folder: Path) -> dict[str, Any]:
    try:
        return read_object(folder / SIDECAR, most=MOST_SIDECAR)
    except CheckpointError as error:
        raise DataError(f"{error}: make codes with `vqtok tokenize`") from None
