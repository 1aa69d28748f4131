"""A test Hub for each test, and clients in processes of their own: the Hub's address is read when they are imported."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

from tests.hub_server import HubServer

ROOT = Path(__file__).resolve().parents[2]


class RunClient(Protocol):
    def __call__(
        self, code: str, *, token: str | None = ..., home: str = ..., fails: bool = ..., **env: str
    ) -> str: ...


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """alice and bob; org belongs to alice; hf_reader is alice's token for reading only."""
    users = {"hf_alice": "alice", "hf_bob": "bob", "hf_reader": "alice"}
    with HubServer(users, {"org": ["alice"]}, read_only=["hf_reader"]) as server:
        yield server


@pytest.fixture
def run_client(hub: HubServer, tmp_path: Path) -> RunClient:
    """Run Python code as a user of the test Hub would; gives its stdout, or with `fails` its stderr.

    `home` names the cache: two calls with the same name share it, and a new name is an empty one.
    """

    def run(code: str, *, token: str | None = "hf_alice", home: str = "home", fails: bool = False, **env: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= hub.client_environment(token, tmp_path / home)
        environment |= {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error::UserWarning", "OMP_NUM_THREADS": "1"} | env
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    return run
