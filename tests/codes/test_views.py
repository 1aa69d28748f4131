"""Several views of each image as rows of a code set, from planning to the prior that is trained on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from tests.written_codes import contents
from vqtok.codes import (
    CodesDataset,
    codes_array,
    detokenize_dataset,
    load_codes,
    open_grids,
    read_bad_images,
    read_spec,
    tokenize_dataset,
    tokenize_images,
)
from vqtok.data.images import image_views
from vqtok.data.views import Views
from vqtok.errors import BadImagesError, ConfigurationError, DataError
from vqtok.report import describe
from vqtok.tokenizer import VQTokenizer

SHAPE: dict[str, Any] = {"num_channels": 1, "size": (16, 16)}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Thirteen grey images larger than the tokenizer reads, the fifth of them broken."""
    noise = np.random.default_rng(0)
    folder = tmp_path / "images"
    for number in range(13):
        path = folder / ("cat", "dog")[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (30, 24), dtype=np.uint8)).save(path)
    (folder / "cat" / "08.png").write_text("no image")
    return folder


@pytest.mark.parametrize("views", ["center", "ten-crop", "random:3"])
def test_each_row_has_the_codes_of_its_view(
    tmp_path: Path, images: Path, tiny_tokenizer: VQTokenizer, views: str
) -> None:
    out, seed = tmp_path / "codes", 5 if views.startswith("random") else None
    options: dict[str, Any] = {"views": views, "seed": seed, "batch_size": 7, "max_bad_share": 0.1, "progress": False}
    done = tokenize_images(images, tiny_tokenizer, out, **options)
    parsed = Views.parse(views, seed=5)
    codes = load_codes(out)
    assert codes.column_names == ["codes", "file_name", "label", "image_id", "view"]
    assert {name: codes.features[name].dtype for name in ("image_id", "view")} == {"image_id": "int64", "view": "int32"}
    assert done.images == {"train": 12} and len(codes) == 12 * parsed.count
    assert codes["image_id"][:] == [number for number in range(13) if number != 4 for _ in range(parsed.count)]
    assert codes["view"][:] == [*range(parsed.count)] * 12
    (bad,) = read_bad_images(out).to_pylist()
    assert (bad["row"], bad["path"]) == (4, "cat/08.png")
    for row in range(0, len(codes), 5):
        image_id, view = codes[row]["image_id"], codes[row]["view"]
        pixels = image_views(images / codes[row]["file_name"], parsed, image_id, **SHAPE)[view]
        alone = tiny_tokenizer.tokenize(Image.fromarray(pixels[0]))[0]
        assert np.array_equal(codes_array(codes)[row], alone.numpy())
    assert len(np.unique(codes_array(codes).reshape(len(codes), -1), axis=0)) > len(codes) // 3
    told = {"views": views} | ({"seed": 5} if seed else {})
    assert read_spec(out).preprocessing == tiny_tokenizer.config.preprocessing | told


def test_the_first_of_the_center_is_what_tokenize_gives(
    tmp_path: Path, images: Path, tiny_tokenizer: VQTokenizer
) -> None:
    out = tmp_path / "codes"
    codes = tokenize_dataset(images, tiny_tokenizer, out, views="center", max_bad_share=0.1, progress=False)
    plain = tokenize_dataset(images, tiny_tokenizer, tmp_path / "plain", max_bad_share=0.1, progress=False)
    assert np.array_equal(codes_array(codes)[::2], codes_array(plain))
    assert plain.column_names == ["codes", "file_name", "label"]


def test_views_do_not_depend_on_batches_shards_or_processes(
    tmp_path: Path, images: Path, tiny_tokenizer: VQTokenizer
) -> None:
    options: dict[str, Any] = {"views": "random:3", "seed": 1, "max_bad_share": 0.1, "progress": False}
    every = [{}, {"batch_size": 1}, {"batch_size": 5}, {"shard_rows": 7}, {"shard_rows": 2}]
    found = []
    for number, changes in enumerate(every):
        codes = tokenize_dataset(images, tiny_tokenizer, tmp_path / f"codes-{number}", **options, **changes)
        found.append((codes_array(codes).tolist(), codes["image_id"][:], codes["view"][:]))
    assert all(each == found[0] for each in found)
    assert [len(load_codes(tmp_path / f"codes-{each}").cache_files) for each in (0, 3, 4)] == [1, 7, 13]
    for processes in (1, 2):
        place = tmp_path / str(processes) / "codes"
        tokenize_images(images, tiny_tokenizer, place, **options, shard_rows=7, num_processes=processes)
    assert contents(tmp_path / "1" / "codes") == contents(tmp_path / "2" / "codes")


