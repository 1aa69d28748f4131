"""Of a folder of tables no file is dropped without a word, whatever it is called."""

from __future__ import annotations

import gc
import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import DatasetDict

from tests.data.images import digits, labels_of, levels, png, save, with_metadata
from vqtok.data import open_all, read_images
from vqtok.errors import DataError


def tables(folder: Path, *names: str) -> str:
    """Parquet files of one image each, of the levels 0, 1, 2, ..."""
    for level, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"image": pa.array([{"bytes": png(level), "path": None}])}), folder / name)
    return str(folder)


def opened(name: str) -> dict[str, list[int]]:
    found = {split: levels(source) for split, source in open_all(name).items()}
    gc.collect()  # so that what pandas leaves open is closed within the test
    return found


def test_tables_of_which_some_are_called_like_a_split_are_one_split_and_said(tmp_path: Path) -> None:
    name = tables(tmp_path / "set", "jan.parquet", "feb.parquet", "dev-site.parquet")
    source = open_all(name)["train"]
    assert sorted(levels(source)) == [0, 1, 2]
    assert source.notes == ("all 3 files are taken as one split, since feb.parquet does not say which it belongs to",)


def test_tables_that_all_say_their_split_keep_it(tmp_path: Path) -> None:
    assert opened(tables(tmp_path / "a", "train.parquet", "test.parquet")) == {"train": [0], "test": [1]}
    assert opened(tables(tmp_path / "b", "train/x.parquet", "val/x.parquet")) == {"train": [0], "validation": [1]}
    shards = ("data/train-00000-of-00001.parquet", "data/extra-00000-of-00001.parquet")
    assert opened(tables(tmp_path / "c", *shards)) == {"train": [0], "extra": [1]}


@pytest.mark.parametrize(
    "names", [("train-test.parquet", "train.parquet"), ("train_test.parquet", "validation.parquet")]
)
def test_a_table_that_names_two_splits_is_refused(tmp_path: Path, names: tuple[str, str]) -> None:
    with pytest.raises(DataError, match=f"{names[0]}, which names the splits train and test; rename it"):
        open_all(tables(tmp_path / "set", *names))


def test_a_table_that_names_its_split_twice_is_read_once(tmp_path: Path) -> None:
    assert opened(tables(tmp_path / "a", "train-training.parquet", "test.parquet")) == {"train": [0], "test": [1]}
    assert opened(tables(tmp_path / "b", "train/x.parquet", "val/dev/x.parquet")) == {"train": [0], "validation": [1]}


@pytest.mark.parametrize("beside", ["test/notes.txt", "notes.eval", "task.toml"])
def test_only_tables_say_which_splits_there_are(tmp_path: Path, beside: str) -> None:
    name = tables(tmp_path / "set", "train.parquet", "test.parquet")
    (tmp_path / "set" / "test").mkdir()
    (tmp_path / "set" / beside).touch()
    assert opened(name) == {"train": [0], "test": [1]}


def test_tables_beside_those_of_several_splits_are_refused(tmp_path: Path) -> None:
    for held_out in ("validation", "test"):
        name = tables(tmp_path / held_out, "train.parquet", f"{held_out}.parquet", "more.parquet")
        with pytest.raises(
            DataError, match=f"the splits train, {held_out} and also more.parquet; move what is no split"
        ):
            open_all(name)


def test_a_split_without_rows_is_left_out_and_said(tmp_path: Path) -> None:
    tables(tmp_path / "a", "train.parquet", "test.parquet")
    none = pq.read_table(tmp_path / "a" / "test.parquet").slice(0, 0)
    pq.write_table(none, tmp_path / "a" / "test.parquet")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_bytes(png(0))
    (tmp_path / "b" / "train.jsonl").write_text('{"image": "x"}')
    (tmp_path / "b" / "test.jsonl").touch()
    for name in (str(tmp_path / "a"), str(tmp_path / "b")):
        ((split, source),) = open_all(name).items()
        assert (split, levels(source), source.notes) == ("train", [0], ("left out as splits without rows: test",))


