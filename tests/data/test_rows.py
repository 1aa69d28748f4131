"""Rows of files as they lie: the same rows in the same order as `open_all`, in any range, from any process."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import datasets
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value

from tests.data.images import digits, flat, png, save, with_metadata, write_tar
from tests.data.rows import assert_same, opened, row_columns, row_levels
from vqtok.data.opening import open_rows
from vqtok.data.rows import Rows
from vqtok.errors import ConfigurationError, DataError

ROOT = Path(__file__).resolve().parents[2]


def cells(levels: range) -> pa.Array:
    return pa.array([{"bytes": png(level), "path": f"{level}.png"} for level in levels])


def parquet(file: Path, levels: range, *, group: int = 3) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    columns = {"image": cells(levels), "level": pa.array(levels, pa.int64()), "unused": [b"x" * 100] * len(levels)}
    pq.write_table(pa.table(columns), file, row_group_size=group)
    return file


def arrow(file: Path, levels: range, *, batch: int = 3, as_file: bool = False) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    table = pa.table({"image": cells(levels), "level": pa.array(levels, pa.int64())})
    with (pa.ipc.new_file if as_file else pa.ipc.new_stream)(file, table.schema) as writer:
        writer.write_table(table, max_chunksize=batch)
    return file


def tar(file: Path, levels: range) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    members = {}
    for level in levels:
        members[f"a/{level:03d}.{'png' if level % 2 else 'JPEG'}"] = png(level)
        members[f"a/{level:03d}.cls"] = str(level % 3).encode()
        members[f"a/{level:03d}.json"] = json.dumps({"caption": f"number {level}"}).encode()
    write_tar(file, members)
    return file


def make(kind: str, folder: Path, counts: tuple[int, ...] = (7, 1, 5)) -> Path:
    """Files of one kind with the levels 0, 1, 2, ... over all of them."""
    start = 0
    for number, count in enumerate(counts):
        levels = range(start, start + count)
        if kind == "parquet":
            parquet(folder / f"{number}.parquet", levels)
        elif kind == "tar":
            tar(folder / f"{number}.tar", levels)
        else:
            arrow(folder / f"{number}.arrow", levels, as_file=kind == "arrow file")
        start += count
    return folder


KINDS = ["parquet", "arrow", "arrow file", "tar"]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_of_files_are_those_of_the_dataset(tmp_path: Path, kind: str) -> None:
    found = assert_same(make(kind, tmp_path / "set"), tmp_path / "plan")
    assert found.splits["train"].kind == kind.split()[0]
    assert [file.rows for file in found.splits["train"].files] == [7, 1, 5]
    assert not (tmp_path / "plan").exists()  # nothing is copied


@pytest.mark.parametrize("kind", KINDS)
def test_any_range_is_read_whatever_file_or_row_group_it_begins_in(tmp_path: Path, kind: str) -> None:
    rows = opened(make(kind, tmp_path / "set"), tmp_path / "plan").splits["train"]
    for start in range(len(rows) + 1):
        for stop in range(start, len(rows) + 1):
            assert row_levels(rows, start, stop, size=1 + (start + stop) % 5) == [*range(start, stop)]
    batches = list(rows.read(2, 13, 4))
    assert [(batch.start, len(batch)) for batch in batches] == [(2, 4), (6, 4), (10, 3)]


@pytest.mark.parametrize("kind", ["arrow", "arrow file", "tar"])
def test_reading_begins_at_the_mark_before_a_range(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqtok.data.row_files.MARK_ROWS", 5)
    rows = opened(make(kind, tmp_path / "set", (40,)), tmp_path / "plan").splits["train"]
    ((file),) = rows.files
    assert len(file.marks) in (7, 8) and file.marks[0][0] == 0
    if kind != "arrow file":  # pyarrow writes a table of contents at its end, but the schema at its beginning
        content = bytearray(Path(file.path).read_bytes())
        begin = file.marks[0][1]
        content[begin : file.marks[-1][1]] = bytes(file.marks[-1][1] - begin)  # what lies before is not looked at
        Path(file.path).write_bytes(content)
    assert row_levels(rows, file.marks[-1][0], 40) == [*range(file.marks[-1][0], 40)]


def test_a_tar_reads_and_decodes_only_the_columns_asked_for(tmp_path: Path) -> None:
    members = {}
    for level in range(7):
        members |= {f"{level}.json": b"{}" if level < 6 else b"no json", f"{level}.Png": png(level)}
        members[f"{level}.cls"] = str(level).encode()
    members["7.json"] = b"{}"
    write_tar(tmp_path / "a.tar", members)
    rows = opened(tmp_path / "a.tar", tmp_path / "plan").splits["train"]
    assert len(rows) == 8 and row_levels(rows, 0, 7) == [*range(7)]
    assert row_columns(rows, ["cls"]) == {"cls": [0, 1, 2, 3, 4, 5, 6, None]}
    with pytest.raises(DataError, match="a.tar cannot be read: Expecting value.*; the plan saw .* with 8 rows"):
        row_columns(rows, ["json"])


def test_only_the_columns_asked_for_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = opened(make("parquet", tmp_path / "set"), tmp_path / "plan").splits["train"]
    asked = []
    iter_batches = pq.ParquetFile.iter_batches

    def spy(self: pq.ParquetFile, *arguments: object, **options: object) -> object:
        asked.append(options["columns"])
        return iter_batches(self, *arguments, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", spy)
    assert row_columns(rows, ["level"]) == {"level": [*range(13)]}
    assert asked == [["image", "level"]] * 3


@pytest.mark.parametrize("kind", ["parquet", "tar"])
def test_of_large_images_few_are_read_at_a_time(tmp_path: Path, kind: str) -> None:
    """Arrow hands on no more than 2 GB of a nested column at a time, and so refused photographs of 9 MB."""
    size, number = 4 << 20, 40
    if kind == "parquet":
        table = pa.table({"image": [{"bytes": png(3) + bytes(size), "path": None}] * number})
        pq.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False)
    else:
        write_tar(tmp_path / "a.tar", {f"{row}.png": png(3) + bytes(size) for row in range(number)})
    rows = opened(tmp_path / f"a.{kind}", tmp_path / "plan").splits["train"]
    tables = [table.num_rows for table in rows.table.read(0, number, ["image"])]
    assert sum(tables) == number and max(tables) * size <= 64 << 20


def test_one_value_that_every_row_refers_to_is_not_read_as_often_at_once(tmp_path: Path) -> None:
    """A file of a few kilobytes would be gigabytes."""
    size, number = 8 << 20, 100
    table = pa.table({"image": [{"bytes": png(3) + bytes(size), "path": None}] * number})
    file = tmp_path / "a.parquet"
    pq.write_table(table, file, compression="zstd", use_dictionary=True, dictionary_pagesize_limit=1 << 30)
    assert file.stat().st_size < 20_000
    rows = opened(file, tmp_path / "plan").splits["train"]
    tables = [table.num_rows for table in rows.table.read(0, number, ["image"])]
    assert sum(tables) == number and max(tables) * size <= 64 << 20


def test_several_splits_and_the_one_asked_for(tmp_path: Path) -> None:
    for kind in ("parquet", "tar"):
        make(kind, tmp_path / kind / "train")
        make(kind, tmp_path / kind / "val", (2,))
        found = assert_same(tmp_path / kind, tmp_path / "plan")
        assert list(found.splits) == ["train", "validation"]
        (tmp_path / kind / "train" / f"1.{kind}").write_bytes(b"broken")  # and not looked at
        only = opened(tmp_path / kind, tmp_path / "plan", split="valid")
        assert {split: row_levels(rows) for split, rows in only.splits.items()} == {"validation": [0, 1]}
        with pytest.raises(DataError, match="has no split tset; found: train, validation"):
            open_rows(str(tmp_path / kind), folder=tmp_path / "plan", split="tset")


def test_what_save_to_disk_wrote_is_read_in_place(tmp_path: Path) -> None:
    splits = DatasetDict({"train": digits(5, label=[*range(5)]), "test": digits(3, label=[7, 8, 9])})
    splits.save_to_disk(tmp_path / "set", num_shards={"train": 2, "test": 1})
    found = assert_same(tmp_path / "set", tmp_path / "plan")
    assert [file.rows for file in found.splits["train"].files] == [3, 2] and not (tmp_path / "plan").exists()
    digits(4).save_to_disk(tmp_path / "one")
    assert_same(tmp_path / "one", tmp_path / "plan")


def test_small_things_are_written_into_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for level in range(5):
        save(folder / f"{level}.png", level)
    (folder / "train.csv").write_text("image,caption\n" + "".join(f"{level}.png,c{level}\n" for level in range(5)))
    os.rename(folder, tmp_path / "images")
    (tmp_path / "set").mkdir()
    os.rename(tmp_path / "images", folder / ".hidden")
    text = "image,caption\n" + "".join(f".hidden/{level}.png,c{level}\n" for level in range(5))
    (folder / "train.csv").write_text(text)
    found = assert_same(folder, tmp_path / "plan", image_column="image")
    assert row_levels(found.splits["train"]) == [0, 1, 2, 3, 4]
    assert Path(found.splits["train"].files[0].path) == tmp_path / "plan" / "train" / "00000.arrow"
    (folder / "train.jsonl").write_text('{"image": ".hidden/3.png"}\n')
    (folder / "train.csv").unlink()
    assert row_levels(assert_same(folder, tmp_path / "plan2", image_column="image").splits["train"]) == [3]
    sample = assert_same("mnist-mini", tmp_path / "plan3")
    assert (sample.label_column, len(sample.splits["test"])) == ("label", 2000)


def test_columns_of_the_image_may_be_bytes_or_views(tmp_path: Path) -> None:
    for number, kind in enumerate([pa.binary(), pa.large_binary(), pa.binary_view()]):
        folder = tmp_path / str(number)
        folder.mkdir()
        table = pa.table({"image": pa.array([png(1), png(2)], kind), "text": pa.array(["a", "b"], pa.string_view())})
        with pa.ipc.new_file(folder / "a.arrow", table.schema) as writer:
            writer.write_table(table)
        rows = opened(folder, tmp_path / "plan").splits["train"]
        assert row_levels(rows) == [1, 2] and row_columns(rows, ["text"]) == {"text": ["a", "b"]}


def test_tables_without_a_column_that_others_have_hold_nulls_and_other_columns_are_refused(tmp_path: Path) -> None:
    parquet(tmp_path / "set" / "a.parquet", range(3))
    pq.write_table(pa.table({"image": cells(range(3, 5))}), tmp_path / "set" / "b.parquet")
    rows = assert_same(tmp_path / "set", tmp_path / "plan").splits["train"]
    assert row_columns(rows, ["level"]) == {"level": [0, 1, 2, None, None]}
    pq.write_table(pa.table({"image": cells(range(3, 5)), "more": [1, 2]}), tmp_path / "set" / "b.parquet")
    with pytest.raises(DataError, match="b.parquet has other columns than"):
        open_rows(str(tmp_path / "set"), folder=tmp_path / "plan")


def test_labels_are_found_by_the_types_of_columns(tmp_path: Path) -> None:
    features = Features({"image": datasets.Image(), "kind": ClassLabel(names=["a", "b"]), "x": Value("int64")})
    values = {"image": [flat("L", 1), flat("L", 2)], "kind": [0, 1], "x": [1, 2]}
    (tmp_path / "set").mkdir()
    Dataset.from_dict(values, features=features).to_parquet(tmp_path / "set" / "a.parquet")
    found = assert_same(tmp_path / "set", tmp_path / "plan")
    assert found.label_column == "kind" and found.splits["train"].features["kind"].names == ["a", "b"]


def test_patterns_name_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make("tar", tmp_path / "shards", (2, 3, 1, 2))
    monkeypatch.chdir(tmp_path)
    for pattern, levels in {
        "./shards/{0..2}.tar": range(6),
        "shards/{1,3}.tar": [2, 3, 4, 6, 7],
        "shards/*.tar": range(8),
        "**/[01].tar": range(5),
    }.items():
        found = assert_same(pattern, tmp_path / "plan")
        assert row_levels(found.splits["train"]) == [*levels]
        assert found.resolved == str(tmp_path / "shards")
    for pattern, why in {
        "shards/{0..9}.tar": "names a file that is not there: shards/4.tar",
        "shards/*.rat": "there is no file shards/\\*.rat; a pattern must match",
        "{0..99}{0..999999}.tar": "stand for more than 1,000,000 names",
    }.items():
        with pytest.raises(DataError, match=why):
            open_rows(pattern, folder=tmp_path / "plan")
    (tmp_path / "shards" / "notes.txt").touch()
    with pytest.raises(DataError, match="a pattern must match only files of rows .* matches notes.txt"):
        open_rows("shards/*", folder=tmp_path / "plan")


def test_rows_are_pickled_and_moved_with_their_folder(tmp_path: Path) -> None:
    with_metadata(tmp_path / "images", ["a.png", "b.png"])
    rows = opened(tmp_path / "images", tmp_path / "plan").splits["train"]
    assert row_levels(pickle.loads(pickle.dumps(rows))) == [0, 1]
    described = rows.to_json(tmp_path / "plan")
    assert described["files"][0]["path"] == "train/00000.arrow"
    os.rename(tmp_path / "plan", tmp_path / "elsewhere")
    assert row_levels(Rows.from_json(described, tmp_path / "elsewhere")) == [0, 1]
    assert row_levels(Rows.from_json(described, f"local://{tmp_path}/elsewhere")) == [0, 1]
    with pytest.raises(DataError, match="what the plan saw: .* with 2 rows then, no file now"):
        row_levels(rows)


def test_opening_in_another_process_reads_and_lists_nothing(tmp_path: Path) -> None:
    rows = opened(make("parquet", tmp_path / "set"), tmp_path / "plan").splits["train"]
    (tmp_path / "rows.json").write_text(json.dumps(rows.to_json()))
    code = """
