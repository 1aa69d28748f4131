from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pytest

from tests.codes.conftest import WriteCodes, make_grids, make_spec
from vqtok.codes import CodesSpec, detokenize_dataset, load_codes, read_bad_images, read_spec, tokenize_dataset
from vqtok.codes.planning import rows_of_shard
from vqtok.errors import ConfigurationError, DataError, MismatchError, VqtokError
from vqtok.tokenizer import VQTokenizer


def test_spec_survives_json() -> None:
    spec = make_spec(repository="org/name", revision="f00", preprocessing={"image_size": [8, 12]}, vqtok_version="9")
    assert CodesSpec.from_json(spec.to_json(), name="here") == spec
    assert json.loads(spec.to_json())["grid"] == [2, 3]
    assert json.loads(spec.to_json())["format"] == "vqtok-codes"


@pytest.mark.parametrize(
    ("codebook_size", "num_codebooks", "feature"),
    [
        (512, 1, datasets.Array2D((2, 3), "uint16")),
        (65_536, 1, datasets.Array2D((2, 3), "uint16")),
        (65_537, 1, datasets.Array2D((2, 3), "uint32")),
        (512, 4, datasets.Array3D((2, 3, 4), "uint16")),
    ],
)
def test_grid_and_type_are_in_the_schema(
    codebook_size: int, num_codebooks: int, feature: datasets.Array2D | datasets.Array3D
) -> None:
    spec = make_spec(codebook_size=codebook_size, num_codebooks=num_codebooks)
    assert replace(spec.feature, id=None) == feature and spec.fits(feature)
    assert CodesSpec.from_feature(spec.feature, name="here") == spec
    assert CodesSpec.from_feature(feature, name="here") is None


def test_spec_of_a_tokenizer(tiny_tokenizer: VQTokenizer, tmp_path: Path) -> None:
    spec = CodesSpec.from_tokenizer(tiny_tokenizer)
    assert (spec.grid, spec.codebook_size, spec.num_codebooks) == ((4, 4), 16, 1)
    assert spec.fingerprint == tiny_tokenizer.fingerprint
    assert spec.repository is None
    assert spec.preprocessing["image_size"] == [16, 16]
    assert CodesSpec.from_json(spec.to_json(), name="here") == spec
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    saved = VQTokenizer.from_pretrained(tmp_path / "model")
    assert CodesSpec.from_tokenizer(saved).repository == str(tmp_path / "model")
    CodesSpec.from_tokenizer(saved).check(tiny_tokenizer)


def test_another_tokenizer_is_refused_with_both_fingerprints(tiny_tokenizer: VQTokenizer) -> None:
    spec = make_spec(fingerprint="b" * 64, repository="org/other")
    with pytest.raises(MismatchError) as error:
        spec.check(tiny_tokenizer)
    message = str(error.value)
    assert "b" * 12 + " (org/other)" in message
    assert tiny_tokenizer.fingerprint[:12] in message
    assert "tokenize the images again" in message


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a plain description", "does not describe codes"),
        ("[1, 2]", "does not describe codes"),
        ('{"format": "other"}', "does not describe codes"),
        ('{"format": "vqtok-codes", "version": 2}', "update vqtok"),
        ('{"format": "vqtok-codes", "version": 1, "grid": [4]}', "damaged"),
        ('{"format": "vqtok-codes", "version": 1, "grid": [4, 4]}', "damaged"),
    ],
)
def test_what_is_no_spec_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint) as error:
        CodesSpec.from_json(text, name="the folder x")
    assert "the folder x" in str(error.value)


VALUES = [None, [], {}, 10**15, 10**30, -1, 0, "text", True, float("nan"), [None], {"a": 1}, "MISSING"]


@pytest.mark.parametrize("place", ["codes.json", "dataset_info.json"])
def test_whatever_describes_codes_is_read_or_refused_in_one_line(
    place: str, write_codes: WriteCodes, tiny_tokenizer: VQTokenizer
) -> None:
    spec = make_spec()
    folder = write_codes(make_grids(3, spec), spec)
    info = json.loads((folder / "dataset_info.json").read_text())
    sidecar = json.loads((folder / "codes.json").read_text())
    for key in [*sidecar, *spec.to_dict()]:
        for value in VALUES:
            changed = {
                name: entry for name, entry in (sidecar | {key: value}).items() if (name, value) != (key, "MISSING")
            }
            told = json.dumps(changed) if place == "dataset_info.json" else ""  # which a dataset from the Hub has lost
            (folder / "dataset_info.json").write_text(json.dumps(info | {"description": told}))
            (folder / "codes.json").write_text(json.dumps(changed))
            for call in (
                load_codes,
                read_spec,
                read_bad_images,
                lambda folder: load_codes(folder, tokenizer=tiny_tokenizer),
            ):
                try:
                    call(folder)
                except VqtokError as error:
                    assert "\n" not in str(error)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", "{}", "[" * 100_000, "\ud800"])
def test_a_sidecar_that_is_no_object_is_refused(text: str, write_codes: WriteCodes) -> None:
    spec = make_spec()
    folder = write_codes(make_grids(3, spec), spec)
    info = json.loads((folder / "dataset_info.json").read_text())
    (folder / "dataset_info.json").write_text(json.dumps(info | {"description": ""}))
    (folder / "codes.json").write_bytes(text.encode(errors="surrogatepass"))
    with pytest.raises(DataError, match=r"codes\.json") as caught:
        load_codes(folder)
    assert "\n" not in str(caught.value)


def test_the_name_of_a_tokenizer_is_not_one(tmp_path: Path, write_codes: WriteCodes, images_folder: Path) -> None:
    folder = write_codes(make_grids(3, make_spec()), make_spec())
    name: Any = "runs/model"
    for use in (
        lambda: load_codes(folder, tokenizer=name),
        lambda: tokenize_dataset(images_folder, name, tmp_path / "out"),
        lambda: detokenize_dataset(load_codes(folder), name, tmp_path / "out"),
    ):
        with pytest.raises(ConfigurationError, match="must be a VQTokenizer, got 'runs/model'; load it with VQTok"):
            use()


def test_no_shard_has_more_codes_than_arrow_counts(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> None:
    spec = make_spec(grid=(64, 64), num_codebooks=8)
    assert spec.most_rows * 64 * 64 * 8 < 2**31 <= (spec.most_rows + 1) * 64 * 64 * 8
    assert rows_of_shard(None, spec, images=False) == spec.most_rows == 65_535
    assert rows_of_shard(None, make_spec(), images=False) == 65_536
    most = CodesSpec.from_tokenizer(tiny_tokenizer).most_rows
    with pytest.raises(
        ConfigurationError, match=f"^shard_rows must be at most {most:,} for grids of .*, got {10**9:,}$"
    ):
        tokenize_dataset("mnist-mini", tiny_tokenizer, tmp_path / "codes", shard_rows=10**9)
    assert not (tmp_path / "codes").exists()
