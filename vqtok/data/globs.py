"""Names of files by a pattern: braces as in a shell, such as train-{000..007}.tar or {a,b}.tar, and *, ?, [] and **."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterator

from vqtok.errors import DataError

__all__ = ["is_pattern", "matching_files"]

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
MOST = 1_000_000  # names that braces may stand for


def is_pattern(name: str) -> bool:
    """Whether a name has anything in it that stands for other names."""
    return glob.has_magic(name) or BRACES.search(name) is not None


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
