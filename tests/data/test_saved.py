"""What save_to_disk wrote is read as it is, and never what its files say lies elsewhere."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset, DatasetDict, Features
from PIL import Image

from vqtok.codes import load_codes, tokenize_dataset
from vqtok.data import open_all
from vqtok.errors import DataError
from vqtok.tokenizer import VQTokenizer


def images(count: int = 2, **columns: list[Any]) -> Dataset:
    features = Features({"image": datasets.Image(), **{name: datasets.Value("string") for name in columns}})
    return Dataset.from_dict({"image": [Image.new("L", (16, 16))] * count, **columns}, features=features)


def rewrite(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A private dataset, and beside it one in `set` and one of two splits in `splits`."""
    images(3, secret=["a", "b", "c"]).save_to_disk(tmp_path / "private")
    images().save_to_disk(tmp_path / "set")
    shutil.copy(tmp_path / "private" / "dataset_info.json", tmp_path / "set")
    DatasetDict({"train": images(), "test": images()}).save_to_disk(tmp_path / "splits")
    return tmp_path


def of_a_file(world: Path, path: str) -> Path:
    rewrite(world / "set" / "state.json", _data_files=[{"filename": path.format(world=world)}])
    return world / "set"


def of_a_split(world: Path, path: str) -> Path:
    rewrite(world / "splits" / "dataset_dict.json", splits=["train", path.format(world=world)])
    return world / "splits"


def of_a_linked_file(world: Path, path: str) -> Path:
    (world / "set" / "data-00000-of-00001.arrow").unlink()
    (world / "set" / "data-00000-of-00001.arrow").symlink_to(path.format(world=world))
    return world / "set"


def of_a_linked_split(world: Path, path: str) -> Path:
    (world / "splits" / "more").symlink_to(path.format(world=world))
    return of_a_split(world, "more")


ARROW = "private/data-00000-of-00001.arrow"
ELSEWHERE = [
    (of_a_file, f"../{ARROW}"),
    (of_a_file, f"{{world}}/{ARROW}"),
    (of_a_file, "a\0b"),
    (of_a_split, "../private"),
    (of_a_split, "{world}/private"),
    (of_a_split, "train/../../private"),
    (of_a_split, ".."),
    (of_a_split, "."),
    (of_a_linked_file, f"{{world}}/{ARROW}"),
    (of_a_linked_split, "{world}/private"),
]


def test_a_split_that_names_splits_of_its_own_is_refused(world: Path) -> None:
    for name in ("state.json", "dataset_info.json"):
        (world / "splits" / "train" / name).unlink()
    (world / "splits" / "train" / "dataset_dict.json").write_text('{"splits": ["../../private"]}')
    with pytest.raises(DataError, match="cannot be loaded: No such file"):
        open_all(str(world / "splits"))


@pytest.mark.parametrize(("make", "path"), ELSEWHERE)
def test_what_lies_elsewhere_is_neither_read_nor_written(
    world: Path, make: Callable[[Path, str], Path], path: str, tiny_tokenizer: VQTokenizer
) -> None:
    folder = make(world, path)
    before = sorted(world.rglob("*"))
    for read in (
        lambda: open_all(str(folder)),
        lambda: load_codes(folder),
        lambda: tokenize_dataset(folder, tiny_tokenizer, world / "codes", progress=False),
    ):
        with pytest.raises(DataError, match="is not read: .* (leads out of|is no path|is not the name of a folder)"):
            read()
    assert sorted(world.rglob("*")) == before


def test_links_into_the_hubs_cache_are_its_own_files(world: Path) -> None:
    snapshot = world / "cache" / "snapshots" / "abc"
    snapshot.parent.mkdir(parents=True)
    shutil.copytree(world / "splits", snapshot)
    for file in list(snapshot.rglob("*.arrow")):
        blob = world / "cache" / "blobs" / file.parent.name
        blob.parent.mkdir(exist_ok=True)
        file.rename(blob)
        file.symlink_to(blob)
    assert {split: len(source) for split, source in open_all(str(snapshot)).items()} == {"train": 2, "test": 2}


def test_a_snapshot_of_the_hub_names_no_split_above_itself(world: Path) -> None:
    """Though its files may lie there, in the folder of its repository."""
    snapshots = world / "repository" / "snapshots"
    shutil.copytree(world / "set", snapshots, dirs_exist_ok=True)
    shutil.copytree(world / "splits", snapshots / "commit")
    rewrite(snapshots / "commit" / "dataset_dict.json", splits=[".."])
    with pytest.raises(DataError, match="not the name of a folder in it"):
        open_all(str(snapshots / "commit"))


def test_a_stream_without_its_end_is_refused(world: Path) -> None:
    """To `datasets` it is one of fewer rows."""
    file = world / "set" / "data-00000-of-00001.arrow"
    whole = file.read_bytes()
    (length,) = struct.unpack_from("<i", whole, 4)
    for size in (8 + length, len(whole) - 8, 3, 0):  # of its schema alone; without the mark alone
        file.write_bytes(whole[:size])
        for read in (lambda: open_all(str(world / "set")), lambda: load_codes(world / "set")):
            with pytest.raises(DataError, match=r"data-00000-of-00001.arrow was cut short or not finished"):
                read()


@pytest.mark.parametrize("content", ["[]", "{}", '{"splits": 1}', '{"splits": [1]}', "{", '{"_data_files": [1]}'])
def test_damaged_descriptions_are_one_line(world: Path, content: str) -> None:
    (world / "splits" / "dataset_dict.json").write_text(content)
    (world / "set" / "state.json").write_text(content)
    for folder in (world / "set", world / "splits"):
        for read in (lambda: open_all(str(folder)), lambda: load_codes(folder)):  # noqa: B023
            with pytest.raises(DataError, match=f"^[^\n]*{folder}[^\n]*$"):
                read()
