"""vqtok convert: what is said, written, and refused."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.cli.conftest import Command
from tests.convert.test_convert import case
from tests.convert.test_hostile import tensor_pickle, with_pickle
from tests.disk import files_limited_to
from vqtok.convert import FAMILIES as families
from vqtok.tokenizer import VQTokenizer
from vqtok_cli.convert import FAMILIES


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VQTokenizer:
    """Makes a.pt of LlamaGen; gives the tokenizer that it holds."""
    monkeypatch.chdir(tmp_path)
    made, tensors = case("llamagen")
    torch.save({"model": tensors}, "a.pt")
    return made


def test_the_help_names_every_family() -> None:
    assert FAMILIES.split(", ") == list(families)


def test_a_checkpoint_becomes_a_folder_that_every_command_takes(vqtok: Command, checkpoint: VQTokenizer) -> None:
    status, said, complained = vqtok("convert", "a.pt", "--out", "tok", "--image-size", 64)
    assert status == 0, complained
    assert "tokenizer written to tok" in said
    told = said + complained
    assert "llamagen (LlamaGen)" in told and "weights MIT" in told and "center-crop-adm" in told
    assert "1 tensor left out, which no code and no image needs: quantize.codebook_used" in told
    card = Path("tok/README.md").read_text()
    assert "| license of the weights | MIT |" in card and "arXiv:2406.06525" in card
    assert "a.pt, a checkpoint of LlamaGen" in card and "center-crop-adm" in card
    Path("images").mkdir()
    for number in range(3):
        Image.new("RGB", (100 + number, 80), (number, 9, 200)).save(f"images/{number}.png")
    assert vqtok("tokenize", "images", "--tokenizer", "tok", "--out", "codes", "--quiet")[0] == 0
    assert vqtok("detokenize", "codes", "--tokenizer", "tok", "--out", "decoded", "--quiet")[0] == 0
    assert len(list(Path("decoded").rglob("*.png"))) == 3
    assert VQTokenizer.from_pretrained("tok").quantizer.codebook.equal(checkpoint.quantizer.codebook)


def test_only_a_tokenizer_is_overwritten(vqtok: Command, checkpoint: VQTokenizer) -> None:
    assert vqtok("convert", "a.pt", "--out", "tok", "--image-size", 64)[0] == 0
    status, _, complained = vqtok("convert", "a.pt", "--out", "tok")
    assert (
        status == 2 and "tok already exists and is not empty: choose another folder, or pass --overwrite" in complained
    )
    Path("tok/notes.txt").write_text("mine")
    status, _, complained = vqtok("convert", "a.pt", "--out", "tok", "--overwrite")
    assert status == 2 and "notes.txt" in complained and Path("tok/notes.txt").read_text() == "mine"
    Path("tok/notes.txt").unlink()
    assert vqtok("convert", "a.pt", "--out", "tok", "--overwrite", "--image-size", 128)[0] == 0
    assert VQTokenizer.from_pretrained("tok").config.size == (128, 128)


def test_the_model_of_another_program_is_not_overwritten(vqtok: Command, checkpoint: VQTokenizer) -> None:
    """Its files have the names of ours; it may be the checkpoint itself."""
    Path("theirs").mkdir()
    tensors = {name: tensor.contiguous() for name, tensor in case("llamagen")[1].items()}
    save_file(tensors, "theirs/model.safetensors")
    Path("theirs/config.json").write_text('{"model_type": "llama"}')
    before = Path("theirs/model.safetensors").read_bytes()
    for source in ("a.pt", "theirs"):
        status, _, complained = vqtok("convert", source, "--out", "theirs", "--overwrite", "--image-size", 64)
        assert status == 2 and "theirs holds config.json, model.safetensors, which vqtok did not write" in complained
    assert Path("theirs/model.safetensors").read_bytes() == before


def test_weights_that_may_not_be_shared_are_said(vqtok: Command, checkpoint: VQTokenizer) -> None:
    _, taming = case("taming")
    found = {name.replace("first_stage_model.", "model.vqmodel."): value for name, value in taming.items()}
    torch.save({name: value for name, value in found.items() if ".decoder." not in name}, "chameleon.bin")
    status, said, complained = vqtok("convert", "chameleon.bin", "--out", "tok", "--image-size", 64)
    terms = "Chameleon Research License (not for commercial use): they may not be given to others"
    assert status == 0 and f"warning: the weights are under the {terms}" in complained
    assert f"| license of the weights | {terms} |" in Path("tok/README.md").read_text()
    status, said, complained = vqtok("inspect", "tok")
    assert status == 0 and terms in said


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("none.pt",), "there is no file or folder none.pt"),
        (("a.pt", "--from", "llamagenn"), "Did you mean 'llamagen'?"),
        (("text.pt",), "text.pt is damaged, or no checkpoint"),
        (("a.pt", "--image-size", 63), "63x63 pixels does not divide by the downsample factor 4"),
    ],
)
def test_what_cannot_be_converted_is_one_line_and_leaves_nothing(
    vqtok: Command, checkpoint: VQTokenizer, arguments: tuple[object, ...], complaint: str
) -> None:
    Path("text.pt").write_text("text\n")
    status, _, complained = vqtok("convert", *arguments, "--out", "tok")
    assert status == 2 and complaint in complained and complained.count("\n") == 1
    assert not Path("tok").exists()


def test_a_full_disk_is_one_line_and_leaves_nothing(vqtok: Command, checkpoint: VQTokenizer) -> None:
    with files_limited_to(1 << 20):
        status, _, complained = vqtok("convert", "a.pt", "--out", "tok", "--image-size", 64)
    assert status == 2 and not Path("tok").exists()
    assert "vqtok: error: tok was not written: " in complained and "File too large" in complained.splitlines()[-1]


def test_the_weights_can_be_read_by_whom_the_folder_can(vqtok: Command, checkpoint: VQTokenizer) -> None:
    """safetensors makes files that are their owner's alone."""
    assert vqtok("convert", "a.pt", "--out", "tok", "--image-size", 64)[0] == 0
    assert {file.stat().st_mode & 0o777 for file in Path("tok").iterdir()} == {Path("tok").stat().st_mode & 0o666}


