from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

from tests.codes.conftest import WriteCodes, make_grids, make_spec
from vqtok.codes import CodesSpec, codes_array, load_codes, read_bad_images, read_spec
from vqtok.errors import DataError, MismatchError
from vqtok.tokenizer import VQTokenizer


def values_buffer(dataset: datasets.Dataset) -> Any:
    """The Arrow buffer in which the codes of a dataset of one chunk lie."""
    return dataset.data.column("codes").chunk(0).storage.buffers()[-1]


@pytest.mark.parametrize("changes", [{}, {"num_codebooks": 4}, {"codebook_size": 100_000}], ids=str)
def test_array_shares_memory_with_the_file(write_codes: WriteCodes, changes: dict[str, int]) -> None:
    spec = make_spec(**changes)
    grids = make_grids(11, spec)
    dataset = load_codes(write_codes(grids, spec))
    array = codes_array(dataset)
    assert array.__array_interface__["data"][0] == values_buffer(dataset).address
    assert array.nbytes <= values_buffer(dataset).size < array.nbytes + 64
    assert array.dtype == spec.dtype
    assert array.shape == (11, *spec.shape)
    assert np.array_equal(array, grids)
    assert np.array_equal(array, dataset.with_format("numpy")["codes"][:])


@pytest.mark.parametrize("batches", [1, 7])
def test_array_follows_select_shuffle_and_filter(write_codes: WriteCodes, batches: int) -> None:
    dataset = load_codes(write_codes(make_grids(23, make_spec()), make_spec(), batches=batches))
    for changed in (
        dataset,
        dataset.select([7, 3, 3, 20, 0]),
        dataset.select(range(4, 19)),
        dataset.shuffle(seed=1),
        dataset.shuffle(seed=2).select(range(3, 9)),
        dataset.filter(lambda row: row % 3 == 1, input_columns="row", keep_in_memory=True),
        datasets.concatenate_datasets([dataset.select([5]), dataset.select(range(2))]),
        dataset.shuffle(seed=3).flatten_indices(keep_in_memory=True),
    ):
        expected = changed.with_format("numpy", dtype=np.uint16)["codes"][:]
        assert np.array_equal(codes_array(changed), expected)
        assert codes_array(changed).shape == (len(changed), 2, 3)


def test_array_of_no_rows_has_the_grid(write_codes: WriteCodes) -> None:
    dataset = load_codes(write_codes(make_grids(3, make_spec()), make_spec()))
    assert codes_array(dataset.select([])).shape == (0, 2, 3)


def test_array_refuses_what_holds_no_grids(write_codes: WriteCodes) -> None:
    dataset = load_codes(write_codes(make_grids(3, make_spec()), make_spec()))
    with pytest.raises(DataError, match="no column 'codes' of code grids here, only row"):
        codes_array(dataset.remove_columns("codes"))


def test_spec_is_read_from_folder_dataset_and_what_becomes_of_it(write_codes: WriteCodes) -> None:
    spec = make_spec(repository="org/name", preprocessing={"image_size": [8, 12]})
    folder = write_codes(make_grids(6, spec), spec)
    dataset = load_codes(folder)
    halves = [dataset.select(range(3)), dataset.select(range(3, 6))]
    for codes in (
        folder,
        str(folder),
        dataset,
        dataset.shuffle(seed=0),
        dataset.map(lambda row: {"more": row["row"] + 1}, keep_in_memory=True),
        datasets.concatenate_datasets(halves),
        datasets.DatasetDict({"train": halves[0], "test": halves[1]}),
    ):
        assert read_spec(codes) == spec


def test_spec_is_read_from_the_sidecar_where_the_description_is_lost(write_codes: WriteCodes) -> None:
    folder = write_codes(make_grids(3, make_spec()), make_spec())
    info = folder / "dataset_info.json"
    told = json.loads(info.read_text())
    del told["features"]["codes"]["id"]
    info.write_text(json.dumps(told | {"description": ""}))
    assert read_spec(folder) == make_spec()
    assert read_spec(load_codes(folder)) == make_spec()
    (folder / "codes.json").unlink()
    with pytest.raises(DataError, match=f"does not say which tokenizer.*`vqtok bind {folder} --tokenizer <tokenizer>`"):
        load_codes(folder)


