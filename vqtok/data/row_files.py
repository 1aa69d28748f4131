"""A file of rows as a plan saw it and as it is now, on this machine, on the Hub, or under any address of fsspec.

A file of the Hub is called hf://datasets/org/name@commit/path wherever it is read: streaming reads ranges of it there,
and otherwise every machine that needs it downloads it once into the cache of huggingface_hub.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, cast

import fsspec
import httpx2
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError

from vqtok.errors import DataError, HubError, VqtokError, one_line
from vqtok.text import counted

__all__ = ["FoundFile", "RowFile", "check_bytes", "check_rows", "find_file", "is_url", "mark", "reading"]

BLOCK = 4 << 20  # bytes that a read of a remote file asks for at least
MARK_ROWS = 1024  # at least so many rows lie between two places where reading can begin
HUB = re.compile(r"hf://datasets/([^/@]+/[^/@]+)@([^/]+)/(.+)", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class RowFile:
    """A file of rows as the plan saw it.

    Attributes:
        path: absolute, or an address.
        bytes: its size.
        rows: how many it holds.
        marks: (row, byte) where reading can begin, ascending, for files without a table of contents.
        sha256: of a file that vqtok wrote itself.
    """

    path: str
    bytes: int
    rows: int
    marks: tuple[tuple[int, int], ...] = ()
    sha256: str | None = None

    def seen(self) -> str:
        """What the plan saw, for people."""
        return f"{counted(self.bytes, 'byte')} with {counted(self.rows, 'row')}"


@dataclass(frozen=True, kw_only=True)
class FoundFile:
    """A file of rows as it is now.

    Attributes:
        path: as `RowFile` has it.
        local: where it is on this machine, if it is.
        size: in bytes.
    """

    path: str
    local: str | None
    size: int

    def open(self) -> IO[bytes]:
        """The file, which can be read at any place."""
        if self.local is not None:
            return open(self.local, "rb")
        system, path = fsspec.core.url_to_fs(self.path)
        return cast(IO[bytes], system.open(path, "rb", block_size=BLOCK))


def is_url(path: str) -> bool:
    """Whether a path is an address rather than one of this machine."""
    return not os.path.isabs(path) and "://" in path


def find_file(path: str, *, streaming: bool, planned: RowFile | None = None) -> FoundFile:
    """The file behind a path.

    Args:
        streaming: leave a file of the Hub where it is.
        planned: what must still be so.

    Raises:
        DataError: its size is another than the plan saw, or it is no regular file.
        OSError: there is none; see `reading`.
    """
    found = _find(path, streaming)
    if planned is not None and found.size != planned.bytes:
        raise DataError(_changed(planned, counted(found.size, "byte")))
    return found


def _find(path: str, streaming: bool) -> FoundFile:
    local: str | None = path
    if hub := HUB.fullmatch(path):
        local = None if streaming else hf_hub_download(hub[1], hub[3], revision=hub[2], repo_type="dataset")
    elif is_url(path):
        local = None
    if local is None:
        system, inside = fsspec.core.url_to_fs(path)
        return FoundFile(path=path, local=None, size=system.info(inside)["size"])
    status = os.stat(local)
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path} cannot be read: it is no regular file")
    return FoundFile(path=path, local=local, size=status.st_size)


@contextmanager
def reading(path: str, planned: RowFile | None = None) -> Iterator[None]:
    """Turn whatever goes wrong with a file of rows into one line that names it.

    Args:
        planned: what the plan saw of it.

    Raises:
        DataError: it is gone, damaged, or cannot be read.
        HubError: the Hub does not give it.
    """
    try:
        yield
    except VqtokError:
        raise
    except (LocalEntryNotFoundError, httpx2.HTTPError, ConnectionError) as error:
        raise HubError(f"{path} cannot be fetched: {one_line(error)}") from error
    except FileNotFoundError as error:
        raise DataError(_changed(planned, "no file") if planned else f"there is no file {path}") from error
    except Exception as error:  # what is in the file decides which
        was = f"; the plan saw {planned.seen()}" if planned else ""
        raise DataError(f"{path} cannot be read: {one_line(error)}{was}") from error


def check_bytes(found: FoundFile, planned: RowFile) -> None:
    """Refuse other bytes than the plan saw, where it noted a checksum: of what vqtok wrote itself, which is small.

    Raises:
        DataError: names the file.
    """
    if planned.sha256 is None:
        return
    with found.open() as file:
        now = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]  # it reads as well as any
    if now != planned.sha256:
        raise DataError(_changed(planned, "other bytes"))


def check_rows(planned: RowFile, rows: int) -> None:
    """Refuse a file with another number of rows than the plan saw.

    Raises:
        DataError: names the file and both.
    """
    if rows != planned.rows:
        raise DataError(_changed(planned, counted(rows, "row")))


def _changed(planned: RowFile, now: str) -> str:
    return (
        f"{planned.path} is not what the plan saw: {planned.seen()} then, {now} now; put it back, or plan anew into "
        "another folder"
    )


def mark(marks: list[tuple[int, int]], row: int, byte: int) -> None:
    """Note where a row begins, unless the last mark is near."""
    if not marks or row - marks[-1][0] >= MARK_ROWS:
        marks.append((row, byte))