@pytest.mark.parametrize(("views", "batch_size", "most"), [("ten-crop", 25, 20), ("random:9", 4, 4), ("center", 4, 4)])
def test_the_encoder_gets_no_larger_batches_than_asked_for(
    tmp_path: Path,
    images: Path,
    tiny_tokenizer: VQTokenizer,
    monkeypatch: pytest.MonkeyPatch,
    views: str,
    batch_size: int,
    most: int,
) -> None:
    encode, sizes = tiny_tokenizer.encode, []

    def note(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        return encode(pixels)

    monkeypatch.setattr(tiny_tokenizer, "encode", note)
    options: dict[str, Any] = {"batch_size": batch_size, "max_bad_share": 0.1, "progress": False}
    tokenize_images(images, tiny_tokenizer, tmp_path / "codes", views=views, **options)
    assert max(sizes) == most and sum(sizes) == 12 * Views.parse(views).count


def test_the_same_call_goes_on_and_one_with_other_views_is_refused(
    tmp_path: Path, images: Path, tiny_tokenizer: VQTokenizer
) -> None:
    options: dict[str, Any] = {"max_bad_share": 0.1, "progress": False, "shard_rows": 9}
    out = tmp_path / "codes"
    first = tokenize_images(images, tiny_tokenizer, out, views="random:3", **options)
    assert (first.made, first.resumed) == (5, 0)
    (out / "train" / "data-00001-of-00005.arrow").unlink()
    again = tokenize_images(images, tiny_tokenizer, out, views="random:3", seed=0, **options)
    assert (again.made, again.resumed, again.images, again.bad) == (1, 4, first.images, first.bad)
    for changes, message in (
        ({"views": "random:4"}, "begun with views 'random:3', not 'random:4'"),
        ({"views": "random:3", "seed": 1}, "begun with seed 0, not 1"),
        ({}, "begun with views 'random:3', not None"),
        ({"views": "random:3", "background": "black"}, "begun with background '#ffffff', not '#000000'"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            tokenize_images(images, tiny_tokenizer, out, **options, **changes)
    with pytest.raises(BadImagesError, match="1 of 13 images cannot be read"):
        tokenize_images(images, tiny_tokenizer, tmp_path / "few", views="ten-crop", progress=False, shard_rows=20)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"views": "ten"}, "views must be center, ten-crop or random:K"),
        ({"seed": 3}, "seed 3 is for the views random:K, and they are not asked for"),
        ({"views": "center", "seed": 3}, "seed 3 is for the views random:K, and they are center"),
        ({"views": "random:2", "seed": -1}, "seed must be a whole number of at least 0 or null, got -1"),
        ({"views": "ten-crop", "images": True}, "images cannot be kept beside the views ten-crop"),
        ({"background": "whit"}, "a colour must be a name such as white"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, images: Path, tiny_tokenizer: VQTokenizer, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        tokenize_images(images, tiny_tokenizer, tmp_path / "codes", progress=False, **changes)
    assert not (tmp_path / "codes").exists()


def test_a_column_of_the_source_is_not_written_over(tmp_path: Path, images: Path, tiny_tokenizer: VQTokenizer) -> None:
    names = sorted(path.relative_to(images).as_posix() for path in images.rglob("*.png"))
    lines = [json.dumps({"file_name": name, "image_id": "x"}) for name in names]
    (images / "metadata.jsonl").write_text("\n".join(lines))
    options: dict[str, Any] = {"max_bad_share": 0.1, "progress": False}
    with pytest.raises(DataError, match="already have a column named 'image_id', which is written beside the codes"):
        tokenize_images(images, tiny_tokenizer, tmp_path / "codes", views="center", **options)
    options["columns"] = ["file_name"]
    codes = tokenize_dataset(images, tiny_tokenizer, tmp_path / "codes", views="center", **options)
    assert codes["image_id"][:4] == [0, 0, 1, 1]
    plain = tokenize_dataset(images, tiny_tokenizer, tmp_path / "plain", max_bad_share=0.1, progress=False)
    assert plain["image_id"][:] == ["x"] * 12


def test_what_is_made_of_codes_works_with_views(tmp_path: Path, images: Path, tiny_tokenizer: VQTokenizer) -> None:
    out = tmp_path / "codes"
    tokenize_images(images, tiny_tokenizer, out, views="ten-crop", shard_rows=40, max_bad_share=0.1, progress=False)
    codes = load_codes(out)
    assert detokenize_dataset(codes, tiny_tokenizer, tmp_path / "decoded", progress=False) == 120
    assert len(list((tmp_path / "decoded").rglob("*.png"))) == 120
    data = CodesDataset.from_folder(out)
    assert torch.equal(data.__getitems__([37])["codes"][0], torch.from_numpy(codes_array(codes)[37].astype(np.int64)))
    rows = dict(describe(out).rows)
    assert rows["views"] == "ten-crop" and rows["train"].startswith("120 rows")
    card = (out / "README.md").read_text()
    assert "| train | 120 rows |" in card and "ten-crop: the rows of an image share its image_id" in card
    streamed = datasets.load_dataset(str(out), split="train", streaming=True)
    assert [row["view"] for row in streamed.take(12)] == [*range(10), 0, 1]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_views_of_one_image_are_held_out_together(
    tmp_path: Path, images: Path, tiny_tokenizer: VQTokenizer, seed: int
) -> None:
    out = tmp_path / "codes"
    tokenize_images(images, tiny_tokenizer, out, views="ten-crop", max_bad_share=0.1, progress=False)
    ids = {grid.tobytes(): number for grid, number in zip(codes_array(load_codes(out)), _ids(out), strict=True)}
    _, train, test, notes = open_grids(out, test_share=0.25, seed=seed)
    assert (len(train), len(test)) == (90, 30)
    assert "3 of the 12 images of train are held out" in notes[-1]
    of_train, of_test = ({ids[grid.tobytes()] for block in part.blocks() for grid in block} for part in (train, test))
    assert len(of_test) == 3 and len(of_train) == 9 and not of_train & of_test


def _ids(out: Path) -> list[int]:
    found: list[int] = load_codes(out)["image_id"][:]
    return found
