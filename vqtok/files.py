"""A file or folder appears whole or not at all: write it elsewhere, sync, rename.

    new_file, write_bytes, write_text   a file: written beside its final name, renamed over it
    replace_folder                      a folder that is always ours, as a run's model: written beside, swapped in
    new_folder                          a folder the user names: written in a hidden folder inside it, then moved up

The user's folder may be a mount point, which cannot be renamed over, and nothing beside it need be writable. So the
work is staged inside, in `.vqtok-1a2b3c4d`, and its entries move up when all of them are there. The process at work
holds a lock on a file of the staging folder; a later run that finds the lock free knows that the process was killed.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import socket
import stat
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import IO

from vqtok.errors import ConfigurationError, DataError

__all__ = [
    "check_file",
    "check_free",
    "clear_folder",
    "entries_of",
    "locked",
    "new_file",
    "new_folder",
    "replace_folder",
    "staging_path",
    "write_bytes",
    "write_text",
]

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
NO_ACCESS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST),
    *(errno.ENAMETOOLONG, errno.ELOOP),
}
STAGING = ".vqtok-"
OWNER = re.compile(r"process \d+ on .*\n")  # what a staging folder says of its process
OWNER_FILE = ".owner.txt"
NOT_CONTENT = {"lost+found", OWNER_FILE}  # the first is at the root of every ext4 volume
MAKING = 60  # seconds; making a staging folder and locking it takes milliseconds
SYNCED_ALONE = 256  # files; syncing one takes milliseconds, and a million of them longer than everything at once

logger = logging.getLogger(__name__)


@contextmanager
def new_file(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Give a temporary name beside `path`, of the same suffix, that is renamed to `path` at the end.

    Folders above are made. Of a link the file that it leads to is written. Where anything goes wrong the temporary file
    is removed and `path` is as before.

    Raises:
        ConfigurationError: at once where `path` is no regular file or the folder cannot be written; at the end where a
            file is there that may not be replaced, and the finished one is then under a name the error gives.
        DataError: the disk is full.
    """
    check_file(path)
    final = Path(os.path.realpath(path))
    partial = final.with_name(f".{_random_name()}{path.suffix}")
    try:
        with _in_one_line(path, NO_ROOM | NO_ACCESS):
            final.parent.mkdir(parents=True, exist_ok=True)
            partial.touch(exist_ok=False)  # permissions follow the umask, which tempfile's do not
            yield partial
            _sync(partial)
            if not overwrite and os.path.lexists(final):
                kept = partial.rename(final.with_name(f"vqtok-{partial.name.removeprefix('.')}"))
                raise ConfigurationError(f"{path} exists, and is left alone: the finished file is {kept}")
            os.replace(partial, final)
            _sync(final.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def check_file(path: Path, *, overwrite: bool = True) -> None:
    """Refuse a file that `new_file` would refuse, before any work.

    Raises:
        ConfigurationError: `path` is no regular file (a folder, a device, a pipe), or is there and may not be replaced.
    """
    with _in_one_line(path, NO_ACCESS), suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "folder" if stat.S_ISDIR(mode) else "device or pipe"
            raise ConfigurationError(f"{path} is a {kind}, not a file: choose another file")
        if not overwrite:
            raise ConfigurationError(f"{path} exists: choose another file, or pass --overwrite")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; errors are those of `new_file`."""
    with new_file(path) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all; errors are those of `new_file`."""
    write_bytes(path, text.encode())


@contextmanager
def replace_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder beside `path` that takes its place at the end; an older one goes once the new one is there.

    For folders that are ours alone, such as `model/` in a run. The folder given is `staging_path(path)`, so that the
    processes of one run may write into it together: one of them enters this, and all of them are done when it leaves.

    Raises:
        OSError: as it comes from the disk; what was at `path` is as before.
    """
    partial, old = staging_path(path), path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():  # killed between the two renames below
        os.replace(old, path)
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        _follow_umask(partial)
        _sync_tree(partial)
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            os.replace(path, old)
        os.replace(partial, path)
        _sync(path.parent)
    except BaseException:
        if old.exists() and not path.exists():
            os.replace(old, path)
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def staging_path(path: Path) -> Path:
    """Where `replace_folder(path)` has the folder written."""
    return path.with_name(f".{path.name}.partial")


@contextmanager
def new_folder(out: Path, *, marker: str | None = None, overwrite: bool = False) -> Iterator[Path]:
    """Give an empty folder whose entries are in `out` at the end, all of them or none.

    What killed runs left behind in `out` is removed first, and a warning is logged.

    Args:
        out: the folder to fill: missing, empty, or one that may be replaced.
        marker: a file that every folder of this kind has, so that nothing else is ever replaced. It is put in `out`
            last; before it come the other files, and before those the folders.
        overwrite: replace what is in `out` if the marker is there, as a whole and at the end.

    Raises:
        ConfigurationError: at once where `out` may not be filled or cannot be written; at the end where something
            appeared in it meanwhile, which is left alone, and the finished work is then in a folder the error names.
        DataError: the disk is full; what was in `out` is as before.
    """
    check_free(out, marker=marker, overwrite=overwrite)
    final = out.resolve()
    made = [folder for folder in (final, *final.parents) if not folder.exists()]
    staging = _Staging(final, STAGING + _random_name())
    try:
        with _in_one_line(out, NO_ROOM | NO_ACCESS):
            lock = staging.make()
        with lock, _in_one_line(out, NO_ROOM):
            try:
                _check_free(out, marker, overwrite, besides=staging.path)  # now that others see this one
                before = _contents(final)
                yield staging.new
                _sync_tree(staging.new)
                _refuse_what_appeared(staging, out, before)
                staging.install(marker)
            finally:
                staging.discard()
    finally:
        for folder in made:
            with suppress(OSError):  # not empty
                folder.rmdir()


def check_free(out: Path, *, marker: str | None = None, overwrite: bool = False) -> None:
    """Refuse a folder that `new_folder` would refuse, before any work; what killed runs left in it is removed.

    Raises:
        ConfigurationError: `out` is a file, holds something that may not be replaced, or another process is filling it.
    """
    if out.exists() or out.is_symlink():
        _check_free(out, marker, overwrite)


def _check_free(out: Path, marker: str | None, overwrite: bool, besides: Path | None = None) -> None:
    if not out.is_dir():
        raise ConfigurationError(f"{out} is a file, not a folder: choose another folder")
    with _in_one_line(out, NO_ROOM | NO_ACCESS):
        _remove_leftovers(out, besides)
        occupied = bool(entries_of(out))
    if not occupied:
        return
    marked = marker is not None and (out / marker).is_file()
    if overwrite and not marked:
        raise ConfigurationError(f"{out} holds no {marker}, so it will not be overwritten: choose another folder")
    if not overwrite:
        hint = ", or pass --overwrite" if marked else ""
        raise ConfigurationError(f"{out} already exists and is not empty: choose another folder{hint}")


def _refuse_what_appeared(staging: _Staging, out: Path, before: dict[str, tuple[int, int, int]]) -> None:
    """Look again at what is in `out`, and keep the finished work elsewhere if there is more than before."""
    if appeared := _contents(staging.out).items() - before.items():
        kept = staging.keep()
        raise ConfigurationError(
            f"{min(appeared)[0]} appeared in {out} while it was being written, and is left alone: "
            f"the finished work is in {out / kept.name}"
        )


def entries_of(folder: Path) -> list[Path]:
    """What is in a folder that a user names, without staging folders, some of which may just be going."""
    content = (path for path in folder.iterdir() if path.name not in NOT_CONTENT)
    return [path for path in content if not (path.name.startswith(STAGING) and (path.is_dir() or not path.exists()))]


def clear_folder(out: Path, *, marker: str) -> None:
    """Make a folder, or empty one of ours for work that takes place in it; its marker goes last.

    Raises:
        ConfigurationError: it cannot be made or written.
        DataError: the disk is full.
    """
    with _in_one_line(out, NO_ROOM | NO_ACCESS):
        out.mkdir(parents=True, exist_ok=True)
        for entry in sorted(entries_of(out), key=lambda entry: entry.name == marker):
            if _is_folder(entry):
                shutil.rmtree(entry)
            else:
                entry.unlink()


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder where there is none, and have it for this process alone, as far as its file system has locks.

    Raises:
        ConfigurationError: another process has it, or it cannot be made or written.
        DataError: the disk is full.
    """
    owner = folder / OWNER_FILE
    with _in_one_line(folder, NO_ROOM | NO_ACCESS):
        folder.mkdir(parents=True, exist_ok=True)
        file = owner.open("a+", encoding="utf-8")
    with file:
        # a file without a name is one that its process removed after this one had opened it
        if _lock(file) is False or os.fstat(file.fileno()).st_nlink == 0:
            file.seek(0)
            process = file.read().strip() or "another process"
            raise ConfigurationError(f"{process} is at work in {folder}: wait for it, or choose another folder")
        file.truncate(0)
        file.write(_this_process())
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):
                owner.unlink()


