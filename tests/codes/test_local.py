from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from tests.codes.images import BROKEN, make_mixed_folder
from tests.written_codes import contents
from vqtok.codes import (
    CodesSpec,
    codes_array,
    load_codes,
    read_bad_images,
    read_spec,
    shard,
    tokenize_dataset,
    tokenize_images,
)
from vqtok.data.rows import Rows
from vqtok.errors import ConfigurationError, DataError
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig


@pytest.fixture(scope="module")
def colour_tokenizer() -> VQTokenizer:
    """12x20 RGB images to 3x5 grids of 64 codes, which stand where latents lie, so that many are used."""
    torch.manual_seed(1)
    config = VQTokenizerConfig(
        image_size=[12, 20],
        num_channels=3,
        network={"type": "conv", "hidden_size": 8, "residual_size": 4, "num_residual_blocks": 1},
        quantizer={"type": "vq", "codebook_size": 64, "code_dim": 4},
    )
    tokenizer = VQTokenizer(config).eval()
    with torch.no_grad():
        latents = tokenizer.encoder(torch.rand(32, 3, 12, 20) * 2 - 1).permute(0, 2, 3, 1).reshape(-1, 4)
        tokenizer.quantizer.codebook.copy_(latents[torch.randperm(len(latents))[:64]])
    return tokenizer


def bad_names(folder: Path) -> list[str]:
    names: list[str] = read_bad_images(folder)["path"].to_pylist()
    return names


def test_images_of_every_kind_get_the_codes_that_encode_gives(tmp_path: Path, colour_tokenizer: VQTokenizer) -> None:
    folder = make_mixed_folder(tmp_path / "images")
    tokenize_dataset(
        folder, colour_tokenizer, tmp_path / "codes", batch_size=5, shard_rows=7, max_bad_share=1, progress=False
    )

    codes = datasets.load_from_disk(str(tmp_path / "codes"))["train"]
    good = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.*") if path.name not in BROKEN)
    assert len(good) == 30
    assert codes["file_name"][:] == good
    assert sorted(bad_names(tmp_path / "codes")) == sorted(f"b/{name}" for name in BROKEN)

    grids = codes.with_format("numpy")["codes"][:]
    for grid, name in zip(grids, good, strict=True):
        with Image.open(folder / name) as image:
            pixels = colour_tokenizer.image_processor(image)["pixel_values"]
        assert np.array_equal(grid, colour_tokenizer.encode(pixels)[0].numpy()), name
        assert np.array_equal(grid, colour_tokenizer.tokenize(folder / name)[0].numpy()), name
    assert len(np.unique(grids)) > 20  # grids of one code would be equal without meaning anything
    assert np.array_equal(codes_array(codes), grids)


def test_columns_labels_and_spec_stand_beside_the_codes(
    tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer
) -> None:
    codes = tokenize_dataset(images_folder, tiny_tokenizer, tmp_path / "codes", progress=False)
    assert isinstance(codes, datasets.Dataset)
    assert codes.features == {
        "codes": CodesSpec.from_tokenizer(tiny_tokenizer).feature,
        "file_name": datasets.Value("string"),
        "label": datasets.ClassLabel(names=["cat", "dog"]),
    }
    assert codes["label"][:] == [0 if name.startswith("cat") else 1 for name in codes["file_name"]]
    assert str(codes.split) == "train"
    assert read_spec(codes) == CodesSpec.from_tokenizer(tiny_tokenizer)
    assert bad_names(tmp_path / "codes") == []
    assert len(load_codes(tmp_path / "codes", tokenizer=tiny_tokenizer)) == 12


@pytest.mark.parametrize("batch_size", [1, 5, 12, 100])
def test_codes_do_not_depend_on_the_batch(
    tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer, batch_size: int
) -> None:
    codes = tokenize_dataset(images_folder, tiny_tokenizer, tmp_path / "codes", batch_size=batch_size, progress=False)
    alone = [tiny_tokenizer.tokenize(images_folder / name)[0].numpy() for name in codes["file_name"]]
    assert np.array_equal(codes_array(codes), np.stack(alone))


