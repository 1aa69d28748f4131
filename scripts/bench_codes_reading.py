"""How fast are random batches of codes read from many memory-mapped shards, and how else could it be done?

    python scripts/bench_codes_reading.py [--shards 200] [--rows 8192] [--batch-size 256] [--rounds 300] [--folder DIR]

Shards of 16x16 codes of slightly different length are written into a temporary folder (0.6 KB a row), or kept in and
taken from --folder. Every way gives the same int64 tensor (B, 16, 16) for the same rows, on one thread. The ways are
timed in turn, twenty batches each, so that the noise of the machine falls on all alike; medians, and the time that one
batch in ten was faster than. Pages are touched beforehand: what is compared is reading, not the disk.

    CodesDataset      rows as an array
    no touch          the same without reading the first byte of every row beforehand
    words             windows of 8-byte words rather than of rows
    index_select      the same windows as an overlapping tensor
    region            all files mapped anew into one reserved range of addresses (mmap, MAP_FIXED), then as CodesDataset
    in memory         all codes copied into one array: fast, but of the size of the set
    by shard          rows sorted by shard, one index into each of them
    binary view       Arrow: 16-byte views of rows in the buffers of all shards, copied by a cast
    row by row        a list of views, stacked
    Arrow take        take on a column of many chunks, which joins them first
    datasets torch    with_format("torch")
    datasets numpy    with_format("numpy")

CodesDataset does what "region" does, of all that is mapped already: no second mapping, whatever files, selections and
arrays in memory the dataset is made of, and on every system. A region must begin every file at a multiple of 2 MiB, as
the system does by itself: at multiples of a page it took 80 to 110 microseconds.

On a machine whose two cores were shared by six to eight processes, medians of CodesDataset were 57 to 85 microseconds
and one batch in ten took at most 53 to 56, of which finding the rows takes 6, copying them 28 to 32 (memory is waited
for), and widening 11, as long as filling the tensor with one number.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from vqtok.codes import COLUMN, CodesDataset, CodesSpec
from vqtok.codes.buffers import RowBuffers
from vqtok.codes.columns import grid_array, grid_feature, grids_in

GOAL = 5_000_000  # grids a second
SPEC = CodesSpec(grid=(16, 16), codebook_size=16_384, num_codebooks=1, fingerprint="0" * 64)
SCHEMA = datasets.Features({COLUMN: SPEC.feature}).arrow_schema
GRID_BYTES = 512
HUGE_PAGE = 2**21
MAP_FIXED = 0x10
RUN = 20  # batches
SLOW = ("Arrow take", "datasets torch", "datasets numpy")

Rows = npt.NDArray[np.int64]
Way = Callable[[Rows], Tensor]


def write_shards(folder: Path, shards: int, rows: int) -> None:
    noise = np.random.default_rng(0)
    for shard in range(shards):
        length = rows - int(noise.integers(0, max(1, rows // 100)))
        grids = noise.integers(0, SPEC.codebook_size, (length, *SPEC.grid), dtype=np.uint16)
        table = pa.table({COLUMN: grid_array(grids, SPEC.feature)}, schema=SCHEMA)
        with pa.ipc.new_stream(str(folder / f"data-{shard:05d}.arrow"), SCHEMA) as writer:
            writer.write_table(table)


def open_shards(folder: Path) -> datasets.Dataset:
    return datasets.concatenate_datasets([datasets.Dataset.from_file(str(path)) for path in sorted(folder.iterdir())])


def widened(grids: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(grids.view(np.uint16).reshape(-1, *SPEC.grid).astype(np.int64))


def through_windows(parts: list[npt.NDArray[Any]]) -> dict[str, Way]:
    """Windows at every 8-byte word from the first part to the last, and at every byte without touching rows first."""
    buffers = RowBuffers(parts, SPEC.shape, SPEC.dtype)
    span = buffers._windows.__array_interface__

    class Words:
        held = buffers
        __array_interface__ = {
            **span,
            "data": (span["data"][0], False),  # torch warns of what is read-only; nothing writes
            "typestr": "<i8",
            "shape": ((span["shape"][0] - 1) // 8 + 1, GRID_BYTES // 8),
            "strides": (8, 8),
        }

    words = np.asarray(Words())
    flat = torch.from_numpy(words)

    def no_touch(rows: Rows) -> Tensor:
        return widened(buffers._windows[buffers.find(rows)[1]])

    def by_words(rows: Rows) -> Tensor:
        return widened(words[buffers.find(rows)[1] >> 3])

    def index_select(rows: Rows) -> Tensor:
        return widened(torch.index_select(flat, 0, torch.from_numpy(buffers.find(rows)[1] >> 3)).numpy())

    return {"no touch": no_touch, "words": by_words, "index_select": index_select}


def through_region(parts: list[npt.NDArray[Any]], files: list[str]) -> dict[str, Way]:
    """Map every file into a range of addresses that one anonymous mapping reserves and owns."""
    sizes = [-(-os.path.getsize(file) // HUGE_PAGE) * HUGE_PAGE for file in files]
    region = mmap.mmap(-1, sum(sizes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, prot=mmap.PROT_READ)
    memory = np.frombuffer(region, dtype=np.uint8)
    base = memory.__array_interface__["data"][0]
    system = ctypes.CDLL(None, use_errno=True)
    system.mmap.restype = ctypes.c_void_p
    system.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    start, moved = 0, []
    for file, size, part in zip(files, sizes, parts, strict=True):
        content = pa.memory_map(file)
        offset = values_offset(content)
        descriptor = os.open(file, os.O_RDONLY)
        place = system.mmap(
            base + start, os.path.getsize(file), mmap.PROT_READ, mmap.MAP_SHARED | MAP_FIXED, descriptor, 0
        )
        os.close(descriptor)
        assert place == base + start
        first = start + offset
        moved.append(memory[first : first + part.nbytes].view(np.uint16).reshape(-1, *SPEC.grid))
        start += size
    buffers = RowBuffers(moved, SPEC.shape, SPEC.dtype)
    for rows in np.array_split(np.arange(len(buffers)), len(files)):
        buffers.gather(buffers.find(rows)[1])
    return {"region": lambda rows: widened(buffers.gather(buffers.find(rows)[1]))}


def values_offset(content: pa.MemoryMappedFile) -> int:
    """Where the codes of a file of one record batch begin."""
    whole = content.read_buffer()
    column = pa.ipc.open_stream(whole).read_next_batch().column("codes")
    return int(column.storage.flatten().flatten().buffers()[1].address - whole.address)


def by_parts(parts: list[npt.NDArray[Any]]) -> dict[str, Way]:
    ends = np.cumsum([len(part) for part in parts])
    starts = ends - [len(part) for part in parts]
    buffers = [pa.py_buffer(part) for part in parts]
    views = np.dtype([("size", "<i4"), ("prefix", "<i4"), ("buffer", "<i4"), ("offset", "<i4")])
    column = pa.chunked_array(
        [
            pa.FixedSizeBinaryArray.from_buffers(pa.binary(GRID_BYTES), len(part), [None, buffer])
            for part, buffer in zip(parts, buffers, strict=True)
        ]
    )

    def by_shard(rows: Rows) -> Tensor:
        shards = np.searchsorted(ends, rows, side="right")
        order = np.argsort(shards, kind="stable")
        codes = np.empty((len(rows), *SPEC.grid), dtype=np.int64)
        for mine in np.split(order, np.flatnonzero(np.diff(shards[order])) + 1):
            shard = shards[mine[0]]
            codes[mine] = parts[shard][rows[mine] - starts[shard]]
        return torch.from_numpy(codes)

    def row_by_row(rows: Rows) -> Tensor:
        shards = np.searchsorted(ends, rows, side="right")
        found = zip(shards.tolist(), (rows - starts[shards]).tolist(), strict=True)
        return widened(np.stack([parts[shard][row] for shard, row in found]))

    def binary_view(rows: Rows) -> Tensor:
        shards = np.searchsorted(ends, rows, side="right")
        found = np.zeros(len(rows), dtype=views)
        found["size"], found["buffer"], found["offset"] = GRID_BYTES, shards, (rows - starts[shards]) * GRID_BYTES
        array = pa.Array.from_buffers(pa.binary_view(), len(rows), [None, pa.py_buffer(found), *buffers])
        return widened(np.frombuffer(array.cast(pa.binary()).buffers()[2], np.uint16, len(rows) * GRID_BYTES // 2))

    def arrow_take(rows: Rows) -> Tensor:
        taken = column.take(pa.array(rows)).combine_chunks()
        return widened(np.frombuffer(taken.buffers()[1], np.uint16, len(rows) * GRID_BYTES // 2))

    return {"by shard": by_shard, "binary view": binary_view, "row by row": row_by_row, "Arrow take": arrow_take}


def in_memory(parts: list[npt.NDArray[Any]]) -> dict[str, Way]:
    whole = np.concatenate(parts)
    return {"in memory": lambda rows: torch.from_numpy(whole[rows].astype(np.int64))}


def through_datasets(codes: datasets.Dataset) -> dict[str, Way]:
    as_torch, as_numpy = codes.with_format("torch"), codes.with_format("numpy")
    return {
        "datasets torch": lambda rows: as_torch[rows.tolist()]["codes"].to(torch.int64),
        "datasets numpy": lambda rows: torch.from_numpy(as_numpy[rows.tolist()]["codes"].astype(np.int64)),
    }


def time_ways(ways: dict[str, Way], total: int, batch_size: int, rounds: int) -> dict[str, list[float]]:
    """Seconds of each batch: every way in turn reads RUN batches of rows of its own, the slow ones a single one."""
    noise = np.random.default_rng(1)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for round_ in range(rounds + 1):
        for name, way in ways.items():
            for _ in range(1 if name in SLOW else RUN):
                rows = noise.integers(0, total, batch_size)
                began = time.perf_counter()
                codes = way(rows)
                took = time.perf_counter() - began
                del codes
                if round_ > 0:
                    times[name].append(took)
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=200)
    parser.add_argument("--rows", type=int, default=8192, help="of a shard")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--folder", type=Path, help="where the shards are, or are written to and kept")
    parser.add_argument("--skip", nargs="*", default=[], help="ways to leave out, such as 'in memory'")
    args = parser.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        if not folder.is_dir() or not any(folder.iterdir()):
            write_shards(folder, args.shards, args.rows)
        codes = open_shards(folder)
        began = time.perf_counter()
        data = CodesDataset(codes)
        opened = time.perf_counter() - began
        began = time.perf_counter()
        for _ in data.blocks():
            pass
        print(f"{len(data):,} grids in {len(codes.cache_files)} shards; batches of {args.batch_size}; one thread")
        print(f"opened in {opened * 1e3:.0f} ms; read once in order in {time.perf_counter() - began:.1f} s")
        ways = {name: way for name, way in all_ways(codes, data).items() if name not in args.skip}
        compare(ways, len(data), args.batch_size, args.rounds)


def all_ways(codes: datasets.Dataset, data: CodesDataset) -> dict[str, Way]:
    feature = grid_feature(codes)
    parts = [grids_in(chunk, feature) for chunk in codes.data.column("codes").chunks]
    ways: dict[str, Way] = {
        "CodesDataset": lambda rows: data.__getitems__(rows)["codes"],
    }
    ways |= through_windows(parts)
    if sys.platform == "linux" and len(codes.cache_files) == len(parts):
        ways |= through_region(parts, [file["filename"] for file in codes.cache_files])
    return ways | in_memory(parts) | by_parts(parts) | through_datasets(codes)


def compare(ways: dict[str, Way], total: int, batch_size: int, rounds: int) -> None:
    rows = np.random.default_rng(2).integers(0, total, batch_size)
    expected = next(iter(ways.values()))(rows)
    for name, way in ways.items():
        assert way(rows).dtype == torch.int64 and torch.equal(way(rows), expected), name
    for name, times in time_ways(ways, total, batch_size, rounds).items():
        median, quick = statistics.median(times), sorted(times)[len(times) // 10]
        goal = f"  goal {GOAL:,}: {'pass' if batch_size / median >= GOAL else 'MISS'}" if name == "CodesDataset" else ""
        print(
            f"  {name:<20}{median * 1e6:>11,.1f} us {batch_size / median:>12,.0f} grids/s"
            f"   one in ten within {quick * 1e6:>11,.1f} us{goal}"
        )


if __name__ == "__main__":
    main()