class _Staging:
    """The hidden folder `name` in `out`: what is written, later what it replaces, and how far that got."""

    def __init__(self, out: Path, name: str) -> None:
        self.out, self.path = out, out / name
        self.new, self.old = self.path / "new", self.path / "old"
        self.owner = self.path / "owner.txt"  # locked by its process
        self.unlocked = self.path / OWNER_FILE  # the same before it is locked
        self.journal = self.path / "moving.json"  # there while entries move: those of `new`, with their inodes

    def make(self) -> IO[str]:
        """Make the folder and lock it for this process until the file given back is closed."""
        try:
            self.path.mkdir(parents=True)
            self.unlocked.write_text(_this_process(), encoding="utf-8")
            file = self.unlocked.open("r+", encoding="utf-8")
            _lock(file)
            self.unlocked.rename(self.owner)  # only now do others see it
            self.new.mkdir()
            self.old.mkdir()
        except BaseException:
            self.discard()
            raise
        return file

    def install(self, marker: str | None) -> None:
        """Move what is in `out` away and what is new up, the marker last."""

        def order(entry: Path) -> tuple[bool, bool, str]:
            return entry.name == marker, entry.is_file(), entry.name

        entries = sorted(self.new.iterdir(), key=order)
        write_text(self.journal, json.dumps({entry.name: entry.lstat().st_ino for entry in entries}))
        for entry in sorted(entries_of(self.out), key=order, reverse=True):
            _move(entry, self.old)
        for entry in entries:
            _move(entry, self.out)
        _sync(self.out)
        self.journal.unlink()

    def keep(self) -> Path:
        """Give what is new a name in `out` that no later run takes for a leftover."""
        return self.new.rename(self.out / self.path.name.removeprefix("."))

    def discard(self) -> None:
        """Undo moves that did not all happen, then remove the folder, and last what shows whose it is."""
        if self.journal.exists():
            for name, inode in self.moves().items():
                entry = self.out / name
                if not os.path.lexists(self.new / name) and os.path.lexists(entry) and entry.lstat().st_ino == inode:
                    _move(entry, self.new)
            for entry in self.old.iterdir():
                _move(entry, self.out)
            self.journal.unlink()
        for folder in (self.new, self.old):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.rmtree(self.path, ignore_errors=True)

    def moves(self) -> dict[str, int]:
        """What the journal says: the names of the entries that move up, with their inodes.

        Raises:
            ValueError: it says something else.
        """
        moves = json.loads(self.journal.read_text(encoding="utf-8"))
        if not isinstance(moves, dict):
            raise ValueError(f"{self.journal} is no journal")
        for name, inode in moves.items():
            if Path(name).name != name or name == ".." or type(inode) is not int:
                raise ValueError(f"{self.journal} is no journal")
        return moves

    def is_ours(self) -> bool:
        """Whether all that `discard` moves or removes is as a run leaves it; it may have come from elsewhere."""
        folders = [folder for folder in (self.new, self.old) if os.path.lexists(folder)]
        if not (_is_folder(self.path) and _is_file(self.owner) and all(map(_is_folder, folders))):
            return False
        try:
            if os.path.lexists(self.journal):
                if len(folders) < 2 or not _is_file(self.journal):
                    return False
                self.moves()
            return OWNER.fullmatch(self.owner.read_text(encoding="utf-8")) is not None
        except (ValueError, RecursionError):
            return False

    def is_half_made(self) -> bool:
        """Whether a run was killed in the midst of `make`; one that is there at this moment has `MAKING` seconds."""
        return (
            _is_folder(self.path)
            and {entry.name for entry in self.path.iterdir()} <= {self.unlocked.name}
            and time.time() - self.path.stat().st_mtime > MAKING
        )


