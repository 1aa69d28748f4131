"""What can go wrong between two runs: one clear line each, what was whole stays whole, and the next run goes on."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import datasets
import pytest

from tests.cli.conftest import Command, vqtok
from tests.written_codes import contents
from vqtok import store as stores
from vqtok.codes import load_codes, verify_codes
from vqtok.tokenizer import VQTokenizer

__all__ = ["vqtok"]

TOKENIZE = ("tokenize", "images", "--tokenizer", "tok", "--shard-rows", 5, "--quiet", "--out")


@pytest.fixture
def whole(vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer) -> dict[str, bytes]:
    """The files of an undisturbed run, which is in `whole/codes`; images and tokenizer are in the working folder."""
    tiny_tokenizer.save_pretrained("tok")
    assert vqtok(*TOKENIZE, "whole/codes")[0] == 0
    return contents(Path("whole/codes"))


def complaint(answer: tuple[int, str, str], status: int = 2) -> str:
    """The one line of a command that failed."""
    found, _, complained = answer
    assert found == status and complained.startswith("vqtok: error: ") and complained.count("\n") == 1, complained
    return complained.removeprefix("vqtok: error: ").strip()


@pytest.mark.parametrize(
    "file",
    ["codes.json", "README.md", "plan/train/00001.arrow", "plan.json", "train/data-00001-of-00003.arrow"]
    + ["receipts/train/00001.json", "bad_images.parquet", "train/state.json", "dataset_dict.json"],
)
def test_a_disk_that_is_full_at_any_file(
    vqtok: Command, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    write = stores.write_bytes

    def write_half(path: Path, data: bytes) -> int:
        with path.open("wb") as half:
            half.write(bytes(data)[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def full(path: Path, data: bytes, **options: Any) -> None:
        with monkeypatch.context() as patch:
            if path.as_posix().endswith(f"codes/{file}"):
                patch.setattr(Path, "write_bytes", write_half)
            write(path, data, **options)

    with monkeypatch.context() as patch:
        patch.setattr(stores, "write_bytes", full)
        said = complaint(vqtok(*TOKENIZE, "codes"))
    assert said == f"the disk is full: codes/{file} was not written; free some space or choose another folder"
    assert [path for path in Path("codes").rglob(".*")] == []
    done = [path for path in Path("codes").rglob("data-*") if path.read_bytes() != whole[f"train/{path.name}"]]
    assert done == []
    if file != "dataset_dict.json":  # all but `load_from_disk` reads the codes without it
        complaint(vqtok("inspect", "codes"))
    assert vqtok(*TOKENIZE, "codes")[0] == 0
    assert contents(Path("codes")) == whole


def test_a_disk_that_is_really_full(vqtok: Command, whole: dict[str, bytes], mount: Path) -> None:
    size = sum(len(data) for name, data in whole.items()) // 4096 + len(whole)  # pages, about
    for pages in range(8, size, 3):
        subprocess.run(["mount", "-o", f"remount,size={4096 * pages}", mount], check=True)
        assert "the disk is full" in complaint(vqtok(*TOKENIZE, mount / "codes"))
    subprocess.run(["mount", "-o", "remount,size=1g", mount], check=True)
    assert vqtok(*TOKENIZE, mount / "codes")[0] == 0
    assert contents(mount / "codes") == whole


def test_a_mount_point_is_a_place_like_any_other(vqtok: Command, whole: dict[str, bytes], mount: Path) -> None:
    for more in ((), (), ("--overwrite",)):
        assert vqtok(*TOKENIZE, mount, *more)[0] == 0
    assert {name: data for name, data in contents(mount).items() if name != "README.md"} == {
        name: data for name, data in whole.items() if name != "README.md"
    }


def test_a_place_that_cannot_be_written(vqtok: Command, whole: dict[str, bytes], mount: Path) -> None:
    assert vqtok(*TOKENIZE, mount / "codes")[0] == 0
    os.remove(mount / "codes/train/data-00001-of-00003.arrow")
    subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
    for place in (mount / "codes", mount / "new", mount):
        assert "Read-only file system" in complaint(vqtok(*TOKENIZE, place)) or place == mount
    subprocess.run(["mount", "-o", "remount,rw", mount], check=True)
    assert vqtok(*TOKENIZE, mount / "codes")[0] == 0
    assert contents(mount / "codes") == whole


def cut(file: str) -> None:
    path = Path("codes", file)
    path.write_bytes(path.read_bytes()[:-20])


def test_a_shard_that_was_cut_short_is_made_again(vqtok: Command, whole: dict[str, bytes]) -> None:
    shutil.copytree("whole/codes", "codes")
    cut("train/data-00001-of-00003.arrow")
    before = {path: path.stat().st_mtime_ns for path in Path("codes").rglob("data-*")}
    assert vqtok(*TOKENIZE, "codes")[0] == 0
    assert contents(Path("codes")) == whole
    changed = [path.name for path, when in before.items() if path.stat().st_mtime_ns != when]
    assert changed == ["data-00001-of-00003.arrow"]


@pytest.mark.parametrize(
    ("damage", "says", "remedy"),
    [
        ("cut receipts/train/00001.json", "receipts/train/00001.json is damaged", "receipts/train/00001.json"),
        ("cut plan.json", "plan.json is damaged", "--overwrite"),
        ("edit plan.json", "plan.json was edited: its digest is that of another plan", "--overwrite"),
        ("cut codes.json", "delete it and run the same again, which writes it anew", "codes.json"),
        ("edit codes.json", "codes.json was edited, and tells of other codes than plan.json", "codes.json"),
        ("cut plan/train/00001.arrow", "00001.arrow is not what the plan saw", "--overwrite"),
        ("turn plan/train/00001.arrow", "00001.arrow is not what the plan saw", "--overwrite"),
        ("remove plan/train/00001.arrow", "no file now", "--overwrite"),
    ],
)
def test_what_somebody_damaged(vqtok: Command, whole: dict[str, bytes], damage: str, says: str, remedy: str) -> None:
    shutil.copytree("whole/codes", "codes")
    what, name = damage.split()
    file = Path("codes", name)
    data = file.read_bytes()
    if what == "cut":
        cut(name)
    elif what == "edit":
        file.write_bytes(data.replace(b'"codebook_size": 16', b'"codebook_size": 17'))
    elif what == "turn":
        file.write_bytes(data.replace(b"cat/10.png", b"cat/11.png"))
        assert file.read_bytes() != data
    else:
        file.unlink()
    if name.startswith("plan/"):
        Path("codes/train/data-00001-of-00003.arrow").unlink()  # else nothing needs the listing
    others = {path: path.read_bytes() for path in Path("codes").rglob("data-*")}
    assert says in complaint(vqtok(*TOKENIZE, "codes"))
    assert {path: path.read_bytes() for path in Path("codes").rglob("data-*")} == others
    if remedy != "--overwrite":
        Path("codes", remedy).unlink()
    assert vqtok(*TOKENIZE, "codes", *([remedy] if remedy == "--overwrite" else []))[0] == 0
    assert contents(Path("codes")) == whole and verify_codes("codes").wrong == ()


@pytest.mark.parametrize("how", ["gone", "empty"])
def test_images_whose_disk_is_gone_are_not_taken_for_bad(vqtok: Command, whole: dict[str, bytes], how: str) -> None:
    shutil.copytree("whole/codes", "codes")
    Path("codes/train/data-00001-of-00003.arrow").unlink()
    Path("images").rename("elsewhere")
    if how == "empty":
        Path("images").mkdir()
    said = complaint(vqtok(*TOKENIZE, "codes", "--max-bad-share", 1))
    assert said.startswith("the folder ") and said.endswith("put the images back, or mount their disk, and run again")
    if how == "empty":
        Path("images").rmdir()
    Path("elsewhere").rename("images")
    assert vqtok(*TOKENIZE, "codes")[0] == 0
    assert contents(Path("codes")) == whole


def test_images_that_changed_are_named_and_new_ones_wait_for_another_plan(
    vqtok: Command, whole: dict[str, bytes]
) -> None:
    shutil.copytree("whole/codes", "codes")
    shutil.copy("images/cat/00.png", "images/cat/99.png")
    assert vqtok(*TOKENIZE, "codes")[0] == 0  # all of the plan is there
    Path("codes/train/data-00000-of-00003.arrow").unlink()
    Path("images/cat/00.png").write_bytes(b"longer or shorter")
    Path("images/cat/02.png").unlink()
    said = complaint(vqtok(*TOKENIZE, "codes"), status=3)
    assert "cat/00.png has changed: it had" in said and "there is no image cat/02.png" in said
    assert vqtok(*TOKENIZE, "codes", "--max-bad-share", 0.2)[0] == 0
    assert len(load_codes("codes")) == 10


def test_a_table_that_was_written_anew_is_refused_until_it_is_back(
    vqtok: Command, whole: dict[str, bytes], images_folder: Path
) -> None:
    rows = [{"bytes": file.read_bytes(), "path": None} for file in sorted(images_folder.rglob("*.png"))]
    features = datasets.Features({"image": datasets.Image()})

    def write(rows: list[dict[str, Any]]) -> None:
        datasets.Dataset.from_dict({"image": rows}, features=features).to_parquet("rows.parquet")

    command = ("tokenize", "rows.parquet", *TOKENIZE[2:])
    write(rows)
    assert vqtok(*command, "codes")[0] == 0
    before = contents(Path("codes"))
    Path("codes/train/data-00001-of-00003.arrow").unlink()
    write(rows[:-1])
    assert "rows.parquet is not what the plan saw: " in complaint(vqtok(*command, "codes"))
    os.remove("rows.parquet")
    assert "rows.parquet is not what the plan saw: " in (said := complaint(vqtok(*command, "codes")))
    assert "no file now" in said
    write(rows)
    assert vqtok(*command, "codes")[0] == 0 and contents(Path("codes")) == before
