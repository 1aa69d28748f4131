"""Datasets by name: what is found, what it is called, how it is split, and what is said when it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from datasets.exceptions import DatasetNotFoundError
from PIL import Image

from vqtok.data import ImageFormat, ImageSource, image_array, native_format, open_all, open_images, open_splits, readers
from vqtok.errors import ConfigurationError, DataError, HubError


def save(path: Path, level: int = 0, size: tuple[int, int] = (4, 4), mode: str = "L") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size, level).convert(mode).save(path)
    return path


def levels(source: ImageSource) -> list[int]:
    """The grey level of every image, which tells the tests which one it is."""
    cells = [source.image_data(cell, "a row") for cell in source.encoded(range(len(source)))]
    return [int(image_array(data, num_channels=1, size=(1, 1))[0, 0, 0]) for data in cells]


class Builder:
    """What `load_dataset_builder` gives, of splits in memory."""

    def __init__(self, splits: DatasetDict) -> None:
        self.splits = splits
        self.config = datasets.BuilderConfig()
        counts = [{"name": name, "num_examples": len(rows)} for name, rows in splits.items()]
        self.info = datasets.DatasetInfo(splits=counts)

    def download_and_prepare(self) -> None:
        pass

    def as_dataset(self, split: str) -> Dataset:
        return self.splits[split]


def digits(count: int = 4, **columns: list[Any]) -> Dataset:
    images = [Image.new("L", (4, 4), level) for level in range(count)]
    return Dataset.from_dict(
        {"image": images, **columns},
        features=Features({"image": datasets.Image(), **{name: Value("int64") for name in columns}}),
    )


def test_mnist_mini_is_balanced_in_every_prefix_and_named() -> None:
    train, test = open_splits("mnist-mini")
    assert (len(train), len(test)) == (12_000, 2_000)
    assert train.label_names == test.label_names == tuple("0123456789") and train.notes == test.notes == ()
    assert (train.resolved, train.split, test.split, train.revision) == ("mnist-mini", "train", "test", None)
    for source in (train, test):
        labels = source.labels()
        assert labels is not None and labels.dtype == np.int64
        assert labels.tolist() == list(range(10)) * (len(source) // 10)
    assert native_format(train) == ImageFormat(sizes=((28, 28),), num_channels=1)
    assert readers.SAMPLE.stat().st_size < 3_000_000


def test_a_folder_called_like_a_built_in_set_is_pointed_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mnist-mini").mkdir()
    (note,) = open_images("mnist-mini").notes
    assert "./mnist-mini" in note


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
    assert source.row_name(0, source.encoded([0])[0]) == str(tmp_path / "a.jpg")


def test_class_folders_become_labels_however_deep_their_images_lie(tmp_path: Path) -> None:
    save(tmp_path / "dog" / "1.png", 1)
    save(tmp_path / "cat" / "deep" / "er" / "2.png", 2)
    save(tmp_path / "cat" / "3.png", 3)
    source = open_all(str(tmp_path))["train"]
    assert source.label_names == ("cat", "dog")
    assert source.dataset["file_name"][:] == ["cat/3.png", "cat/deep/er/2.png", "dog/1.png"]
    assert source.labels().tolist() == [0, 0, 1]  # type: ignore[union-attr]
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
    assert [splits[name].labels().tolist() for name in splits] == [[0, 1], [1], [0]]  # type: ignore[union-attr]
    train, test = open_splits(str(tmp_path))
    assert (levels(train), levels(test), train.notes) == ([3, 1], [2], ())
    assert levels(open_images(str(tmp_path), split="dev")) == [4]


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


def test_a_test_split_is_held_out_disjoint_complete_seeded_and_said(tmp_path: Path) -> None:
    for number in range(50):
        save(tmp_path / f"{number:02d}.png", number)
    train, test = open_splits(str(tmp_path))
    assert (len(train), len(test), train.split, test.split) == (45, 5, "train", "test")
    assert sorted(levels(train) + levels(test)) == list(range(50))
    assert levels(train) == sorted(levels(train)) and levels(test) == sorted(levels(test))
    said = "there is no test split: 5 of the 50 images of train are held out to test on (test_share 0.1, seed 0)"
    assert train.notes == test.notes == (said,)
    assert levels(open_images(str(tmp_path), split="test")) == levels(test)
    assert levels(open_images(str(tmp_path), split="train")) == levels(train)
    assert levels(open_splits(str(tmp_path), seed=1)[1]) != levels(test)
    assert len(open_splits(str(tmp_path), test_share=0.5)[1]) == 25
    assert len(open_images(str(tmp_path), test_share=0)) == 50 == len(open_all(str(tmp_path))["train"])
    with pytest.raises(DataError, match=r"no test split \(found: train \(50 rows\)\)"):
        open_images(str(tmp_path), split="test", test_share=0)


def test_validation_stands_in_for_a_test_split(tmp_path: Path) -> None:
    save(tmp_path / "training" / "1.png", 1)
    save(tmp_path / "valid" / "2.png", 2)
    train, test = open_splits(str(tmp_path))
    assert (levels(train), levels(test), test.split) == ([1], [2], "validation")
    assert "validation (1 images) is used to test on" in train.notes[0]
    assert levels(open_images(str(tmp_path), split="test")) == [2]


def test_tiny_sets_and_senseless_shares(tmp_path: Path) -> None:
    save(tmp_path / "1.png", 1)
    with pytest.raises(DataError, match="has one image and no test split"):
        open_splits(str(tmp_path))
    save(tmp_path / "2.png", 2)
    assert [len(part) for part in open_splits(str(tmp_path), test_share=0.99)] == [1, 1]
    for share in (-0.1, 1.0):
        with pytest.raises(ConfigurationError, match="at least 0 and below 1"):
            open_images(str(tmp_path), test_share=share)
    with pytest.raises(ConfigurationError, match="above 0"):
        open_splits(str(tmp_path), test_share=0)


def test_a_missing_split_says_which_there_are(tmp_path: Path) -> None:
    DatasetDict({"test": digits(3), "validation": digits(2)}).save_to_disk(tmp_path / "set")
    with pytest.raises(DataError, match=r"no split train with rows; found: test \(3 rows\), validation \(2 rows\)"):
        open_splits(str(tmp_path / "set"))
    with pytest.raises(DataError, match="no split validatoin.*Did you mean 'validation'"):
        open_images(str(tmp_path / "set"), split="validatoin")


def test_a_single_split_of_any_name_is_trained_on(tmp_path: Path) -> None:
    DatasetDict({"everything": digits(10)}).save_to_disk(tmp_path / "set")
    train, test = open_splits(str(tmp_path / "set"))
    assert (train.split, len(train), len(test)) == ("everything", 9, 1)
    assert len(open_images(str(tmp_path / "set"), split="everything")) == 10


@pytest.fixture
def table_forms(tmp_path: Path) -> dict[str, Path]:
    """The same four images in every form that `datasets` can read."""
    dataset = digits(4, label=[0, 1, 0, 1])
    dataset.to_parquet(tmp_path / "set.parquet")
    dataset.save_to_disk(tmp_path / "saved")
    DatasetDict({"train": dataset}).save_to_disk(tmp_path / "splits")
    (tmp_path / "repository" / "data").mkdir(parents=True)
    dataset.to_parquet(tmp_path / "repository" / "data" / "train-00000-of-00001.parquet")
    dataset.to_parquet(tmp_path / "repository" / "data" / "test-00000-of-00001.parquet")
    (tmp_path / "set.arrow").write_bytes((tmp_path / "saved" / "data-00000-of-00001.arrow").read_bytes())
    names = ("set.parquet", "set.arrow", "saved", "splits", "repository")
    return {name: tmp_path / name for name in names}


@pytest.mark.parametrize("form", ["set.parquet", "set.arrow", "saved", "splits", "repository"])
def test_tables_are_read_with_image_and_label_columns_found(table_forms: dict[str, Path], form: str) -> None:
    splits = open_all(str(table_forms[form]))
    assert list(splits) == (["train", "test"] if form == "repository" else ["train"])
    source = splits["train"]
    assert (source.image_column, source.label_column, source.label_names) == ("image", "label", ("0", "1"))
    assert levels(source) == [0, 1, 2, 3] and source.labels().tolist() == [0, 1, 0, 1]  # type: ignore[union-attr]
    assert source.row_name(2, source.encoded([2])[0]) == f"row 2 of {table_forms[form]}, split train"


def saved(folder: Path, dataset: Dataset) -> str:
    dataset.save_to_disk(folder / "set")
    return str(folder / "set")


def test_several_image_columns_must_be_chosen_from(tmp_path: Path) -> None:
    name = saved(tmp_path, digits(4).add_column("file", ["p.png"] * 4))
    save(tmp_path / "set" / "p.png", 7)
    source = open_all(name, image_column="file")["train"]
    assert levels(source) == [7] * 4  # a column of paths, since it was named
    two = saved(
        tmp_path / "two",
        Dataset.from_dict({"a": [None], "b": [None]}).cast(Features({"a": datasets.Image(), "b": datasets.Image()})),
    )
    with pytest.raises(DataError, match="several columns of images: a, b; name one"):
        open_all(two)
    assert open_all(two, image_column="b")["train"].image_column == "b"
    with pytest.raises(DataError, match="no column c; its columns are a .Image., b .Image."):
        open_all(two, image_column="c")


def test_sets_without_images_or_rows_are_refused_with_what_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = saved(tmp_path, Dataset.from_dict({"text": ["a"], "label": [1]}))
    with pytest.raises(DataError, match=r"no column of images; its columns are text \(string\), label \(int64\)"):
        open_images(words)
    with pytest.raises(DataError, match="the column label of .* holds no images"):
        open_images(words, image_column="label")
    nothing = digits(4).select([])
    nothing.to_parquet(tmp_path / "empty.parquet")
    for name in (saved(tmp_path / "empty", nothing), str(tmp_path / "empty.parquet")):
        with pytest.raises(DataError, match="has no rows"):
            open_images(name)
    monkeypatch.setattr(readers, "load_dataset_builder", lambda *_, **__: Builder(DatasetDict({"train": nothing})))
    with pytest.raises(DataError, match="org/name has no rows"):
        open_images("org/name")


def test_labels_are_found_by_type_or_named(tmp_path: Path) -> None:
    fine, coarse = ClassLabel(names=["x", "y"]), ClassLabel(names=["z"])
    both = digits(2, fine=[1, 0], coarse=[0, 0], size=[5, 6], missing=[0, -1])
    both = both.cast_column("fine", fine).cast_column("coarse", coarse)
    name = saved(tmp_path, both)
    source = open_all(name)["train"]
    assert source.label_column is None and "several columns of labels, so none is used: fine, coarse" in source.notes[0]
    named = open_all(name, label_column="fine")["train"]
    assert named.label_names == ("x", "y") and named.labels().tolist() == [1, 0] and named.notes == ()  # type: ignore[union-attr]
    assert open_all(name, label_column="size")["train"].labels().tolist() == [0, 1]  # type: ignore[union-attr]
    assert open_all(name, label_column="size")["train"].label_names == ("5", "6")
    for column, complaint in (("image", "holds no labels"), ("missing", "rows without a label"), ("fin", "'fine'")):
        with pytest.raises(DataError, match=complaint):
            open_all(name, label_column=column)
    only = open_all(saved(tmp_path / "one", both.remove_columns("fine")))["train"]
    assert only.label_column == "coarse"


def test_a_label_that_is_missing_somewhere_is_not_used(tmp_path: Path) -> None:
    for number, labels in enumerate(([0, -1], [0, None])):
        source = open_all(saved(tmp_path / str(number), digits(2, label=labels)))["train"]
        assert source.label_column is None and "rows without a label" in source.notes[0]


def test_a_row_without_an_image_is_named(tmp_path: Path) -> None:
    name = saved(tmp_path, Dataset.from_dict({"image": [None]}, features=Features({"image": datasets.Image()})))
    with pytest.raises(DataError, match=r"row 0 of .*set, split train holds no image"):
        native_format(open_all(name)["train"])


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("cifra10", "neither built in .cifar10, mnist, mnist-mini. nor a Hub id like org/name. Did you mean 'cifar10'"),
        ("MNIST", "Did you mean 'mnist'"),
        ("./images", "no folder or file ./images"),
        ("/nowhere/at/all", "no folder or file /nowhere/at/all"),
        ("https://example.org/a", "no folder or file https"),
        ("", "give a folder|neither built in|holds no files"),
    ],
)
def test_a_name_that_is_nothing_is_refused_with_the_nearest(
    name: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=complaint):
        open_images(name)


def test_folders_and_files_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no files; give a folder of images"):
        open_images(str(tmp_path))
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match=r"holds 1 files, none of them an image \(a.txt, ...\)"):
        open_images(str(tmp_path))
    image = save(tmp_path / "b.png")
    with pytest.raises(DataError, match="is one image; give the folder"):
        open_images(str(image))
    with pytest.raises(DataError, match="must be parquet, arrow, csv, .* is none of these"):
        open_images(str(tmp_path / "a.txt"))
    (tmp_path / "c.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=r"1 images and 1 parquet, arrow or tar files \(c.parquet"):
        open_images(str(tmp_path))
    image.unlink()
    for broken in (tmp_path, tmp_path / "c.parquet"):
        with pytest.raises(DataError, match="cannot be loaded: [^\n]*$"):
            open_images(str(broken))
    with pytest.raises(DataError, match="a revision belongs to a dataset on the Hub"):
        open_images(str(tmp_path), revision="main")


def test_hub_names_and_revisions_reach_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, str | None, str | None]] = []

    def load(repository: str, config: str | None, revision: str | None = None) -> Builder:
        asked.append((repository, revision, config))
        return Builder(DatasetDict({"train": digits(4), "test": digits(1)}))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(readers, "load_dataset_builder", load)
    sources = [
        open_images("mnist"),
        open_images("cifar10", revision="abc", config="plain_text"),
        open_images("some.one/thing-2@refs/pr/1"),
        open_images("org/name@old", revision="new"),
    ]
    assert asked == [
        ("ylecun/mnist", None, None),
        ("uoft-cs/cifar10", "abc", "plain_text"),
        ("some.one/thing-2", "refs/pr/1", None),
        ("org/name", "new", None),
    ]
    assert [source.resolved for source in sources] == [repository for repository, *_ in asked]
    assert [source.revision for source in sources] == [revision for _, revision, _ in asked]
    assert [source.name for source in sources][:3] == ["mnist", "cifar10", "some.one/thing-2@refs/pr/1"]


@pytest.mark.parametrize(
    ("error", "expected", "complaint"),
    [
        (
            DatasetNotFoundError("Dataset 'org/mnits' doesn't exist on the Hub"),
            HubError,
            "no folder of that name either",
        ),
        (ConnectionError("Couldn't reach\n the Hub"), HubError, "cannot be reached for org/mnits .*mnist-mini"),
        (RuntimeError("Dataset scripts are no longer supported"), DataError, "cannot be loaded: Dataset scripts"),
        (ValueError("Config name is missing.\nPick one"), DataError, "Config name is missing. Pick one"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    error: Exception, expected: type[Exception], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(readers, "load_dataset_builder", load)
    with pytest.raises(expected, match=f"^[^\n]*{complaint}[^\n]*$"):
        open_images("org/mnits")