def _remove_leftovers(out: Path, besides: Path | None) -> None:
    """Remove the staging folders whose process is gone; refuse to go on beside one that is at work."""
    for path in sorted(out.glob(STAGING + "[0-9a-f]" * 8)):
        with suppress(FileNotFoundError):  # its own process was quicker
            if besides is None or path.name != besides.name:
                _remove_leftover(_Staging(out, path.name))


def _remove_leftover(staging: _Staging) -> None:
    if staging.is_ours():
        with staging.owner.open("r+", encoding="utf-8") as file:
            if not _lock(file):
                process = file.read().strip()
                raise ConfigurationError(
                    f"{process} is writing {staging.out}: wait for it, or delete {staging.path} if it is gone"
                )
            staging.discard()
    elif staging.is_half_made():
        staging.unlocked.unlink(missing_ok=True)
        staging.path.rmdir()
    else:
        return  # not provably ours
    logger.warning("removed %s, which a run that was killed had left behind", staging.path)


def _lock(file: IO[str]) -> bool | None:
    """Take the lock of an open file, which ends with the process; False where another has it, None without locks."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EAGAIN, errno.EACCES) else None
    return True


def _this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}\n"


def _contents(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Every entry below a folder, with what changes when another takes its place."""
    found = {}
    for entry in entries_of(folder) if folder.exists() else ():
        below = entry.rglob("*") if _is_folder(entry) else ()
        with suppress(FileNotFoundError):  # another process is taking it away
            for path in (entry, *below):
                state = path.lstat()
                changing = (0, 0) if path.is_dir() else (state.st_size, state.st_mtime_ns)
                found[str(path.relative_to(folder))] = (state.st_ino, *changing)
    return found


