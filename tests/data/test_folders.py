"""Folders of images: what is found below them, by links too, and what is passed over and said."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.data.images import labels_of, levels, save
from vqtok.codes import tokenize_dataset
from vqtok.data import ImageSource, image_array, open_all, open_images, open_splits
from vqtok.errors import DataError
from vqtok.tokenizer import VQTokenizer


def files(source: ImageSource) -> list[str]:
    return list(source.dataset["file_name"])


def test_a_link_to_a_sibling_folder_is_followed(tmp_path: Path) -> None:
    save(tmp_path / "cat" / "1.png")
    save(tmp_path / "dog" / "2.png")
    (tmp_path / "wolf").symlink_to("dog")
    source = open_all(str(tmp_path))["train"]
    assert files(source) == ["cat/1.png", "dog/2.png", "wolf/2.png"]
    assert source.label_names == ("cat", "dog", "wolf") and source.notes == ()


def test_a_split_that_is_a_link_to_another_is_there(tmp_path: Path) -> None:
    save(tmp_path / "test" / "1.png")
    (tmp_path / "train").symlink_to("test")
    assert {name: files(source) for name, source in open_all(str(tmp_path)).items()} == {
        "train": ["train/1.png"],
        "test": ["test/1.png"],
    }
    assert [source.split for source in open_splits(str(tmp_path))] == ["train", "test"]


def test_a_link_back_is_left_out_and_said(tmp_path: Path) -> None:
    save(tmp_path / "images" / "a" / "1.png")
    save(tmp_path / "images" / "b" / "2.png")
    (tmp_path / "images" / "a" / "up").symlink_to(tmp_path / "images")
    (tmp_path / "images" / "b" / "self").symlink_to(".")
    (tmp_path / "images" / "b" / "top").symlink_to(tmp_path)
    source = open_all(str(tmp_path / "images"))["train"]
    assert files(source) == ["a/1.png", "b/2.png"]
    assert source.notes == ("left out as links to a folder that they lie in: a/up and 2 more",)


def test_links_behind_a_link_do_not_multiply_images(tmp_path: Path) -> None:
    folders = [tmp_path / "images" / name for name in "abcdef"]
    save(folders[0] / "1.png")
    save(tmp_path / "elsewhere" / "2.png")
    for folder in folders:
        folder.mkdir(exist_ok=True)
        for other in folders:
            (folder / f"to_{other.name}").symlink_to(other)
    (folders[5] / "out").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere" / "on").symlink_to(tmp_path / "more")
    save(tmp_path / "more" / "3.png")
    source = open_all(str(tmp_path / "images"))["train"]
    linked = [f"{name}/to_a/1.png" for name in "bcdef"]
    assert files(source) == ["a/1.png", *linked[:-1], "f/out/2.png", "f/out/on/3.png", linked[-1]]
    assert source.notes[0].startswith("left out as links to a folder that they lie in: a/to_a")
    assert source.notes[1].startswith("left out as links to a folder that is read already: a/to_b/to_c and ")


def test_links_of_files_lead_anywhere_and_a_dangling_one_is_named_when_it_is_read(tmp_path: Path) -> None:
    save(tmp_path / "elsewhere" / "x.png", 77)
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").symlink_to(tmp_path / "elsewhere" / "x.png")
    (tmp_path / "images" / "2.png").symlink_to(tmp_path / "gone.png")
    source = open_images(str(tmp_path / "images"), test_share=0)
    assert files(source) == ["1.png", "2.png"]
    assert image_array(tmp_path / "images" / "1.png", num_channels=1, size=(1, 1)).item() == 77


def test_a_link_to_itself_is_left_out_and_said(tmp_path: Path) -> None:
    save(tmp_path / "1.png")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "there.png").symlink_to("back.png")
    (tmp_path / "back.png").symlink_to("there.png")
    source = open_all(str(tmp_path))["train"]
    assert files(source) == ["1.png"]
    assert source.notes == ("left out as no regular files: back.png and 2 more",)


def test_names_that_are_not_utf_8_are_left_out_and_said(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> None:
    folder = tmp_path / "images"
    save(folder / "1.png")
    for name in (b"caf\xe9.png", b"caf\xe9"):
        os.rename(save(folder / "x.png"), os.path.join(os.fsencode(folder), name))
    source = open_all(str(folder))["train"]
    assert files(source) == ["1.png"]
    assert source.notes == ("left out as names that are not UTF-8: caf\\xe9 and 1 more",)
    assert len(tokenize_dataset(folder, tiny_tokenizer, tmp_path / "codes", progress=False)) == 1
    os.rename(folder, os.path.join(os.fsencode(tmp_path), b"\xff"))
    with pytest.raises(DataError, match="the path of .* is not UTF-8; rename it"):
        open_all(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"\xff")))


def test_a_flat_test_folder_has_no_labels_and_the_others_keep_theirs(tmp_path: Path) -> None:
    for kind in ("cat", "dog"):
        save(tmp_path / "train" / kind / "1.png")
    save(tmp_path / "test" / "1.png")
    splits = open_all(str(tmp_path))
    assert labels_of(splits["train"]) == [0, 1]
    assert splits["train"].notes == () and splits["test"].labels() is None
    for kind in ("cat", "dog"):
        save(tmp_path / "val" / kind / "1.png")
    train, test = open_splits(str(tmp_path))
    assert test.split == "validation" and labels_of(test) == [0, 1]
    save(tmp_path / "train" / "beside.png")
    splits = open_all(str(tmp_path))
    assert splits["train"].labels() is None and splits["validation"].label_names == ("cat", "dog")
    assert "images of the split train lie beside the sub-folders cat, dog, so" in splits["train"].notes[0]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    save(tmp_path / "a" / "1.png")
    (tmp_path / "a").chmod(0)
    with pytest.raises(DataError, match="a cannot be read: "):
        open_all(str(tmp_path))


def test_a_flat_folder_has_file_names_and_no_labels(tmp_path: Path) -> None:
    for number, name in enumerate(["b.PNG", "a.jpg", "c d.BmP", "ä.tif"]):
        save(tmp_path / name, number * 40)
    (tmp_path / "notes.txt").touch()
    (tmp_path / ".hidden.png").touch()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / "__MACOSX" / "x.png").touch()
    source = open_all(str(tmp_path))["train"]
    assert source.dataset["file_name"][:] == ["a.jpg", "b.PNG", "c d.BmP", "ä.tif"]
    assert levels(source) == [40, 0, 80, 120]
    assert source.labels() is None and source.label_column is None and source.label_names is None
    assert source.resolved == str(tmp_path) and source.dataset.column_names == ["image", "file_name"]
    assert source.notes == ("left out as no images by their names: notes.txt",)
    assert source.stored([0])[0].name == str(tmp_path / "a.jpg")


def test_class_folders_become_labels_however_deep_their_images_lie(tmp_path: Path) -> None:
    save(tmp_path / "dog" / "1.png", 1)
    save(tmp_path / "cat" / "deep" / "er" / "2.png", 2)
    save(tmp_path / "cat" / "3.png", 3)
    source = open_all(str(tmp_path))["train"]
    assert source.label_names == ("cat", "dog")
    assert source.dataset["file_name"][:] == ["cat/3.png", "cat/deep/er/2.png", "dog/1.png"]
    assert labels_of(source) == [0, 0, 1]
    assert levels(source) == [3, 2, 1]


def test_one_class_is_none_and_images_beside_class_folders_leave_no_classes(tmp_path: Path) -> None:
    save(tmp_path / "images" / "1.png")
    assert open_all(str(tmp_path))["train"].label_column is None
    save(tmp_path / "2.png")
    source = open_all(str(tmp_path))["train"]
    assert source.label_column is None and "beside the sub-folders images" in source.notes[0] and len(source) == 2


def test_split_folders_become_splits_with_the_same_labels(tmp_path: Path) -> None:
    for split, kind, level in (("train", "b", 1), ("Test", "a", 2), ("train", "a", 3), ("val", "b", 4)):
        save(tmp_path / split / kind / "x.png", level)
    splits = open_all(str(tmp_path))
    assert list(splits) == ["train", "validation", "test"]
    assert {name: levels(source) for name, source in splits.items()} == {
        "train": [3, 1],
        "validation": [4],
        "test": [2],
    }
    assert {source.label_names for source in splits.values()} == {("a", "b")}
    assert [labels_of(splits[name]) for name in splits] == [[0, 1], [1], [0]]
    train, test = open_splits(str(tmp_path))
    assert (levels(train), levels(test), train.notes) == ([3, 1], [2], ())
    assert levels(open_images(str(tmp_path), split="dev")) == [4]


def test_folders_that_hold_nothing_but_a_folder_are_passed_through(tmp_path: Path) -> None:
    for level, file in enumerate(("train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "test/dog/4.png")):
        save(tmp_path / "nest" / "cifar" / file, level)
    splits = open_all(str(tmp_path / "nest"))
    assert {name: (levels(source), labels_of(source)) for name, source in splits.items()} == {
        "train": ([0, 1], [0, 1]),
        "test": ([2, 3], [0, 1]),
    }
    assert files(splits["test"]) == ["cifar/test/cat/3.png", "cifar/test/dog/4.png"]
    save(tmp_path / "nest" / "cifar" / "more" / "5.png")
    with pytest.raises(DataError, match="the splits test, train and also more; move those out"):
        open_all(str(tmp_path / "nest"))
    save(tmp_path / "a" / "b" / "cat" / "1.png")
    save(tmp_path / "a" / "b" / "dog" / "2.png")
    assert open_all(str(tmp_path / "a"))["train"].label_names == ("cat", "dog")
    save(tmp_path / "only" / "test" / "x" / "1.png")
    assert list(open_all(str(tmp_path / "only"))) == ["test"]


def test_split_folders_among_others_are_refused_but_a_class_may_be_called_train(tmp_path: Path) -> None:
    save(tmp_path / "train" / "1.png", 1)
    save(tmp_path / "plane" / "2.png", 2)
    assert open_all(str(tmp_path))["train"].label_names == ("plane", "train")
    save(tmp_path / "test" / "3.png")
    with pytest.raises(DataError, match="the splits test, train and also plane; move"):
        open_all(str(tmp_path))
    save(tmp_path / "training" / "4.png")
    (tmp_path / "plane" / "2.png").unlink()
    with pytest.raises(DataError, match="two folders for one split: test, train, training"):
        open_all(str(tmp_path))


def test_folders_beside_training_and_validation_images_are_refused(tmp_path: Path) -> None:
    for name in ("train/1.png", "val/2.png", "extra/3.png"):
        save(tmp_path / name)
    with pytest.raises(DataError, match="the splits train, val and also extra; move those out"):
        open_all(str(tmp_path))
    (tmp_path / "extra" / "3.png").rename(tmp_path / "preview.png")
    with pytest.raises(DataError, match="the splits train, val and also images beside them; move those out"):
        open_all(str(tmp_path))


def test_thousands_of_files_open_without_being_read(tmp_path: Path) -> None:
    for number in range(2000):
        (tmp_path / f"{number:04d}.jpg").touch()  # empty: reading one would fail
    assert len(open_all(str(tmp_path))["train"]) == 2000


def test_images_a_thousand_folders_deep_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(1100):
        os.mkdir("a")
        os.chdir("a")
    save(Path("1.png"), 7)
    os.chdir(tmp_path)
    try:
        source = open_all(str(tmp_path))["train"]
        assert files(source) == ["a/" * 1100 + "1.png"] and levels(source) == [7]
    finally:
        subprocess.run(["rm", "-r", "a"], check=True)  # Python's own way is a recursion too
