"""`vqtok inspect --verify`: what is no longer as it was written is named, and made anew once it is deleted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.conftest import Command, vqtok
from tests.written_codes import contents
from vqtok.codes import read_spec
from vqtok.tokenizer import VQTokenizer

__all__ = ["vqtok"]

TOKENIZE = ("tokenize", "images", "--tokenizer", "tok", "--out", "codes", "--shard-rows", "5", "--quiet")


@pytest.fixture
def codes(vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer) -> Path:
    tiny_tokenizer.save_pretrained("tok")
    assert vqtok(*TOKENIZE)[0] == 0
    return Path("codes")


def turn_a_bit(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def test_codes_as_they_were_written(vqtok: Command, codes: Path) -> None:
    size = sum(file.stat().st_size for file in codes.glob("train/data-*"))
    status, said, _ = vqtok("inspect", "codes", "--verify")
    assert (status, said) == (0, f"3 shards of codes ({size:,} bytes) as written\n")
    status, said, _ = vqtok("inspect", "codes", "--verify", "--json")
    assert status == 0
    assert json.loads(said) == {"path": "codes", "kind": "codes", "shards": 3, "bytes": size, "wrong": []}


def test_every_file_that_is_wrong_is_named_and_made_anew_once_it_is_deleted(vqtok: Command, codes: Path) -> None:
    whole = contents(codes)
    shard, gone = (f"train/data-0000{number}-of-00003.arrow" for number in (1, 2))
    turn_a_bit(codes / shard)
    (codes / gone).unlink()
    (codes / "receipts/train/00000.json").write_text('{"plan"')
    turn_a_bit(codes / "plan/train/00000.arrow")
    status, said, complained = vqtok("inspect", "codes", "--verify")
    lines = said.splitlines()
    assert status == 2 and len(lines) == 4
    assert lines[0].startswith("codes/plan/train/00000.arrow: its sha256 is ") and "the plan says" in lines[0]
    assert lines[0].endswith("; only --overwrite, which begins anew, writes it again")
    assert lines[1].startswith("codes/receipts/train/00000.json: codes/receipts/train/00000.json is damaged")
    assert lines[2].startswith(f"codes/{shard}: its sha256 is ") and "its receipt says" in lines[2]
    assert lines[3] == f"codes/{gone}: it is missing"
    assert complained.count("\n") == 1 and "4 files of codes are not what was written: delete" in complained
    status, said, _ = vqtok("inspect", "codes", "--verify", "--json")
    assert status == 2 and [each["file"] for each in json.loads(said)["wrong"]][2:] == [shard, gone]

    turn_a_bit(codes / "plan/train/00000.arrow")  # back
    (codes / shard).unlink()
    (codes / "receipts/train/00000.json").unlink()
    assert vqtok(*TOKENIZE)[0] == 0
    assert vqtok("inspect", "codes", "--verify")[0] == 0 and contents(codes) == whole


def test_a_sidecar_of_another_tokenizer_and_an_unfinished_set_are_named(vqtok: Command, codes: Path) -> None:
    values = json.loads((codes / "codes.json").read_text())
    (codes / "codes.json").write_text(json.dumps(values | {"fingerprint": "b" * 64}))
    assert "codes/codes.json: it names tokenizer bbbbbbbbbbbb" in vqtok("inspect", "codes", "--verify")[1]
    (codes / "codes.json").write_text(json.dumps(values))
    (codes / "dataset_dict.json").unlink()
    assert "codes/dataset_dict.json: it is missing" in vqtok("inspect", "codes", "--verify")[1]


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("train/state.json", "{", "it is damaged"),
        ("train/state.json", '{"_data_files": []}', "it is damaged"),
        ("train/state.json", '{"_data_files": [], "_fingerprint": "a"}', "it is not what the receipts say"),
        ("train/dataset_info.json", "[]", "it is damaged"),
        ("train/dataset_info.json", '{"description": "", "features": {}}', "it is not what the receipts say"),
        ("dataset_dict.json", '{"splits": ["train", "test"]}', "it is not what the receipts say"),
        ("bad_images.parquet", "no parquet", "it is damaged"),
    ],
)
def test_what_lies_beside_the_shards_is_checked_and_made_anew(
    vqtok: Command, codes: Path, file: str, content: str, says: str
) -> None:
    """By the same command, which looks at no image again."""
    whole = contents(codes)
    (codes / file).write_text(content)
    status, said, _ = vqtok("inspect", "codes", "--verify")
    assert status == 2 and said.splitlines() == [f"codes/{file}: {says}"]
    assert vqtok(*TOKENIZE)[0] == 0 and contents(codes) == whole


@pytest.mark.parametrize("text", ["", "# Ours\n", "---\nconfigs: 3\n---\n", "---\nconfigs: [3, {}]\n---\nOurs\n"])
def test_a_card_that_no_longer_says_where_the_shards_are_is_named_and_mended(
    vqtok: Command, codes: Path, text: str
) -> None:
    """As of a file that was cut short, or a text of people's own, which stays; nothing would load of it."""
    whole = contents(codes)
    (codes / "README.md").write_text(text)
    status, said, _ = vqtok("inspect", "codes", "--verify")
    assert status == 2 and said.splitlines() == ["codes/README.md: it does not say where the shards are"]
    assert vqtok(*TOKENIZE)[0] == 0 and vqtok("inspect", "codes", "--verify")[0] == 0
    assert datasets.load_dataset("codes", split="train").num_rows == 12
    mended = contents(codes)
    assert "Ours" not in text or "Ours" in (codes / "README.md").read_text()
    assert {name for name in whole if mended[name] != whole[name]} <= {"README.md"}


