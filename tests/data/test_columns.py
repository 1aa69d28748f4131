"""Images and labels by one rule: which column, what its classes are called, and when a split has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, Value

from tests.data.images import Builder, digits, labels_of, levels, save
from vqtok.data import open_all, open_images, open_splits, readers
from vqtok.data.columns import find_labels
from vqtok.errors import DataError

NAMED = ClassLabel(names=["cat", "dog"])


def rows(feature: Any = None, **columns: list[Any]) -> Dataset:
    types = {name: feature or Value("int64") for name in columns}
    return Dataset.from_dict(columns, features=Features(types))


def write(folder: Path, dataset: Dataset | DatasetDict) -> str:
    dataset.save_to_disk(folder / "set")
    return str(folder / "set")


def saved(folder: Path, feature: Any = None, **splits: list[Any]) -> str:
    """A dataset of images that are missing, whose splits have these labels."""
    made = {
        split: Dataset.from_dict(
            {"image": [None] * len(labels), "label": labels},
            features=Features({"image": Image(), "label": feature or Value("int64")}),
        )
        for split, labels in splits.items()
    }
    return write(folder, DatasetDict(made))


def test_integers_are_the_distinct_values_in_ascending_order() -> None:
    labels, notes = find_labels({"train": rows(label=[3, 7, 3_000_000, 5])}, "x", None)
    assert labels is not None and labels.names == ("3", "5", "7", "3000000") and notes == ()
    classes = labels.of(rows(label=[3_000_000, 3, 3, 5]), "x")
    assert classes.tolist() == [3, 0, 0, 1] and classes.dtype == np.int64
    with pytest.raises(DataError, match="the column label of x holds 4, which is none of its 4 classes"):
        labels.of(rows(label=[3, 4]), "x")


def test_classes_are_those_of_all_splits() -> None:
    labels, _ = find_labels(
        {"train": rows(label=[9, 2]), "test": rows(label=[4]), "other": rows(label=[-1])}, "x", None
    )
    assert labels is not None and labels.names == ("2", "4", "9")


def test_a_class_label_keeps_its_names_and_numbers() -> None:
    labels, _ = find_labels({"train": rows(NAMED, label=[1, 1])}, "x", None)
    assert labels is not None and labels.names == ("cat", "dog")
    assert labels.of(rows(NAMED, label=[1, 0]), "x").tolist() == [1, 0]


@pytest.mark.parametrize("missing", [-1, None])
def test_a_split_with_a_row_without_a_label_has_none(tmp_path: Path, missing: int | None) -> None:
    name = saved(tmp_path, NAMED, train=[0, 1, 1], test=[0, missing])
    splits = open_all(name)
    assert labels_of(splits["train"]) == [0, 1, 1]
    assert splits["test"].labels() is None and splits["test"].label_names is None
    assert splits["test"].notes == ("the split test has no labels in the column label for all of its rows",)


@pytest.mark.parametrize("missing", [-1, None])
def test_a_test_split_without_labels_is_passed_over_for_a_validation_split_with(
    tmp_path: Path, missing: int | None
) -> None:
    name = saved(tmp_path, NAMED, train=[0, 1, 1], test=[missing] * 4, validation=[1, 0])
    train, test = open_splits(name)
    assert test.split == "validation" and labels_of(test) == [1, 0]
    note = "the split test has no labels: validation (2 images) is used to test on"
    assert note in train.notes and note in test.notes


def test_without_labels_anywhere_the_test_split_is_taken(tmp_path: Path) -> None:
    train, test = open_splits(saved(tmp_path, train=[-1, -1], test=[-1], validation=[-1]))
    assert test.split == "test" and train.labels() is None
    assert "the column label has rows without a label, so it is not used" in train.notes


def test_a_named_column_must_hold_labels_for_the_training_images(tmp_path: Path) -> None:
    name = saved(tmp_path, train=[-1, 0], test=[0])
    with pytest.raises(DataError, match="the column label of .* has rows without a label; choose another or none"):
        open_splits(name, label_column="label")


@pytest.mark.parametrize(
    ("feature", "values", "dtype"),
    [("string", ["a", "b"], "string"), ("float32", [0.5, 1.0], "float32"), ("bool", [True, False], "bool")],
)
def test_other_columns_are_no_labels_and_say_so(tmp_path: Path, feature: str, values: list[Any], dtype: str) -> None:
    name = saved(tmp_path, Value(feature), train=values)
    assert open_all(name)["train"].labels() is None
    with pytest.raises(DataError, match=rf"column label .* holds no labels; labels are .* label \({dtype}\)"):
        open_all(name, label_column="label")


def of_splits(folder: Path, **splits: tuple[Any, list[Any]]) -> str:
    """Splits that each have a feature of their own for their labels, or None for no such column."""
    made = {}
    for split, (feature, labels) in splits.items():
        columns = {"image": [None] * len(labels)} | ({"label": labels} if feature else {})
        features = Features({"image": Image()} | ({"label": feature} if feature else {}))
        made[split] = Dataset.from_dict(columns, features=features)
    return write(folder, DatasetDict(made))


@pytest.mark.parametrize("feature", [NAMED, Value("int64")])
@pytest.mark.parametrize("order", [("train", "test"), ("test", "train")])
def test_a_split_without_the_column_has_no_labels_and_the_others_keep_theirs(
    tmp_path: Path, feature: Any, order: tuple[str, str]
) -> None:
    given = {"train": (feature, [0, 1, 1]), "test": (None, [0, 0])}
    name = of_splits(tmp_path, **{split: given[split] for split in order})
    for options in ({}, {"label_column": "label"}):
        splits = open_all(name, **options)
        assert labels_of(splits["train"]) == [0, 1, 1]
        assert splits["test"].labels() is None
        assert splits["test"].notes == ("the split test has no labels in the column label for all of its rows",)


def test_classes_are_found_by_name_where_splits_number_them_differently(tmp_path: Path) -> None:
    swapped = ClassLabel(names=["dog", "wolf", "cat"])
    splits = open_all(of_splits(tmp_path, train=(NAMED, [0, 1, 1]), test=(swapped, [0, 2, 1])))
    assert {source.label_names for source in splits.values()} == {("cat", "dog", "wolf")}
    assert labels_of(splits["train"]) == [0, 1, 1]
    assert labels_of(splits["test"]) == [1, 0, 2]


def test_a_label_column_of_another_type_is_said(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("image,label\na.png,3\na.png,\n")
    (source,) = open_all(str(tmp_path / "rows.csv")).values()
    assert source.labels() is None
    assert source.notes == (
        "the column label (float64) is not used: labels are a ClassLabel or integers without empty cells",
    )


def test_integers_that_no_tensor_holds_are_no_labels(tmp_path: Path) -> None:
    for split, labels in (("train", [0, 2**63]), ("test", [2**63 - 1, 5])):
        table = pa.table({"image": ["a.png", "b.png"], "label": pa.array(labels, pa.uint64())})
        pq.write_table(table, tmp_path / f"{split}.parquet")
    splits = open_all(str(tmp_path))
    assert splits["train"].labels() is None
    assert splits["test"].label_names == ("0", "5", str(2**63 - 1))
    assert labels_of(splits["test"]) == [2, 1]


def labelled(file: Path, images: pa.DataType, feature: ClassLabel) -> str:
    """Three missing images of a type, with the labels 7, 0 and 7, in a file that says what these mean."""
    table = pa.table({"image": pa.nulls(3, images), "label": [7, 0, 7]})
    features = Features({"image": Image(), "label": feature})
    pq.write_table(table.replace_schema_metadata(features.arrow_schema.metadata), file)
    return str(file)


def test_a_class_label_without_names_is_integers(tmp_path: Path) -> None:
    name = labelled(tmp_path / "a.parquet", Image().pa_type, ClassLabel(names=[]))
    source = open_all(name)["train"]
    assert source.label_names == ("0", "7") and labels_of(source) == [1, 0, 1]


@pytest.mark.parametrize("feature", [NAMED, ClassLabel(names=[])])
def test_a_label_that_is_no_class_is_refused_whatever_the_images_are(tmp_path: Path, feature: ClassLabel) -> None:
    with pytest.raises(DataError, match="a.parquet cannot be loaded: Class label 7 greater than"):
        open_all(labelled(tmp_path / "a.parquet", pa.string(), feature))


def test_several_columns_of_labels_are_left_out_or_refused() -> None:
    both = {"train": rows(NAMED, fine=[0, 1], coarse=[0, 0])}
    labels, (note,) = find_labels(both, "x", None)
    assert labels is None and "several columns of labels, so none is used: fine, coarse" in note
    with pytest.raises(DataError, match="several columns of x hold labels: set label_column to one of fine, coarse"):
        find_labels(both, "x", None, must_choose=True)
    named, _ = find_labels(both, "x", "coarse")
    assert named is not None and named.column == "coarse"


def test_integers_called_cls_are_labels() -> None:
    labels, _ = find_labels({"train": rows(cls=[4, 2], size=[1, 2])}, "x", None)
    assert labels is not None and (labels.column, labels.names) == ("cls", ("2", "4"))


def test_several_image_columns_must_be_chosen_from(tmp_path: Path) -> None:
    name = write(tmp_path, digits(4).add_column("file", ["p.png"] * 4))
    save(tmp_path / "set" / "p.png", 7)
    source = open_all(name, image_column="file")["train"]
    assert levels(source) == [7] * 4  # a column of paths, since it was named
    two = write(
        tmp_path / "two",
        Dataset.from_dict({"a": [None], "b": [None]}).cast(Features({"a": Image(), "b": Image()})),
    )
    with pytest.raises(DataError, match="several columns of images: a, b; name one"):
        open_all(two)
    assert open_all(two, image_column="b")["train"].image_column == "b"
    with pytest.raises(DataError, match="no column c; its columns are a .Image., b .Image."):
        open_all(two, image_column="c")


def test_sets_without_images_or_rows_are_refused_with_what_they_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = write(tmp_path, Dataset.from_dict({"text": ["a"], "label": [1]}))
    with pytest.raises(DataError, match=r"no column of images; its columns are text \(string\), label \(int64\)"):
        open_images(words)
    with pytest.raises(DataError, match="the column label of .* holds no images"):
        open_images(words, image_column="label")
    nothing = digits(4).select([])
    nothing.to_parquet(tmp_path / "empty.parquet")
    for name in (write(tmp_path / "empty", nothing), str(tmp_path / "empty.parquet")):
        with pytest.raises(DataError, match="has no rows"):
            open_images(name)
    monkeypatch.setattr(readers, "load_dataset_builder", lambda *_, **__: Builder(DatasetDict({"train": nothing})))
    with pytest.raises(DataError, match="org/name has no rows"):
        open_images("org/name")


def test_labels_are_found_by_type_or_named(tmp_path: Path) -> None:
    fine, coarse = ClassLabel(names=["x", "y"]), ClassLabel(names=["z"])
    both = digits(2, fine=[1, 0], coarse=[0, 0], size=[5, 6], missing=[0, -1])
    both = both.cast_column("fine", fine).cast_column("coarse", coarse)
    name = write(tmp_path, both)
    source = open_all(name)["train"]
    assert source.label_column is None and "several columns of labels, so none is used: fine, coarse" in source.notes[0]
    named = open_all(name, label_column="fine")["train"]
    assert named.label_names == ("x", "y") and labels_of(named) == [1, 0] and named.notes == ()
    assert labels_of(open_all(name, label_column="size")["train"]) == [0, 1]
    assert open_all(name, label_column="size")["train"].label_names == ("5", "6")
    for column, complaint in (("image", "holds no labels"), ("missing", "rows without a label"), ("fin", "'fine'")):
        with pytest.raises(DataError, match=complaint):
            open_all(name, label_column=column)
    only = open_all(write(tmp_path / "one", both.remove_columns("fine")))["train"]
    assert only.label_column == "coarse"


def test_a_label_that_is_missing_somewhere_is_not_used(tmp_path: Path) -> None:
    for number, labels in enumerate(([0, -1], [0, None])):
        source = open_all(write(tmp_path / str(number), digits(2, label=labels)))["train"]
        assert source.label_column is None and "rows without a label" in source.notes[0]
