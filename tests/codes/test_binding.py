"""What the binding of codes to their tokenizer lasts through; `vqtok/codes/binding.py` has the table."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tests.codes.conftest import WriteCodes, make_grids, make_spec
from vqtok.codes import CodesSpec, codes_array, load_codes, read_spec
from vqtok.errors import DataError, MismatchError
from vqtok.tokenizer import VQTokenizer

SPEC = make_spec(repository="org/vq", revision="abc", preprocessing={"image_size": [8, 12]})
Change = Callable[[datasets.Dataset, Path], Any]


def saved(codes: Any, place: Path) -> Path:
    codes.save_to_disk(place / "saved")
    return place / "saved"


def parquet(codes: datasets.Dataset, place: Path) -> Path:
    codes.to_parquet(place / "codes.parquet")
    return place / "codes.parquet"


def loaded(file: Path, **options: Any) -> Any:
    return datasets.load_dataset("parquet", data_files=str(file), split="train", **options)


WHOLE: dict[str, Change] = {
    "save_to_disk": lambda codes, place: datasets.load_from_disk(str(saved(codes, place))),
    "map": lambda codes, place: codes.map(lambda row: {"more": row["row"]}, keep_in_memory=True),
    "map of the codes": lambda codes, place: codes.map(lambda row: {"codes": row["codes"]}, keep_in_memory=True),
    "select": lambda codes, place: codes.select([2, 0]),
    "filter": lambda codes, place: codes.filter(lambda row: row["row"] > 1, keep_in_memory=True),
    "rename_column": lambda codes, place: codes.rename_column("row", "number"),
    "add_column": lambda codes, place: codes.add_column("more", list(range(len(codes)))),
    "train_test_split": lambda codes, place: codes.train_test_split(0.5),
    "concatenate": lambda codes, place: datasets.concatenate_datasets([codes, codes.select([1])]),
    "interleave": lambda codes, place: datasets.interleave_datasets([codes, codes]),
    "with_format": lambda codes, place: codes.with_format("numpy"),
}
IDENTITY: dict[str, Change] = {
    "to_parquet": lambda codes, place: parquet(codes, place),
    "from_parquet": lambda codes, place: datasets.Dataset.from_parquet(
        str(parquet(codes, place)), cache_dir=str(place)
    ),
    "load_dataset": lambda codes, place: loaded(parquet(codes, place), cache_dir=str(place / "cache")),
    "load_dataset, save_to_disk": lambda codes, place: saved(
        loaded(parquet(codes, place), cache_dir=str(place / "cache")), place
    ),
    "streamed": lambda codes, place: loaded(parquet(codes, place), streaming=True),
    "streamed, filter, shuffle, take": lambda codes, place: (
        loaded(parquet(codes, place), streaming=True).filter(lambda row: row["row"] > 1).shuffle(seed=0).take(2)
    ),
    "to_iterable_dataset": lambda codes, place: codes.to_iterable_dataset(),
    "pandas with features": lambda codes, place: datasets.Dataset.from_pandas(
        codes.to_pandas(), features=codes.features
    ),
}
LOST: dict[str, Change] = {
    "pandas": lambda codes, place: datasets.Dataset.from_pandas(
        codes.to_pandas().merge(pd.DataFrame({"row": range(6), "score": 0.5}), on="row")
    ),
    "streamed map": lambda codes, place: codes.to_iterable_dataset().map(lambda row: {"more": 1}),
    "a table without metadata": lambda codes, place: stripped(parquet(codes, place)),
}


def stripped(file: Path) -> Path:
    pq.write_table(pq.read_table(file).replace_schema_metadata(None), file)
    return file


@pytest.fixture
def codes(write_codes: WriteCodes) -> datasets.Dataset:
    loaded = load_codes(write_codes(make_grids(6, SPEC), SPEC))
    assert isinstance(loaded, datasets.Dataset)
    return loaded


@pytest.mark.parametrize("change", WHOLE.values(), ids=WHOLE)
def test_all_of_it_lasts(codes: datasets.Dataset, change: Change, tmp_path: Path) -> None:
    assert read_spec(change(codes, tmp_path)) == SPEC


@pytest.mark.parametrize("change", IDENTITY.values(), ids=IDENTITY)
def test_the_fingerprint_lasts(codes: datasets.Dataset, change: Change, tmp_path: Path) -> None:
    assert read_spec(change(codes, tmp_path)).identity == SPEC.identity


@pytest.mark.parametrize("change", LOST.values(), ids=LOST)
def test_where_it_is_lost_the_error_says_how_to_give_it_back(
    codes: datasets.Dataset, change: Change, tmp_path: Path
) -> None:
    with pytest.raises(
        DataError, match=r"does not say which tokenizer made its codes.*`vqtok bind .*vqtok.bind_codes\("
    ):
        read_spec(change(codes, tmp_path))


def test_polars_loses_it_too(codes: datasets.Dataset) -> None:
    pytest.importorskip("polars")
    with pytest.raises(DataError, match="vqtok bind"):
        read_spec(datasets.Dataset.from_polars(codes.to_polars()))


def test_what_names_no_codes_is_told_so(tmp_path: Path) -> None:
    rows = datasets.Dataset.from_dict({"image": [1, 2]})
    with pytest.raises(DataError, match="no column 'codes' of code grids in the dataset, only image"):
        read_spec(rows)
    rows.to_parquet(tmp_path / "rows.parquet")
    with pytest.raises(DataError, match="no column 'codes'"):
        load_codes(tmp_path / "rows.parquet")


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", ["folder", "file", "pattern", "parquet folder"])
def test_codes_are_loaded_from_every_form(
    codes: datasets.Dataset, form: str, streaming: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place: Path = tmp_path / "there"
    place.mkdir()
    if form == "folder":
        place = saved(codes, place)
    else:
        codes.select(range(3)).to_parquet(place / "train-00000-of-00002.parquet")
        codes.select(range(3, 6)).to_parquet(place / "train-00001-of-00002.parquet")
        place = {"file": place / "train-00001-of-00002.parquet", "pattern": place / "*.parquet"}.get(form, place)
    rows = load_codes(place, streaming=streaming)  # type: ignore[call-overload]  # of a variable it does not know
    assert isinstance(rows, datasets.IterableDataset if streaming else datasets.Dataset)
    expected = [3, 4, 5] if form == "file" else list(range(6))
    assert [row["row"] for row in rows] == expected
    grids = np.stack([np.asarray(row["codes"]) for row in rows])
    assert np.array_equal(grids, codes_array(codes)[expected])
    assert read_spec(rows).identity == read_spec(place).identity == SPEC.identity


def test_what_is_loaded_carries_what_only_the_sidecar_said(codes: datasets.Dataset, tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    bare = datasets.Dataset.from_dict({"codes": codes_array(codes)}, features=datasets.Features(codes=grids_only()))
    bare.save_to_disk(folder)
    shutil.copy(tmp_path / "codes" / "codes.json", folder)
    again = load_codes(folder).map(lambda row: {"more": 1}, keep_in_memory=True)
    assert read_spec(again) == SPEC
    again.to_parquet(tmp_path / "again.parquet")
    assert read_spec(tmp_path / "again.parquet").identity == SPEC.identity


def test_codes_that_are_bound_are_given_back_as_they_are(codes: datasets.Dataset, tmp_path: Path) -> None:
    assert load_codes(tmp_path / "codes")._fingerprint == codes._fingerprint
    formatted = codes.with_format("numpy", columns=["codes"])
    folder = saved(formatted, tmp_path)
    (folder / "codes.json").write_bytes((tmp_path / "codes" / "codes.json").read_bytes())
    assert load_codes(folder).format["columns"] == ["codes"]


def grids_only() -> datasets.Array2D:
    return datasets.Array2D((2, 3), "uint16")


@pytest.mark.parametrize("streaming", [False, True])
def test_files_of_two_tokenizers_are_not_joined(codes: datasets.Dataset, streaming: bool, tmp_path: Path) -> None:
    other = make_spec(fingerprint="b" * 64)
    features = datasets.Features({"codes": other.feature})
    codes.select_columns("codes").to_parquet(tmp_path / "a.parquet")
    datasets.Dataset.from_dict({"codes": codes_array(codes)}, features=features).to_parquet(tmp_path / "b.parquet")
    with pytest.raises(MismatchError, match="mixes codes of several tokenizers"):
        load_codes(tmp_path / "*.parquet", streaming=streaming)  # type: ignore[call-overload]


def test_a_sidecar_of_other_codes_is_refused(codes: datasets.Dataset, write_codes: WriteCodes, tmp_path: Path) -> None:
    other = make_spec(fingerprint="b" * 64)
    shutil.copy(write_codes(make_grids(3, other), other, name="other") / "codes.json", tmp_path / "codes")
    with pytest.raises(MismatchError, match="mixes codes of several tokenizers"):
        load_codes(tmp_path / "codes")


@pytest.mark.parametrize("streaming", [False, True])
def test_codes_of_another_tokenizer_are_refused_from_every_form(
    codes: datasets.Dataset, streaming: bool, tiny_tokenizer: VQTokenizer, tmp_path: Path
) -> None:
    for place in (tmp_path / "codes", parquet(codes, tmp_path)):
        with pytest.raises(MismatchError, match="a{12}.*" + tiny_tokenizer.fingerprint[:12]):
            load_codes(place, tiny_tokenizer, streaming=streaming)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "id", ['{"format": "vqtok-codes"}', '{"format": "vqtok-codes", "version": 9}', 'vqtok-codes "', "[vqtok-codes]"]
)
def test_a_damaged_id_is_one_line(id: str) -> None:
    feature = datasets.Array2D((2, 3), "uint16", id=id)
    with pytest.raises(DataError, match="^[^\n]*$"):
        CodesSpec.from_feature(feature, name="here")
    assert CodesSpec.from_feature(datasets.Array2D((2, 3), "uint16", id="of somebody else"), name="here") is None