def test_codes_of_two_tokenizers_are_not_mixed(write_codes: WriteCodes) -> None:
    parts = []
    for name in "ab":
        spec = make_spec(fingerprint=name * 64)
        parts.append(load_codes(write_codes(make_grids(3, spec), spec, name=name)))
    with pytest.raises(ValueError, match="can't be aligned"):
        datasets.concatenate_datasets(parts)
    with pytest.raises(MismatchError, match="a{12}, b{12}"):
        read_spec(datasets.DatasetDict({"train": parts[0], "test": parts[1]}))


def test_codes_of_another_tokenizer_are_refused(write_codes: WriteCodes, tiny_tokenizer: VQTokenizer) -> None:
    other = make_spec()
    folder = write_codes(make_grids(3, other), other)
    with pytest.raises(MismatchError, match="a{12}.*" + tiny_tokenizer.fingerprint[:12]):
        load_codes(folder, tokenizer=tiny_tokenizer)
    own = CodesSpec.from_tokenizer(tiny_tokenizer)
    assert len(load_codes(write_codes(make_grids(3, own), own, name="own"), tokenizer=tiny_tokenizer)) == 3


def test_a_damaged_table_of_bad_images_is_one_line(tmp_path: Path) -> None:
    assert read_bad_images(tmp_path).num_rows == 0
    (tmp_path / "bad_images.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="^[^\n]*bad_images.parquet is damaged[^\n]*$"):
        read_bad_images(tmp_path)


@pytest.mark.parametrize("value", [None, 5, -1, 2**70, True, "x", [], {}, [1], {"a": 1}, [[[]]]], ids=repr)
@pytest.mark.parametrize("file", ["state.json", "dataset_info.json", "codes.json"])
def test_values_of_other_types_are_one_line(write_codes: WriteCodes, tmp_path: Path, file: str, value: object) -> None:
    whole = write_codes(make_grids(3, make_spec()), make_spec())
    written = json.loads((whole / file).read_text())
    for number, content in enumerate([value, *(written | {key: value} for key in written)]):
        folder = shutil.copytree(whole, tmp_path / f"damaged-{number}")
        (folder / file).write_text(json.dumps(content))
        try:
            load_codes(folder)
            read_bad_images(folder)
        except DataError as error:
            assert "\n" not in str(error)
        except MismatchError:
            pass


@pytest.mark.parametrize("file", ["state.json", "dataset_info.json", "codes.json"])
@pytest.mark.parametrize("content", ["", "[" * 100_000, "{"], ids=lambda text: text[:5])
def test_json_that_is_damaged_is_one_line(write_codes: WriteCodes, file: str, content: str) -> None:
    folder = write_codes(make_grids(3, make_spec()), make_spec())
    (folder / file).write_text(content)
    with pytest.raises(DataError, match="^[^\n]*$"):
        load_codes(folder)
        read_bad_images(folder)


def test_damaged_and_missing_folders_are_one_line(write_codes: WriteCodes, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no codes at"):
        load_codes(tmp_path / "nowhere")
    with pytest.raises(DataError, match="is not a codes folder"):
        load_codes(tmp_path)
    whole = write_codes(make_grids(300, make_spec()), make_spec())
    for name, damage in {
        "data-00000-of-00001.arrow": lambda path: path.write_bytes(path.read_bytes()[:2000]),
        "state.json": lambda path: path.write_text("{"),
        "dataset_info.json": lambda path: path.write_text(path.read_text().replace('"uint16"', '"uint32"')),
    }.items():
        damaged = shutil.copytree(whole, tmp_path / f"damaged-{name}")
        damage(damaged / name)
        with pytest.raises(DataError) as error:
            load_codes(damaged)
        assert "\n" not in str(error.value)
        assert str(damaged) in str(error.value)
