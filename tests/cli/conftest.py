from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vqtok_cli.main import main

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def vqtok(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """The command as a user types it, in an empty working folder: exit status, what it printed, and what on stderr."""
    monkeypatch.chdir(tmp_path)

    def call(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vqtok", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as caught:
            main()
        printed, complained = capfd.readouterr()
        code = caught.value.code
        return (code if isinstance(code, int) else 0 if code is None else 1), printed, complained

    return call
