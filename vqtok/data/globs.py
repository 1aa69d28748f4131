"""Names of files by a pattern: braces as in a shell, such as train-{000..007}.tar or {a,b}.tar, and *, ?, [] and **.

The same at an address that fsspec knows, such as s3://bucket/train-*.tar.
"""

from __future__ import annotations

import glob
import os
import posixpath
import re
from collections.abc import Iterator

from fsspec.implementations.local import LocalFileSystem

from vqtok.data.row_files import is_url
from vqtok.errors import DataError
from vqtok.store import file_system

__all__ = ["is_address", "is_pattern", "local_path", "matching_addresses", "matching_files"]

BRACES = re.compile(r"\{([^{}]*)\}")
WEB = re.compile("https?://")
LOCAL = re.compile("(file|local)://")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
MOST = 1_000_000  # names that braces may stand for


def is_pattern(name: str) -> bool:
    """Whether a name has anything in it that stands for other names."""
    return glob.has_magic(name) or BRACES.search(name) is not None


def is_address(name: str) -> bool:
    """Whether a name is the address of files rather than a path."""
    return is_url(name)


def local_path(name: str) -> str:
    """The path of an address of this machine, of the kind file or local; any other name as it is."""
    if LOCAL.match(name) is None or os.path.exists(name):
        return name
    return str(LocalFileSystem._strip_protocol(name))


def matching_files(pattern: str) -> tuple[str, list[str]]:
    """The folder that all matching files lie below, absolute, and their paths from there, ascending.

    Raises:
        DataError: no file matches the pattern, or one that braces name is missing.
    """
    found: set[str] = set()
    for name in _expanded(pattern):
        files = [file for file in glob.glob(name, recursive=True) if os.path.isfile(file)]
        if not files:
            what = "there is no file" if name == pattern else f"{pattern} names a file that is not there:"
            raise DataError(f"{what} {name}; a pattern must match files of rows such as parquet or tar")
        found.update(map(os.path.abspath, files))
    folder = os.path.commonpath([os.path.dirname(file) for file in found])
    return folder, sorted(os.path.relpath(file, folder) for file in found)


def matching_addresses(address: str) -> tuple[str, list[str]]:
    """The folder that all files of an address lie below, as an address itself, and their paths from there, ascending.

    Args:
        address: a file, a folder, or a pattern; of a web server, which lists nothing, a file or braces.

    Raises:
        DataError: there is no such file.
        ConfigurationError: an address of a kind that is not known, or whose package is not installed.
        Exception: whatever the file system says.
    """
    if WEB.match(address):
        return _web_addresses(address)
    system, _ = file_system(address)
    found: set[str] = set()
    for name in _expanded(address):
        path = system._strip_protocol(name)
        files = system.glob(path) if glob.has_magic(name) else system.find(path)
        files = [file for file in files if system.isfile(file)]
        if not files:
            raise DataError(f"there is no file {name}")
        found.update(files)
    folder = posixpath.commonpath([posixpath.dirname(file) for file in found])
    return str(system.unstrip_protocol(folder)), sorted(posixpath.relpath(file, folder) for file in found)


def _web_addresses(address: str) -> tuple[str, list[str]]:
    files = list(_expanded(address))
    if any(glob.has_magic(file) or file.endswith("/") for file in files):
        raise DataError(f"{address} cannot be listed, as no web server can: name a file, or several by {{000..007}}")
    scheme = address.partition("://")[0]
    paths = [file.partition("://")[2] for file in files]
    folder = posixpath.commonpath([posixpath.dirname(path) for path in paths])
    return f"{scheme}://{folder}", sorted(posixpath.relpath(path, folder) for path in paths)


def _expanded(pattern: str, names: int = 1) -> Iterator[str]:
    match = BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    choices = _choices(match[1])
    names *= len(choices)
    if names > MOST:
        raise DataError(f"the braces of {pattern} stand for more than {MOST:,} names")
    for choice in choices:
        yield from _expanded(pattern[: match.start()] + choice + pattern[match.end() :], names)


def _choices(inside: str) -> list[str]:
    match = RANGE.fullmatch(inside)
    if match is None:
        return inside.split(",")
    first, last = int(match[1]), int(match[2])
    if abs(last - first) >= MOST:
        raise DataError(f"{{{inside}}} stands for more than {MOST:,} names")
    width = len(match[1]) if match[1].startswith("0") or match[2].startswith("0") else 0
    return [str(number).zfill(width) for number in range(min(first, last), max(first, last) + 1)]
