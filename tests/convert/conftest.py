"""The test Hub of the tests of `vqtok.hub`."""

from __future__ import annotations

from tests.hub.conftest import alice, hub

__all__ = ["alice", "hub"]
