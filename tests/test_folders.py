"""Folders that appear whole or not at all: processes are really killed, and a file system is mounted."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.disk import ALONE, contents
from vqtok import staging
from vqtok.errors import ConfigurationError, DataError
from vqtok.files import write_text
from vqtok.folders import check_free, clear_folder, new_folder, replace_folder, staging_path

AT_WORK = """
import time
from pathlib import Path
from vqtok.folders import new_folder
with new_folder(Path(sys.argv[1]), marker="codes.json", overwrite=True) as folder:
    (folder / "half").write_text("half")
    print("working", flush=True)
    time.sleep(600)
"""


@contextmanager
def process_at_work(out: Path) -> Iterator[int]:
    """Another process that fills a folder; it is killed at the end."""
    command = [sys.executable, "-c", ALONE + AT_WORK, str(out)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "working\n"
        yield process.pid
        process.kill()


def write_old(out: Path) -> None:
    (out / "train").mkdir(parents=True)
    (out / "train" / "data").write_text("old")
    (out / "codes.json").write_text("old")


def test_a_folder_of_ours_is_swapped_in_when_it_is_whole(tmp_path: Path) -> None:
    model = tmp_path / "model"
    for text in ("first", "second"):
        with replace_folder(model, ours="weights") as partial:
            assert partial == staging_path(model)
            (partial / "weights").write_text(text)
            assert not model.exists() or contents(model) == {"weights": "first"}
    with pytest.raises(SystemExit), replace_folder(model, ours="weights") as partial:
        (partial / "weights").write_text("third")
        raise SystemExit(143)
    assert contents(tmp_path) == {"model/weights": "second"}
    assert os.listdir(tmp_path) == ["model"]


def test_a_swap_that_was_cut_off_is_mended_by_the_next(tmp_path: Path) -> None:
    model = tmp_path / "model"
    staging_path(model).mkdir()
    (staging_path(model) / "half").touch()
    (tmp_path / ".model.old").mkdir()
    (tmp_path / ".model.old" / "weights").write_text("first")
    with pytest.raises(KeyboardInterrupt), replace_folder(model, ours="weights"):
        assert contents(model) == {"weights": "first"}
        raise KeyboardInterrupt
    assert contents(tmp_path) == {"model/weights": "first"}


def test_what_users_put_into_a_folder_of_ours_is_in_the_next_one(tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "mine").mkdir(parents=True)
    for name in ("weights", "metrics", "README.md", "mine/notes.txt"):
        (model / name).write_text("old")
    (model / "link").symlink_to("nowhere")
    with replace_folder(model, ours="weights|metrics") as partial:
        (partial / "weights").write_text("new")
    assert (model / "link").readlink() == Path("nowhere")
    (model / "link").unlink()
    assert contents(tmp_path) == {"model/weights": "new", "model/README.md": "old", "model/mine/notes.txt": "old"}


def test_a_file_in_the_place_of_a_folder_of_ours_stays(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("mine")
    with pytest.raises(NotADirectoryError), replace_folder(tmp_path / "model", ours="weights"):
        pass
    assert contents(tmp_path) == {"model": "mine"}


def test_a_link_to_a_folder_of_ours_is_replaced_and_what_it_leads_to_stays(tmp_path: Path) -> None:
    """As where a model was moved to a larger disk; also a second time, and where that is no longer there."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "weights").write_text("moved")
    for target in ("disk", "gone"):
        (tmp_path / "model").symlink_to(target)
        for text in ("first", "second"):
            with replace_folder(tmp_path / "model", ours="weights") as partial:
                (partial / "weights").write_text(text)
            assert contents(tmp_path) == {"disk/weights": "moved", "model/weights": text}
            assert sorted(os.listdir(tmp_path)) == ["disk", "model"]
        shutil.rmtree(tmp_path / "model")


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "codes"
    with new_folder(out, marker="codes.json") as folder:
        (folder / "file").write_text("new")
        (folder / "codes.json").write_text("new")
        (folder / "train").mkdir()
        (folder / "train" / "file").write_text("new")
        assert [path for path in out.rglob("*") if path.parent == out] == [folder.parent]
    assert contents(tmp_path / "deep") == dict.fromkeys(("codes/codes.json", "codes/file", "codes/train/file"), "new")
    with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "further" / "down"):
        raise KeyboardInterrupt
    assert os.listdir(tmp_path) == ["deep"]


def test_the_marker_comes_last_after_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moved: list[str] = []
    move = staging.move
    monkeypatch.setattr(staging, "move", lambda entry, folder: (moved.append(entry.name), move(entry, folder)))
    for _ in range(2):
        with new_folder(tmp_path / "codes", marker="a.json", overwrite=True) as folder:
            for name in ("b.json", "a.json"):
                (folder / name).touch()
            (folder / "train").mkdir()
    assert moved[:3] == ["train", "b.json", "a.json"]
    assert moved[3:6] == ["a.json", "b.json", "train"]  # the old ones go in the other order


def test_an_empty_folder_is_filled(tmp_path: Path) -> None:
    (tmp_path / "codes" / "lost+found").mkdir(parents=True)
    with new_folder(tmp_path / "codes") as folder:
        (folder / "file").touch()
    assert sorted(os.listdir(tmp_path / "codes")) == ["file", "lost+found"]


