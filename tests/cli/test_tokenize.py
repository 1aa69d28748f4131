from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from vqtok.codes import codes_array, load_codes, read_bad_images, read_spec
from vqtok.errors import BadImagesError, CheckpointError, ConfigurationError, DataError, MismatchError
from vqtok.tokenizer import VQTokenizer
from vqtok_cli.detokenize import detokenize
from vqtok_cli.tokenize import tokenize

APP = typer.Typer()
APP.command()(tokenize)
APP.command()(detokenize)


def vqtok(*arguments: Any) -> str:
    result = CliRunner().invoke(APP, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def work(tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with images in `images` and a finished run in `runs/first`."""
    monkeypatch.chdir(tmp_path)
    tiny_tokenizer.save_pretrained("runs/first/model")
    return tmp_path


def save_another(tokenizer: VQTokenizer, folder: str) -> str:
    """Save a tokenizer of other weights; give its fingerprint as it is shown."""
    with torch.no_grad():
        tokenizer.quantizer.codebook.add_(1.0)
    tokenizer.save_pretrained(folder)
    return tokenizer.fingerprint[:12]


def test_the_way_there_and_back(work: Path, tiny_tokenizer: VQTokenizer) -> None:
    said = vqtok("tokenize", "./images", "--out", "codes", "--tokenizer", "runs/first/model")
    assert "tokenizer   runs/first/model" in said
    assert tiny_tokenizer.fingerprint[:12] in said
    assert said.endswith("codes of 12 images written to codes\nnext: vqtok train-prior codes --out runs/prior\n")
    codes = load_codes("codes", tokenizer=tiny_tokenizer)
    assert read_spec(codes).repository == "runs/first/model"
    assert codes["label"][:].count(1) == 6

    said = vqtok("detokenize", "codes", "--out", "decoded", "--batch-size", "5")
    assert "tokenizer   runs/first/model" in said
    assert said.endswith("12 images written to decoded\n")
    expected = tiny_tokenizer.detokenize(torch.from_numpy(codes_array(codes).astype(np.int64)))
    for name, image in zip(codes["file_name"], expected, strict=True):
        with Image.open(work / "decoded" / name) as decoded:
            assert np.array_equal(np.asarray(decoded), np.asarray(image))


def test_one_image_is_no_images(work: Path) -> None:
    one = next(path for path in (work / "images").rglob("*.png"))
    (work / "one").mkdir()
    one.rename(work / "one" / "a.png")
    assert "codes of 1 image written to codes\n" in vqtok("tokenize", "one")
    assert vqtok("detokenize", "codes", "--out", "decoded").endswith("1 image written to decoded\n")


def test_without_a_tokenizer_the_newest_run_is_taken_and_said(work: Path, tiny_tokenizer: VQTokenizer) -> None:
    fingerprint = save_another(tiny_tokenizer, "runs/second/model")
    os.utime("runs/first/model/config.json", ns=(1, 1))
    said = vqtok("tokenize", "images")
    assert f"runs/second/model ({fingerprint})" in said
    assert read_spec("codes").fingerprint == tiny_tokenizer.fingerprint


def test_with_no_run_it_says_how_to_make_one(work: Path) -> None:
    os.rename("runs", "elsewhere")
    with pytest.raises(CheckpointError, match="vqtok train"):
        vqtok("tokenize", "images")
    said = vqtok("tokenize", "images", "--tokenizer", "elsewhere/first")  # a run folder stands for its model
    assert "elsewhere/first/model" in said


def test_broken_images_are_listed(work: Path) -> None:
    for number in range(3):
        (work / "images" / "cat" / f"broken{number}.png").write_text("no image")
    result = CliRunner().invoke(APP, ["tokenize", "images"])
    assert isinstance(result.exception, BadImagesError)
    assert "3 of 15 images cannot be read, more than the share of 0.05 that may be left out" in str(result.exception)
    with pytest.raises(DataError, match="not finished"):
        load_codes("codes")
    said = vqtok("tokenize", "images", "--max-bad-share", "0.2")
    assert "note: 3 of 15 images could not be read and are left out: cat/broken0.png, cat/broken1.png" in said
    assert "bad_images.parquet in codes lists them" in said and "note: 1 of 1 shard was there already" in said
    assert "codes of 12 images" in said
    assert read_bad_images("codes")["path"].to_pylist() == [f"cat/broken{number}.png" for number in range(3)]


def files(folder: str) -> dict[str, tuple[int, bytes]]:
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in Path(folder).rglob("*.*")}


def test_the_same_again_makes_nothing_and_says_that_all_is_there(work: Path) -> None:
    vqtok("tokenize", "images", "--shard-rows", "5")
    (work / "images").rename(work / "pictures")
    (work / "images").mkdir()  # nothing in it is listed
    with open("codes/README.md", "a") as card:
        card.write("notes of mine\n")
    before = files("codes")
    said = vqtok("tokenize", "images", "--shard-rows", "5")
    assert "\n  images      12 train\n" in said
    assert "note: 3 of 3 shards were there already\ncodes of 12 images are all there in codes\n" in said
    assert files("codes") == before


@pytest.mark.parametrize(
    ("arguments", "difference"),
    [
        (["."], "with dataset '.*/images', not '.*'"),
        (["images", "--split", "train"], "with split None, not 'train'"),
        (["images", "--columns", "label"], r"with columns None, not \['label'\]"),
        (["images", "--precision", "bfloat16"], "with precision 'float32', not 'bfloat16'"),
        (["images", "--shard-rows", "5"], "with shard_rows 65536, not 5"),
        (["images", "--format", "parquet"], "with format 'arrow', not 'parquet'"),
        (["images", "--tokenizer", "runs/other"], r"with the tokenizer \w{12} \(runs/first/model\), not \w{12}"),
    ],
)
def test_codes_of_another_request_are_refused_and_the_difference_is_named(
    work: Path, tiny_tokenizer: VQTokenizer, arguments: list[str], difference: str
) -> None:
    vqtok("tokenize", "images", "--tokenizer", "runs/first")
    save_another(tiny_tokenizer, "runs/other/model")
    before = files("codes")
    with pytest.raises(ConfigurationError, match=f"^codes was begun {difference}: .* or pass --overwrite to begin"):
        vqtok("tokenize", "--tokenizer", "runs/first", *arguments)
    with pytest.raises(DataError, match="nowhere"):
        vqtok("tokenize", "nowhere", "--overwrite", "--tokenizer", "runs/first")
    assert files("codes") == before
    (work / "images" / "cat" / "00.png").unlink()
    assert "codes of 11 images" in vqtok("tokenize", "images", "--overwrite", "--tokenizer", "runs/first")


def test_what_is_no_codes_folder_is_refused_before_the_tokenizer_is_loaded(work: Path) -> None:
    for extra, why in (([], "already exists and is not empty: choose another folder$"), (["--overwrite"], "holds no")):
        with pytest.raises(ConfigurationError, match=f"^images {why}"):
            vqtok("tokenize", "images", "--tokenizer", "nowhere", "--out", "images", *extra)


def test_what_is_left_out_and_how_many_images_there_are_is_said_before_the_work(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (work / "images" / "cat" / "notes.txt").write_text("mine")
    encode, seen = VQTokenizer.encode, []

    def look(self: VQTokenizer, pixels: torch.Tensor) -> torch.Tensor:
        seen.append(capsys.readouterr().out)
        return encode(self, pixels)

    monkeypatch.setattr(VQTokenizer, "encode", look)
    APP(["tokenize", "images"], standalone_mode=False)
    (before,) = seen
    assert (
        "images      12 train\n" in before and "\nnote: left out as no images by their names: cat/notes.txt\n" in before
    )


@pytest.mark.parametrize(
    ("arguments", "kind", "complaint"),
    [
        (["nowhere/at/all"], DataError, "nowhere/at/all"),
        (["empty"], DataError, "empty"),
        (["images", "--tokenizer", "empty"], CheckpointError, "empty"),
        (["images", "--split", "tarin"], DataError, "Did you mean 'train'"),
        (["images", "--batch-size", "0"], ConfigurationError, "batch_size must be from 1 to 1,048,576, got 0"),
        (["images", "--batch-size", "many"], ConfigurationError, "batch_size must be from 1 to 1,048,576, got 'many'"),
        (["images", "--shard-rows", "0"], ConfigurationError, "shard_rows must be a whole number of at least 1"),
        (["images", "--max-bad-share", "5"], ConfigurationError, "max_bad_share must be a number from 0 to 1, got 5"),
        (["images", "--precision", "bf16"], ConfigurationError, "Did you mean 'bfloat16'?"),
        (["images", "--on-error", "skp"], ConfigurationError, "on_error must be one of skip, stop, got 'skp'"),
        (["images", "--executor", "rai"], ConfigurationError, "executor must be one of local, ray, got 'rai'"),
        (["images", "--ray-address", "auto"], ConfigurationError, "ray_address belongs to executor ray"),
        (["images", "--executor", "ray", "--device", "mps"], ConfigurationError, "ray_device must be cpu or cuda"),
        (["images", "--device", "toaster"], ConfigurationError, "no device 'toaster'"),
        (["images", "--image-column", "label"], DataError, "holds no images"),
    ],
)
def test_bad_input_is_refused_and_writes_nothing(
    work: Path, arguments: list[str], kind: type[Exception], complaint: str
) -> None:
    (work / "empty").mkdir()
    with pytest.raises(kind) as error:
        vqtok("tokenize", *arguments)
    assert complaint in str(error.value)
    assert sorted(os.listdir(work)) == ["empty", "images", "runs"]


def test_detokenize_finds_the_tokenizer_or_names_its_fingerprint(work: Path, tiny_tokenizer: VQTokenizer) -> None:
    vqtok("tokenize", "images")
    made_by = tiny_tokenizer.fingerprint[:12]
    os.rename("runs/first", "runs/renamed")
    assert f"runs/renamed/model ({made_by})" in vqtok("detokenize", "codes", "--out", "decoded")

    other = save_another(tiny_tokenizer, "runs/other/model")
    os.rename("runs/renamed", "moved")
    with pytest.raises(MismatchError) as error:
        vqtok("detokenize", "codes", "--out", "more")
    assert made_by in str(error.value) and other in str(error.value) and "--tokenizer" in str(error.value)
    with pytest.raises(MismatchError, match=other):
        vqtok("detokenize", "codes", "--out", "more", "--tokenizer", "runs/other/model")
    with pytest.raises(ConfigurationError, match="decoded already exists"):
        vqtok("detokenize", "codes", "--out", "decoded", "--tokenizer", "moved/model")
    vqtok("detokenize", "codes", "--out", "more", "--tokenizer", "moved/model")
    assert sorted(path.name for path in (work / "more").rglob("*.png")) == [f"{number:02d}.png" for number in range(12)]


def hostile_parquet(file: Path, secret: Path) -> None:
    """Two good images, with columns beside them that name a file of this machine as their image, sound or bytes."""
    stored = datasets.Image(decode=False)
    columns = {
        "image": stored,
        "mask": stored,
        "views": datasets.List(stored),
        "sound": datasets.Audio(decode=False),
        "file": {"bytes": datasets.Value("binary"), "path": datasets.Value("string")},
        "about": {"title": datasets.Value("string"), "cover": stored},
        "index": datasets.Value("int32"),
    }
    good = {"bytes": next(Path("images").rglob("*.png")).read_bytes(), "path": None}
    bad = {"bytes": None, "path": str(secret)}
    row = {"mask": bad, "views": [bad], "sound": bad, "file": bad, "about": {"title": "a", "cover": bad}, "index": 7}
    features = datasets.Features(columns)
    table = pa.Table.from_pylist([{"image": good, **row}] * 2, schema=features.arrow_schema)
    pq.write_table(table, file)


def test_no_file_that_a_column_names_gets_into_the_codes_folder(work: Path) -> None:
    (work / "secret").write_text("the key of this machine")
    hostile_parquet(work / "data.parquet", work / "secret")
    held = "note: columns that hold files are left out of the codes folder: mask, views, sound, file, about\n"
    for out, columns in (("codes", ("--columns", "all")), ("plain", ())):
        said = vqtok("tokenize", "data.parquet", "--image-column", "image", "--out", out, *columns)
        written = b"".join(path.read_bytes() for path in (work / out).rglob("*") if path.is_file())
        assert b"the key of this machine" not in written and b"secret" not in written and held in said
    assert load_codes("codes").column_names == ["codes", "index"]
    assert load_codes("plain").column_names == ["codes"]
    assert "note: columns that are left out of the codes folder: index; --columns all keeps them\n" in said


def test_columns_of_plain_values_are_carried_and_nothing_is_said(work: Path) -> None:
    said = vqtok("tokenize", "images")
    assert load_codes("codes").column_names == ["codes", "file_name", "label"] and "left out" not in said


def odd_columns(folder: Path) -> Path:
    """Images in parquet beside columns of many types, one with a comma and one with quotes and a break in its name."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    columns: dict[str, tuple[Any, list[Any]]] = {
        "label": (datasets.ClassLabel(names=["cat", "dog"]), [0, 1, -1, 1]),
        "a,b": (datasets.Value("string"), ["x", None, "ü\n", ""]),
        'say "so"\n': (datasets.Value("bool"), [True, False, None, True]),
        "boxes": (
            datasets.List(
                {"corner": datasets.List(datasets.Value("float32"), length=2), "of": datasets.Value("string")}
            ),
            [[], [{"corner": [1.0, 2.0], "of": "cat"}], None, [{"corner": [0.0, 0.0], "of": None}] * 2],
        ),
        "camera": ({"name": datasets.Value("string"), "iso": datasets.Value("int16")}, [{"name": "a", "iso": 100}] * 4),
        "when": (datasets.Value("timestamp[us]"), [None] * 4),
        "vector": (datasets.Array2D((1, 2), "float32"), [[[0.0, 1.0]]] * 4),
    }
    images = [Image.fromarray(noise.integers(0, 256, (16, 16), dtype=np.uint8)) for _ in range(4)]
    features = datasets.Features(
        {"image": datasets.Image(), **{name: feature for name, (feature, _) in columns.items()}}
    )
    values = {"image": images, **{name: values for name, (_, values) in columns.items()}}
    datasets.Dataset.from_dict(values, features=features).to_parquet(folder / "train.parquet")
    return folder


@pytest.mark.usefixtures("work")
def test_columns_of_every_type_and_name_are_kept_as_they_are() -> None:
    source = datasets.Dataset.from_parquet(str(odd_columns(Path("odd")) / "train.parquet"), cache_dir="cache")
    vqtok("tokenize", "odd", "--columns", "all", "--out", "all")
    codes = load_codes("all")
    assert isinstance(codes, datasets.Dataset)
    others = [name for name in source.column_names if name != "image"]
    assert codes.column_names == ["codes", *others]
    assert {name: codes.features[name] for name in others} == {name: source.features[name] for name in others}
    assert codes.select_columns(others)[:] == source.select_columns(others)[:]
    for given, named in (
        ("camera,label", ["camera", "label"]),
        ('label, "a,b"', ["label", "a,b"]),
        ('"say ""so""\n","boxes"', ['say "so"\n', "boxes"]),
        ("", []),
    ):
        vqtok("tokenize", "odd", "--columns", given, "--out", "some", "--overwrite")
        codes = load_codes("some")
        assert isinstance(codes, datasets.Dataset) and codes.column_names == ["codes", *named]
        assert codes.select_columns(named)[:] == source.select_columns(named)[:]
    with pytest.raises(DataError, match="no column a beside its images, only label, a,b, "):
        vqtok("tokenize", "odd", "--columns", "a,b", "--out", "none")
    with pytest.raises(ConfigurationError, match="put names in double quotes"):
        vqtok("tokenize", "odd", "--columns", "a\nb,c", "--out", "none")
    with pytest.raises(DataError, match="the column image of odd holds its images: --images keeps them"):
        vqtok("tokenize", "odd", "--columns", "image", "--out", "none")


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
@pytest.mark.filterwarnings("ignore:.*metadata.csv:pytest.PytestUnraisableExceptionWarning")  # datasets leaves it open
def test_metadata_beside_images_becomes_columns(work: Path, kind: str) -> None:
    names = sorted(path.relative_to(work / "images").as_posix() for path in (work / "images").rglob("*.png"))
    rows = [{"file_name": name, "caption": f"a, {number}", "score": number / 2} for number, name in enumerate(names)]
    if kind == "csv":
        lines = [f'{row["file_name"]},"{row["caption"]}",{row["score"]}' for row in rows]
        (work / "images" / "metadata.csv").write_text("\n".join(["file_name,caption,score", *lines]))
    else:
        rows = [row | {"tags": {"of": ["x"] * (number % 3)}} for number, row in enumerate(rows)]
        (work / "images" / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    vqtok("tokenize", "images")
    codes = load_codes("codes")
    assert isinstance(codes, datasets.Dataset) and codes.remove_columns("codes").to_list() == rows


def test_numbers_are_decimal_with_zeros_before_them_too(work: Path) -> None:
    said = vqtok("tokenize", "images", "--batch-size", "010", "--max-bad-share", "1e-1", "--shard-rows", "0100")
    assert "batch_size  10\n" in said and "of up to 100 rows" in said


def test_views_images_and_background_are_options(work: Path, tiny_tokenizer: VQTokenizer) -> None:
    said = vqtok("tokenize", "images", "--views", "random:3", "--seed", "7", "--out", "views")
    assert "views       random:3\n  seed        7\n" in said
    assert "columns     file_name, label, image_id, view\n" in said
    assert "codes of 12 images written to views" in said
    codes = load_codes("views", tokenizer=tiny_tokenizer)
    assert isinstance(codes, datasets.Dataset) and len(codes) == 36
    assert read_spec(codes).preprocessing["seed"] == 7
    said = vqtok("tokenize", "images", "--images", "--background", "#102030", "--out", "kept")
    assert "background  #102030" in said and "up to 4,096 rows" in said
    kept = load_codes("kept")
    assert isinstance(kept, datasets.Dataset) and kept[0]["image"].size == (16, 16)
    said = vqtok("detokenize", "views", "--out", "decoded")
    assert said.endswith("36 images written to decoded\n")
    for wrong, message in (
        (("--views", "twice"), "views must be center, ten-crop or random:K"),
        (("--background", "nothing"), "a colour must be a name"),
        (("--seed", "3"), "seed 3 is for the views random:K"),
        (("--images", "--views", "center"), "images cannot be kept beside the views center"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            vqtok("tokenize", "images", "--out", "none", *wrong)