def test_a_row_group_without_rows_is_passed_over(tmp_path: Path) -> None:
    table = pq.read_table(Path(tables(tmp_path / "set", "a.parquet")) / "a.parquet")
    with pq.ParquetWriter(tmp_path / "set" / "a.parquet", table.schema) as writer:
        for rows in (table.slice(0, 0), table):
            writer.write_table(rows)
    assert opened(str(tmp_path / "set")) == {"train": [0]}


def test_notes_beside_tables_of_images_are_left_out_and_said(tmp_path: Path) -> None:
    name = tables(tmp_path / "set", "a.parquet", "b.parquet")
    for number in range(3):
        (tmp_path / "set" / f"stats{number}.json").write_text('{"image": "x.png"}\n')
    (tmp_path / "set" / "dataset_infos.json").write_text("{}")
    source = open_all(name)["train"]
    assert levels(source) == [0, 1] and source.notes == ("left out as no parquet: stats0.json and 2 more",)


def test_what_cannot_be_read_beside_tables_is_said(tmp_path: Path) -> None:
    name = tables(tmp_path / "set", "a.parquet", "b.parquet")
    os.rename(tmp_path / "set" / "b.parquet", os.path.join(os.fsencode(name), b"caf\xe9.parquet"))
    os.mkfifo(tmp_path / "set" / "pipe.parquet")
    (tmp_path / "set" / "up").symlink_to(".")
    for rest in ("b.tar.gz", "c.tgz", "d.parquet.zst", "e.zip", "README.md", "f.gz"):
        (tmp_path / "set" / rest).touch()
    source = open_all(name)["train"]
    assert levels(source) == [0] and source.notes == (
        "left out as compressed: b.tar.gz and 4 more; unpack what should be read",
        "left out as links to a folder that they lie in: up",
        "left out as no regular files: pipe.parquet",
        "left out as names that are not UTF-8: caf\\xe9.parquet",
    )


def test_tables_of_several_kinds_are_refused(tmp_path: Path) -> None:
    tmp_path.joinpath("a.csv").write_text("image\nx.png\n")
    tmp_path.joinpath("b.tsv").write_text("image\nx.png\n")
    with pytest.raises(DataError, match=r"holds files of several kinds \(1 csv and 1 tsv\); name a folder with one"):
        open_all(str(tmp_path))


def test_a_readme_decides_which_files_there_are(tmp_path: Path) -> None:
    name = tables(tmp_path / "set", "a.parquet", "b.parquet")
    config = "configs:\n- config_name: default\n  data_files: a.parquet\n"
    (tmp_path / "set" / "README.md").write_text(f"---\n{config}---\n")
    assert opened(name) == {"train": [0]}


@pytest.mark.parametrize("name", ["my [photos]", "a*b", "why?", "http:", "[1]"])
def test_folders_may_be_called_anything(tmp_path: Path, name: str) -> None:
    tmp_path = tmp_path / name
    assert opened(with_metadata(tmp_path / "photos", ["x[1].png", "y.png"])) == {"train": [0, 1]}
    assert opened(tables(tmp_path / "tables", "a[1].parquet", "b.parquet")) == {"train": [0, 1]}
    assert opened(str(tmp_path / "tables" / "a[1].parquet")) == {"train": [0]}


@pytest.mark.parametrize("file", ["set/$OUR_VARIABLE.parquet", "${OUR_VARIABLE}/x.parquet"])
def test_a_path_that_datasets_would_change_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setenv("OUR_VARIABLE", "value")
    tables(tmp_path, file)
    for name in (tmp_path / file, (tmp_path / file).parent):
        with pytest.raises(DataError, match=f"{re.escape(file)} holds an environment variable, .*; rename it"):
            open_all(str(name))
    monkeypatch.delenv("OUR_VARIABLE")
    assert opened(str(tmp_path / file)) == {"train": [0]}


