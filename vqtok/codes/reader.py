"""Read codes: as a dataset, or as one array of grids that shares memory with the file."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import is_offline_mode

from vqtok.codes.binding import AnyCodes, CodeSet, StreamedCodes, agreed, attach, features_of, specs_in, splits_of
from vqtok.codes.columns import grid_feature, view
from vqtok.codes.layout import BAD_IMAGES, BAD_SCHEMA
from vqtok.codes.opening import Opened, is_on_hub, open_codes
from vqtok.codes.sidecar import read_sidecar
from vqtok.codes.spec import COLUMN, SIDECAR, CodesSpec
from vqtok.data.saved import is_saved
from vqtok.errors import DataError, one_line
from vqtok.store import Store

if TYPE_CHECKING:
    from vqtok.tokenizer import VQTokenizer

__all__ = [
    "codes_array",
    "load_codes",
    "read_bad_images",
    "read_spec",
]


@overload
def load_codes(
    path: str | Path, tokenizer: VQTokenizer | None = None, *, streaming: Literal[False] = False
) -> CodeSet: ...


@overload
def load_codes(
    path: str | Path, tokenizer: VQTokenizer | None = None, *, streaming: Literal[True]
) -> StreamedCodes: ...


def load_codes(path: str | Path, tokenizer: VQTokenizer | None = None, *, streaming: bool = False) -> AnyCodes:
    """Load codes, memory-mapped or streamed.

    What comes back carries the binding to the tokenizer wherever a dataset can, also where it was found in `codes.json`
    alone.

    Args:
        path: what `vqtok tokenize --out` wrote or one split of it, any folder of codes that `datasets` wrote, a parquet
            or Arrow file or a pattern of such files, an address of any of these such as s3://bucket/codes, or a Hub id
            (`org/codes`, `org/codes@revision`).
        tokenizer: where given, the one that must have made the codes.
        streaming: give an `IterableDataset`; of a dataset on the Hub nothing is downloaded but what is read.

    Returns:
        `DatasetDict` where there are several splits, else `Dataset`, or the same as `Iterable...`; column `codes` and
        those of the source.

    Raises:
        DataError: they are missing or damaged, hold no codes, or do not say which tokenizer made them.
        MismatchError: another tokenizer made the codes, or several did.
        HubError: a repository or revision that cannot be read.
    """
    # What must be copied or downloaded to be mapped is looked at as a stream first, and refused before it is.
    cached = is_on_hub(path) and is_offline_mode()
    as_stream = streaming or not (cached or is_saved(Path(os.path.expanduser(path))))
    opened = open_codes(path, streaming=as_stream)
    spec = _find_spec(opened, name=str(path))
    for split in splits_of(opened.codes).values():
        found = features_of(split).get(COLUMN)
        if not spec.fits(found):
            raise DataError(
                f"{path} should have a column {COLUMN!r} of {spec.feature}, found {found}: tokenize the images again"
            )
    if tokenizer is not None:
        spec.check(tokenizer)
    if as_stream and not streaming:
        opened = open_codes(path)
    return attach(opened.codes, spec)


def read_spec(codes: AnyCodes | str | Path, *, name: str = "the dataset") -> CodesSpec:
    """Say which tokenizer made these codes and what a grid looks like.

    Args:
        codes: a dataset of codes, or what `load_codes` takes, of which no codes are read.
        name: what an error calls the dataset.

    Raises:
        DataError: there are no codes, or nothing tells which tokenizer made them; the error says how to give that back.
        MismatchError: the dataset mixes codes of several tokenizers.
    """
    if isinstance(codes, str | Path):
        return _find_spec(open_codes(codes, streaming=True), name=str(codes))
    return _find_spec(Opened(codes=codes), name=name)


def _find_spec(opened: Opened, *, name: str) -> CodesSpec:
    """What the dataset says, its files and the sidecar beside them, all of which must agree."""
    told = [*opened.specs, *specs_in(opened.codes, name=name)]
    if opened.folder and (sidecar := read_sidecar(opened.folder)) is not None:
        told.append(CodesSpec.from_dict(sidecar, name=f"{opened.folder}/{SIDECAR}"))
    if spec := agreed(told, name=name):
        return spec
    columns = {column: None for split in splits_of(opened.codes).values() for column in features_of(split)}
    if COLUMN not in columns:
        raise DataError(
            f"no column {COLUMN!r} of code grids in {name}, only {', '.join(columns)}: make codes with `vqtok tokenize`"
        )
    place = name if opened.folder or Path(name).exists() else "<codes>"
    raise DataError(
        f"{name} does not say which tokenizer made its codes, as after pandas or `map` on a stream: name it with "
        f"`vqtok bind {place} --tokenizer <tokenizer>`, or in Python with vqtok.bind_codes(dataset, tokenizer)"
    )


def read_bad_images(folder: str | Path) -> pa.Table:
    """The images that could not be read when a codes folder was made: split, row, path and reason.

    Raises:
        DataError: the table is damaged.
    """
    store = Store(folder)
    file = store.path(BAD_IMAGES)
    if store.is_local and not (store.folder / BAD_IMAGES).is_file():
        return BAD_SCHEMA.empty_table()
    try:
        data = store.read(BAD_IMAGES)
    except FileNotFoundError:
        return BAD_SCHEMA.empty_table()
    try:
        return pq.read_table(io.BytesIO(data)).select(BAD_SCHEMA.names).cast(BAD_SCHEMA)
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise DataError(f"{file} is damaged: {one_line(error)}") from error


def codes_array(dataset: datasets.Dataset) -> npt.NDArray[Any]:
    """All grids as one array, in the order of the rows; `CodesDataset` reads them without holding them all.

    Returns:
        uint16 or wider, (N, h, w), or (N, h, w, Q) where Q > 1. A read-only view of the file where the dataset
        is one chunk and its rows are neither selected nor shuffled; a copy otherwise.

    Raises:
        DataError: there is no column of code grids, or some rows have none.
    """
    feature = grid_feature(dataset)
    chunks = [view(chunk, feature) for chunk in dataset.data.column(COLUMN).chunks if len(chunk)]
    if not chunks:
        return np.empty((0, *feature.shape), dtype=feature.dtype)
    indices = dataset._indices
    if indices is None:
        return chunks[0] if len(chunks) == 1 else np.concatenate(chunks)
    rows = indices.column(0).to_numpy()
    return _take(chunks, rows)


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
