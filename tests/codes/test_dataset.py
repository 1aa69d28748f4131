from __future__ import annotations

import gc
import pickle
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import torch
from torch.utils.data import DataLoader

from tests.codes.conftest import WriteCodes, make_grids, make_spec
from tests.codes.labelled import make_codes
from vqtok.codes import CodesDataset, CodesSpec, codes_array, load_codes
from vqtok.errors import DataError

LENGTHS = (5, 1, 0, 300, 17, 0, 64, 2, 100)  # rows of a shard

Shards = Callable[..., datasets.Dataset]


@pytest.fixture
def shards(write_codes: WriteCodes) -> Shards:
    """A dataset of several files, every third of them of several record batches."""

    def write(spec: CodesSpec, lengths: tuple[int, ...] = LENGTHS) -> datasets.Dataset:
        grids, parts = make_grids(sum(lengths), spec), []
        for number, (length, end) in enumerate(zip(lengths, np.cumsum(lengths), strict=True)):
            folder = write_codes(grids[end - length : end], spec, name=f"shard-{number}")
            if number % 3 == 0:
                split_batches(folder / "data-00000-of-00001.arrow", 7)
            parts.append(load_codes(folder))
        return datasets.concatenate_datasets(parts)

    return write


def split_batches(path: Path, rows: int) -> None:
    table = pa.ipc.open_stream(path.read_bytes()).read_all()
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=rows)


@pytest.mark.parametrize(
    "changes", [{}, {"num_codebooks": 4}, {"codebook_size": 100_000}, {"codebook_size": 2**40}], ids=str
)
def test_random_batches_are_those_of_the_array(shards: Shards, changes: dict[str, int]) -> None:
    spec = make_spec(**changes)
    codes = shards(spec)
    data, array = CodesDataset(codes), codes_array(codes)
    assert (len(data), data.shape) == (489, (489, *spec.shape))
    noise = np.random.default_rng(0)
    for _ in range(50):
        rows = noise.integers(0, 489, 64)
        batch = data.__getitems__(rows)
        assert list(batch) == ["codes"]
        assert batch["codes"].dtype == torch.int64
        assert np.array_equal(batch["codes"].numpy(), array[rows])
    assert [block.dtype for block in data.blocks()] == [spec.dtype]
    assert np.array_equal(np.concatenate(list(data.blocks())), array)


def test_rows_follow_select_shuffle_and_filter(shards: Shards) -> None:
    codes = shards(make_spec())
    for changed in (
        codes.select([7, 3, 3, 488, 0]),
        codes.select(range(4, 319)),
        codes.shuffle(seed=1),
        codes.shuffle(seed=2).select(range(3, 90)),
        codes.filter(lambda row: row % 3 == 1, input_columns="row", keep_in_memory=True),
        datasets.concatenate_datasets([codes.select([5]), codes.select(range(2))]),
        codes.shuffle(seed=3).flatten_indices(keep_in_memory=True),
        codes.select([]),
    ):
        data, array = CodesDataset(changed), codes_array(changed)
        assert np.array_equal(data.__getitems__(range(len(changed)))["codes"].numpy(), array)
        again = CodesDataset(changed, np.arange(len(changed))).select(np.arange(len(changed))[::-2])
        assert np.array_equal(again.__getitems__(range(len(again)))["codes"].numpy(), array[::-2])
        assert again.__getitems__(range(len(again)))["labels"].tolist() == list(range(len(changed)))[::-2]


def test_an_item_is_one_row(shards: Shards) -> None:
    codes = shards(make_spec())
    data = CodesDataset(codes, np.arange(489) % 10)
    item = data[34]
    assert np.array_equal(item["codes"].numpy(), codes_array(codes)[34])
    assert (item["labels"].dtype, item["labels"].tolist()) == (torch.int64, 4)


