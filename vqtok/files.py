"""A file appears whole or not at all: it is written beside its final name, synced, and renamed over it.

What the disk answers that a user can mend is one line. Folders are those of `folders.py`.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from vqtok.errors import ConfigurationError, DataError

__all__ = [
    "BAD_PATH",
    "DENIED",
    "MOST_TEXT",
    "NO_ACCESS",
    "NO_ROOM",
    "check_file",
    "check_path",
    "check_writable",
    "in_one_line",
    "new_file",
    "random_name",
    "read_text",
    "sync",
    "write_bytes",
    "write_text",
]

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}
BAD_PATH = {errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP}
NO_ACCESS = DENIED | BAD_PATH | {errno.ENOENT, errno.EISDIR, errno.EEXIST, errno.EBUSY}
"""What the disk may answer and a user can mend; the last four of `NO_ACCESS` only where a file is written."""
MOST_TEXT = 2**24  # bytes of a configuration or of metrics, which have some thousands


@contextmanager
def new_file(path: Path, *, overwrite: bool = True, named: Path | None = None) -> Iterator[Path]:
    """Give a temporary name beside `path`, of the same suffix, that is renamed to `path` at the end.

    Folders above are made. Of a link the file that it leads to is written. Where anything goes wrong the temporary file
    is removed and `path` is as before.

    Args:
        overwrite: replace a file that is there.
        named: what errors call it, by default `path`.

    Raises:
        ConfigurationError: at once where `path` is no regular file or the folder cannot be written; at the end where a
            file is there that may not be replaced, and the finished one is then under a name the error gives.
        DataError: the disk is full.
    """
    named = named or path
    _check_regular(path)
    final = Path(os.path.realpath(path))
    name = random_name()
    partial = final.with_name(f".vqtok-{name}.tmp{path.suffix}")
    try:
        with in_one_line(named, NO_ROOM | NO_ACCESS):
            final.parent.mkdir(parents=True, exist_ok=True)
            partial.touch(exist_ok=False)  # permissions follow the umask, which tempfile's do not
            yield partial
            sync(partial)
            if not overwrite and os.path.lexists(final):
                kept = partial.rename(final.with_name(f"vqtok-{name}{path.suffix}"))
                raise ConfigurationError(f"{named} exists, and is left alone: the finished file is {kept}")
            os.replace(partial, final)
            sync(final.parent)
    finally:
        with suppress(OSError):
            partial.unlink(missing_ok=True)


def check_file(path: Path, *, overwrite: bool = True, sources: Iterable[Path] = ()) -> None:
    """Refuse a file that `new_file` would refuse, before any work.

    Args:
        overwrite: replace a file that is there.
        sources: files that are read to write this one, by whatever name; none of them is replaced.

    Raises:
        ConfigurationError: `path` is no regular file (a folder, a device, a pipe), is there and may not be replaced, or
            its folder cannot be written.
        DataError: the disk is full.
    """
    for source in sources:
        with suppress(OSError):  # what is not there is told by those who look for it
            if path.samefile(source) and source.is_file():
                raise ConfigurationError(f"{path} is read, and would be lost if it were written: choose another file")
    _check_regular(path, overwrite=overwrite)
    check_writable(path)


def check_writable(path: Path) -> None:
    """Refuse a path below which, or beside which, nothing can be made; where the disk can, without a name to be seen.

    Raises:
        ConfigurationError: names it.
        DataError: the disk is full.
    """
    folder = Path(os.path.realpath(path))
    while not folder.is_dir() and folder != folder.parent:
        folder = folder.parent
    with in_one_line(path, NO_ROOM | NO_ACCESS):
        with suppress(FileNotFoundError):
            path.stat()  # refuses what lies below a file, links in a circle and names that are too long
        tempfile.TemporaryFile(dir=folder).close()


def _check_regular(path: Path, *, overwrite: bool = True) -> None:
    with in_one_line(path, NO_ACCESS), suppress(FileNotFoundError):
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            kind = "folder" if stat.S_ISDIR(mode) else "device or pipe"
            raise ConfigurationError(f"{path} is a {kind}, not a file: choose another file")
        if not overwrite:
            raise ConfigurationError(f"{path} exists: choose another file, or pass --overwrite")


def check_path(folder: Path) -> None:
    """Refuse a folder whose content Arrow and safetensors could not read back, before any work.

    Raises:
        ConfigurationError: its path is not UTF-8.
    """
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError:
        shown = os.fsencode(folder).decode(errors="replace")
        raise ConfigurationError(f"the path of {shown} is not UTF-8: choose another folder") from None


def read_text(path: Path, *, most: int = MOST_TEXT, regular: bool = True) -> str:
    """The UTF-8 text of a file that may be of anybody, of at most so many bytes.

    Args:
        regular: refuse devices and pipes, which can keep a reader waiting for ever; the user may mean one.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no regular file (a device, a pipe), is longer, or is not UTF-8.
    """
    if regular and not path.is_dir() and not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("it is a device or pipe, not a file")
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise ValueError(f"it is longer than {most:,} bytes")
    return data.decode()


def write_bytes(path: Path, data: bytes | memoryview, *, named: Path | None = None) -> None:
    """Write a file whole or not at all; errors are those of `new_file`."""
    with new_file(path, named=named) as partial:
        partial.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file whole or not at all; errors are those of `new_file`."""
    write_bytes(path, text.encode())


@contextmanager
def in_one_line(path: Path, kinds: set[int]) -> Iterator[None]:
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


def sync(path: Path) -> None:
    """Have a file's content, or a folder's names, on the disk; not every file system can do the latter."""
    with suppress(OSError) if path.is_dir() else nullcontext():
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def random_name() -> str:
    return uuid.uuid4().hex[:8]
