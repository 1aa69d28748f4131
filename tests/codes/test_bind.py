"""Codes that lost their tokenizer get it back, if they can be its own, and no row is written anew."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.codes.conftest import WriteCodes, make_grids, make_spec
from vqtok.codes import CodesSpec, bind_codes, codes_array, load_codes, read_spec, tokenize_images
from vqtok.errors import CheckpointError, ConfigurationError, DataError, MismatchError
from vqtok.tokenizer import VQTokenizer

GRIDS = make_grids(30, make_spec(grid=(4, 4)))


def lost(grids: Any = GRIDS, dtype: str = "uint16") -> datasets.Dataset:
    """Codes as they come back from pandas."""
    features = datasets.Features({"codes": datasets.Array2D(grids.shape[1:], dtype), "row": datasets.Value("int64")})
    rows = {"codes": grids.astype(dtype), "row": list(range(len(grids)))}
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.fixture
def spec(tiny_tokenizer: VQTokenizer) -> CodesSpec:
    return CodesSpec.from_tokenizer(tiny_tokenizer)


def data_of(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in sorted(folder.rglob("*.arrow"))}


def test_a_dataset_a_dictionary_and_a_stream(tiny_tokenizer: VQTokenizer, spec: CodesSpec) -> None:
    rows = lost()
    for codes in (
        rows,
        rows.with_format("numpy"),
        rows.shuffle(seed=0),
        datasets.Dataset.from_pandas(rows.to_pandas()),
        datasets.DatasetDict({"train": rows, "test": rows.select([1])}),
        rows.to_iterable_dataset(),
        rows.to_iterable_dataset().map(lambda row: {"row": row["row"]}),
    ):
        bound = bind_codes(codes, tiny_tokenizer)
        assert type(bound) is type(codes) and read_spec(bound) == spec
    shuffled = rows.shuffle(seed=0)
    assert np.array_equal(codes_array(bind_codes(shuffled, tiny_tokenizer)), codes_array(shuffled))  # type: ignore[arg-type]
    streamed = bind_codes(rows.to_iterable_dataset().map(lambda row: row), tiny_tokenizer)
    assert np.array_equal([row["codes"] for row in streamed], GRIDS)


def test_what_map_cached_before_is_not_taken_for_bound(tiny_tokenizer: VQTokenizer, tmp_path: Path) -> None:
    lost().save_to_disk(tmp_path / "codes")

    def more(row: dict[str, Any]) -> dict[str, Any]:
        return {"more": row["row"]}

    datasets.load_from_disk(str(tmp_path / "codes")).map(more)
    bind_codes(tmp_path / "codes", tiny_tokenizer)
    mapped = datasets.load_from_disk(str(tmp_path / "codes")).map(more)
    assert mapped.features["codes"] == CodesSpec.from_tokenizer(tiny_tokenizer).feature


@pytest.mark.parametrize("layout", ["one split", "several splits", "one split of several"])
def test_a_saved_folder_without_writing_its_rows(
    layout: str, tiny_tokenizer: VQTokenizer, spec: CodesSpec, tmp_path: Path
) -> None:
    folder = tmp_path / "codes"
    splits = {"train": lost()} if layout == "one split of several" else {"train": lost(), "test": lost()}
    (lost() if layout == "one split" else datasets.DatasetDict(splits)).save_to_disk(folder)
    (folder / "README.md").write_text("---\ndataset_info:\n  features:\n" + YAML + "---\n# Mine\n")
    before = data_of(folder)
    with pytest.raises(DataError, match="vqtok bind"):
        load_codes(folder)
    bound = bind_codes(folder, tiny_tokenizer)
    assert read_spec(bound) == read_spec(load_codes(folder)) == spec
    assert data_of(folder) == before
    (folder / "codes.json").unlink()
    assert read_spec(folder) == spec
    read = datasets.load_from_disk(str(folder))
    for split in read.values() if isinstance(read, dict) else [read]:
        assert split.features["codes"] == spec.feature and split["row"][:3] == [0, 1, 2]
    card = (folder / "README.md").read_text()
    assert card.endswith("# Mine\n") and spec.fingerprint in card and "name: row" in card


YAML = """  - name: codes
    dtype:
      array2_d:
        shape: [4, 4]
        dtype: uint16
  - name: row
    dtype: int64