import json, sys
from vqtok.data.rows import Rows
opened = []
looks = ("open", "os.scandir", "os.listdir")
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event in looks else None)
rows = Rows.from_json(json.load(open(sys.argv[1])))
assert len(rows) == 13 and not [path for path in opened if path.endswith("parquet") or path.endswith("set")], opened
print([batch.start for batch in rows.read(5, 13, 4)])
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "rows.json")], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "[5, 9]\n", done.stderr


@pytest.mark.parametrize(
    "change", [{"kind": "csv"}, {"files": [{"bytes": 3}]}, {"features": {"image": 3}}, {"root": 3}]
)
def test_a_damaged_description_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    described = opened(make("parquet", tmp_path / "set"), tmp_path / "plan").splits["train"].to_json()
    with pytest.raises(DataError, match="description of rows|of the kind csv"):
        Rows.from_json({**described, **change})


def test_a_range_or_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    rows = opened(make("parquet", tmp_path / "set"), tmp_path / "plan").splits["train"]
    with pytest.raises(DataError, match="has 13 rows, asked for 3 to 14"):
        next(rows.read(3, 14, 2))
    for column in ("image", "nothing"):
        with pytest.raises(DataError, match=f"has no column {column} beside its images"):
            next(rows.read(0, 3, 2, [column]))