def _is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _move(entry: Path, folder: Path) -> None:
    """Rename into a folder, over nothing."""
    target = folder / entry.name
    if os.path.lexists(target):
        raise ConfigurationError(f"{target} is in the way of {entry}: move one of them elsewhere and run again")
    entry.rename(target)


def _follow_umask(folder: Path) -> None:
    """Give files the permissions that their folder was made with; safetensors makes its own with 600."""
    for path in folder.rglob("*"):
        if _is_file(path):
            path.chmod(folder.stat().st_mode & 0o666)


def _sync_tree(folder: Path) -> None:
    """Have everything below a folder on the disk."""
    paths = [folder, *(path for path in folder.rglob("*") if not path.is_symlink())]
    if len(paths) > SYNCED_ALONE and sys.platform != "win32":
        os.sync()
        return
    for path in paths:
        _sync(path)


def _sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk; not every file system can do the latter."""
    with suppress(OSError) if path.is_dir() else nullcontext():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


@contextmanager
def _in_one_line(path: Path, kinds: set[int]) -> Iterator[None]:
    """Turn what a user can mend about a disk into one line that names `path`."""
    try:
        yield
    except OSError as error:
        if error.errno not in kinds:
            raise
        if error.errno in NO_ROOM:
            raise DataError(
                f"the disk is full: {path} was not written; free some space or choose another folder"
            ) from error
        raise ConfigurationError(f"cannot write {path}: {error.strerror}; choose another folder") from error


def _random_name() -> str:
    return uuid.uuid4().hex[:8]
