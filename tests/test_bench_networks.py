"""The command line of scripts/bench_networks.py."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "scripts" / "bench_networks.py"


@pytest.mark.parametrize("given", ["--size=100", "--size=0", "--batch-size=0", "--rounds=0"])
def test_what_cannot_be_timed_is_one_line(
    given: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("diffusers")
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), given])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 2
    assert f"error: {given.partition('=')[0]} must be" in capsys.readouterr().err