def test_an_image_that_is_missing_or_leads_elsewhere_is_that_image_alone(tmp_path: Path) -> None:
    save(tmp_path / "private.png", 9)
    (tmp_path / "set").mkdir()
    images = [{"bytes": png(1), "path": None}, None, {"bytes": None, "path": "../private.png"}]
    pq.write_table(pa.table({"image": pa.array(images)}), tmp_path / "set" / "a.parquet")
    rows = opened(tmp_path / "set", tmp_path / "plan").splits["train"]
    (batch,) = rows.read(0, 3, 10)
    assert isinstance(batch.images[0].data(), bytes)
    with pytest.raises(DataError, match=r"row 1 of .*, split train holds no image in the column image"):
        batch.images[1].data()
    with pytest.raises(DataError, match="leads out of the dataset's own folder"):
        batch.images[2].data()


def test_a_row_of_a_tar_is_named_by_its_key(tmp_path: Path) -> None:
    members = {f"x/{number}.{'jpeg' if number % 2 else 'JPG'}": png(number) for number in range(5)}
    write_tar(tmp_path / "a.tar", {**members, "x/5.cls": b"3"})
    rows = opened(tmp_path / "a.tar", tmp_path / "plan").splits["train"]
    (batch,) = rows.read(3, 6, 10)
    assert [image.name.split(", ")[1] for image in batch.images] == [
        "split train (x/3.image)",
        "split train (x/4.image)",
        "split train (x/5)",
    ]


