"""Conditions of the operating system that tests write files under."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vqtok import files

__all__ = ["ALONE", "contents", "files_limited_to", "umask"]

ALONE = f"""
import sys, types
sys.modules["vqtok"] = types.ModuleType("vqtok")
sys.modules["vqtok"].__path__ = [{str(Path(files.__file__).parent)!r}]
"""
"""The first lines of a process that needs no more than `vqtok.files`: without what `import vqtok` brings."""


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder and its text."""
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


@contextmanager
def files_limited_to(limit: int) -> Iterator[None]:
    """The kernel refuses to let any file of this process grow past a size, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@contextmanager
def umask(mask: int) -> Iterator[None]:
    """Take these permissions from whatever is created."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)