class Runs:
    def __reduce__(self) -> Any:
        return os.system, ("touch trace",)


def test_hostile_files_are_one_line_and_nothing_is_run(vqtok: Command, checkpoint: VQTokenizer) -> None:
    tensors = torch.load("a.pt", weights_only=True)["model"]
    torch.save({"model": tensors, "args": Runs()}, "runs.pt")
    assert vqtok("convert", "runs.pt", "--out", "tok", "--image-size", 64)[0] == 0 and not Path("trace").exists()
    torch.save(Runs(), "only.pt")
    Path("cut.pt").write_bytes(Path("a.pt").read_bytes()[:-1000])
    with_pickle(Path("claims.pt"), tensor_pickle((2**20, 2**20), (0, 0)))
    with_pickle(Path("nested.pt"), b"\x80\x02" + b"]" * 2000 + b"a" * 1999 + b".")
    torch.save({"a\nb\x1b[2J": torch.ones(1)}, "named.pt")
    torch.save({"model": {**tensors, "more": torch.ones(1)}}, "more.pt")
    for arguments, complaint in (
        (["only.pt"], "only.pt holds no tensors"),
        (["cut.pt"], "cut.pt is damaged or was cut short"),
        (["claims.pt"], "claims 1,099,511,627,776 numbers, and its data holds 4"),
        (["nested.pt"], "nests containers more than 100 deep"),
        (["named.pt"], "the names of tensors must be a line"),
        (["more.pt"], "has no place for more"),
        (["a.pt", "--from", "maskgit"], "a.pt is no checkpoint of MaskGIT's VQGAN"),
    ):
        status, _, complained = vqtok("convert", *arguments, "--out", "other")
        assert status == 2 and complaint in complained and complained.count("\n") == 1, complained
        assert complained.rstrip("\n").isprintable() and not Path("other").exists() and not Path("trace").exists()