"""


@pytest.mark.parametrize("written", ["datasets", "no metadata", "lists", "groups"])
def test_a_parquet_file_without_writing_its_rows(
    written: str, tiny_tokenizer: VQTokenizer, spec: CodesSpec, tmp_path: Path
) -> None:
    file, table = tmp_path / "codes.parquet", lost().data.table
    if written == "lists":
        storage = [chunk.storage for chunk in table.column("codes").chunks]
        table = table.set_column(0, "codes", storage)
    if written == "datasets":
        lost().to_parquet(file)
    else:
        pq.write_table(table.replace_schema_metadata(None), file, row_group_size=7, write_page_index=True)
    before = file.read_bytes()
    bound = bind_codes(file, tiny_tokenizer)
    assert read_spec(bound).identity == read_spec(file).identity == spec.identity
    assert file.read_bytes().startswith(before[:-8]) and len(file.read_bytes()) < len(before) + 4000
    assert np.array_equal(codes_array(load_codes(file)), GRIDS)
    assert pq.read_table(file)["row"].to_pylist() == list(range(30))
    assert bind_codes(file, tiny_tokenizer).num_rows == 30  # type: ignore[union-attr]


def test_a_folder_of_parquet_files(tiny_tokenizer: VQTokenizer, spec: CodesSpec, tmp_path: Path) -> None:
    for number in range(2):
        lost().to_parquet(tmp_path / "codes" / f"train-0000{number}-of-00002.parquet")
    assert len(bind_codes(tmp_path / "codes", tiny_tokenizer)) == 60
    assert read_spec(tmp_path / "codes") == spec
    assert read_spec(tmp_path / "codes" / "train-00001-of-00002.parquet").identity == spec.identity


@pytest.mark.parametrize("kind", ["dataset", "saved", "parquet"])
@pytest.mark.parametrize(
    ("grids", "dtype", "complaint"),
    [
        (GRIDS + 1, "uint16", "holds the code 16, and tokenizer .* has 16 codes"),
        (GRIDS[:, :3], "uint16", "are Array2D|some grids are not 4 x 4 codes"),
        (GRIDS, "int64", "int64"),
    ],
    ids=["out of range", "another grid", "another type"],
)
def test_codes_that_it_cannot_have_made_are_refused_and_left_alone(
    kind: str, grids: Any, dtype: str, complaint: str, tiny_tokenizer: VQTokenizer, tmp_path: Path
) -> None:
    rows = lost(grids, dtype)
    place: Any = {"dataset": rows, "saved": tmp_path / "saved", "parquet": tmp_path / "x.parquet"}[kind]
    if kind == "saved":
        rows.save_to_disk(place)
    elif kind == "parquet":
        rows.to_parquet(place)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(DataError, match=complaint):
        bind_codes(place, tiny_tokenizer)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_codes_of_another_tokenizer_only_where_that_is_asked_for(
    tiny_tokenizer: VQTokenizer, spec: CodesSpec, write_codes: WriteCodes, tmp_path: Path
) -> None:
    other = make_spec(grid=(4, 4))
    folder = write_codes(GRIDS, other)
    load_codes(folder).to_parquet(tmp_path / "codes.parquet")
    for place in (folder, tmp_path / "codes.parquet", load_codes(folder)):
        with pytest.raises(MismatchError, match=f"names tokenizer a{{12}}.*not {spec.fingerprint[:12]}"):
            bind_codes(place, tiny_tokenizer)
        assert read_spec(place).identity == other.identity
        assert read_spec(bind_codes(place, tiny_tokenizer, overwrite=True)).identity == spec.identity


def test_the_same_binding_again_gives_the_repository(tiny_tokenizer: VQTokenizer, tmp_path: Path) -> None:
    lost().save_to_disk(tmp_path / "codes")
    bind_codes(tmp_path / "codes", tiny_tokenizer)
    (sidecar := tmp_path / "codes" / "codes.json").write_text(
        json.dumps(json.loads(sidecar.read_text()) | {"broken": ["x.png"]})
    )
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    bind_codes(tmp_path / "codes", VQTokenizer.from_pretrained(tmp_path / "model"))
    assert read_spec(tmp_path / "codes").repository == str(tmp_path / "model")
    assert json.loads(sidecar.read_text())["broken"] == ["x.png"]


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_the_same_binding_again_keeps_how_the_codes_were_made(
    tiny_tokenizer: VQTokenizer, images_folder: Path, tmp_path: Path, format: str
) -> None:
    options: dict[str, Any] = {"views": "center", "background": "black", "format": format}
    tokenize_images(images_folder, tiny_tokenizer, tmp_path / "codes", progress=False, **options)
    before = read_spec(tmp_path / "codes").preprocessing
    bound = bind_codes(tmp_path / "codes", tiny_tokenizer)
    assert read_spec(bound).preprocessing == before == read_spec(tmp_path / "codes").preprocessing
    assert before["views"] == "center" and read_spec(bind_codes(bound, tiny_tokenizer)).preprocessing == before


def test_a_card_whose_header_is_of_another_kind_stays(tiny_tokenizer: VQTokenizer, tmp_path: Path) -> None:
    lost().save_to_disk(tmp_path / "codes")
    for info in ("5", "[1]", "{features: 3}", "{features: [codes]}"):
        (card := tmp_path / "codes" / "README.md").write_text(f"---\ndataset_info: {info}\n---\n# Mine\n")
        bind_codes(tmp_path / "codes", tiny_tokenizer)
        assert card.read_text().endswith("# Mine\n")


def test_a_card_that_cannot_be_read_is_one_line_before_anything_is_written(
    tiny_tokenizer: VQTokenizer, tmp_path: Path
) -> None:
    lost().save_to_disk(tmp_path / "codes")
    (tmp_path / "codes" / "README.md").write_bytes(b"caf\xe9")
    with pytest.raises(CheckpointError, match="README.md cannot be read as UTF-8 text"):
        bind_codes(tmp_path / "codes", tiny_tokenizer)
    assert not (tmp_path / "codes" / "codes.json").exists()


def test_what_cannot_be_bound_is_one_line(tiny_tokenizer: VQTokenizer, tmp_path: Path) -> None:
    rows = lost()
    rows.to_parquet(tmp_path / "codes.parquet")
    os.symlink(tmp_path / "codes.parquet", tmp_path / "link.parquet")
    rows.save_to_disk(tmp_path / "saved")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "codes.parquet").read_bytes()[:-20])
    rows.remove_columns("codes").to_parquet(tmp_path / "none.parquet")
    for place, kind, complaint in (
        ("org/codes", ConfigurationError, "is on the Hub and cannot be bound there"),
        (tmp_path / "link.parquet", ConfigurationError, "is a link"),
        (tmp_path / "nowhere", DataError, "no codes at"),
        (tmp_path / "cut.parquet", DataError, "cannot be read as parquet"),
        (tmp_path / "none.parquet", DataError, "has no column 'codes', only row"),
        (next((tmp_path / "saved").glob("*.arrow")), DataError, "is an Arrow stream"),
        (rows.remove_columns("codes"), DataError, "has no column 'codes'"),
        (rows.to_iterable_dataset().remove_columns("codes"), DataError, "has no column 'codes'"),
    ):
        with pytest.raises(kind, match=complaint) as caught:
            bind_codes(place, tiny_tokenizer)
        assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_a_parquet_file_as_it_was(
    tiny_tokenizer: VQTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "codes.parquet"
    lost().to_parquet(file)
    before = file.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="the disk is full"):
        bind_codes(file, tiny_tokenizer)
    assert file.read_bytes() == before
