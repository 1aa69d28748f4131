"""A folder appears whole or not at all.

replace_folder             a folder that is always ours, as a run's model: written beside, swapped in
new_folder, check_free     a folder the user names: written in a hidden folder inside it, see `staging.py`
check_ours, files_of_others   whether files of others are in it
clear_folder               a folder the user names for work that takes place in it
remove                     what is in such a folder, links alone
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vqtok.errors import ConfigurationError
from vqtok.files import NO_ACCESS, NO_ROOM, check_path, in_one_line, sync
from vqtok.staging import Staging, entries_of, is_file, is_folder, remove_leftovers

__all__ = [
    "check_free",
    "check_ours",
    "clear_folder",
    "files_of_others",
    "new_folder",
    "remove",
    "replace_folder",
    "staging_path",
]

UNFINISHED = re.compile(r"\.vqtok-[0-9a-f]{8}")  # staging folders
# Files that vqtok had not finished, and those that file managers and network file systems leave behind.
OF_NOBODY = re.compile(r"\.vqtok-[0-9a-f]{8}\.tmp(\..*)?|\.DS_Store|\._.*|Thumbs\.db|desktop\.ini|\.nfs[0-9a-f]+")
NAMED = 3  # files of others that an error names
SYNCED_ALONE = 256  # files; syncing one takes milliseconds, and a million of them longer than everything at once

Ours = Callable[[Path], str]


def everything(out: Path) -> str:
    """Stands for whatever is in a folder."""
    return "(?s:.*)"


@contextmanager
def replace_folder(path: Path, *, ours: str) -> Iterator[Path]:
    """Give an empty folder beside `path` that takes its place at the end; an older one goes once the new one is there.

    For folders that we make, such as `model/` in a run; what users put in the older one is in the new one as well. A
    link at `path` goes, and what it leads to stays. The folder given is `staging_path(path)`, so that the processes of
    one run may write into it together: one of them enters this, and all of them are done when it leaves.

    Args:
        ours: a regular expression of the files that we write, relative to `path`.

    Raises:
        OSError: as it comes from the disk; what was at `path` is as before.
    """
    partial, old = staging_path(path), path.with_name(f".{path.name}.old")
    if os.path.lexists(old) and not os.path.lexists(path):  # killed between the two renames below
        os.replace(old, path)
    if is_file(path):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    _remove_quietly(partial)
    partial.mkdir(parents=True)
    try:
        yield partial
        _follow_umask(partial)
        if is_folder(path):
            _copy(files_of_others(path, ours, entries_of(path)), path, partial)
        _sync_tree(partial)
        _remove_quietly(old)
        if os.path.lexists(path):
            os.replace(path, old)
        os.replace(partial, path)
        sync(path.parent)
    except BaseException:
        if os.path.lexists(old) and not os.path.lexists(path):
            os.replace(old, path)
        _remove_quietly(partial)
        raise
    _remove_quietly(old)


def staging_path(path: Path) -> Path:
    """Where `replace_folder(path)` has the folder written."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def new_folder(
    out: Path, *, marker: str | None = None, ours: Ours = everything, overwrite: bool = False
) -> Iterator[Path]:
    """Give an empty folder whose entries are in `out` at the end, all of them or none.

    What killed runs left behind in `out` is removed first, and a warning is logged.

    Args:
        out: the folder to fill: missing, empty, or one that may be replaced.
        marker: a file that every folder of this kind has, so that nothing else is ever replaced. It is put in `out`
            last; before it come the other files, and before those the folders.
        ours: gives a regular expression of the files that may be replaced, relative to `out`, once what killed runs
            left behind is removed from it.
        overwrite: replace what is in `out` if the marker is there, as a whole and at the end.

    Raises:
        ConfigurationError: at once where `out` may not be filled or cannot be written; at the end where something
            appeared in it meanwhile, which is left alone, and the finished work is then in a folder the error names.
        DataError: the disk is full; what was in `out` is as before.
    """
    check_free(out, marker=marker, ours=ours, overwrite=overwrite)
    final = out.resolve()
    made = [folder for folder in (final, *final.parents) if not folder.exists()]
    staging = Staging(final)
    try:
        with in_one_line(out, NO_ROOM | NO_ACCESS):
            lock = staging.make()
        with lock, in_one_line(out, NO_ROOM):
            try:
                _check_free(out, marker, ours, overwrite, besides=staging.path)  # now that others see this one
                before = _contents(final)
                yield staging.new
                _follow_umask(staging.new)
                _sync_tree(staging.new)
                _refuse_what_appeared(staging, out, before)
                staging.install(marker)
            finally:
                staging.discard()
    finally:
        for folder in made:
            with suppress(OSError):  # not empty
                folder.rmdir()


def check_free(out: Path, *, marker: str | None = None, ours: Ours = everything, overwrite: bool = False) -> None:
    """Refuse a folder that `new_folder` would refuse, before any work; what killed runs left in it is removed.

    Raises:
        ConfigurationError: `out` is a file, holds something that may not be replaced, has a path that is not UTF-8, or
            another process is filling it.
    """
    check_path(out)
    if out.exists() or out.is_symlink():
        _check_free(out, marker, ours, overwrite)


