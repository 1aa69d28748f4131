"""Columns that tokenizing makes itself: the images, and which of them the tokenizer held out in its training."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from tests.written_codes import contents
from vqtok.codes import (
    CodesDataset,
    Plan,
    codes_array,
    detokenize_dataset,
    load_codes,
    open_grids,
    read_bad_images,
    shard,
    tokenize_dataset,
    tokenize_images,
)
from vqtok.codes.verify import verify_codes
from vqtok.data import open_splits
from vqtok.errors import ConfigurationError, DataError
from vqtok.tokenizer import VQTokenizer

QUIET: dict[str, Any] = {"progress": False, "max_bad_share": 1.0}
Trained = Callable[[Path], VQTokenizer]


@pytest.fixture
def trained(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> Trained:
    """A tokenizer of a run on some images that held a quarter of them out by the seed 3."""

    def train(images: Path) -> VQTokenizer:
        run = tmp_path / "run"
        tiny_tokenizer.save_pretrained(run / "model")
        config = {"out": "runs/x", "steps": 5, "checkpoint_every": 5, "test_share": 0.25, "seed": 3}
        (run / "config.yaml").write_text(yaml.safe_dump(config | {"dataset": str(images)}))
        (run / "images.json").write_text(open_splits(str(images), test_share=0.25)[0].record().model_dump_json())
        loaded: VQTokenizer = VQTokenizer.from_pretrained(run / "model")
        return loaded

    return train


def notes_of(images: Path, tokenizer: VQTokenizer, out: Path, **options: Any) -> list[str]:
    """What a user is told before the first image is encoded."""
    told: list[str] = []

    def listen(plan: Plan, notes: Any) -> None:
        told.extend(notes)

    tokenize_images(images, tokenizer, out, planned=listen, **QUIET | options)
    return told


@pytest.mark.parametrize("options", [{}, {"shard_rows": 5}, {"shard_rows": 5, "num_processes": 2}, {"batch_size": 3}])
def test_the_column_held_out_is_what_training_held_out(
    tmp_path: Path, images_folder: Path, trained: Trained, options: dict[str, Any]
) -> None:
    (images_folder / "dog" / "01.png").write_text("no image")
    _, test = open_splits(str(images_folder), test_share=0.25, seed=3)
    codes = tokenize_dataset(images_folder, trained(images_folder), tmp_path / "codes", **QUIET | options)
    assert codes.column_names == ["codes", "file_name", "label", "held_out"]
    assert codes.features["held_out"] == datasets.Value("bool")
    told = {row["file_name"] for row in codes.remove_columns("codes") if row["held_out"]}
    assert told == set(test.dataset["file_name"][:]) - {"dog/01.png"} and 2 <= len(told) <= 3
    assert "the tokenizer did not train on these images" in (tmp_path / "codes" / "README.md").read_text()


def test_views_are_held_out_with_their_image(tmp_path: Path, images_folder: Path, trained: Trained) -> None:
    tokenizer = trained(images_folder)
    one = tokenize_dataset(images_folder, tokenizer, tmp_path / "one", **QUIET)
    three = tokenize_dataset(images_folder, tokenizer, tmp_path / "three", views="random:3", shard_rows=5, **QUIET)
    assert three["held_out"][:] == [held for held in one["held_out"][:] for _ in range(3)]


def test_a_prior_is_tested_on_the_images_that_the_tokenizer_held_out(
    tmp_path: Path, images_folder: Path, trained: Trained
) -> None:
    codes = tokenize_dataset(images_folder, trained(images_folder), tmp_path / "codes", **QUIET)
    _, train, test, notes = open_grids(tmp_path / "codes", test_share=0.5, seed=9)
    held = np.array(codes["held_out"][:])
    assert held.sum() == 3
    for part, mine in ((train, ~held), (test, held)):
        assert np.array_equal(np.concatenate(list(part.blocks())), codes_array(codes)[mine])
    assert notes[-1] == (
        "there is no test split: 3 of the 12 rows of train are held out to test on, those that the tokenizer held out "
        "in its own training (the column held_out); test_share is not used"
    )


def test_a_split_to_test_on_makes_the_column_needless(tmp_path: Path, images_folder: Path, trained: Trained) -> None:
    """Also where only the training split is tokenized, of which nothing was held out then."""
    (images_folder / "train").mkdir()
    for name in ("cat", "dog"):
        (images_folder / name).rename(images_folder / "train" / name)
    (images_folder / "test").mkdir()
    (images_folder / "train" / "cat" / "00.png").rename(images_folder / "test" / "00.png")
    tokenizer = trained(images_folder)
    for split in (None, "train"):
        tokenize_images(images_folder, tokenizer, tmp_path / f"{split}", split=split, **QUIET)
        assert "held_out" not in datasets.load_from_disk(str(tmp_path / f"{split}"))["train"].column_names
    (images_folder / "test" / "00.png").rename(images_folder / "train" / "cat" / "00.png")
    (images_folder / "test").rmdir()
    tokenizer = trained(images_folder)
    codes = tokenize_dataset(images_folder, tokenizer, tmp_path / "only", split="train", **QUIET)
    assert sum(codes["held_out"][:]) == 3


def test_it_is_needless_too_where_only_one_file_is_opened(tmp_path: Path, trained: Trained) -> None:
    source = embedded(tmp_path / "data")
    (source / "test.parquet").write_bytes((source / "train.parquet").read_bytes())
    codes = tokenize_dataset(source, trained(source), tmp_path / "codes", split="train", **QUIET)
    assert codes.column_names == ["codes"]
    (source / "test.parquet").unlink()
    codes = tokenize_dataset(source, trained(source), tmp_path / "alone", split="train", **QUIET)
    assert codes.column_names == ["codes", "held_out"]


def test_a_column_of_that_name_is_kept_as_it_is(tmp_path: Path, images_folder: Path, trained: Trained) -> None:
    names = sorted(path.relative_to(images_folder).as_posix() for path in images_folder.rglob("*.png"))
    rows = [{"file_name": name, "held_out": number < 2} for number, name in enumerate(names)]
    (images_folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tokenizer = trained(images_folder)
    told = notes_of(images_folder, tokenizer, tmp_path / "codes")
    assert told[-1].startswith("the column held_out of train is kept as it is: it does not say what the tokenizer")
    assert load_codes(tmp_path / "codes")["held_out"][:] == [True] * 2 + [False] * 10
    assert len(open_grids(tmp_path / "codes")[2]) == 2
    without = tokenize_dataset(images_folder, tokenizer, tmp_path / "other", columns=["file_name"], **QUIET)
    assert sum(without["held_out"][:]) == 3


def test_which_images_are_held_out_is_worked_out_once_and_checked(
    tmp_path: Path, images_folder: Path, trained: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer, out = trained(images_folder), tmp_path / "codes"
    tokenize_images(images_folder, tokenizer, out, shard_rows=5, **QUIET)
    bits = out / "plan" / "train" / "held_out.bin"
    assert len(bits.read_bytes()) == 2  # a bit an image
    assert hashlib.sha256(bits.read_bytes()).hexdigest() in (out / "plan.json").read_text()
    before = contents(out)
    (out / "train" / "data-00001-of-00003.arrow").unlink()
    (tmp_path / "run" / "config.yaml").write_text("dataset: elsewhere\nseed: 4\ntest_share: 0.5\n")
    monkeypatch.setattr("vqtok.codes.held_out.held_out_rows", None)
    assert tokenize_images(images_folder, tokenizer, out, shard_rows=5, **QUIET).made == 1
    assert contents(out) == before
    (out / "train" / "data-00001-of-00003.arrow").unlink()
    bits.write_bytes(b"\0\0")
    assert [each.file for each in verify_codes(str(out), progress=False).wrong][0] == "plan/train/held_out.bin"
    with pytest.raises(DataError, match=r"held_out\.bin is damaged: pass --overwrite"):
        tokenize_images(images_folder, tokenizer, out, shard_rows=5, **QUIET)


def embedded(folder: Path) -> Path:
    """Seven images in parquet, the third broken and the fourth without a path."""
    noise = np.random.default_rng(0)
    cells = []
    for number in range(7):
        buffer = io.BytesIO()
        Image.fromarray(noise.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(buffer, "PNG")
        cells.append({"bytes": buffer.getvalue(), "path": f"somebody/else/{number}.png"})
    cells[2]["bytes"], cells[3]["path"] = b"no image", None
    features = datasets.Features({"photo": datasets.Image(decode=False), "index": datasets.Value("int64")})
    table = {"photo": cells, "index": list(range(7))}
    folder.mkdir()
    datasets.Dataset.from_dict(table, features=features).to_parquet(folder / "train.parquet")
    return folder


def test_images_in_files_stand_beside_their_codes(
    tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer
) -> None:
    (images_folder / "dog" / "03.png").write_text("no image")
    out = tmp_path / "codes"
    tokenize_images(images_folder, tiny_tokenizer, out, images=True, shard_rows=5, batch_size=2, **QUIET)
    for codes in (load_codes(out), datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))):
        assert codes.column_names == ["codes", "file_name", "label", "image"] and len(codes) == 11
        assert codes.features["image"] == datasets.Image()
        stored = codes.cast_column("image", datasets.Image(decode=False))
        for row, kept in zip(codes, stored, strict=True):
            assert kept["image"]["bytes"] == (images_folder / row["file_name"]).read_bytes()
            assert kept["image"]["path"] == row["file_name"].rpartition("/")[2]
            with Image.open(images_folder / row["file_name"]) as image:
                assert np.array_equal(np.asarray(row["image"]), np.asarray(image))
            assert np.array_equal(row["codes"], tiny_tokenizer.tokenize(row["image"])[0].numpy())
    streamed = datasets.load_dataset(str(out), split="train", streaming=True)
    assert next(iter(streamed))["image"].size == (16, 16)
    assert detokenize_dataset(load_codes(out), tiny_tokenizer, tmp_path / "decoded", progress=False) == 11
    assert len(CodesDataset.from_folder(out)) == 11


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_embedded_images_stay_as_they_are(tmp_path: Path, tiny_tokenizer: VQTokenizer, format: str) -> None:
    source, out = embedded(tmp_path / "data"), tmp_path / "codes"
    options: dict[str, Any] = {"images": True, "columns": ["index"], "format": format}
    tokenize_images(source, tiny_tokenizer, out, **QUIET | options)
    codes = load_codes(out)
    assert codes.column_names == ["codes", "index", "photo"] and codes["index"][:] == [0, 1, 3, 4, 5, 6]
    cells = pq.read_table(source / "train.parquet")["photo"].to_pylist()
    kept = codes.cast_column("photo", datasets.Image(decode=False))["photo"][:]
    assert [each["bytes"] for each in kept] == [cells[row]["bytes"] for row in codes["index"]]
    assert [each["path"] for each in kept] == ["0.png", "1.png", None, "4.png", "5.png", "6.png"]
    assert codes[0]["photo"].size == (30, 20)


def test_they_may_be_all_that_stands_beside_the_codes(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> None:
    source = embedded(tmp_path / "data")
    options: dict[str, Any] = {"columns": [], "batch_size": 2, **QUIET}
    kept = tokenize_dataset(source, tiny_tokenizer, tmp_path / "kept", images=True, **options)
    views = tokenize_dataset(source, tiny_tokenizer, tmp_path / "views", views="center", **options)
    alone = tokenize_dataset(source, tiny_tokenizer, tmp_path / "alone", **options)
    assert (alone.column_names, len(alone)) == (["codes"], 6)
    assert (kept.column_names, len(kept)) == (["codes", "photo"], 6)
    assert views.column_names == ["codes", "image_id", "view"]
    assert views["image_id"][:] == [0, 0, 1, 1, 3, 3, 4, 4, 5, 5, 6, 6]


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_record_batches_hold_so_many_bytes_of_images(
    tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer, monkeypatch: pytest.MonkeyPatch, format: str
) -> None:
    sizes = [path.stat().st_size for path in sorted(images_folder.rglob("*.png"))]
    whole = tokenize_dataset(images_folder, tiny_tokenizer, tmp_path / "whole", images=True, **QUIET)
    monkeypatch.setattr(shard, "IMAGE_BYTES", 3 * max(sizes) + 200)  # 200 for names and labels
    out = tmp_path / "codes"
    tokenize_images(images_folder, tiny_tokenizer, out, images=True, batch_size=5, format=format, **QUIET)
    (file,) = out.rglob(f"*-of-00001.{format}")
    if format == "arrow":
        with pa.memory_map(str(file)) as source:
            parts = [batch.num_rows for batch in pa.ipc.open_stream(source)]
    else:
        metadata = pq.ParquetFile(file).metadata
        parts = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
    assert sum(parts) == 12 and len(parts) >= 4 and max(parts) <= 3
    codes = load_codes(out)
    assert codes["file_name"][:] == whole["file_name"][:]
    assert np.array_equal(codes_array(codes), codes_array(whole))
    rows = np.arange(11, -1, -1)
    assert np.array_equal(CodesDataset.from_folder(out).__getitems__(rows)["codes"], codes_array(whole)[rows])


def test_no_record_batch_reaches_the_two_gibibytes_that_arrow_counts() -> None:
    """Images of up to 1 GiB each, as they are put together by their sizes."""
    noise = np.random.default_rng(0)
    for most in (200 << 10, 30 << 20, shard.MOST_IMAGE_BYTES):
        sizes = noise.integers(1, most, 4096, endpoint=True).tolist()
        parts = shard._parts(sizes)
        assert [size for part in parts for size in sizes[part]] == sizes
        assert max(sum(sizes[part]) for part in parts) <= max(shard.IMAGE_BYTES, max(sizes)) < 2**31 // 2 + 1
    assert shard._parts([]) == []


def test_an_image_with_too_many_bytes_is_a_bad_one(
    tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = images_folder / "cat" / "00.png"
    with large.open("ab") as file:
        file.truncate(5000)
    monkeypatch.setattr(shard, "MOST_IMAGE_BYTES", 4000)
    tokenize_images(images_folder, tiny_tokenizer, tmp_path / "codes", images=True, **QUIET)
    (bad,) = read_bad_images(tmp_path / "codes").to_pylist()
    assert bad["reason"] == "cat/00.png has 5,000 bytes, and an image that is kept may have 4,000"
    assert len(tokenize_dataset(images_folder, tiny_tokenizer, tmp_path / "plain", **QUIET)) == 12


def test_shards_with_images_are_smaller_unless_told_otherwise(
    tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer
) -> None:
    seen: list[int] = []
    for number, options in enumerate(({}, {"images": True}, {"images": True, "shard_rows": 9})):
        done = lambda plan, notes: seen.append(plan.request.shard_rows)  # noqa: E731
        tokenize_images(images_folder, tiny_tokenizer, tmp_path / str(number), planned=done, **QUIET | options)
    assert seen == [65_536, 4096, 9]
    with pytest.raises(ConfigurationError, match="was begun with images False, not True"):
        tokenize_images(images_folder, tiny_tokenizer, tmp_path / "0", images=True, **QUIET)


def transparent(folder: Path) -> Path:
    noise = np.random.default_rng(0)
    folder.mkdir()
    for number, mode in enumerate(("RGBA", "LA", "P")):
        pixels = noise.integers(0, 256, (16, 16, 4), dtype=np.uint8)
        image = Image.fromarray(pixels).convert(mode) if mode != "P" else Image.fromarray(pixels[..., 0]).convert("P")
        image.save(folder / f"{number}.png", **({"transparency": 7} if mode == "P" else {}))
    return folder


def composed(path: Path, background: tuple[int, int, int]) -> Image.Image:
    with Image.open(path) as image:
        return Image.alpha_composite(Image.new("RGBA", image.size, background), image.convert("RGBA")).convert("RGB")


def test_transparent_images_are_composed_over_the_background(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> None:
    images = transparent(tmp_path / "images")
    grids: list[npt.NDArray[Any]] = []
    for background, colour in (("white", (255,) * 3), ("black", (0,) * 3), ("255,128,0", (255, 128, 0))):
        out = tmp_path / background
        codes = tokenize_dataset(images, tiny_tokenizer, out, background=background, **QUIET)
        told = json.loads((out / "codes.json").read_text())["preprocessing"]
        assert told.get("background", "#ffffff") == "#{:02x}{:02x}{:02x}".format(*colour)
        for row, grid in zip(codes, codes_array(codes), strict=True):
            alone = tiny_tokenizer.tokenize(composed(images / row["file_name"], colour))[0]
            assert np.array_equal(grid, alone.numpy())
        grids.append(codes_array(codes))
    assert not np.array_equal(grids[0], grids[1])
    again = tokenize_images(images, tiny_tokenizer, tmp_path / "white", background="#FFFFFF", **QUIET)
    assert again.made == 0
    assert "composed over #000000" in (tmp_path / "black" / "README.md").read_text()
