"""Paths in a dataset lead below its own folder or nowhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features
from PIL import Image

from vqtok.data import open_all, read_images
from vqtok.errors import DataError


@pytest.fixture
def world(tmp_path: Path) -> Path:
    """A private image, and a dataset's folder with an image, a link to the private one and one to its own."""
    (tmp_path / "private").mkdir()
    (tmp_path / "set" / "below").mkdir(parents=True)
    Image.new("L", (4, 4), 99).save(tmp_path / "private" / "key.png")
    Image.new("L", (4, 4), 7).save(tmp_path / "set" / "below" / "mine.png")
    (tmp_path / "set" / "out.png").symlink_to(tmp_path / "private" / "key.png")
    (tmp_path / "set" / "in.png").symlink_to("below/mine.png")
    return tmp_path


ALLOWED = ["below/mine.png", "./below/../below/mine.png", "in.png", "{set}/below/mine.png"]
REFUSED = [
    ("{private}/key.png", "leads out of the dataset's own folder"),
    ("../private/key.png", "leads out of the dataset's own folder"),
    ("below/../../private/key.png", "leads out of the dataset's own folder"),
    ("out.png", "leads out of the dataset's own folder"),
    (".", "leads out of the dataset's own folder"),
    ("file:" + "//{private}/key.png", "is an address"),
    ("https://example.org/a.png", "is an address"),
    ("zip://a.png::{private}/a.zip", "is an address"),
    ("simplecache::{private}/key.png", "is an address"),
    ("a\0b.png", "is no path"),
]


def read(world: Path, form: str, path: str) -> tuple[list[int], dict[int, DataError]]:
    path = path.format(private=world / "private", set=world / "set")
    rows: dict[str, Any] = {"image": [{"bytes": None, "path": path}]}
    dataset = Dataset.from_dict(rows, features=Features({"image": datasets.Image(decode=False)}))
    file = world / "set" / f"rows.{form}"
    if form == "parquet":
        pq.write_table(dataset.data.table, file)  # to_parquet would put the files in
    else:
        Dataset.from_dict({"image": [path]}).to_json(file)
    source = open_all(str(file))["train"]
    pixels, _, broken = read_images(source, [0], image_size=(1, 1), num_channels=1)
    return pixels.ravel().tolist(), broken


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
@pytest.mark.parametrize("path", ALLOWED)
def test_paths_below_the_folder_are_followed(world: Path, form: str, path: str) -> None:
    assert read(world, form, path) == ([7], {})


@pytest.mark.parametrize("form", ["parquet", "jsonl"])
@pytest.mark.parametrize(("path", "reason"), REFUSED)
def test_paths_that_lead_elsewhere_are_unreadable_rows(world: Path, form: str, path: str, reason: str) -> None:
    pixels, broken = read(world, form, path)
    assert pixels == [] and reason in str(broken[0]) and "is not read" in str(broken[0])


def test_the_folder_itself_may_be_behind_a_link(world: Path) -> None:
    (world / "link").symlink_to("set")
    Dataset.from_dict({"image": ["below/mine.png", "{set}/below/mine.png".format(set=world / "set")]}).to_csv(
        world / "set" / "rows.csv"
    )
    source = open_all(str(world / "link" / "rows.csv"))["train"]
    pixels, _, broken = read_images(source, [0, 1], image_size=(1, 1), num_channels=1)
    assert pixels.ravel().tolist() == [7, 7] and broken == {}


def test_a_readme_that_names_files_elsewhere_is_refused(world: Path) -> None:
    Dataset.from_dict({"image": ["below/mine.png"]}).to_csv(world / "private" / "rows.csv")
    for file in ("below/mine.png", "out.png", "in.png"):
        (world / "set" / file).unlink()
    (world / "set" / "rows.csv").write_text("image\nbelow/mine.png\n")
    for given in ("../private/rows.csv", str(world / "private" / "rows.csv")):
        (world / "set" / "README.md").write_text(f"---\nconfigs:\n- config_name: a\n  data_files: {given}\n---\n")
        with pytest.raises(DataError, match="which is not its own|cannot be loaded"):
            open_all(str(world / "set"))


def test_links_in_a_folder_of_images_are_the_users_own(world: Path) -> None:
    source = open_all(str(world / "set"))["train"]
    pixels, good, broken = read_images(source, range(3), image_size=(1, 1), num_channels=1)
    assert [source.dataset["file_name"][index] for index in good] == ["in.png", "out.png", "below/mine.png"]
    assert pixels.ravel().tolist() == [7, 99, 7] and broken == {}
