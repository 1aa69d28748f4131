"""vqtok compress and decompress as a user types them."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import Command
from tests.lossless.models import make_prior, make_tokenizer, noise


@pytest.fixture
def models(tmp_path: Path) -> None:
    tokenizer = make_tokenizer({"type": "mixture", "num_components": 2})
    tokenizer.save_pretrained(tmp_path / "t")
    make_prior(tokenizer, "transformer").save_pretrained(tmp_path / "p")
    make_tokenizer({"type": "logistic"}, seed=1).save_pretrained(tmp_path / "other")
    make_tokenizer({"type": "gaussian"}).save_pretrained(tmp_path / "g")
    noise().save(tmp_path / "a.png")


def pixels(path: str) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.mark.parametrize("prior", [[], ["--prior", "p"]])
def test_an_image_comes_back(vqtok: Command, models: None, prior: list[str]) -> None:
    code, said, _ = vqtok("compress", "a.png", "--tokenizer", "t", *prior)
    assert code == 0
    bits = 8 * Path("a.vqt").stat().st_size
    buffer = io.BytesIO()
    Image.open("a.png").save(buffer, "PNG", optimize=True)
    assert f"{bits:,} bits, {bits / 192:.4f} bits per dimension, {bits // 8} bytes written to a.vqt" in said
    assert f"as PNG these pixels take {buffer.tell()} bytes" in said
    command = re.search("next: vqtok (.*)", said)
    assert command is not None
    code, said, _ = vqtok(*command[1].split(), "--out", "deep/b.png")
    assert code == 0 and "8 x 8 pixels" in said and f"{bits / 192:.4f} bits per dimension written to deep/b.png" in said
    assert np.array_equal(pixels("deep/b.png"), pixels("a.png"))


def test_files_that_are_there_are_left_alone(vqtok: Command, models: None) -> None:
    for name in ("a.vqt", "b.png"):
        Path(name).write_text("mine")
    code, _, said = vqtok("compress", "a.png", "--tokenizer", "t")
    assert (code, said) == (2, "vqtok: error: a.vqt exists: choose another file, or pass --overwrite\n")
    assert vqtok("compress", "a.png", "--tokenizer", "t", "--overwrite")[0] == 0
    code, _, said = vqtok("decompress", "a.vqt", "--tokenizer", "t", "--out", "b.png")
    assert (code, Path("b.png").read_text()) == (2, "mine")
    code, _, said = vqtok("decompress", "a.vqt", "--tokenizer", "t")
    assert code == 2 and "a.png exists" in said
    assert vqtok("decompress", "a.vqt", "--tokenizer", "t", "--out", "b.png", "--overwrite")[0] == 0
    assert np.array_equal(pixels("b.png"), pixels("a.png"))


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("compress none.png --tokenizer t", "there is no image none.png"),
        ("compress . --tokenizer t", ". cannot be read: it is no regular file"),
        ("decompress / --tokenizer t", "/ cannot be read: it is no regular file"),
        ("compress a.png --tokenizer t --out a.png --overwrite", "a.png is read, and would be lost if it were written"),
        ("compress link.png --tokenizer t --out a.png --overwrite", "a.png is read, and would be lost"),
        ("decompress packed.png --tokenizer t --overwrite", "packed.png is read, and would be lost"),
        (
            "compress deep.png --tokenizer t",
            "deep.png has 16 bits a channel, and 8 are kept: convert it to 8 bits first",
        ),
        ("compress a.png --tokenizer g --out g.vqt", "the likelihood gaussian is a density"),
        ("compress wide.png --tokenizer t --prior p", "the prior is of images of 8 x 8 pixels, and this one has 9 x 5"),
        ("compress a.png --tokenizer other --prior p --out o.vqt", "the prior models codes of tokenizer"),
        (
            "decompress a.png --tokenizer t --out b.png",
            "a.png cannot be decompressed: it is no compressed image of vqtok",
        ),
        ("decompress a.vqt --tokenizer t --out b.jpg", "--out must end in .png, got b.jpg"),
        ("decompress a.vqt --tokenizer t --prior p --out b.png", "with no prior, and this one is"),
        ("decompress short.vqt --tokenizer t", "short.vqt cannot be decompressed: it is"),
        ("decompress none.vqt --tokenizer t", "there is no image none.vqt"),
    ],
)
def test_mistakes_are_one_line(vqtok: Command, models: None, command: str, reason: str) -> None:
    assert vqtok("compress", "a.png", "--tokenizer", "t")[0] == 0
    Path("short.vqt").write_bytes(Path("a.vqt").read_bytes()[:-9])
    Image.fromarray(np.full((8, 8), 300, dtype=np.uint16)).save("deep.png")
    noise(5, 9).save("wide.png")
    Path("link.png").symlink_to("a.png")
    Path("packed.png").write_bytes(Path("a.vqt").read_bytes())
    before = {path: path.read_bytes() for path in Path().iterdir() if path.is_file()}
    code, _, said = vqtok(*command.split())
    assert code == 2 and said.count("\n") == 1 and reason in said
    assert {path: path.read_bytes() for path in Path().iterdir() if path.is_file()} == before
