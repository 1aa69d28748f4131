"""The hidden folder inside a user's folder in which new content waits until all of it is there.

The user's folder may be a mount point, which cannot be renamed over, and nothing beside it need be writable. So the
work is staged inside, in `.vqtok-1a2b3c4d`, and its entries move up when all of them are there. The process at work
holds a lock on a file of the staging folder; a later run that finds the lock free knows that the process was killed.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from vqtok.errors import ConfigurationError
from vqtok.files import random_name, sync, write_text
from vqtok.locks import OWNER_FILE, lock, this_process

__all__ = ["Staging", "entries_of", "is_file", "is_folder", "remove_leftovers"]

STAGING = ".vqtok-"
OWNER = re.compile(r"process \d+ on .*\n")  # what a staging folder says of its process
NOT_CONTENT = {"lost+found", OWNER_FILE}  # the first is at the root of every ext4 volume
MAKING = 60  # seconds; making a staging folder and locking it takes milliseconds

logger = logging.getLogger(__name__)


def entries_of(folder: Path) -> list[Path]:
    """What is in a folder that a user names, without staging folders, some of which may just be going."""
    content = (path for path in folder.iterdir() if path.name not in NOT_CONTENT)
    return [path for path in content if not (path.name.startswith(STAGING) and (path.is_dir() or not path.exists()))]


class Staging:
    """The hidden folder `name` in `out`, by default a new one.

    It holds what is written, later what that replaces, and how far the exchange got.
    """

    def __init__(self, out: Path, name: str | None = None) -> None:
        self.out, self.path = out, out / (name or STAGING + random_name())
        self.new, self.old = self.path / "new", self.path / "old"
        self.owner = self.path / "owner.txt"  # locked by its process
        self.unlocked = self.path / OWNER_FILE  # the same before it is locked
        self.journal = self.path / "moving.json"  # there while entries move: those of `new`, with their inodes

    def make(self) -> IO[str]:
        """Make the folder and lock it for this process until the file given back is closed."""
        try:
            self.path.mkdir(parents=True)
            self.unlocked.write_text(this_process(), encoding="utf-8")
            file = self.unlocked.open("r+", encoding="utf-8")
            lock(file)
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
            move(entry, self.old)
        for entry in entries:
            move(entry, self.out)
        sync(self.out)
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
                    move(entry, self.new)
            for entry in self.old.iterdir():
                move(entry, self.out)
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
        if not (is_folder(self.path) and is_file(self.owner) and all(map(is_folder, folders))):
            return False
        try:
            if os.path.lexists(self.journal):
                if len(folders) < 2 or not is_file(self.journal):
                    return False
                self.moves()
            return OWNER.fullmatch(self.owner.read_text(encoding="utf-8")) is not None
        except (ValueError, RecursionError):
            return False

    def is_half_made(self) -> bool:
        """Whether a run was killed in the midst of `make`; one that is there at this moment has `MAKING` seconds."""
        return (
            is_folder(self.path)
            and {entry.name for entry in self.path.iterdir()} <= {self.unlocked.name}
            and time.time() - self.path.stat().st_mtime > MAKING
        )


def remove_leftovers(out: Path, besides: Path | None) -> None:
    """Remove the staging folders whose process is gone; refuse to go on beside one that is at work."""
    for path in sorted(out.glob(STAGING + "[0-9a-f]" * 8)):
        with suppress(FileNotFoundError):  # its own process was quicker
            if besides is None or path.name != besides.name:
                _remove_leftover(Staging(out, path.name))


def _remove_leftover(staging: Staging) -> None:
    if staging.is_ours():
        with staging.owner.open("r+", encoding="utf-8") as file:
            if not lock(file):
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


def move(entry: Path, folder: Path) -> None:
    """Rename into a folder, over nothing."""
    target = folder / entry.name
    if os.path.lexists(target):
        raise ConfigurationError(f"{target} is in the way of {entry}: move one of them elsewhere and run again")
    entry.rename(target)


def is_file(path: Path) -> bool:
    return path.is_file() and not path.is_symlink()


def is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