def parquet_folder(folder: Path, rows: dict[str, int]) -> Path:
    """Splits of encoded images with a nested column, a grid and a second image beside them; row 1 is broken."""
    folder.mkdir()
    features = datasets.Features(
        {
            "image": datasets.Image(),
            "depth": datasets.Array2D((2, 2), "float32"),
            "tags": datasets.List(datasets.Value("string")),
            "index": datasets.Value("int32"),
        }
    )
    noise = np.random.default_rng(0)
    for split, count in rows.items():
        images = [Image.fromarray(noise.integers(0, 256, (16, 16), dtype=np.uint8)) for _ in range(count)]
        columns = {
            "image": images,
            "depth": noise.random((count, 2, 2), dtype=np.float32),
            "tags": [["a"] * (number % 3) for number in range(count)],
            "index": list(range(count)),
        }
        file = folder / f"{split}-00000-of-00001.parquet"
        datasets.Dataset.from_dict(columns, features=features).to_parquet(file)
        table = pq.read_table(file)
        cells = table["image"].to_pylist()
        cells[1] = {"bytes": b"no image", "path": None}
        pq.write_table(table.set_column(0, table.schema.field(0), pa.array(cells, table.schema.field(0).type)), file)
    return folder


def test_large_images_are_not_read_ahead(
    tmp_path: Path, tiny_tokenizer: VQTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batches that wait are as many as there are threads and two, but no more than so many bytes."""
    source, order = parquet_folder(tmp_path / "data", {"train": 6}), []
    read, decode = Rows.read, shard._decode

    def read_one(rows: Rows, *arguments: Any, **options: Any) -> Any:
        for batch in read(rows, *arguments, **options):
            order.append("read")
            yield batch

    def decode_one(*arguments: Any) -> Any:
        order.append("decoded")
        return decode(*arguments)

    monkeypatch.setattr(Rows, "read", read_one)
    monkeypatch.setattr(shard, "_decode", decode_one)
    monkeypatch.setattr(shard, "BYTES_AHEAD", 0)
    tokenize_images(source, tiny_tokenizer, tmp_path / "codes", batch_size=1, progress=False, max_bad_share=1.0)
    assert order == ["read", "decoded"] * 6


def test_every_split_of_a_parquet_folder_with_all_its_columns(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> None:
    source = parquet_folder(tmp_path / "data", {"train": 5, "test": 3})
    everything: dict[str, Any] = {"columns": ["all"], "max_bad_share": 1, "progress": False}
    codes = tokenize_dataset(source, tiny_tokenizer, tmp_path / "codes", batch_size=3, **everything)
    assert isinstance(codes, datasets.DatasetDict)
    assert {split: rows["index"][:] for split, rows in codes.items()} == {"train": [0, 2, 3, 4], "test": [0, 2]}
    assert codes["train"]["tags"][:] == [[], ["a", "a"], [], ["a"]]
    assert codes["train"].with_format("numpy")["depth"][:].shape == (4, 2, 2)
    assert codes["train"].column_names == ["codes", "depth", "tags", "index"]
    bad = read_bad_images(tmp_path / "codes").to_pylist()
    assert [(image["split"], image["row"]) for image in bad] == [("train", 1), ("test", 1)]
    assert "row 1" in bad[0]["path"] and "split test" in bad[1]["path"]
    assert all("is not an image of a format that is read" in image["reason"] for image in bad)
    assert read_spec(tmp_path / "codes") == read_spec(codes["test"])

    one = tokenize_dataset(source, tiny_tokenizer, tmp_path / "test", split="test", **everything)
    assert isinstance(one, datasets.Dataset)
    assert one["index"][:] == [0, 2]
    assert np.array_equal(codes_array(one), codes_array(codes["test"]))
    with pytest.raises(DataError, match="no split tset; found: train, test. Did you mean 'test'"):
        tokenize_dataset(source, tiny_tokenizer, tmp_path / "none", split="tset", progress=False)
    assert not (tmp_path / "none").exists()


def test_only_names_and_labels_are_kept_unless_columns_are_named(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> None:
    source = parquet_folder(tmp_path / "data", {"train": 5})
    without = tokenize_dataset(source, tiny_tokenizer, tmp_path / "a", max_bad_share=1, progress=False)
    named = tokenize_dataset(source, tiny_tokenizer, tmp_path / "b", columns=["index"], max_bad_share=1, progress=False)
    assert (without.column_names, named.column_names) == (["codes"], ["codes", "index"])
    for columns, message in (
        (["indx"], "no column indx .* Did you mean 'index'"),
        (["image"], "column image .* holds its images: --images keeps them"),
    ):
        with pytest.raises(DataError, match=message):
            tokenize_dataset(source, tiny_tokenizer, tmp_path / "c", columns=columns, progress=False)


def test_nothing_readable_is_an_error_and_leaves_nothing(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in ("a.png", "b.jpg"):
        (folder / name).write_text("text")
    with pytest.raises(DataError, match=r"no image of the split train can be read, such as"):
        tokenize_dataset(folder, tiny_tokenizer, tmp_path / "codes", max_bad_share=1, progress=False)
    with pytest.raises(DataError, match="are not finished: run the same `vqtok tokenize` again"):
        load_codes(tmp_path / "codes")


def test_an_existing_folder_is_refused_before_any_work(
    tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "codes"
    tokenize_dataset(images_folder, tiny_tokenizer, out, progress=False)
    before = sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*.*"))
    with monkeypatch.context() as patch:
        patch.setattr(tiny_tokenizer, "encode", None)
        with pytest.raises(ConfigurationError, match="was begun with dataset .*images', not '/nowhere'"):
            tokenize_dataset("/nowhere", tiny_tokenizer, out, progress=False)
        with pytest.raises(DataError, match="/nowhere"):
            tokenize_dataset("/nowhere", tiny_tokenizer, out, overwrite=True, progress=False)
        with pytest.raises(ConfigurationError, match="will not be overwritten"):
            tokenize_dataset(images_folder, tiny_tokenizer, images_folder, overwrite=True, progress=False)
    assert sorted((path, path.stat().st_mtime_ns) for path in out.rglob("*.*")) == before
    (images_folder / "cat" / "00.png").unlink()
    assert len(tokenize_dataset(images_folder, tiny_tokenizer, out, overwrite=True, progress=False)) == 11


def test_a_call_that_was_stopped_goes_on_and_makes_only_what_is_missing(
    tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, Any] = {"batch_size": 2, "shard_rows": 4, "progress": False}
    whole = tokenize_dataset(images_folder, tiny_tokenizer, tmp_path / "whole" / "codes", **options)
    encode, calls = tiny_tokenizer.encode, []

    def fail(pixels: torch.Tensor) -> torch.Tensor:
        calls.append(len(pixels))
        if len(calls) == 4:
            raise KeyboardInterrupt
        return encode(pixels)

    monkeypatch.setattr(tiny_tokenizer, "encode", fail)
    with pytest.raises(KeyboardInterrupt):
        tokenize_dataset(images_folder, tiny_tokenizer, tmp_path / "codes", **options)
    with pytest.raises(DataError, match="not finished"):
        load_codes(tmp_path / "codes")
    for load in (datasets.load_dataset, datasets.load_from_disk):
        with pytest.raises(FileNotFoundError):
            load(str(tmp_path / "codes"))
    (images_folder / "cat" / "00.png").write_bytes(b"gone")  # of the shard that is done
    done = tokenize_images(images_folder, tiny_tokenizer, tmp_path / "codes", **options)
    assert (done.made, done.resumed, calls) == (2, 1, [2] * 8)
    assert contents(tmp_path / "codes") == contents(tmp_path / "whole" / "codes")
    assert np.array_equal(codes_array(load_codes(tmp_path / "codes")), codes_array(whole))


def test_broken_images_are_logged(
    tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    (images_folder / "dog" / "01.png").write_bytes(b"")
    with caplog.at_level(logging.WARNING):
        tokenize_dataset(images_folder, tiny_tokenizer, tmp_path / "codes", max_bad_share=0.1, progress=False)
    assert [record.message for record in caplog.records] == [
        "1 of 12 images could not be read and are left out: dog/01.png"
    ]


def test_broken_images_are_named_by_a_column_of_paths(
    tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (images_folder / "bad.png").write_text("no image")
    (images_folder / "rows.csv").write_text("file_name\ncat/00.png\nbad.png\n")
    rows = images_folder / "rows.csv"
    options: dict[str, Any] = {"image_column": "file_name", "max_bad_share": 1, "progress": False}
    tokenize_dataset(rows, tiny_tokenizer, tmp_path / "codes", **options)
    assert bad_names(tmp_path / "codes") == ["bad.png"]


def test_batch_size_below_one_is_refused(tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer) -> None:
    with pytest.raises(ConfigurationError, match="batch_size must be from 1 to 1,048,576, got 0"):
        tokenize_dataset(images_folder, tiny_tokenizer, tmp_path / "codes", batch_size=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"on_error": "skp"},
        {"num_processes": 0},
        {"max_bad_share": 5},
        {"precision": "bf16"},
        {"format": "csv"},
        {"shard_rows": 0},
    ],
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer, wrong: dict[str, Any]
) -> None:
    with pytest.raises(ConfigurationError, match=f"^{next(iter(wrong))} must be [^\n]*$"):
        tokenize_dataset(images_folder, tiny_tokenizer, tmp_path / "codes", **wrong)
    assert not (tmp_path / "codes").exists()
