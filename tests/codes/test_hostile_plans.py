"""A codes folder that was begun by somebody else: its plan is believed in nothing that could do harm."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Command, vqtok
from tests.codes.test_failures import TOKENIZE, complaint, whole
from vqtok.codes.origin import _Dataset
from vqtok.data.paths import DatasetRoot
from vqtok.tokenizer import VQTokenizer

__all__ = ["vqtok", "whole"]

MINI = ("tokenize", "mnist-mini", "--split", "test", "--images", "--tokenizer", "tok", "--quiet", "--out")


def edit(place: str, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a plan and all digests of it, as whoever wants to deceive does."""
    path = Path(place, "plan.json")
    plan = json.loads(path.read_text())
    change(plan)
    content = {key: plan[key] for key in ("request", "codes", "splits")}
    text = json.dumps(content, sort_keys=True, ensure_ascii=False)
    plan["digest"] = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
    path.write_text(json.dumps(plan))
    for receipt in Path(place).glob("receipts/*/*.json"):
        receipt.write_text(json.dumps(json.loads(receipt.read_text()) | {"plan": plan["digest"]}))


def source(**entries: Any) -> Callable[[dict[str, Any]], object]:
    return lambda plan: plan["splits"][0]["source"].update(entries)


def split(**entries: Any) -> Callable[[dict[str, Any]], object]:
    return lambda plan: plan["splits"][0].update(entries)


def of_files(**entries: Any) -> Callable[[dict[str, Any]], object]:
    return lambda plan: [file.update(entries) for file in plan["splits"][0]["source"]["files"]]


DAMAGED = {
    "no source": split(source={}),
    "files that are no list": source(files=7),
    "files that are no objects": source(files=[7]),
    "a path that is no text": of_files(path=7),
    "a path out of the folder": of_files(path="../tok/config.json"),
    "a file of this machine": of_files(path="/etc/hostname"),
    "an address": of_files(path="http://127.0.0.1:9/x.arrow"),
    "text that is no Unicode": source(name="\ud800"),
    "rows in other files": of_files(rows=6),
    "fewer than no rows": of_files(rows=-1),
    "rows beyond number": lambda plan: (split(rows=10**30)(plan), of_files(rows=10**30)(plan)),
    "shards beyond number": lambda plan: (split(rows=3 * 10**12)(plan), of_files(rows=10**12)(plan)),
    "no image column": source(image_column="nothing"),
    "another folder": source(root={"folder": "/", "follow_links": True}),
    "columns of no type": split(columns={"file_name": {"_type": "Nothing"}}),
    "columns that are no objects": split(columns={"file_name": 7}),
    "columns of no Arrow type": split(added={"x": {"_type": "Value", "dtype": "nothing"}}),
    "a split in another folder": split(name="../x"),
    "a split of no name": split(name=""),
    "a split with a null byte": split(name="a\0b"),
    "a split that comes twice": lambda plan: plan["splits"].append(plan["splits"][0]),
}


@pytest.mark.parametrize("change", DAMAGED.values(), ids=DAMAGED.keys())
def test_plans_that_nobody_wrote_with_good_intent(
    vqtok: Command, whole: dict[str, bytes], change: Callable[[dict[str, Any]], object]
) -> None:
    shutil.copytree("whole/codes", "codes")
    edit("codes", change)
    Path("codes/train/data-00001-of-00003.arrow").unlink()
    before = {path: path.read_bytes() for path in Path(".").rglob("*") if path.is_file()}
    complaint(vqtok("inspect", "codes", "--verify"))
    complaint(vqtok(*TOKENIZE, "codes"))
    assert {path: path.read_bytes() for path in Path(".").rglob("*") if path.is_file()} == before


def test_a_plan_for_a_known_dataset_does_not_copy_images_of_this_machine(
    vqtok: Command, whole: dict[str, bytes], tmp_path: Path
) -> None:
    Path("private").mkdir()
    Image.fromarray(np.zeros((16, 16), dtype=np.uint8)).save("private/me.png")
    assert vqtok("tokenize", "private", "--images", "--tokenizer", "tok", "--quiet", "--out", "prepared")[0] == 0
    assert vqtok(*MINI, "codes")[0] == 0
    private = json.loads(Path("prepared/plan.json").read_text())["splits"]
    for path in Path("codes").glob("test/*"):
        path.unlink()
    shutil.copytree("prepared/plan/train", "codes/plan/train")
    edit("codes", lambda plan: plan.update(splits=private))
    assert f"reads {tmp_path}/private, which is no part of mnist-mini" in complaint(vqtok(*MINI, "codes"))
    assert not list(Path("codes").glob("*/data-*"))


def test_what_is_part_of_a_dataset_is_read_wherever_it_was_named_from(
    vqtok: Command, tiny_tokenizer: VQTokenizer, images_folder: Path
) -> None:
    """Each is stopped after its plan: what is missing then is made by a plan that was read."""
    tiny_tokenizer.save_pretrained("tok")
    Path("linked").symlink_to("images")
    Path("below").mkdir()
    for name in ("images", "linked", "below/../images", "./images/"):
        shutil.rmtree("codes", ignore_errors=True)
        tokenize = ("tokenize", name, "--tokenizer", "tok", "--out", "codes", "--quiet")
        assert vqtok(*tokenize)[0] == 0
        Path("codes/train/data-00000-of-00001.arrow").unlink()
        assert vqtok(*tokenize)[0] == 0


@pytest.mark.parametrize("name", ["org/MyImages", "org/MyImages@main"])
def test_what_is_part_of_a_dataset_on_the_hub(name: str) -> None:
    own = _Dataset(name)
    for path in (
        "hf://datasets/org/MyImages@0123/data/a.parquet",
        "/cache/datasets--org--MyImages/snapshots/0123/a.parquet",
        "/cache/org___my_images/default/0.0.0/0123/my_images-train.arrow",
    ):
        assert own.has(path)
    for path in (
        "hf://datasets/org/MyImages2@0123/a.parquet",
        "hf://datasets/org/MyImages@0123/../../other/a.parquet",
        "/cache/datasets--org--MyImages/../private/a.parquet",
        "/cache/a.parquet",
        "datasets--org--MyImages/a.parquet",
    ):
        assert not own.has(path)
    assert own.has_root(DatasetRoot("/cache/datasets--org--MyImages"))
    assert not own.has_root(DatasetRoot("/cache/datasets--org--MyImages", follow_links=True))
    assert not own.has_root(DatasetRoot("/cache"))
