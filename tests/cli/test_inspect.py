"""vqtok inspect: one aligned line a fact, from a folder or from the Hub."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

import vqtok.hub
from vqtok.errors import DataError, HubError
from vqtok.tokenizer import VQTokenizer
from vqtok_cli.main import app


def test_facts_are_aligned_under_the_kind(tiny_tokenizer: VQTokenizer, tmp_path: Path) -> None:
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "model")])
    lines = [line for line in result.output.splitlines() if "Loading" not in line and line]
    assert result.exit_code == 0 and lines[0] == f"{tmp_path / 'model'}: tokenizer"
    starts = {line.index(line[2:].split("  ", 1)[1].lstrip(), 2) for line in lines[1:]}
    assert len(starts) == 1
    assert any(line.split() == ["fingerprint", tiny_tokenizer.fingerprint] for line in lines)


def test_a_hub_id_is_fetched(tiny_tokenizer: VQTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_tokenizer.save_pretrained(tmp_path / "snapshot")
    asked = []

    def fetch(repo_id: str, *, revision: str | None) -> Path:
        asked.append((repo_id, revision))
        return tmp_path / "snapshot"

    monkeypatch.setattr(vqtok.hub, "fetch", fetch)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["inspect", "org/digits", "--revision", "v1"])
    assert asked == [("org/digits", "v1")] and "org/digits: tokenizer" in result.output


@pytest.mark.parametrize("path", ["nowhere", "./no/where", "a/b/c"])
def test_a_folder_that_is_not_there_is_said_to_be_missing(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["inspect", path])
    assert isinstance(result.exception, DataError) and not isinstance(result.exception, HubError)
    assert f"{path} does not exist" in str(result.exception)
