"""Files that appear whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.disk import contents, files_limited_to, umask
from vqtok.errors import ConfigurationError, DataError
from vqtok.files import check_file, new_file, write_text
from vqtok.folders import new_folder, replace_folder


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "samples.png"
    with new_file(path) as partial:
        assert partial.parent == path.parent and partial.suffix == ".png" and partial.name.startswith(".")
        partial.write_text("first")
        assert not path.exists()
    with pytest.raises(KeyboardInterrupt), new_file(path) as partial:
        partial.write_text("second")
        raise KeyboardInterrupt
    assert contents(tmp_path) == {"deep/samples.png": "first"}
    write_text(path, "größer")
    assert path.read_bytes() == "größer".encode()


@pytest.mark.parametrize(("mask", "file", "folder"), [(0o077, 0o600, 0o700), (0o002, 0o664, 0o775)])
def test_permissions_follow_the_umask(tmp_path: Path, mask: int, file: int, folder: int) -> None:
    with umask(mask):
        write_text(tmp_path / "a" / "file", "x")
        with new_folder(tmp_path / "b") as new:
            (new / "file").touch()
        with replace_folder(tmp_path / "c", ours=".*") as new:
            (new / "file").touch()
    for name in "abc":
        assert (tmp_path / name / "file").stat().st_mode & 0o777 == file
        assert (tmp_path / name).stat().st_mode & 0o777 == folder


def test_a_file_that_appears_meanwhile_stays_and_the_finished_one_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "samples.png"
    with (
        pytest.raises(
            ConfigurationError, match=r"samples\.png exists, and is left alone: the finished file is .*vqtok-"
        ) as error,
        new_file(path, overwrite=False) as partial,
    ):
        partial.write_text("new")
        path.write_text("mine")
    kept = Path(str(error.value).rpartition(" ")[2])
    assert contents(tmp_path) == {"samples.png": "mine", kept.name: "new"} and kept.suffix == ".png"
    with pytest.raises(ConfigurationError, match="exists: choose another file, or pass --overwrite$"):
        check_file(path, overwrite=False)


def test_a_link_stays_and_its_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    for name in ("link", "again"):
        (tmp_path / name).symlink_to(tmp_path / "there" / "file")
        write_text(tmp_path / name, name)
        assert (tmp_path / name).is_symlink()
    assert (tmp_path / "there" / "file").read_text() == "again"
    assert os.listdir(tmp_path / "there") == ["file"]
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(ConfigurationError, match="^cannot write .*loop: Too many levels of symbolic links"):
        write_text(tmp_path / "loop", "")


def test_names_as_long_as_the_disk_takes(tmp_path: Path) -> None:
    write_text(tmp_path / f"{'x' * 251}.png", "x")
    with pytest.raises(ConfigurationError, match="^cannot write .*: File name too long; choose another folder$"):
        write_text(tmp_path / f"{'x' * 252}.png", "x")


def test_a_file_for_which_there_is_no_room_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    path.write_text("old")
    message = f"^the disk is full: {path} was not written; free some space or choose another folder$"
    with pytest.raises(DataError, match=message), files_limited_to(1000):
        write_text(path, "x" * 2000)
    assert contents(tmp_path) == {"metrics.json": "old"}


def test_a_file_that_may_not_be_written_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match=r"^cannot write .*file/below: .*; choose another folder$"):
        write_text(tmp_path / "file" / "below", "")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigurationError, match=r"folder is a folder, not a file: choose another file$"):
        write_text(tmp_path / "folder", "")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_what_is_read_is_not_written_by_any_of_its_names(tmp_path: Path) -> None:
    source = tmp_path / "a"
    source.write_text("a")
    (tmp_path / "link").symlink_to("a")
    (tmp_path / "hard").hardlink_to(source)
    for name in ("a", "link", "hard"):
        with pytest.raises(ConfigurationError, match=f"{name} is read, and would be lost if it were written"):
            check_file(tmp_path / name, sources=[tmp_path / "none", source])
    (tmp_path / "b").write_text("a")
    check_file(tmp_path / "b", sources=[source])