def test_a_mount_point_is_filled_and_written_again(mount: Path) -> None:
    assert os.path.ismount(mount)
    for text in ("first", "second"):
        with new_folder(mount, marker="codes.json", overwrite=True) as folder:
            (folder / "codes.json").write_text(text)
            (folder / f"data-{text}").write_text(text)
    assert contents(mount) == {"codes.json": "second", "data-second": "second"}
    assert sorted(os.listdir(mount)) == ["codes.json", "data-second"]


def test_a_full_volume_is_one_line_and_left_as_it_was(mount: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=64k", mount], check=True)
    write_old(mount)
    with (
        pytest.raises(DataError, match="^the disk is full"),
        new_folder(mount, marker="codes.json", overwrite=True) as folder,
    ):
        (folder / "large").write_bytes(bytes(2**17))
    assert contents(mount) == {"codes.json": "old", "train/data": "old"}
    assert sorted(os.listdir(mount)) == ["codes.json", "train"]


def test_a_volume_without_any_room_is_one_line(mount: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=4k", mount], check=True)
    (mount / "lost+found").mkdir()
    (mount / "lost+found" / "all").write_bytes(bytes(4096))
    with pytest.raises(DataError, match="^the disk is full"), new_folder(mount):
        raise AssertionError("work began")
    assert os.listdir(mount) == ["lost+found"]


def test_a_volume_that_is_read_only_is_one_line(mount: Path) -> None:
    subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
    message = f"^cannot write {mount}: Read-only file system; choose another folder$"
    with pytest.raises(ConfigurationError, match=message), new_folder(mount):
        raise AssertionError("work began")
    with pytest.raises(ConfigurationError, match=r"samples\.png: Read-only file system"):
        write_text(mount / "samples.png", "")


def test_only_a_folder_of_ours_is_replaced_and_only_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "codes"
    out.mkdir()
    (out / "holiday.jpg").write_text("precious")
    for overwrite in (False, True):
        with (
            pytest.raises(ConfigurationError, match="choose another folder$"),
            new_folder(out, marker="codes.json", overwrite=overwrite),
        ):
            raise AssertionError("work began")
    (out / "codes.json").write_text("old")
    with pytest.raises(ConfigurationError, match="--overwrite"), new_folder(out, marker="codes.json"):
        raise AssertionError("work began")
    with new_folder(out, marker="codes.json", overwrite=True) as folder:
        (folder / "codes.json").write_text("new")
        assert (out / "codes.json").read_text() == "old"
    assert contents(tmp_path) == {"codes/codes.json": "new"}
    assert os.listdir(out) == ["codes.json"]


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "codes").touch()
    with pytest.raises(ConfigurationError, match="is a file"), new_folder(tmp_path / "codes"):
        raise AssertionError("work began")
    with (
        pytest.raises(ConfigurationError, match=r"cannot write .*below: Not a dir"),
        new_folder(tmp_path / "codes/below"),
    ):
        raise AssertionError("work began")


@pytest.mark.parametrize("before", ["missing", "empty", "ours"])
def test_what_appears_meanwhile_stays_and_the_work_is_kept_beside_it(tmp_path: Path, before: str) -> None:
    out = tmp_path / "codes"
    if before == "empty":
        out.mkdir()
    if before == "ours":
        write_old(out)
    old = contents(out)
    with (
        pytest.raises(
            ConfigurationError, match=r"notes\.txt appeared in .*codes while.* is in .*codes/vqtok-"
        ) as error,
        new_folder(out, marker="codes.json", overwrite=True) as folder,
    ):
        (folder / "codes.json").write_text("new")
        (out / "notes.txt").write_text("mine")
    kept = Path(str(error.value).rpartition(" ")[2])
    assert contents(kept) == {"codes.json": "new"}
    shutil.rmtree(kept)
    assert contents(tmp_path) == {"codes/notes.txt": "mine", **{f"codes/{name}": text for name, text in old.items()}}
    assert not [name for name in os.listdir(out) if name.startswith(".")]


def test_codes_that_were_made_anew_meanwhile_stay(tmp_path: Path) -> None:
    out = tmp_path / "codes"
    write_old(out)
    with (
        pytest.raises(ConfigurationError, match="train/data appeared"),
        new_folder(out, marker="codes.json", overwrite=True),
    ):
        (out / "train" / "data").write_text("other")
    assert (out / "train" / "data").read_text() == "other"


def test_a_folder_that_another_process_is_filling_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "codes"
    with process_at_work(out) as pid:
        message = f"^process {pid} on .* is writing {out}: wait for it, or delete {out}/.vqtok-.* if it is gone$"
        with pytest.raises(ConfigurationError, match=message):
            check_free(out)
        assert list(out.rglob("half"))


def test_what_a_killed_process_left_is_removed_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    out = tmp_path / "codes"
    with process_at_work(out):
        pass
    (left,) = out.iterdir()
    with caplog.at_level(logging.WARNING), new_folder(out) as folder:
        assert not left.exists()
        (folder / "file").write_text("new")
    assert [record.message for record in caplog.records] == [
        f"removed {left}, which a run that was killed had left behind"
    ]
    assert contents(tmp_path) == {"codes/file": "new"}


def test_a_folder_of_ours_is_emptied_in_its_place(mount: Path) -> None:
    write_old(mount)
    clear_folder(mount, marker="codes.json")
    assert os.listdir(mount) == []
    clear_folder(mount / "new", marker="codes.json")
    assert os.listdir(mount) == ["new"]
