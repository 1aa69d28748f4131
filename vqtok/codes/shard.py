"""One shard of a codes folder, from rows of images to a file and its receipt: what every driver calls.

    rows ─read→ encoded images ─decode→ pixels ─Encoder→ codes ─→ one record batch ─→ file, then receipt

The bytes depend on the plan alone: batches are cut from the shard's own rows, whoever works on it.
"""

from __future__ import annotations

import hashlib
import io
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from vqtok.codes.encoder import Encoder
from vqtok.codes.plan import Plan, Shard
from vqtok.codes.receipt import BadImage, Receipt, write_receipt
from vqtok.codes.spec import COLUMN
from vqtok.codes.writer import grid_array
from vqtok.data.rows import Rows
from vqtok.errors import BadImagesError
from vqtok.store import Store

__all__ = ["Job", "decode_rows", "tokenize_shard"]

BATCHES_AHEAD = 2  # decoded and waiting, so that neither threads nor encoder stand still


@dataclass(frozen=True, kw_only=True)
class Job:
    """All that a process needs to work on the shards of a plan.

    Attributes:
        rows: of each split, as the plan describes them.
        stop_on_error: end with the first image that cannot be read.
        report: called with how many images were worked through since the last call.
    """

    plan: Plan
    store: Store
    encoder: Encoder
    rows: Mapping[str, Rows]
    stop_on_error: bool = False
    report: Callable[[int], None] = field(default=lambda images: None)


def tokenize_shard(shard: Shard, job: Job, *, skip: Mapping[int, str] | None = None, attempts: int = 1) -> Receipt:
    """Write the codes of one shard, and its receipt.

    Args:
        skip: rows of the split that are not decoded, with the reason: those that crash their decoder.
        attempts: how often the shard was begun, this time included.

    Raises:
        DataError: a source that changed since the plan was made or cannot be read, or a store that does not take it.
        BadImagesError: an image that cannot be read, where that should end the work.
    """
    grids: list[npt.NDArray[np.generic]] = []
    tables: list[pa.Table] = []
    bad: list[BadImage] = []
    for batch in _read_ahead(shard, job, skip or {}):
        if batch.bad and job.stop_on_error:
            raise BadImagesError(f"{batch.bad[0].reason}; --on-error skip leaves such images out")
        if len(batch.pixels):
            grids.append(job.encoder(batch.pixels))
            tables.append(batch.columns)
        bad += batch.bad
        job.report(len(batch.pixels) + len(batch.bad))
    data = _file(grids, tables, shard, job)
    job.store.put(shard.file, data)
    receipt = Receipt(
        plan=job.plan.digest,
        shard=shard.name,
        rows=sum(map(len, grids)),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        bad=tuple(bad),
        attempts=attempts,
    )
    write_receipt(job.store, shard, receipt)
    return receipt
