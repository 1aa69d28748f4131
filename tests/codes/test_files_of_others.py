"""What people put into a codes folder stays theirs, also where it is called as files of ours are."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.cli.conftest import Command, vqtok
from tests.codes.test_failures import TOKENIZE, complaint, whole
from vqtok.codes.lending import lent
from vqtok.store import Store
from vqtok.tokenizer import VQTokenizer

__all__ = ["vqtok", "whole"]

CARD = "# My codes\n\nOf my own words.\n"


def test_a_tokenizer_beside_its_codes(vqtok: Command, whole: dict[str, bytes], tiny_tokenizer: VQTokenizer) -> None:
    shutil.copytree("whole/codes", "codes")
    shutil.copytree("tok", "codes/tokenizer")
    assert vqtok(*TOKENIZE, "codes")[0] == 0
    with lent(tiny_tokenizer, Store("codes")):
        pass
    assert "codes holds tokenizer/config.json" in complaint(vqtok(*TOKENIZE, "codes", "--overwrite"))
    assert {file.name for file in Path("codes/tokenizer").iterdir()} == {file.name for file in Path("tok").iterdir()}


def test_a_tokenizer_that_was_lent_goes_also_where_nobody_could_give_it_back(
    vqtok: Command, whole: dict[str, bytes], tiny_tokenizer: VQTokenizer
) -> None:
    shutil.copytree("whole/codes", "codes")
    before = sorted(Path("codes").rglob("*"))
    lending = lent(tiny_tokenizer, Store("codes"))
    lending.__enter__()
    assert len(sorted(Path("codes").rglob("*"))) > len(before)
    assert vqtok(*TOKENIZE, "codes")[0] == 0
    assert sorted(Path("codes").rglob("*")) == before


def test_a_card_that_people_wrote(vqtok: Command, whole: dict[str, bytes]) -> None:
    shutil.copytree("whole/codes", "codes")
    Path("codes/README.md").write_text(CARD)
    Path("codes/train/data-00001-of-00003.arrow").unlink()
    assert vqtok(*TOKENIZE, "codes")[0] == 0
    text = Path("codes/README.md").read_text()
    assert CARD.strip() in text and "train/data-*.arrow" in text


@pytest.mark.parametrize("more", [(), ("--overwrite",)])
def test_a_spec_and_a_card_are_no_plan_that_was_begun(
    vqtok: Command, whole: dict[str, bytes], more: tuple[str, ...]
) -> None:
    Path("codes").mkdir()
    shutil.copy("whole/codes/codes.json", "codes")
    Path("codes/README.md").write_text(CARD)
    answer = vqtok(*TOKENIZE, "codes", *more)
    assert (answer[0] == 0) == bool(more)
    if not more:
        assert "codes already exists and is not empty: choose another folder, or pass --overwrite" in complaint(answer)
        assert Path("codes/README.md").read_text() == CARD


@pytest.mark.parametrize("header", ["---\nlicense: [\n---\n", "---\n- 1\n---\n"])
def test_a_card_with_a_header_that_cannot_be_read(vqtok: Command, whole: dict[str, bytes], header: str) -> None:
    shutil.copytree("whole/codes", "codes")
    Path("codes/README.md").write_text(header + CARD)
    Path("codes/train/data-00001-of-00003.arrow").unlink()
    assert "README.md cannot be read as a card" in complaint(vqtok(*TOKENIZE, "codes"))
    assert Path("codes/README.md").read_text() == header + CARD


@pytest.mark.parametrize("name", ["README.md", "train/data-00001-of-00003.arrow", "receipts/train/00001.json", "train"])
def test_links_in_the_codes_folder_are_not_written_through(vqtok: Command, whole: dict[str, bytes], name: str) -> None:
    shutil.copytree("whole/codes", "codes")
    Path("codes", name).rename("elsewhere")
    Path("codes", name).symlink_to(Path("elsewhere").absolute())
    shard = Path("codes/train/data-00001-of-00003.arrow")
    shard.write_bytes(b"mine")
    before = {path: path.read_bytes() for path in Path(".").glob("elsewhere/**/*") if path.is_file()}
    before |= {Path("elsewhere"): Path("elsewhere").read_bytes()} if Path("elsewhere").is_file() else {}
    said = complaint(vqtok(*TOKENIZE, "codes"))
    assert f"codes/{name}" in said and "is or lies behind a link" in said
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize("name", ["plan.json", "codes.json", "README.md", "receipts/train/00001.json"])
def test_pipes_in_a_codes_folder_keep_nobody_waiting(vqtok: Command, whole: dict[str, bytes], name: str) -> None:
    shutil.copytree("whole/codes", "codes")
    Path("codes", name).unlink()
    os.mkfifo(f"codes/{name}")
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(60)  # ends the tests, which nothing else would
    try:
        found = complaint(vqtok("inspect", "codes", "--verify"))
        assert name in found or name.startswith(("receipts", "codes.json", "README"))
        assert name in complaint(vqtok(*TOKENIZE, "codes"))
    finally:
        signal.alarm(0)
