"""A folder whose files appear whole or not at all, on a disk of this machine or wherever fsspec leads.

On a disk a file is written beside its final name, synced and renamed. An object store has no names that can be
renamed: one request puts the whole file there.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from vqtok.errors import ConfigurationError, DataError, one_line
from vqtok.files import write_bytes
from vqtok.retries import is_passing, persistently

__all__ = ["Store", "file_system", "is_partial", "is_url"]

UNFINISHED = re.compile(r"\.vqtok-[0-9a-f]{8}\.tmp(\..*)?")
"""What a file is called while `write_bytes` writes it."""


OPTIONS: dict[str, dict[str, Any]] = dict.fromkeys(
    ("s3", "s3a"), {"config_kwargs": {"retries": {"total_max_attempts": 1}}}
)
"""Of file systems, by the kind of address. s3fs asks five times itself: with botocore's attempts inside these and ours
around them, a store that refuses for ever would be asked for minutes."""

BLOCK = 8 << 20  # bytes that a checksum reads at a time
PACKAGES = {"s3": "'vqtok[s3]'", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs"}
"""What fsspec needs beside itself, by the kind of address."""


def is_url(place: str | os.PathLike[str]) -> bool:
    """Whether a place is named by a URL of fsspec, such as s3://bucket/codes, rather than by a path."""
    return re.match(r"[A-Za-z][\w+.-]+://", str(place)) is not None


def is_partial(name: str) -> bool:
    """Whether a file, by its name in a store, is one that a process was writing when it was killed."""
    return UNFINISHED.fullmatch(name.rpartition("/")[2]) is not None


def file_system(place: str, **options: Any) -> tuple[Any, str]:
    """The file system of an address, and the path in it.

    Raises:
        ConfigurationError: it is of a kind that is not known, or whose package is not installed, or nobody answers.
    """
    try:
        system, path = fsspec.core.url_to_fs(place, **OPTIONS.get(place.partition("://")[0], {}), **options)
    except ImportError as error:
        package = PACKAGES.get(place.partition("://")[0])
        hint = f": pip install {package}" if package else f": {one_line(error)}"
        raise ConfigurationError(f"{place} needs a package that is not installed{hint}") from error
    except (ValueError, OSError) as error:  # some connect at once
        raise ConfigurationError(f"{place} cannot be opened: {one_line(error)}") from error
    return system, path


