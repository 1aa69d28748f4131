from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

import vqtok.codes.detokenize as module
from tests.codes.conftest import WriteCodes, make_grids, make_spec
from vqtok.codes import CodesSpec, codes_array, detokenize_dataset, load_codes, tokenize_dataset
from vqtok.codes.detokenize import Names, image_file_names
from vqtok.errors import ConfigurationError, MismatchError
from vqtok.tokenizer import VQTokenizer


def test_images_are_those_of_the_tokenizer_under_their_old_names(
    tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer
) -> None:
    codes = tokenize_dataset(images_folder, tiny_tokenizer, tmp_path / "codes", progress=False).shuffle(seed=0)
    assert detokenize_dataset(codes, tiny_tokenizer, tmp_path / "decoded", batch_size=5, progress=False) == 12
    expected = tiny_tokenizer.detokenize(torch.from_numpy(codes_array(codes).astype(np.int64)))
    for name, image in zip(codes["file_name"], expected, strict=True):
        with Image.open(tmp_path / "decoded" / name) as decoded:
            assert decoded.mode == "L"
            assert np.array_equal(np.asarray(decoded), np.asarray(image))
    assert len(list((tmp_path / "decoded").rglob("*.png"))) == 12


def test_rows_without_names_are_numbered(tmp_path: Path, write_codes: WriteCodes, tiny_tokenizer: VQTokenizer) -> None:
    spec = CodesSpec.from_tokenizer(tiny_tokenizer)
    codes = load_codes(write_codes(make_grids(3, spec), spec))
    detokenize_dataset(codes, tiny_tokenizer, tmp_path / "decoded", progress=False)
    assert sorted(os.listdir(tmp_path / "decoded")) == ["000000.png", "000001.png", "000002.png"]


def test_another_tokenizer_and_a_full_folder_are_refused(
    tmp_path: Path, write_codes: WriteCodes, tiny_tokenizer: VQTokenizer
) -> None:
    own, other = CodesSpec.from_tokenizer(tiny_tokenizer), make_spec(grid=(4, 4))
    with pytest.raises(MismatchError, match="a{12}"):
        codes = load_codes(write_codes(make_grids(3, other), other))
        detokenize_dataset(codes, tiny_tokenizer, tmp_path / "decoded", progress=False)
    full = tmp_path / "full"
    full.mkdir()
    (full / "image.png").touch()
    with pytest.raises(ConfigurationError, match="not empty"):
        codes = load_codes(write_codes(make_grids(3, own), own, name="own"))
        detokenize_dataset(codes, tiny_tokenizer, full, progress=False)
    assert os.listdir(full) == ["image.png"]


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ([None, "", "a.jpg"], ["000000.png", "000001.png", "a.png"]),
        (["cat/1.jpeg", "dog/1.jpeg"], ["cat/1.png", "dog/1.png"]),
        (["a.jpg", "a.png", "A.gif", "b.png"], ["a-000000.png", "a-000001.png", "A-000002.png", "b.png"]),
        (
            ["x" * 252 + ".png", "é" * 120 + "/1.png", "é" * 98 + ".png"],
            ["000000.png", "000001.png", "é" * 98 + ".png"],
        ),
        (["../../etc/x.png", "/etc/x.png", "C:\\x.png"], ["000000.png", "000001.png", "000002.png"]),
        (["000001.png", None, "a.b.c.png"], ["000001.png", "000001_.png", "a.b.c.png"]),
        (["dir\\1.png", "."], ["dir/1.png", "000001.png"]),
        (["a.jpg", "a.png/b.jpg", "A.PNG/c.jpg"], ["a_.png", "a.png/b.png", "A.PNG/c.png"]),
        (["a.jpg", "a.png", "a-000000.png/b.jpg"], ["a-000000_.png", "a-000001.png", "a-000000.png/b.png"]),
        ([7, -1, None, 2**40], ["7.png", "-1.png", "000002.png", "1099511627776.png"]),
        ([0.5, [1], b"x"], ["000000.png", "000001.png", "000002.png"]),
    ],
)
def test_names_stay_below_the_folder_and_are_each_their_own(files: list[object], names: list[str]) -> None:
    assert image_file_names(files) == names


