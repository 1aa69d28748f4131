"""A folder is one process's alone while it works there; the lock ends with the process, however that ends."""

from __future__ import annotations

import errno
import os
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from vqtok.errors import ConfigurationError
from vqtok.files import NO_ACCESS, NO_ROOM, in_one_line

__all__ = ["OWNER_FILE", "lock", "locked", "this_process"]

OWNER_FILE = ".owner.txt"


@contextmanager
def locked(folder: Path) -> Iterator[bool]:
    """Make a folder where there is none, and have it for this process alone, as far as its file system has locks.

    Gives whether the last process that had it crashed or was killed, and so left its owner file behind.

    Raises:
        ConfigurationError: another process has it, it cannot be made or written, or its owner file leads elsewhere.
        DataError: the disk is full.
    """
    owner = folder / OWNER_FILE
    to_remove = owner.absolute()  # whatever the working folder is then
    with in_one_line(folder, NO_ROOM | NO_ACCESS):
        folder.mkdir(parents=True, exist_ok=True)
        file = open_own(owner)
    with file:
        # a file without a name is one that its process removed after this one had opened it
        if lock(file) is False or os.fstat(file.fileno()).st_nlink == 0:
            file.seek(0)
            process = file.read().strip() or "another process"
            raise ConfigurationError(f"{process} is at work in {folder}: wait for it, or choose another folder")
        died = os.fstat(file.fileno()).st_size > 0
        file.truncate(0)
        file.write(this_process())
        file.flush()
        try:
            yield died
        finally:
            with suppress(OSError):
                to_remove.unlink()


def open_own(path: Path) -> IO[str]:
    """Open or make a file to write into, and nothing else: a folder that came from elsewhere may hold a link there."""
    with suppress(FileNotFoundError):
        state = path.lstat()
        if not stat.S_ISREG(state.st_mode) or state.st_nlink > 1:
            raise ConfigurationError(f"{path} is a link or no file, and is left alone: delete it and run again")
    no_link = getattr(os, "O_NOFOLLOW", 0)  # which Windows has not
    return open(path, "a+", encoding="utf-8", opener=lambda name, flags: os.open(name, flags | no_link, 0o666))


def lock(file: IO[str]) -> bool | None:
    """Take the lock of an open file, which ends with the process; False where another has it, None without locks."""
    if sys.platform == "win32":
        return None
    import fcntl

    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in (errno.EAGAIN, errno.EACCES) else None
    return True


def this_process() -> str:
    return f"process {os.getpid()} on {socket.gethostname()}\n"
