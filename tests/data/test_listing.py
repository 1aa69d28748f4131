"""Trees of images as listings on the disk: the rows of `open_all`, whatever files are called, in flat memory."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from tests.data.images import save, with_metadata
from tests.data.rows import assert_same, opened, row_columns, row_levels
from vqtok.data.entries import folder_entries
from vqtok.data.layout import FolderLayout, first_folder, split_group
from vqtok.data.opening import open_rows
from vqtok.data.rows import SIZE_COLUMN
from vqtok.errors import ConfigurationError, DataError

ROOT = Path(__file__).resolve().parents[2]


def tree(folder: Path, *names: str) -> Path:
    for level, name in enumerate(names):
        save(folder / name, level)
    return folder


def test_a_tree_is_the_rows_of_the_dataset_by_split_and_class(tmp_path: Path) -> None:
    folder = tree(tmp_path / "set", "in/train/b/1.png", "in/train/a/x/2.png", "in/val/a/3.png", "in/val/c/4.png")
    (folder / "notes.txt").touch()
    found = assert_same(folder, tmp_path / "plan")
    assert found.label_column == "label" and list(found.splits) == ["train", "validation"]
    assert found.splits["train"].kind == "listing" and found.splits["train"].features["label"].names == ["a", "b", "c"]
    assert row_columns(found.splits["validation"], ["label", "file_name"]) == {
        "label": [0, 2],
        "file_name": ["in/val/a/3.png", "in/val/c/4.png"],
    }
    only = opened(folder, tmp_path / "other", split="val")
    assert list(only.splits) == ["validation"] and row_levels(only.splits["validation"]) == [2, 3]


def test_names_may_hold_anything_that_is_utf_8(tmp_path: Path) -> None:
    names = [
        "a b.png",
        "new\nline.png",
        "\u00e4\u4e2d\U0001f600.jpg",
        "tab\t.webp",
        "{0..3}.png",
        "%20.png",
        "'\".png",
        "$HOME.png",
    ]
    folder = tree(tmp_path / "set", *names, *(f"{name}.d/{name}" for name in names))
    os.rename(save(folder / "caf.png"), os.path.join(os.fsencode(folder), b"caf\xe9.png"))
    os.mkfifo(folder / "pipe.png")
    (folder / "folder.png").mkdir()
    found = assert_same(folder, tmp_path / "plan")
    assert len(found.splits["train"]) == 16
    assert "left out as names that are not UTF-8: caf\\xe9.png" in found.notes


def test_a_listing_has_one_file_for_every_shard_with_the_size_of_every_image(tmp_path: Path) -> None:
    folder = tree(tmp_path / "set", *(f"{number:02d}.png" for number in range(11)))
    rows = opened(folder, tmp_path / "plan", shard_rows=4).splits["train"]
    assert [file.rows for file in rows.files] == [4, 4, 3] and all(file.sha256 for file in rows.files)
    listing = pa.ipc.open_stream(rows.files[1].path).read_all().to_pydict()
    assert listing[SIZE_COLUMN] == [(folder / f"{number:02d}.png").stat().st_size for number in range(4, 8)]
    assert listing["image"] == [{"bytes": None, "path": f"{number:02d}.png"} for number in range(4, 8)]
    assert SIZE_COLUMN not in rows.features
    Path(rows.files[0].path).unlink()  # one shard needs one file
    assert row_levels(rows, 4, 8) == [4, 5, 6, 7]
    again = opened(folder, tmp_path / "again", shard_rows=4).splits["train"]
    assert [file.sha256 for file in again.files] == [file.sha256 for file in rows.files]


def test_metadata_beside_images_becomes_columns(tmp_path: Path) -> None:
    with_metadata(tmp_path / "set", ["b.png", "a.png"], at="train/x")
    with_metadata(tmp_path / "set", ["c.png"], at="test")
    save(tmp_path / "set" / "train" / "x" / "unnamed.png")
    (tmp_path / "set" / "train" / "x" / "notes.txt").touch()
    found = assert_same(tmp_path / "set", tmp_path / "plan")
    assert row_columns(found.splits["train"], ["level", "file_name"]) == {
        "level": [0, 1],
        "file_name": ["train/x/b.png", "train/x/a.png"],
    }
    assert found.splits["train"].kind == "listing"
    file = tmp_path / "set" / "train" / "x" / "a.png"
    file.write_bytes(file.read_bytes() + b"x")
    (batch,) = found.splits["train"].read(0, 2, 2)
    with pytest.raises(DataError, match="train/x/a.png has changed"):
        batch.images[1].data()


def test_a_row_of_metadata_may_name_no_image_and_links_of_it_may_not_lead_out(tmp_path: Path) -> None:
    save(tmp_path / "private.png")
    save(tmp_path / "set" / "a.png", 3)
    (tmp_path / "set" / "b.png").symlink_to(tmp_path / "private.png")
    lines = ('{"file_name": "a.png", "bytes": 1}', '{"file_name": "b.png", "bytes": 2}')
    (tmp_path / "set" / "metadata.jsonl").write_text("\n".join(lines))
    rows = opened(tmp_path / "set", tmp_path / "plan").splits["train"]
    (batch,) = rows.read(0, 2, 2, ["bytes"])
    assert batch.columns.to_pydict() == {"bytes": [1, 2]} and row_levels(rows, 0, 1) == [3]
    with pytest.raises(DataError, match="leads out of the dataset's own folder"):
        batch.images[1].data()


def test_folders_that_hold_something_else_are_refused_as_ever(tmp_path: Path) -> None:
    tree(tmp_path / "set", "train/1.png", "test/2.png", "more/3.png")
    with pytest.raises(DataError, match="holds the splits test, train and also more; move those out"):
        open_rows(str(tmp_path / "set"), folder=tmp_path / "plan")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="holds no files; give a folder of images"):
        open_rows(str(tmp_path / "none"), folder=tmp_path / "plan")
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="cannot write"):
        open_rows(str(tree(tmp_path / "ok", "1.png")), folder=tmp_path / "file" / "plan")


def shared_folders(files: list[str]) -> str:
    """What `FolderLayout.shared` finds one by one, of all paths at once."""
    prefix = ""
    while len(tops := {first_folder(file, prefix) for file in files}) == 1:
        (top,) = tops
        if top is None or split_group(top) in ("train", "validation", "test"):
            break
        prefix = os.path.join(prefix, top, "")
    return prefix


def test_the_folders_of_paths_seen_one_by_one_are_those_of_all_at_once() -> None:
    draw = random.Random(0)
    for _ in range(3000):
        names = draw.sample(["a", "b", "train", "val", "Test", "dev"], draw.randint(1, 4))
        files = ["/".join([*draw.choices(names, k=draw.randint(0, 3)), "x.png"]) for _ in range(draw.randint(1, 5))]
        layout = FolderLayout(files)
        assert layout.shared == shared_folders(files), files
        assert layout.tops == {first_folder(file, layout.shared) for file in files}, files
        try:
            splits = layout.splits("set")
        except DataError:
            continue
        for prefix, folders in splits.values():
            below = [file for file in files if file.startswith(prefix)]
            assert folders == {first_folder(file, prefix) for file in below}, files


def test_a_folder_of_many_files_is_sorted_as_one_of_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vqtok.data.entries.RUN", 7)
    monkeypatch.setattr("vqtok.data.entries.BLOCK", 3)
    names = {random.Random(number).randbytes(3).hex() + "\u00e4" * (number % 3) for number in range(100)}
    for number, name in enumerate(sorted(names)):
        (tmp_path / name).mkdir() if number % 4 == 0 else (tmp_path / name).touch()
    (tmp_path / ".hidden").touch()
    (tmp_path / "link").symlink_to(tmp_path)
    found = list(folder_entries(tmp_path))
    folders = {name for name in names if (tmp_path / name).is_dir()}
    assert [name for _, name in found] == sorted(names - folders) + sorted({*folders, "link"})
    assert {name for kind, name in found if kind == "folder"} == folders and ("linked folder", "link") in found


LIST = """
import os, resource, sys
from pathlib import Path
from vqtok.data.opening import open_rows

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

root = Path(sys.argv[1])
open_rows(str(root / "few"), folder=root / "plan-few")
before = peak()
rows = open_rows(str(root / "many"), folder=root / "plan-many").splits["train"]
assert len(rows) == int(sys.argv[2]), len(rows)
print(peak() - before)
"""


@pytest.mark.slow
def test_listing_two_hundred_thousand_files_takes_little_more_memory_than_listing_few(tmp_path: Path) -> None:
    for name, count in (("few", 10_000), ("many", 200_000)):
        for number in range(count):
            folder = tmp_path / name / ("flat" if number % 2 else f"deep/{number % 97}")
            if number < 200:
                folder.mkdir(parents=True, exist_ok=True)
            os.close(os.open(folder / f"a rather long name of an image {number:09d}.png", os.O_CREAT | os.O_WRONLY))
            os.close(os.open(folder / f"a rather long name of an image {number:09d}.txt", os.O_CREAT | os.O_WRONLY))
    done = subprocess.run(
        [sys.executable, "-c", LIST, str(tmp_path), "200000"], cwd=ROOT, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr
    print("MiB over listing 10,000:", done.stdout)
    assert float(done.stdout) < 15  # lists of these paths take 70