@pytest.mark.parametrize("selected", [False, True])
def test_rows_count_from_the_end_and_no_further(shards: Shards, selected: bool) -> None:
    codes = shards(make_spec())
    data, array = CodesDataset(codes, np.arange(489)), codes_array(codes)
    if selected:
        data, array = data.select(np.arange(100, 50, -1)), array[100:50:-1]
    count = len(array)
    for rows in ([-1], [0, -count, count - 1], torch.tensor([-3, 2]), np.array([1], np.int32), np.array([2], np.uint8)):
        batch = data.__getitems__(rows)
        assert np.array_equal(batch["codes"].numpy(), array[np.asarray(rows)])
        assert len(batch["labels"]) == len(rows)
    for wrong in (count, count + 1, -count - 1, 2**62, -(2**62)):
        with pytest.raises(IndexError, match=rf"rows must be in \[-{count}, {count}\), got {wrong}"):
            data.__getitems__([0, wrong])
        with pytest.raises(IndexError, match="rows must be in"):
            data.select(np.array([wrong]))
    for wrong in ([0.5], ["a"], [[1]], np.array([True])):
        with pytest.raises(IndexError, match="rows must be a list of integers"):
            data.__getitems__(wrong)  # type: ignore[arg-type]
    assert data.__getitems__([])["codes"].shape == (0, 2, 3)


def test_a_folder_opens_with_its_labels(tmp_path: Path) -> None:
    datasets.DatasetDict({"train": make_codes(50), "test": make_codes(5, {})}).save_to_disk(tmp_path / "codes")
    data = CodesDataset.from_folder(tmp_path / "codes", "train")
    batch = data.__getitems__([4, 3])
    assert (batch["codes"][:, 0, 0].tolist(), batch["labels"].tolist()) == ([4, 3], [0, 1])
    assert CodesDataset.from_folder(tmp_path / "codes", "test").labels is None
    assert len(CodesDataset.from_folder(tmp_path / "codes" / "train")) == 50
    for split in ("val", None):
        with pytest.raises(DataError, match=f"has the splits train, test: choose one of them, got {split}"):
            CodesDataset.from_folder(tmp_path / "codes", split)


def test_labels_of_another_number_are_refused(shards: Shards) -> None:
    with pytest.raises(DataError, match="labels must be one for each of 489 images, got 488"):
        CodesDataset(shards(make_spec()), np.arange(488))
    with pytest.raises(DataError, match="no column 'codes' of code grids here, only row"):
        CodesDataset(shards(make_spec()).remove_columns("codes"))


@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.slow)])
def test_worker_processes_read_the_same(shards: Shards, method: str) -> None:
    codes = shards(make_spec())
    data = CodesDataset(codes.shuffle(seed=1), np.arange(489)).select(np.arange(400))
    loader = DataLoader(data, batch_size=64, num_workers=1, collate_fn=dict, multiprocessing_context=method)
    batches = list(loader)
    assert np.array_equal(
        torch.cat([batch["codes"] for batch in batches]).numpy(), codes_array(codes.shuffle(seed=1))[:400]
    )
    assert torch.cat([batch["labels"] for batch in batches]).tolist() == list(range(400))


def test_pickled_it_is_the_names_of_its_files(shards: Shards) -> None:
    data = CodesDataset(shards(make_spec(grid=(32, 32))), np.arange(489)).select(np.arange(100, 90, -1))
    pickled = pickle.dumps(data)
    assert len(pickled) < 10_000  # of a megabyte of codes
    again, whole = pickle.loads(pickled).__getitems__(range(10)), data.__getitems__(range(10))
    assert torch.equal(again["codes"], whole["codes"])
    assert again["labels"].tolist() == whole["labels"].tolist() == list(range(100, 90, -1))


def test_the_files_stay_open(shards: Shards, tmp_path: Path) -> None:
    codes = shards(make_spec())
    data, array = CodesDataset(codes), codes_array(codes)
    part = data.select(np.arange(489))
    del codes, data
    gc.collect()
    for folder in tmp_path.glob("shard-*"):
        shutil.rmtree(folder)
    assert np.array_equal(part.__getitems__(range(489))["codes"].numpy(), array)


