"""One shard of a codes folder, from rows of images to a file and its receipt: what every driver calls.

    rows ─read→ encoded images ─decode→ pixels ─Encoder→ codes ─→ one record batch ─→ file, then receipt

The bytes depend on the plan alone: batches are cut from the shard's own rows, whoever works on it.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from vqtok.codes.columns import grid_array
from vqtok.codes.encoder import Encoder
from vqtok.codes.plan import Plan, Shard
from vqtok.codes.receipt import BadImage, Receipt, write_receipt
from vqtok.codes.spec import COLUMN
from vqtok.data.dataset import decode_images, stacked
from vqtok.data.rows import RowBatch, Rows
from vqtok.errors import BadImagesError, DataError
from vqtok.store import Store

__all__ = ["Job", "probe_rows", "tokenize_shard"]

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
    batches = _decoded(shard.start, shard.stop, shard, job, skip or {})
    grids: list[npt.NDArray[Any]] = []
    columns: list[pa.Table] = []
    bad: list[BadImage] = []
    for batch in batches:
        if batch.bad and job.stop_on_error:
            raise BadImagesError(f"{batch.bad[0].reason}; --on-error skip leaves out what cannot be read")
        if len(batch.pixels):
            grids.append(job.encoder(batch.pixels))
            columns.append(batch.columns)
        bad += batch.bad
        job.report(len(batch.pixels) + len(batch.bad))
    data = _file_of(grids, columns, shard, job.plan)
    receipt = Receipt(
        plan=job.plan.digest,
        shard=shard.name,
        rows=sum(map(len, grids)),
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        bad=tuple(bad),
        attempts=attempts,
    )
    job.store.put(shard.file, data)
    write_receipt(job.store, shard, receipt)
    return receipt


def probe_rows(start: int, stop: int, shard: Shard, job: Job) -> None:
    """Decode rows [start, stop) of the split of a shard and forget them: a process that lives has decoded them all.

    Raises:
        DataError: a source that changed since the plan was made or cannot be read.
    """
    for _ in _decoded(start, stop, shard, job, {}):
        pass


@dataclass(frozen=True, kw_only=True)
class _Batch:
    pixels: npt.NDArray[np.uint8]  # (n, C, H, W), of the images that can be read
    columns: pa.Table  # n rows of the columns beside the codes
    bad: list[BadImage]


def _decoded(start: int, stop: int, shard: Shard, job: Job, skip: Mapping[int, str]) -> Iterator[_Batch]:
    """The batches of some rows in order, up to `BATCHES_AHEAD` of them decoded before they are asked for."""
    rows, columns = job.rows[shard.split], list(job.plan.split(shard.split).columns)
    waiting: deque[Future[_Batch]] = deque()
    pool = ThreadPoolExecutor(1)  # of which each batch is spread over threads of its own
    try:
        for batch in rows.read(start, stop, job.plan.request.batch_size, columns):
            waiting.append(pool.submit(_decode, batch, shard, job, skip))
            if len(waiting) > BATCHES_AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def _decode(batch: RowBatch, shard: Shard, job: Job, skip: Mapping[int, str]) -> _Batch:
    config = job.encoder.tokenizer.config
    numbers = [row for row in range(batch.start, batch.start + len(batch)) if row not in skip]
    images = [batch.images[row - batch.start] for row in numbers]
    decoded: list[npt.NDArray[np.uint8] | DataError] = decode_images(
        images, image_size=config.size, num_channels=config.num_channels, resample=config.resample
    )
    reasons = {row: f"{batch.images[row - batch.start].name}: {why}" for row, why in skip.items() if _is_in(row, batch)}
    reasons |= {row: str(each) for row, each in zip(numbers, decoded, strict=True) if isinstance(each, DataError)}
    if reasons:
        job.rows[shard.split].root.check_there()
    good = [row - batch.start for row in numbers if row not in reasons]
    pixels = [each for each in decoded if not isinstance(each, DataError)]
    return _Batch(
        pixels=stacked(pixels, config.num_channels, config.size),
        columns=batch.columns.take(pa.array(good, pa.int64())) if reasons else batch.columns,
        bad=[
            BadImage(row=row, name=batch.images[row - batch.start].name, reason=reasons[row]) for row in sorted(reasons)
        ],
    )


def _is_in(row: int, batch: RowBatch) -> bool:
    return batch.start <= row < batch.start + len(batch)


def _file_of(grids: Sequence[npt.NDArray[Any]], columns: Sequence[pa.Table], shard: Shard, plan: Plan) -> memoryview:
    """The file of a shard: an Arrow stream of one record batch, whose grids are viewed without a copy, or parquet."""
    schema = plan.split(shard.split).features(plan.spec).arrow_schema
    empty = np.empty((0, *plan.spec.shape), dtype=plan.spec.dtype)
    arrays = [grid_array(np.concatenate(grids) if grids else empty, plan.spec.feature)]
    if others := [field for field in schema if field.name != COLUMN]:
        table = pa.concat_tables(columns).combine_chunks() if columns else pa.schema(others).empty_table()
        table = table.cast(pa.schema(others))
        arrays += [table.column(each.name).combine_chunks() for each in others]
    sink = pa.BufferOutputStream()
    whole = pa.Table.from_arrays(arrays, schema=schema)
    if shard.format == "parquet":
        pq.write_table(whole, sink, compression="zstd")
    else:
        with pa.ipc.new_stream(sink, schema) as writer:
            for batch in whole.combine_chunks().to_batches() or [pa.RecordBatch.from_pylist([], schema=schema)]:
                writer.write_batch(batch)
    return memoryview(sink.getvalue())
