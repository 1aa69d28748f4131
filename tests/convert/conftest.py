"""The test Hub of the tests of `vqtok.hub`, and a folder for checkpoints of full size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.hub.conftest import alice, hub

__all__ = ["alice", "hub", "large_folder"]


@pytest.fixture
def large_folder() -> Iterator[Path]:
    """A folder that is gone after the test: pytest keeps its own, and these files have half a gigabyte each."""
    with TemporaryDirectory() as place:
        yield Path(place)