class Store:
    """A folder of files, named by paths relative to it that are written with slashes.

    Args:
        place: a path, or a URL of fsspec. Nothing needs to be there.

    Raises:
        ConfigurationError: a URL of a kind that is not known or whose package is not installed, or with an empty part.
    """

    def __init__(self, place: str | os.PathLike[str]) -> None:
        self.place = str(place)
        if not is_url(place):
            self.fs: Any = LocalFileSystem()
            self.root = os.path.abspath(place)
            return
        # What another process put there since must be seen.
        self.fs, root = file_system(self.place, use_listings_cache=False)
        self.root = root.rstrip("/")
        if "//" in self.root.rpartition("://")[2]:  # file systems list such names under others
            raise ConfigurationError(f"{self.place} has two slashes in a row in its path: leave one of them out")

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine, named by a path or by a URL."""
        return isinstance(self.fs, LocalFileSystem)

    @property
    def folder(self) -> Path:
        """The folder of this machine, as the user named it where that was by a path."""
        assert self.is_local
        return Path(self.root if is_url(self.place) else self.place)

    def path(self, name: str) -> str:
        """What a user calls a file of the store."""
        return f"{self.place.rstrip('/')}/{name}" if name else self.place

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: it is not there.
            DataError: it cannot be read.
        """
        self._check_file(name)
        data: bytes = self._ask("read", name, lambda: self.fs.cat_file(self._full(name)))
        return data

    def read_object(self, name: str, *, advice: str) -> dict[str, Any] | None:
        """The JSON object in a file; None where there is no such file.

        Args:
            advice: what an error says to do about a file that is damaged.

        Raises:
            DataError: it cannot be read, or holds no object.
        """
        try:
            values = json.loads(self.read(name))
        except FileNotFoundError:
            return None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{self.path(name)} is damaged ({one_line(error)}): {advice}") from None
        if not isinstance(values, dict):
            raise DataError(f"{self.path(name)} is damaged (it holds no object): {advice}")
        return values

    def sha256(self, name: str) -> str:
        """The checksum of a file as hex, of which a few megabytes at a time are in memory.

        Raises:
            FileNotFoundError: it is not there.
            DataError: it cannot be read.
        """

        self._check_file(name)

        def digest() -> str:
            made = hashlib.sha256()
            with self.fs.open(self._full(name), "rb", block_size=BLOCK, cache_type="none") as file:
                while block := file.read(BLOCK):
                    made.update(block)
            return made.hexdigest()

        found: str = self._ask("read", name, digest)
        return found

    def put(self, name: str, data: bytes | memoryview) -> None:
        """Write a file whole or not at all, in place of an older one.

        Raises:
            ConfigurationError: the place cannot be written, or a link in it leads elsewhere.
            DataError: the disk is full, or the store does not take it.
        """
        if self.is_local:
            self._check_own(name)
            write_bytes(Path(self._full(name)), data, named=self.folder / name)
            return
        self._ask("write", name, lambda: self.fs.pipe_file(self._full(name), bytes(data)))

    def sizes(self, folder: str = "") -> dict[str, int]:
        """The files below a folder of the store, by name, with their bytes; none where there is no such folder."""
        try:
            found = self._ask("list", folder, lambda: self.fs.find(self._full(folder), detail=True))
        except FileNotFoundError:
            return {}
        # s3fs gives the folder itself where its first file appears while it looks
        inside, below = f"{self._full(folder)}/", len(self.root) + 1
        return {path[below:]: info["size"] for path, info in sorted(found.items()) if path.startswith(inside)}

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error.

        Raises:
            DataError: it cannot be removed.
        """
        with suppress(FileNotFoundError):
            self._ask("remove", name, lambda: self.fs.rm_file(self._full(name)))

    def remove_unfinished(self, folder: str) -> None:
        """Remove what killed processes were writing below a folder; only where no other process writes."""
        if self.is_local:
            for path in Path(self._full(folder)).rglob(".*"):
                if is_partial(path.name) and path.is_file() and not path.is_symlink():
                    path.unlink()

    def remove_folders_of(self, names: Iterable[str]) -> None:
        """Remove the folders in which these files were, where they hold nothing now; an object store has none."""
        folders = {folder for name in names for folder in PurePosixPath(name).parents[:-1]}
        if self.is_local:
            for folder in sorted(folders, reverse=True):
                with suppress(OSError):  # not empty
                    os.rmdir(self._full(str(folder)))

    def _full(self, name: str) -> str:
        return f"{self.root}/{name}" if name else self.root

    def _check_file(self, name: str) -> None:
        """Refuse devices and pipes, which can keep a reader waiting for ever."""
        if self.is_local and os.path.exists(place := self._full(name)) and not os.path.isfile(place):
            raise DataError(f"cannot read {self.path(name)}: it is no regular file")

    def _check_own(self, name: str) -> None:
        """Refuse to write through a link in the folder, which may come from somebody else, or out of it."""
        place = os.path.join(os.path.realpath(self.root), name)
        if (real := os.path.realpath(place)) != place:
            raise ConfigurationError(
                f"{self.path(name)} is or lies behind a link to {real}, and is left alone: delete the link, or put "
                "what it leads to in its place"
            )

    def _ask(self, doing: str, name: str, ask: Callable[[], Any]) -> Any:
        """Ask a file system of fsspec, each of which raises errors of its own: what passes again, all else one line."""
        try:
            return persistently(ask, f"the attempt to {doing} {self.path(name)}")
        except Exception as error:
            # A server's 503 is one to some, and where something is written it is the bucket that is missing.
            if isinstance(error, FileNotFoundError) and doing != "write" and not is_passing(error):
                raise
            raise DataError(f"cannot {doing} {self.path(name)}: {one_line(error)}") from error