def _check_free(out: Path, marker: str | None, ours: Ours, overwrite: bool, besides: Path | None = None) -> None:
    if not out.is_dir():
        raise ConfigurationError(f"{out} is a file, not a folder: choose another folder")
    with in_one_line(out, NO_ROOM | NO_ACCESS):
        remove_leftovers(out, besides)
        occupied = bool(entries_of(out))
    if not occupied:
        return
    marked = marker is not None and (out / marker).is_file()
    if overwrite and not marked:
        raise ConfigurationError(f"{out} holds no {marker}, so it will not be overwritten: choose another folder")
    if not overwrite:
        hint = ", or pass --overwrite" if marked else ""
        raise ConfigurationError(f"{out} already exists and is not empty: choose another folder{hint}")
    check_ours(out, ours(out), entries_of(out))


def check_ours(out: Path, ours: str, entries: Iterable[Path]) -> None:
    """Refuse entries of a folder that are, or hold, files that vqtok did not write.

    Args:
        ours: a regular expression of the files that it writes, relative to `out`.

    Raises:
        ConfigurationError: names the first of them.
    """
    if others := files_of_others(out, ours, entries):
        more = f" and {len(others) - NAMED:,} more" if len(others) > NAMED else ""
        raise ConfigurationError(
            f"{out} holds {', '.join(others[:NAMED])}{more}, which vqtok did not write, so it will not be overwritten: "
            "move that elsewhere, or choose another folder"
        )


def files_of_others(out: Path, ours: str, entries: Iterable[Path]) -> list[str]:
    """Files and links of a folder that the regular expression does not stand for, relative to it."""
    found = [path for path in _below(entries) if not is_folder(path)]
    found = [path for path in found if not (OF_NOBODY.fullmatch(path.name) and is_file(path))]
    names = sorted(path.relative_to(out).as_posix() for path in found)
    names = [name for name in names if not any(map(UNFINISHED.fullmatch, name.split("/")[:-1]))]
    return [name for name in names if not re.fullmatch(ours, name)]


def _refuse_what_appeared(staging: Staging, out: Path, before: dict[str, tuple[int, int, int]]) -> None:
    """Look again at what is in `out`, and keep the finished work elsewhere if there is more than before."""
    if appeared := _contents(staging.out).items() - before.items():
        kept = staging.keep()
        raise ConfigurationError(
            f"{min(appeared)[0]} appeared in {out} while it was being written, and is left alone: "
            f"the finished work is in {out / kept.name}"
        )


def clear_folder(out: Path, *, marker: str) -> None:
    """Make a folder, or empty one of ours for work that takes place in it; its marker goes last.

    Raises:
        ConfigurationError: it cannot be made or written.
        DataError: the disk is full.
    """
    with in_one_line(out, NO_ROOM | NO_ACCESS):
        out.mkdir(parents=True, exist_ok=True)
        for entry in sorted(entries_of(out), key=lambda entry: entry.name == marker):
            remove(entry)


def remove(path: Path) -> None:
    """Remove a folder with all that is in it, a file, or a link but not what it leads to; nothing there is no error.

    Raises:
        ConfigurationError: it cannot be removed.
    """
    with in_one_line(path, NO_ACCESS):
        if is_folder(path):
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _remove_quietly(path: Path) -> None:
    """Remove a folder with all that is in it, or a link, as far as that can be done."""
    if is_folder(path):
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _copy(names: Iterable[str], folder: Path, to: Path) -> None:
    """Copy files and links of a folder into another."""
    for name in names:
        (to / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(folder / name, to / name, follow_symlinks=False)


def _contents(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every entry below a folder, with what changes when another takes its place."""
    found = {}
    for path in _below(entries_of(folder) if folder.exists() else ()):
        with suppress(FileNotFoundError):
            state = path.lstat()
            changing = (0, 0) if path.is_dir() else (state.st_size, state.st_mtime_ns)
            found[str(path.relative_to(folder))] = (state.st_ino, *changing)
    return found


def _below(entries: Iterable[Path]) -> Iterator[Path]:
    """Entries of a folder and what is below them, save what another process is taking away."""
    for entry in entries:
        with suppress(FileNotFoundError):
            yield entry
            yield from entry.rglob("*") if is_folder(entry) else ()


def _follow_umask(folder: Path) -> None:
    """Give files the permissions that their folder was made with; safetensors makes its own with 600."""
    for path in folder.rglob("*"):
        if is_file(path):
            path.chmod(folder.stat().st_mode & 0o666)


def _sync_tree(folder: Path) -> None:
    """Have everything below a folder on the disk."""
    paths = [folder, *(path for path in folder.rglob("*") if not path.is_symlink())]
    if len(paths) > SYNCED_ALONE and sys.platform != "win32":
        os.sync()
        return
    for path in paths:
        sync(path)