def test_tables_may_lie_in_a_folder_that_datasets_passes_over(tmp_path: Path) -> None:
    assert opened(tables(tmp_path / "set", "__x/a.parquet", "__x/b.parquet")) == {"train": [0, 1]}


def test_a_folder_of_images_may_be_called_like_an_address(tmp_path: Path) -> None:
    for name in ("a::b", "http:"):
        save(tmp_path / name / "x.png", 5)
        assert opened(str(tmp_path / name)) == {"train": [5]}


def test_folders_may_be_reached_by_any_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with_metadata(tmp_path / "photos", ["train/1.png", "test/2.png"])
    tables(tmp_path / "tables", "train.parquet", "test.parquet")
    (tmp_path / "here").mkdir()
    (tmp_path / "link").symlink_to(".")
    monkeypatch.chdir(tmp_path / "here")
    for way in ("..", "../link", "../here/..", "../link/here/.."):
        assert opened(f"{way}/photos") == opened(f"{way}/tables") == {"train": [0], "test": [1]}
        assert opened(f"{way}/tables/test.parquet") == {"train": [1]}


def test_a_file_with_brackets_is_not_taken_for_another(tmp_path: Path) -> None:
    tables(tmp_path, "a1.parquet", "a[1].parquet")
    assert opened(str(tmp_path / "a[1].parquet")) == {"train": [1]}


def test_columns_of_views_hold_images(tmp_path: Path) -> None:
    save(tmp_path / "x.png", 6)
    columns = {"image": pa.array([png(5)]).cast(pa.binary_view()), "path": pa.array(["x.png"]).cast(pa.string_view())}
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as file, pa.ipc.new_file(file, pa.table(columns).schema) as writer:
        writer.write_table(pa.table(columns))
    name = str(tmp_path / "a.arrow")
    assert opened(name) == {"train": [5]}
    assert levels(open_all(name, image_column="path")["train"]) == [6]


@pytest.mark.parametrize("stored", [3, [1, 2], {"a": 1}])
def test_bytes_of_another_type_are_no_images(tmp_path: Path, stored: object) -> None:
    images = pa.StructArray.from_arrays([pa.array([stored]), pa.array(["a.png"])], ["bytes", "path"])
    pq.write_table(pa.table({"image": images}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="a.parquet cannot be loaded: .* cast .* to binary"):
        open_all(str(tmp_path / "a.parquet"))


def test_a_path_that_is_not_utf_8_spoils_at_most_its_row(tmp_path: Path) -> None:
    save(tmp_path / "a.png", 7)
    paths = pa.array([b"\xff.png", b"\xff.png", b"a.png"]).view(pa.string())
    images = pa.StructArray.from_arrays([pa.array([png(5), None, None]), paths], ["bytes", "path"])
    pq.write_table(pa.table({"image": images, "file": paths}), tmp_path / "a.parquet")
    for column, expected, unreadable in (("image", [5, 7], [1]), ("file", [7], [0, 1])):
        source = open_all(str(tmp_path / "a.parquet"), image_column=column)["train"]
        pixels, _, broken = read_images(source, range(3), image_size=(1, 1), num_channels=1)
        assert pixels.ravel().tolist() == expected and list(broken) == unreadable
        assert r"\xff.png" in str(broken[1])


def test_what_is_wrong_with_a_table_is_said(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").touch()
    with pytest.raises(DataError, match="empty.csv cannot be loaded: .*No columns to parse"):
        open_all(str(tmp_path / "empty.csv"))
    name = tables(tmp_path / "set", "a.parquet")
    pq.write_table(pa.table({"image": ["x.png"], "more": [1]}), tmp_path / "set" / "b.parquet")
    with pytest.raises(DataError, match="set cannot be loaded: (?!An error occurred)[^\n]*$"):
        open_all(name)


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
    assert levels(source) == [0, 1, 2, 3] and labels_of(source) == [0, 1, 0, 1]
    assert source.stored([2])[0].name == f"row 2 of {table_forms[form]}, split train"
