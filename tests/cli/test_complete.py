from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.conftest import Command
from tests.cli.test_sample import cells
from vqtok import complete
from vqtok.data import masked_image
from vqtok.priors import PriorBinding, build_prior, load_prior
from vqtok.priors.completion import preprocessing
from vqtok.tokenizer import VQTokenizer


@pytest.fixture
def folders(tiny_tokenizer: VQTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In the working folder tok/, runs/prior/ with classes and runs/plain/ without, of 4 x 4 codes, and image.png."""
    monkeypatch.chdir(tmp_path)
    tiny_tokenizer.save_pretrained("tok")
    torch.manual_seed(0)
    for run, names, fingerprint in (
        ("prior", ("cat", "dog"), tiny_tokenizer.fingerprint),
        ("plain", None, tiny_tokenizer.fingerprint),
        ("other", None, "0" * 64),
    ):
        binding = PriorBinding(
            fingerprint=fingerprint, grid=(4, 4), codebook_size=16, label_names=names, tokenizer="tok"
        )
        build_prior(binding, {"type": "pixelcnn", "hidden_size": 8, "num_layers": 1}).save_pretrained(f"runs/{run}")
    noise = np.random.default_rng(0)
    Image.fromarray(noise.integers(0, 256, (16, 16), dtype=np.uint8)).save("image.png")
    mask = np.full((32, 32), 255, dtype=np.uint8)
    mask[8:16, 8:24] = 0
    Image.fromarray(mask).save("mask.png")
    Image.fromarray(noise.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save("large.png")
    Image.new("L", (16, 16), 255).save("white.png")
    Path("text.png").write_text("no image")
    return tmp_path


def test_an_image_grid_holds_the_original_what_is_kept_and_what_complete_gives(folders: Path, vqtok: Command) -> None:
    options = "--label dog --temperature 0.7 --top-k 9 --top-p 0.9 --guidance-scale 2 --seed 3 --resample grids --paste"
    given = ("large.png", "--mask", "mask.png", "--prior", "runs/prior", "--num-completions", 8, "--candidates", 3)
    code, said, complained = vqtok("complete", *given, *options.split(), "--out", "new/grid.png")
    assert (code, complained) == (0, "")
    assert "  kept                14 of 16 positions\n" in said and "  label               dog\n" in said
    assert "8 completions on new/grid.png, after the original and what is kept of it\n" in said
    tokenizer = VQTokenizer.from_pretrained("tok")
    completions = complete(
        load_prior("runs/prior"),
        tokenizer,
        "large.png",
        "mask.png",
        num_completions=8,
        labels="dog",
        temperature=0.7,
        top_k=9,
        top_p=0.9,
        guidance_scale=2,
        seed=3,
        candidates=3,
        resample="grids",
        paste=True,
    )
    part = masked_image("large.png", "mask.png", **preprocessing(tokenizer))
    shown = np.where(part.kept, np.asarray(part.filled), 128)
    found = cells(folders / "new" / "grid.png", columns=8)
    assert len(found) == 16
    for cell, image in zip(found, [part.image, shown, *completions], strict=False):
        assert np.array_equal(cell, np.asarray(image))
    assert all((cell == 255).all() for cell in found[10:])


def test_the_kept_side_is_kept_without_a_class(folders: Path, vqtok: Command) -> None:
    code, said, _ = vqtok("complete", "image.png", "--keep", "left:0.5", "--prior", "runs/plain", "--paste")
    assert code == 0 and "8 of 16 positions" in said and "no class" in said and "4 completions" in said
    original, kept, *completions = cells(folders / "completions.png", columns=6)
    assert np.array_equal(kept[:, :8], original[:, :8]) and (kept[:, 8:] == 128).all()
    assert all(np.array_equal(each[:, :8], original[:, :8]) for each in completions)
    assert any(not np.array_equal(each, completions[0]) for each in completions)


PRIOR = ["--prior", "runs/plain"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["image.png", *PRIOR], "say what to keep, either by a mask or by keep, such as top:0.5, got neither"),
        (["image.png", "--keep", "top:0.5", "--mask", "white.png", *PRIOR], "such as top:0.5, not both"),
        (["image.png", "--keep", "top:1.2", *PRIOR], "keep must be top, bottom, left or right .* got 'top:1.2'"),
        (["image.png", "--keep", "middle:0.5", *PRIOR], "keep must be top, bottom, left or right .* got 'middle:0.5'"),
        (["image.png", "--keep", "top:1", *PRIOR], "nothing is left to complete: every pixel is kept"),
        (["image.png", "--mask", "white.png", *PRIOR], "nothing is left to complete: every pixel is kept"),
        (["image.png", "--mask", "mask.png", *PRIOR], "must have the size of the image, 16 x 16, got 32 x 32 pixels"),
        (["image.png", "--mask", "text.png", *PRIOR], "the mask text.png is not an image"),
        (["none.png", "--keep", "top:0.5", *PRIOR], "there is no image none.png"),
        (["text.png", "--keep", "top:0.5", *PRIOR], "text.png is not an image of a format that is read"),
        (["image.png", "--keep", "top:0.5", "--label", "cat", *PRIOR], "this prior was trained without classes"),
        (["image.png", "--keep", "top:0.5", "--prior", "runs/other"], "models codes of tokenizer 000000000000"),
        (["image.png", "--keep", "top:0.5", "--num-completions", 0, *PRIOR], "--num-completions must be from 1 to"),
        (["image.png", "--keep", "top:0.5", "--candidates", 0, *PRIOR], "candidates must be from 1 to 4,096, got 0"),
        (["image.png", "--keep", "top:0.5", "--candidates", 10**20, *PRIOR], "candidates must be from 1 to 4,096, got"),
        (["image.png", "--keep", "top:0.5", "--resample", "grid", *PRIOR], "Did you mean 'grids'"),
        (
            ["image.png", "--keep", "top:0.5", "--out", "image.png", "--overwrite", *PRIOR],
            "image.png is read, and would",
        ),
        (["image.png", "--mask", "white.png", "--out", "white.png", "--overwrite", *PRIOR], "white.png is read, and"),
        (["image.png", "--keep", "top:0.5", "--out", "a.jpg", *PRIOR], "--out must end in .png, got a.jpg"),
    ],
)
def test_mistakes_are_one_line(folders: Path, vqtok: Command, arguments: list[object], message: str) -> None:
    code, _, complained = vqtok("complete", *arguments)
    assert code == 2
    assert complained.startswith("vqtok: error: ") and complained.count("\n") == 1
    assert re.search(message, complained)
    assert not Path("completions.png").exists()


def test_a_class_that_no_completion_is_of_is_not_listed(folders: Path, vqtok: Command) -> None:
    given = ("image.png", "--keep", "top:0.5", "--prior", "runs/prior", "--label", "dog", "--label", "cat")
    for count, classes in ((1, "dog"), (2, "dog, cat")):
        _, said, _ = vqtok("complete", *given, "--num-completions", count, "--out", f"{count}.png")
        assert f"  label               {classes}\n" in said