def test_files_at_an_address_are_read_there(tmp_path: Path) -> None:
    system = fsspec.filesystem("memory")
    for kind in ("parquet", "tar", "arrow"):
        for split, counts in (("train", (7, 1)), ("test", (3,))):
            make(kind, tmp_path / kind / split, counts)
        system.put(str(tmp_path / kind), f"/bucket/{kind}", recursive=True)
        local = opened(tmp_path / kind, tmp_path / "plan")
        for name in (f"memory://bucket/{kind}", f"memory://bucket/{kind}/**/[0-9].{kind}"):
            found = opened(name, tmp_path / "plan")
            assert {split: row_levels(rows, 1) for split, rows in found.splits.items()} == {
                "train": [*range(1, 8)],
                "test": [1, 2],
            }
            for split, rows in found.splits.items():
                assert rows.features == local.splits[split].features
                assert [file.marks for file in rows.files] == [file.marks for file in local.splits[split].files]
        only = opened(f"memory://bucket/{kind}/train/1.{kind}", tmp_path / "plan").splits["train"]
        assert row_levels(only) == [7] and only.root.folder is None
        system.pipe(f"/bucket/{kind}/train/1.{kind}", b"x")
        with pytest.raises(DataError, match=f"memory:/.*/train/1.{kind} is not what the plan saw: .*, 1 byte now"):
            row_levels(only)
        system.rm(f"/bucket/{kind}/train/1.{kind}")
        with pytest.raises(DataError, match=f"memory:/.*/train/1.{kind} is not what the plan saw: .*, no file now"):
            row_levels(only)
    with pytest.raises(DataError, match="there is no file memory://bucket/none"):
        open_rows("memory://bucket/none", folder=tmp_path / "plan")
    with pytest.raises(ConfigurationError, match="cannot be opened: .*nosuch"):
        open_rows("nosuch://bucket/a.tar", folder=tmp_path / "plan")