def write_lists(path: Path, rows: int, damage: Callable[[npt.NDArray[Any]], None], level: int) -> datasets.Dataset:
    """Grids of 2x2 in two record batches; the places of the outer (0) or inner lists (1) of the second change."""
    table = make_codes(rows, {}).with_format("arrow")[:]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
        writer.write_table(table)
    content = bytearray(sink.getvalue())
    written = pa.py_buffer(content)
    lists = list(pa.ipc.open_stream(written))[1].column("codes").storage
    lists = lists.flatten() if level else lists
    start = lists.buffers()[1].address - written.address
    damage(np.frombuffer(content, dtype=np.int32, count=len(lists) + 1, offset=start))
    path.write_bytes(content)
    return datasets.Dataset.from_file(str(path))


@pytest.mark.parametrize("level", [0, 1])
def test_rows_that_are_no_grids_are_refused_when_first_read(tmp_path: Path, level: int) -> None:
    """One list is longer and the next one shorter; the totals are right."""

    def damage(offsets: npt.NDArray[Any]) -> None:
        offsets[3] += 1

    data = CodesDataset(write_lists(tmp_path / "a.arrow", 8, damage, level))
    assert data.__getitems__([7, 0])["codes"].shape == (2, 2, 2)
    for _ in range(2):
        with pytest.raises(DataError, match="some grids are not 2 x 2 codes"):
            data.__getitems__([7, 8])


@pytest.mark.parametrize("level", [0, 1])
@pytest.mark.parametrize(("place", "value"), [(-1, 2**30), (-1, 1), (0, 2), (0, -(2**30))])
def test_lists_that_end_elsewhere_are_refused_at_once(tmp_path: Path, level: int, place: int, value: int) -> None:
    def damage(offsets: npt.NDArray[Any]) -> None:
        offsets[place] = value

    with pytest.raises(DataError, match="some grids are not 2 x 2 codes"):
        CodesDataset(write_lists(tmp_path / "a.arrow", 8, damage, level))


def test_rows_without_codes_are_refused() -> None:
    features = make_codes(1, {}).features
    codes = datasets.Dataset.from_dict({"codes": [[[1, 2], [3, 4]], None]}, features=features)
    with pytest.raises(DataError, match="1 rows have no codes"):
        CodesDataset(codes)


MEMORY = """
import re, sys
from pathlib import Path
import numpy as np
from vqtok.codes import open_grids

def held():
    return int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

warm = open_grids(sys.argv[1] + "/small")[1].__getitems__(range(8))
before = held()
_, train, test, _ = open_grids(sys.argv[1] + "/large")
for grids in (train, test):
    for block in grids.blocks():
        pass
    for rows in np.array_split(np.random.default_rng(0).permutation(len(grids)), len(grids) // 256):
        grids.__getitems__(rows)
assert len(train) == 180_000
print(held() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_files_are_not_loaded_into_memory(write_codes: WriteCodes, tmp_path: Path) -> None:
    """100 MB of codes in 10 files; 3 MB for which rows are held out, 4 for blocks."""
    spec = make_spec(grid=(16, 16))
    write_codes(make_grids(20, spec), spec, name="small")
    parts = [load_codes(write_codes(make_grids(20_000, spec), spec, name=f"shard-{part}")) for part in range(10)]
    datasets.concatenate_datasets(parts).save_to_disk(tmp_path / "large", num_shards=10)
    done = subprocess.run([sys.executable, "-c", MEMORY, str(tmp_path)], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 40


def test_many_shards_are_read_as_fast_as_one(shards: Shards, write_codes: WriteCodes) -> None:
    """Python per shard makes it ten times as long."""
    spec = make_spec(grid=(16, 16))
    many = CodesDataset(shards(spec, (100,) * 100))
    one = CodesDataset(load_codes(write_codes(make_grids(10_000, spec), spec)))
    took: dict[CodesDataset, list[float]] = {many: [], one: []}
    noise = np.random.default_rng(0)
    for _ in range(300):
        rows = noise.integers(0, 10_000, 256)
        for data, times in took.items():
            began = time.perf_counter()
            data.__getitems__(rows)
            times.append(time.perf_counter() - began)
    assert statistics.median(took[many]) < 3 * statistics.median(took[one])
