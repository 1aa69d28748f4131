from __future__ import annotations

import json
import os
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pytest

import vqtok.codes.writer as module
from tests.codes.conftest import WriteCodes, make_grids, make_spec
from tests.disk import files_limited_to
from vqtok.codes import SplitWriter, codes_array, load_codes, write_splits
from vqtok.errors import DataError
from vqtok.folders import new_folder


@pytest.mark.parametrize(
    "changes", [{}, {"num_codebooks": 4}, {"codebook_size": 100_000}, {"codebook_size": 65_536}], ids=str
)
def test_datasets_reads_what_was_written(write_codes: WriteCodes, changes: dict[str, int]) -> None:
    spec = make_spec(**changes)
    grids = make_grids(7, spec)
    dataset = datasets.load_from_disk(str(write_codes(grids, spec, batches=3)))
    assert dataset.features == {"codes": spec.feature, "row": datasets.Value("int64")}
    assert np.array_equal(dataset.with_format("numpy")["codes"][:], grids)
    assert dataset["row"][:] == list(range(7))
    assert json.loads(dataset.info.description) == spec.to_dict()
    assert str(dataset.split) == "train"


def test_rows_of_usual_number_are_one_chunk(write_codes: WriteCodes) -> None:
    grids = make_grids(9, make_spec())
    assert load_codes(write_codes(grids, make_spec(), batches=9)).data.column("codes").num_chunks == 1


def test_large_sets_are_written_in_parts(write_codes: WriteCodes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BATCH_BYTES", 40)
    grids = make_grids(9, make_spec())
    dataset = load_codes(write_codes(grids, make_spec(), batches=9))
    assert dataset.data.column("codes").num_chunks == 5  # a grid is 12 bytes and its row number 8
    assert np.array_equal(codes_array(dataset), grids)
    assert dataset["row"][:] == list(range(9))


def test_fingerprint_of_the_dataset_follows_its_content(write_codes: WriteCodes) -> None:
    spec, grids = make_spec(), make_grids(5, make_spec())
    same = [load_codes(write_codes(grids, spec, name=name))._fingerprint for name in ("a", "b")]
    assert same[0] == same[1]
    changed = load_codes(write_codes((grids + 1) % 16, spec, name="c"))._fingerprint
    assert changed != same[0]


def test_several_splits_are_a_dataset_dict(tmp_path: Path) -> None:
    spec = make_spec()
    for split, count in (("train", 4), ("test", 2)):
        with SplitWriter(tmp_path / split, spec, features=datasets.Features(), split=split) as writer:
            writer.write(make_grids(count, spec))
    write_splits(tmp_path, ["train", "test"])
    both = datasets.load_from_disk(str(tmp_path))
    assert {name: len(rows) for name, rows in both.items()} == {"train": 4, "test": 2}


def test_a_column_named_codes_is_refused(tmp_path: Path) -> None:
    features = datasets.Features({"codes": datasets.Value("string")})
    with pytest.raises(DataError, match="rename it"):
        SplitWriter(tmp_path, make_spec(), features=features, split=None)


def test_grids_of_another_shape_are_refused(write_codes: WriteCodes) -> None:
    with pytest.raises(DataError, match=r"must be \(B, 2, 3\), got \(5, 3, 2\)"):
        write_codes(np.zeros((5, 3, 2), dtype=np.int64), make_spec())


def test_a_full_disk_is_one_line_and_leaves_the_old_codes(tmp_path: Path, write_codes: WriteCodes) -> None:
    spec = make_spec()
    old = make_grids(3, spec)
    out = write_codes(old, spec)
    with (
        pytest.raises(DataError, match="the disk is full"),
        files_limited_to(100_000),
        new_folder(out, marker="codes.json", overwrite=True) as folder,
        SplitWriter(folder, spec, features=datasets.Features({"row": datasets.Value("int64")}), split=None) as writer,
    ):
        writer.write(make_grids(50_000, spec), pa.table({"row": np.arange(50_000)}))
    assert np.array_equal(codes_array(load_codes(out)), old)
    assert os.listdir(tmp_path) == ["codes"]
