"""Of a folder of images with metadata files, no image is dropped or read twice without a word."""

from __future__ import annotations

import gc
import json
from collections.abc import Iterable
from pathlib import Path

import pytest
from datasets import DatasetDict

from tests.data.images import levels, save, with_metadata
from vqtok.codes import read_bad_images, tokenize_dataset
from vqtok.data import open_all, open_splits
from vqtok.errors import DataError
from vqtok.tokenizer import VQTokenizer


def opened(name: str) -> dict[str, list[int]]:
    found = {split: levels(source) for split, source in open_all(name).items()}
    gc.collect()  # so that what pandas leaves open is closed within the test
    return found


@pytest.mark.parametrize("names", [("cat.png", "dog.png", "lab test 3.png"), ("a/1.png", "a/2.png", "test/3.png")])
def test_rows_of_metadata_do_not_depend_on_what_images_are_called(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert opened(with_metadata(tmp_path / "set", names)) == {"train": [0, 1, 2]}


def test_metadata_is_split_as_a_folder_of_images_is(tmp_path: Path) -> None:
    above = with_metadata(tmp_path / "above", ["train/1.png", "val/2.png", "train/3.png"])
    assert opened(above) == {"train": [0, 2], "validation": [1]}
    with_metadata(tmp_path / "inside", ["1.png", "2.png"], at="train")
    inside = with_metadata(tmp_path / "inside", ["3.png"], at="test")
    assert opened(inside) == {"train": [0, 1], "test": [0]}
    train, test = open_splits(inside)
    assert train.dataset["level"][:] == [0, 1] and test.dataset["level"][:] == [0]


def test_metadata_files_need_not_have_the_same_columns(tmp_path: Path) -> None:
    rows: dict[str, dict[str, object]] = {"train/cat": {"label": 4}, "train/dog": {"text": "hi"}, "test": {}}
    for level, (folder, columns) in enumerate(rows.items()):
        save(tmp_path / folder / "a.png", level)
        (tmp_path / folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", **columns}))
    splits = open_all(str(tmp_path))
    assert splits["train"].dataset["label"][:] == [4, None] and splits["train"].dataset["text"][:] == [None, "hi"]
    assert levels(splits["train"]) == [0, 1] and levels(splits["test"]) == [2]
    assert splits["test"].dataset.column_names == ["image", "file_name"]


def test_labels_of_the_training_split_stay_where_the_test_split_has_none(tmp_path: Path) -> None:
    for folder, columns in {"train": {"label": 4}, "test": {}}.items():
        save(tmp_path / folder / "a.png", 0)
        (tmp_path / folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", **columns}))
    train, test = open_splits(str(tmp_path))
    assert train.label_names == ("4",) and test.labels() is None


def test_rows_come_in_the_order_of_their_metadata_files(tmp_path: Path) -> None:
    for number in range(9):
        save(tmp_path / str(number) / "a.png", number)
        (tmp_path / str(number) / "metadata.jsonl").write_text('{"file_name": "a.png"}\n')
    assert opened(str(tmp_path)) == {"train": [*range(9)]}


@pytest.mark.parametrize("line", ["null", "5", '{"image_file_name": "1.png"}', "[" * 100_000])
def test_metadata_that_is_no_object_is_an_ordinary_file(tmp_path: Path, line: str) -> None:
    save(tmp_path / "1.png", 7)
    (tmp_path / "metadata.jsonl").write_text(line + "\n")
    (source,) = open_all(str(tmp_path)).values()
    assert levels(source) == [7] and source.notes == ("left out as no images by their names: metadata.jsonl",)


NOT_UNDERSTOOD = {
    "latin-1": ("metadata.csv", "file_name,label\n1.png,caf\xe9\n".encode("latin-1")),
    "utf-16": ("metadata.csv", "file_name,label\n1.png,4\n".encode("utf-16")),
    "semicolons": ("metadata.csv", b'"file_name";"label"\n1.png;4\n'),
    "tabs": ("metadata.csv", b"file_name\tlabel\n1.png\t4\n"),
    "an array": ("metadata.jsonl", b'[{"file_name": "1.png"}]\n'),
    "lines in an object": ("metadata.jsonl", b'{\n "file_name": "1.png"\n}\n'),
}


@pytest.mark.parametrize(("file", "content"), NOT_UNDERSTOOD.values(), ids=NOT_UNDERSTOOD)
def test_metadata_that_is_not_understood_is_refused(tmp_path: Path, file: str, content: bytes) -> None:
    for name in ("1.png", "2.png"):
        save(tmp_path / name)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=f"{file} speaks of file_name and is not understood: save it as UTF-8 text"):
        open_all(str(tmp_path))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # of pandas
@pytest.mark.parametrize("content", ['\n{"file_name": "2.png", "label": 4}\n', "\n\nfile_name,label\n2.png,4\n"])
def test_metadata_may_begin_with_empty_lines(tmp_path: Path, content: str) -> None:
    for level in (1, 2):
        save(tmp_path / f"{level}.png", level)
    (tmp_path / ("metadata.jsonl" if "{" in content else "metadata.csv")).write_text(content)
    assert opened(str(tmp_path)) == {"train": [2]}


def folder_of(folder: Path, *names: str, named: Iterable[str] = (), at: str = "") -> str:
    """Images of the levels 0, 1, 2, ..., of which a metadata.jsonl that lies `at` a folder below names some."""
    for level, name in enumerate(names):
        save(folder / name, level)
    if rows := [json.dumps({"file_name": name, "caption": "a"}) for name in named]:
        (folder / at / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    return str(folder)


def test_images_that_no_metadata_names_are_left_out_and_said(tmp_path: Path) -> None:
    name = folder_of(tmp_path, "a.png", "b.png", "c.png", "d/e.png", named=["b.png", "d/e.png"])
    (tmp_path / "notes.txt").touch()
    (tmp_path / "loop").symlink_to("loop")
    source = open_all(name)["train"]
    assert levels(source) == [1, 3] and source.notes == (
        "left out as images that no metadata file names: a.png and 1 more",
        "left out as no images by their names: notes.txt",
        "left out as no regular files: loop",
    )


def test_metadata_does_not_speak_for_images_beside_or_above_it(tmp_path: Path) -> None:
    name = folder_of(tmp_path / "a", "1.png", "2.png", "backup/3.png", named=["3.png"], at="backup")
    with pytest.raises(
        DataError, match=r"holds 2 images outside the folder of every metadata file \(1.png, ...\): backup/meta.*; move"
    ):
        open_all(name)
    name = folder_of(tmp_path / "b", "x/1.png", "x2/2.png", named=["1.png"], at="x")
    with pytest.raises(DataError, match=r"holds 1 image outside the folder of every metadata file \(x2/2.png, ...\)"):
        open_all(name)


@pytest.mark.parametrize(("named", "at"), [(["1.png"], "train"), (["train/1.png"], "")])
@pytest.mark.parametrize("above", ["", "nest/"])
def test_a_split_of_which_metadata_names_no_image_is_refused(
    tmp_path: Path, named: list[str], at: str, above: str
) -> None:
    names = [f"{above}{name}" for name in ("train/1.png", "train/2.png", "test/3.png", "test/4.png")]
    name = folder_of(tmp_path, *names, named=named, at=above + at)
    with pytest.raises(DataError, match=f"2 images in {above}test, and no metadata file names any of them; name them"):
        open_all(name)


def test_metadata_that_names_no_image_there_is_refused(tmp_path: Path) -> None:
    name = folder_of(tmp_path, "1.png", "2.png", named=["1", "2"])
    with pytest.raises(DataError, match=r"holds 2 images \(1.png, ...\), and metadata.jsonl names none.* but 1; write"):
        open_all(name)


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # of pandas
def test_metadata_without_rows_names_no_images(tmp_path: Path) -> None:
    for folder, text in {"train": "file_name,label\na.png,4\n", "test": "file_name,label\n"}.items():
        save(tmp_path / folder / "a.png", 7)
        (tmp_path / folder / "metadata.csv").write_text(text)
    with pytest.raises(DataError, match=r"holds 1 image in test, and no metadata file names any of them"):
        open_all(str(tmp_path))
    (tmp_path / "train" / "metadata.csv").write_text("file_name,label\n\n")
    assert opened(str(tmp_path)) == {"train": [7], "test": [7]}


def test_class_folders_beside_metadata_are_said_to_be_no_classes(tmp_path: Path) -> None:
    names = ("cat/1.png", "cat/2.png", "dog/3.png")
    source = open_all(folder_of(tmp_path / "a", *names, named=names))["train"]
    assert source.labels() is None and source.notes == (
        "the sub-folders cat, dog are not taken as classes, since metadata files say what the images are; "
        "a column label in them gives classes",
    )
    name = folder_of(tmp_path / "b", *names)
    rows = [json.dumps({"file_name": file, "label": 1}) for file in names]
    (tmp_path / "b" / "metadata.jsonl").write_text("\n".join(rows))
    source = open_all(name)["train"]
    assert source.label_names == ("1",) and source.notes == ()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # of pandas
def test_an_image_that_two_metadata_files_name_is_refused(tmp_path: Path) -> None:
    name = folder_of(tmp_path / "a", "train/1.png", "test/2.png", named=["train/1.png", "test/2.png"])
    folder_of(tmp_path / "a", named=["1.png"], at="train")
    with pytest.raises(DataError, match="^[^\n]*train/1.png is named by both metadata.jsonl and train/metadata.jsonl;"):
        open_all(name)
    name = folder_of(tmp_path / "b", "1.png", "2.png", named=["1.png", "2.png"])
    (tmp_path / "b" / "metadata.csv").write_text("file_name\n./2.png\n1.png\n")
    with pytest.raises(DataError, match="1.png is named by both metadata.csv and metadata.jsonl; keep it in one"):
        open_all(name)


def test_an_image_that_one_metadata_file_names_twice_is_two_rows_and_said(tmp_path: Path) -> None:
    source = open_all(folder_of(tmp_path, "1.png", "2.png", named=["2.png", "1.png", "x/../2.png"]))["train"]
    assert levels(source) == [1, 0, 1] and source.notes == (
        "metadata.jsonl names 1 image more than once (2.png, ...): every row is an image of its own, and one that is "
        "held out to test on may also be trained on",
    )


def test_rows_of_metadata_are_named_after_their_files(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> None:
    name = folder_of(tmp_path / "set", "train/1.png", "train/2.png", "test/x/3.png")
    for split, files in {"train": ("./2.png", "1.png"), "test": ("x/3.png",)}.items():
        rows = [json.dumps({"file_name": file}) for file in files]
        (tmp_path / "set" / split / "metadata.jsonl").write_text("\n".join(rows))
    (tmp_path / "set" / "train" / "1.png").write_text("no image")
    codes = tokenize_dataset(name, tiny_tokenizer, tmp_path / "codes", max_bad_share=1, progress=False)
    assert isinstance(codes, DatasetDict)
    assert codes["train"]["file_name"][:] == ["train/2.png"] and codes["test"]["file_name"][:] == ["test/x/3.png"]
    assert read_bad_images(tmp_path / "codes")["path"].to_pylist() == ["train/1.png"]


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # of pandas
@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("file_name,image\n1.png,x\n", "metadata.csv has a column image beside file_name, .*; rename the column image"),
        ("file_name,label\n1,3\n", "metadata.csv has file_names that are no text; write .* suffix included"),
    ],
)
def test_metadata_that_datasets_misreads_is_refused(tmp_path: Path, text: str, complaint: str) -> None:
    save(tmp_path / "1.png")
    (tmp_path / "metadata.csv").write_text(text)
    with pytest.raises(DataError, match=f"^[^\n]*{complaint}[^\n]*$"):
        open_all(str(tmp_path))
    gc.collect()
