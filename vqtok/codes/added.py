"""The columns beside the codes that are not the source's: made of what is known of the rows.

image_id    where there are several views of an image: the number of the image in its split, as `bad_images.parquet` and
            the plan count, so that rows of one image can be kept together
view        which of the views, from 0; see `vqtok.data.views`
held_out    whether the tokenizer held the image out in its training, where that is known
image       on request the encoded image as it lies in the source, under the name of its column there
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from vqtok.codes.plan import Request, SplitPlan
from vqtok.codes.spec import HELD_OUT_COLUMN, IMAGE_ID
from vqtok.data.rows import RowBatch, Rows
from vqtok.errors import DataError
from vqtok.store import Store

__all__ = ["VIEW", "add_columns", "added_features", "held_out_file", "packed", "read_held_out"]

VIEW = "view"


def added_features(request: Request, rows: Rows, *, held_out: bool) -> datasets.Features:
    """The features of the columns that are made for a split."""
    features: dict[str, Any] = {}
    if request.views is not None:
        features |= {IMAGE_ID: datasets.Value("int64"), VIEW: datasets.Value("int32")}
    if held_out:
        features[HELD_OUT_COLUMN] = datasets.Value("bool")
    if request.images:
        features[rows.image_column] = datasets.Image()
    return datasets.Features(features)


def add_columns(
    batch: RowBatch,
    good: Sequence[int],
    *,
    split: SplitPlan,
    views: int,
    held_out: bytes | None,
    contents: Sequence[bytes],
) -> pa.Table:
    """The columns of a batch, of the images that have codes, with those that are made.

    Args:
        good: the images that have codes, by their places in the batch.
        views: rows of each image, which follow each other.
        held_out: what `packed` gives; None where all images of the split were held out.
        contents: the encoded images, one for each of `good`, where they are kept.
    """
    places = np.repeat(np.asarray(good, dtype=np.int64), views)
    whole = len(good) == len(batch) and views == 1
    table = batch.columns if whole else batch.columns.take(pa.array(places))
    for name, feature in datasets.Features.from_dict(split.added).items():
        if name == IMAGE_ID:
            values = pa.array(batch.start + places)
        elif name == VIEW:
            values = pa.array(np.tile(np.arange(views, dtype=np.int32), len(good)))
        elif name == HELD_OUT_COLUMN:
            values = pa.array(_unpacked(held_out, batch)[places] if held_out else np.ones(len(places), dtype=np.bool_))
        else:
            cells = zip(contents, (batch.images[place].path for place in good), strict=True)
            values = pa.array([_image(content, path) for content, path in cells], feature.pa_type)
        table = table.append_column(name, values)
    return table


def _image(content: bytes, path: str | None) -> dict[str, Any]:
    """A cell of an image column, without the folders that the file lies in, as `datasets` embeds files."""
    return {"bytes": content, "path": None if path is None else os.path.basename(path)}


def packed(held_out: npt.NDArray[np.bool_]) -> bytes:
    """One bit an image."""
    return np.packbits(held_out).tobytes()


def _unpacked(bits: bytes, batch: RowBatch) -> npt.NDArray[np.bool_]:
    first, last = batch.start // 8, -(-(batch.start + len(batch)) // 8)
    found = np.unpackbits(np.frombuffer(bits[first:last], dtype=np.uint8)).astype(np.bool_)
    return found[batch.start - 8 * first :][: len(batch)]


def held_out_file(split: str) -> str:
    """The file of a codes folder with a bit for each image of a split.

    Working it out takes 8 bytes an image for a while, which is done once and not by every process: of 10^9 images the
    file is 125 MB.
    """
    return f"plan/{split}/held_out.bin"


def read_held_out(store: Store, split: SplitPlan) -> bytes | None:
    """That file, None where the plan has none.

    Raises:
        DataError: it is gone or damaged.
    """
    if split.held_out is None:
        return None
    name = held_out_file(split.name)
    try:
        bits = store.read(name)
    except FileNotFoundError:
        bits = b""
    if hashlib.sha256(bits).hexdigest() != split.held_out:
        raise DataError(f"{store.path(name)} is damaged: pass --overwrite to begin anew")
    return bits
