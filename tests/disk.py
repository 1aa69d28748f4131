"""Conditions of the operating system that tests write files under."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["files_limited_to", "umask"]


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