@pytest.mark.parametrize(
    ("names", "files"),
    [
        (["a.jpg", "a.png/b.jpg"], ["a.png/b.png", "a_.png"]),
        (["x" * 300, "y/" * 20 + "z"], ["000000.png", "y/" * 20 + "z.png"]),
        ([3, 1], ["1.png", "3.png"]),
        ([0.5, 1.5], ["000000.png", "000001.png"]),
        (["n" * 300 + ".png", "é" * 127 + ".png"], ["000000.png", "000001.png"]),
        (["a/" * 3000 + "x.png", f"{'m' * 226}.png"], ["000000.png", f"{'m' * 226}.png"]),
        (["a/" * 990 + "x.png", "a/" * 99 + "x.png"], ["000000.png", "a/" * 99 + "x.png"]),
        (["..png", "a.png"], ["..png", "a.png"]),
    ],
)
def test_any_column_of_names_is_decoded(
    tmp_path: Path, tiny_tokenizer: VQTokenizer, names: list[object], files: list[str]
) -> None:
    spec = CodesSpec.from_tokenizer(tiny_tokenizer)
    codes = datasets.Dataset.from_dict({"codes": make_grids(2, spec).astype(np.uint16), "file_name": names})
    codes = codes.cast_column("codes", spec.feature)
    codes.info.description = spec.to_json()
    detokenize_dataset(codes, tiny_tokenizer, tmp_path / "decoded", progress=False)
    found = (tmp_path / "decoded").rglob("*.png")
    assert sorted(path.relative_to(tmp_path / "decoded").as_posix() for path in found if path.is_file()) == files


def test_the_time_for_names_grows_with_the_images_and_not_with_their_square(
    tmp_path: Path, write_codes: WriteCodes, tiny_tokenizer: VQTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looks at how many names each batch takes from the list of all."""
    taken = []

    class Names(list[str]):
        def __getitem__(self, rows: Any) -> Any:
            names = super().__getitem__(rows)
            taken.append(len(names))
            return names

    monkeypatch.setattr(module, "image_file_names", lambda files: Names(image_file_names(files)))
    spec = CodesSpec.from_tokenizer(tiny_tokenizer)
    codes = load_codes(write_codes(make_grids(7, spec), spec))
    detokenize_dataset(codes, tiny_tokenizer, tmp_path / "decoded", batch_size=2, progress=False)
    assert taken == [2, 2, 2, 1]


def test_names_of_a_stream_are_each_their_own_below_the_folder() -> None:
    names = Names()
    files = [
        "a.jpg",
        "b/c.jpg",
        "a.png",
        "A.gif",
        None,
        "../x.jpg",
        "a.png/d.jpg",
        "b.jpg",
        "000004.jpg",
        7,
        "b/c.webp",
    ]
    given = [names.of(file) for file in files]
    assert given == [
        *("a.png", "b/c.png", "a-000002.png", "A-000003.png", "000004.png", "000005.png", "000006.png", "b.png"),
        *("000004-000008.png", "7.png", "b/c-000010.png"),
    ]
    folders = {parent.lower() for name in given if (parent := name.rpartition("/")[0])}
    assert len({name.lower() for name in given}) == len(given) and folders.isdisjoint(name.lower() for name in given)


def test_a_stream_is_decoded_as_the_dataset_is(
    tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer
) -> None:
    tokenize_dataset(images_folder, tiny_tokenizer, tmp_path / "codes", progress=False)
    rows, streamed = load_codes(tmp_path / "codes"), load_codes(tmp_path / "codes", streaming=True)
    assert detokenize_dataset(rows, tiny_tokenizer, tmp_path / "whole", progress=False) == 12
    assert detokenize_dataset(streamed, tiny_tokenizer, tmp_path / "stream", batch_size=5, progress=False) == 12
    whole, stream = (
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.png")}
        for name in ("whole", "stream")
    )
    assert whole == stream and len(whole) == 12