def test_a_card_that_is_no_card_is_named_and_left_to_its_writer(vqtok: Command, codes: Path) -> None:
    (codes / "README.md").write_text("---\nx: [\n---\nOurs\n")
    assert "codes/README.md: README.md cannot be read as a card" in vqtok("inspect", "codes", "--verify")[1]
    status, _, complained = vqtok(*TOKENIZE)
    assert status == 2 and "README.md cannot be read as a card" in complained and "mend or delete it" in complained
    assert "Ours" in (codes / "README.md").read_text()


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_a_file_that_load_dataset_takes_for_a_shard_is_named(
    vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer, format: str
) -> None:
    tiny_tokenizer.save_pretrained("tok")
    assert vqtok(*TOKENIZE, "--format", format)[0] == 0
    shard = next(file for file in Path("codes").rglob(f"*-00000-of-00003.{format}"))
    more = shard.with_name(shard.name.replace("00000", "00009"))
    shutil.copy(shard, more)
    shutil.copy(shard, shard.with_name("notes.txt"))
    assert len(datasets.load_dataset("codes")["train"]) > 11
    status, said, _ = vqtok("inspect", "codes", "--verify")
    assert status == 2
    assert said == f"{more.as_posix()}: it is no shard of the plan, and load_dataset would take it for one\n"
    more.unlink()
    assert vqtok("inspect", "codes", "--verify")[0] == 0


@pytest.mark.parametrize("format", ["arrow", "parquet"])
def test_codes_that_were_bound_again_are_as_they_were_written(
    vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer, format: str
) -> None:
    """Such as to the name on the Hub that their tokenizer was given since."""
    tiny_tokenizer.save_pretrained("tok")
    tiny_tokenizer.save_pretrained("renamed")
    tokenize = (*TOKENIZE, "--format", format)
    assert vqtok(*tokenize)[0] == 0
    assert vqtok("bind", "codes", "--tokenizer", "renamed")[0] == 0
    bound = contents(Path("codes"))
    assert b"renamed" in bound["codes.json"] and read_spec("codes").repository == "renamed"
    assert vqtok("inspect", "codes", "--verify")[0] == 0
    assert vqtok(*tokenize)[0] == 0 and contents(Path("codes")) == bound


def test_a_folder_in_place_of_the_card_is_one_file_of_those_that_are_wrong(vqtok: Command, codes: Path) -> None:
    (codes / "dataset_dict.json").unlink()
    (codes / "README.md").unlink()
    (codes / "README.md").mkdir()
    lines = vqtok("inspect", "codes", "--verify")[1].splitlines()
    assert lines == [
        "codes/dataset_dict.json: it is missing",
        "codes/README.md: cannot read codes/README.md: it is no regular file",
    ]


def test_bad_images_that_somebody_edited_are_named(vqtok: Command, codes: Path) -> None:
    pq.write_table(pq.read_table(codes / "bad_images.parquet"), codes / "bad_images.parquet", compression="none")
    assert vqtok("inspect", "codes", "--verify")[0] == 0, "the same rows, as another version of pyarrow writes them"
    row = {"split": ["train"], "row": [0], "path": ["x.png"], "reason": ["none"]}
    pq.write_table(pa.table(row), codes / "bad_images.parquet")
    assert "codes/bad_images.parquet: it is not what the receipts say" in vqtok("inspect", "codes", "--verify")[1]


def test_what_has_no_receipts_is_one_line(vqtok: Command, codes: Path) -> None:
    shutil.rmtree(codes / "receipts")
    (codes / "plan.json").unlink()
    for place in ("codes", "nowhere", "tok"):
        status, _, complained = vqtok("inspect", place, "--verify")
        assert status == 2 and complained.count("\n") == 1
        assert f"{place} has no plan.json and no receipts to check its files against" in complained
    status, _, complained = vqtok("inspect", "codes", "--verify", "--dataset", "images")
    assert status == 2 and "choose one" in complained
