"""One shard of a codes folder, from rows of images to a file and its receipt: what every driver calls.

    rows ─read→ encoded images ─decode→ pixels ─Encoder→ codes ─→ one record batch ─→ file, then receipt
                              └ each batch by one of several threads ┘

With the images themselves beside their codes there are several record batches, of `IMAGE_BYTES` of images each.
The bytes depend on the plan alone: batches are cut from the shard's own rows, whoever works on it.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from vqtok.codes.added import add_columns, read_held_out
from vqtok.codes.columns import grid_array
from vqtok.codes.encoder import Encoder
from vqtok.codes.plan import Plan, Shard, SplitPlan
from vqtok.codes.receipt import BadImage, Receipt, write_receipt
from vqtok.codes.spec import COLUMN
from vqtok.data.dataset import map_images
from vqtok.data.images import image_array, image_views
from vqtok.data.rows import RowBatch, Rows
from vqtok.data.stored import StoredImage
from vqtok.errors import BadImagesError, DataError
from vqtok.store import Store

__all__ = ["Job", "probe_rows", "tokenize_shard"]

T = TypeVar("T")

IMAGE_BYTES = 128 << 20
"""Of images in a record batch, unless a single one has more: Arrow counts them in 31 bits."""
MOST_IMAGE_BYTES = 1 << 30  # of one image that is kept
TABLES = 64  # of the columns of batches, until they are joined
BATCHES_AHEAD = 2  # read and waiting for a thread, or done and waiting for one before
BYTES_AHEAD = 256 << 20  # of encoded images in such batches and in those of the threads, but for one more batch


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

    @cached_property
    def held_out(self) -> dict[str, bytes | None]:
        """Of each split what `added.packed` gives of the images that the tokenizer held out, where that is known."""
        return {split.name: read_held_out(self.store, split) for split in self.plan.splits}


def tokenize_shard(shard: Shard, job: Job, *, skip: Mapping[int, str] | None = None, attempts: int = 1) -> Receipt:
    """Write the codes of one shard, and its receipt.

    Args:
        skip: rows of the split that are not decoded, with the reason: those that crash their decoder.
        attempts: how often the shard was begun, this time included.

    Raises:
        DataError: a source that changed since the plan was made or cannot be read, or a store that does not take it.
        BadImagesError: an image that cannot be read, where that should end the work.
    """
    images, spec = shard.stop - shard.start, job.plan.spec
    # All at once: small arrays that stay, between the large ones of a batch that go, would break up the memory.
    grids = np.empty((images * job.plan.request.rows_per_image, *spec.shape), dtype=spec.dtype)
    rows = 0
    columns: list[pa.Table] = []
    bad: list[BadImage] = []
    for batch in _batches(shard.start, shard.stop, shard, job, partial(_encode, job=job), skip or {}):
        if batch.bad and job.stop_on_error:
            raise BadImagesError(f"{batch.bad[0].reason}; --on-error skip leaves out what cannot be read")
        if len(batch.grids):
            grids[rows : rows + len(batch.grids)] = batch.grids
            rows += len(batch.grids)
            columns += batch.columns
        if len(columns) == TABLES and not job.plan.request.images:
            columns = [pa.concat_tables(columns).combine_chunks()]
        bad += batch.bad
        job.report(batch.images + len(batch.bad))
    data = _file_of(grids[:rows], columns, shard, job.plan)
    receipt = Receipt(
        plan=job.plan.digest,
        shard=shard.name,
        rows=rows,
        bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        bad=tuple(bad),
        attempts=attempts,
    )
    job.store.put(shard.file, data)
    write_receipt(job.store, shard, receipt)
    return receipt


def probe_rows(start: int, stop: int, shard: Shard, job: Job, *, skip: Mapping[int, str] | None = None) -> None:
    """Decode rows [start, stop) of the split of a shard and forget them: a process that lives has decoded them all.

    Args:
        skip: rows that are not decoded, as in `tokenize_shard`.

    Raises:
        DataError: a source that changed since the plan was made or cannot be read.
    """
    for _ in _batches(start, stop, shard, job, lambda batch: None, skip or {}):
        pass


@dataclass(frozen=True, kw_only=True)
class _Decoded:
    images: int  # that can be read
    pixels: npt.NDArray[np.uint8]  # (n, C, H, W), of their views
    columns: list[pa.Table]  # n rows of the columns beside the codes, in parts with up to IMAGE_BYTES of images
    bad: list[BadImage]


@dataclass(frozen=True, kw_only=True)
class _Encoded:
    images: int
    grids: npt.NDArray[Any]  # (n, h, w[, Q])
    columns: list[pa.Table]
    bad: list[BadImage]


def _batches(
    start: int, stop: int, shard: Shard, job: Job, work: Callable[[_Decoded], T], skip: Mapping[int, str]
) -> Iterator[T]:
    """What comes of the batches of some images, in order: each is decoded and worked on by a thread of its own."""
    rows, split, request = job.rows[shard.split], job.plan.split(shard.split), job.plan.request
    size = max(1, request.batch_size // request.rows_per_image)
    waiting: deque[tuple[int, Future[T]]] = deque()
    with job.encoder.side_by_side() as (pool, threads):
        for batch in rows.read(start, stop, size, list(split.columns)):
            done = pool.submit(lambda batch: work(_decode(batch, split, job, skip)), batch)
            waiting.append((sum(len(image.content or b"") for image in batch.images), done))
            del batch  # which only its thread has from here on
            while len(waiting) >= threads + BATCHES_AHEAD or sum(bytes for bytes, _ in waiting) > BYTES_AHEAD:
                yield waiting.popleft()[1].result()
        while waiting:
            yield waiting.popleft()[1].result()


def _encode(batch: _Decoded, job: Job) -> _Encoded:
    """Grids of a batch; where an image has more views than a batch takes, in several."""
    size = job.plan.request.batch_size
    parts = range(0, len(batch.pixels), size)
    empty = np.empty((0, *job.plan.spec.shape), dtype=job.plan.spec.dtype)
    grids = np.concatenate([empty, *(job.encoder(batch.pixels[part : part + size]) for part in parts)])
    return _Encoded(images=batch.images, grids=grids, columns=batch.columns, bad=batch.bad)


def _decode(batch: RowBatch, split: SplitPlan, job: Job, skip: Mapping[int, str]) -> _Decoded:
    config, request = job.encoder.tokenizer.config, job.plan.request
    numbers = [row for row in range(batch.start, batch.start + len(batch)) if row not in skip]
    images = [batch.images[row - batch.start] for row in numbers]
    decoded = map_images(_decoder(job), images, numbers, threads=False)  # each batch has one already
    reasons = {row: f"{batch.images[row - batch.start].name}: {why}" for row, why in skip.items() if _is_in(row, batch)}
    reasons |= {row: str(each) for row, each in zip(numbers, decoded, strict=True) if isinstance(each, DataError)}
    if reasons:
        job.rows[split.name].root.check_there()
    good = [row - batch.start for row in numbers if row not in reasons]
    found = [each for each in decoded if not isinstance(each, DataError)]
    contents = [content for _, content in found]
    empty = np.empty((0, config.num_channels, *config.size), dtype=np.uint8)
    return _Decoded(
        images=len(good),
        pixels=np.concatenate([pixels for pixels, _ in found]) if found else empty,
        columns=[
            add_columns(
                batch,
                good[part],
                split=split,
                views=request.rows_per_image,
                held_out=job.held_out[split.name],
                contents=contents[part],
            )
            for part in _parts([len(content) for content in contents])
        ],
        bad=[
            BadImage(row=row, name=batch.images[row - batch.start].name, reason=reasons[row]) for row in sorted(reasons)
        ],
    )


def _decoder(job: Job) -> Callable[[StoredImage, int], tuple[npt.NDArray[np.uint8], bytes]]:
    """What decodes an image, by its number: the pixels of its views (V, C, H, W), and its bytes where they are kept."""
    config, request, views = job.encoder.tokenizer.config, job.plan.request, job.plan.request.image_views
    fit: dict[str, Any] = {"num_channels": config.num_channels, "size": config.size, "resample": config.resample}
    fit["background"] = request.background

    def decode(image: StoredImage, number: int) -> tuple[npt.NDArray[np.uint8], bytes]:
        data = image.read(MOST_IMAGE_BYTES) if request.images else image.data()
        if views is None:
            pixels = image_array(data, name=image.name, **fit)[None]
        else:
            pixels = image_views(data, views, number, name=image.name, **fit)
        return pixels, data if isinstance(data, bytes) and request.images else b""

    return decode


def _is_in(row: int, batch: RowBatch) -> bool:
    return batch.start <= row < batch.start + len(batch)


def _file_of(grids: npt.NDArray[Any], columns: Sequence[pa.Table], shard: Shard, plan: Plan) -> memoryview:
    """The file of a shard, Arrow or parquet: one record batch, whose grids are viewed without a copy, or row group.

    With images there are several.
    """
    schema = plan.split(shard.split).features(plan.spec).arrow_schema
    sink = pa.BufferOutputStream()
    with _writer(sink, schema, shard.format) as writer:
        if columns and plan.request.images:
            for part in _parts([table.nbytes for table in columns]):
                first, stop = (sum(table.num_rows for table in columns[:end]) for end in (part.start, part.stop))
                writer.write_batch(_record_batch(grids[first:stop], columns[part], schema, plan))
        else:
            writer.write_batch(_record_batch(grids, columns, schema, plan))
    return memoryview(sink.getvalue())


def _writer(sink: pa.NativeFile, schema: pa.Schema, format: str) -> pa.ipc.RecordBatchStreamWriter | pq.ParquetWriter:
    return (
        pq.ParquetWriter(sink, schema, compression="zstd") if format == "parquet" else pa.ipc.new_stream(sink, schema)
    )


def _parts(sizes: Sequence[int]) -> list[slice]:
    """What goes together so that no part has more than `IMAGE_BYTES`, unless one piece alone has."""
    starts: list[int] = []
    room = 0
    for place, size in enumerate(sizes):
        if not starts or size > room:
            starts.append(place)
            room = IMAGE_BYTES
        room -= size
    return [slice(start, stop) for start, stop in pairwise([*starts, len(sizes)])]


def _record_batch(
    grids: npt.NDArray[Any], columns: Sequence[pa.Table], schema: pa.Schema, plan: Plan
) -> pa.RecordBatch:
    arrays = [grid_array(grids, plan.spec.feature)]
    if others := [field for field in schema if field.name != COLUMN]:
        table = pa.concat_tables(columns) if columns else pa.schema(others).empty_table()
        table = table.cast(pa.schema(others))
        arrays += [table.column(each.name).combine_chunks() for each in others]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
