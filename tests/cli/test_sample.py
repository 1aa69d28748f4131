from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from typer.testing import CliRunner

from tests.disk import umask
from vqtok.errors import CheckpointError, ConfigurationError, MismatchError
from vqtok.priors import PriorBinding, build_prior, generate, load_prior
from vqtok.tokenizer import VQTokenizer
from vqtok_cli import sample as command

APP = typer.Typer()
APP.command()(command.sample)

SCALE = 64 // 16
GAP = 4


@pytest.fixture
def folders(tiny_tokenizer: VQTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """tok/ and runs/prior/model/ of a prior of its codes, in the working folder."""
    monkeypatch.chdir(tmp_path)
    tiny_tokenizer.save_pretrained(tmp_path / "tok")
    save_prior(tmp_path / "runs" / "prior", tiny_tokenizer.fingerprint)
    return tmp_path


def save_prior(run: Path, fingerprint: str, tokenizer: str | None = "tok", names: bool = True) -> None:
    torch.manual_seed(0)
    binding = PriorBinding(
        fingerprint=fingerprint,
        grid=(4, 4),
        codebook_size=16,
        label_names=("cat", "dog", "owl") if names else None,
        tokenizer=tokenizer,
    )
    build_prior(binding, {"type": "pixelcnn", "hidden_size": 8, "num_layers": 1}).save_pretrained(run / "model")


def sample(*options: str) -> str:
    result = CliRunner().invoke(APP, list(options), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def cells(path: Path, columns: int) -> list[np.ndarray]:
    """The images of an image grid in their own size, those of empty cells too."""
    with Image.open(path) as image:
        grid = np.asarray(image)
    side = 16 * SCALE
    tops, lefts = range(GAP, grid.shape[0] - 1, side + GAP), range(GAP, grid.shape[1] - 1, side + GAP)
    assert len(lefts) == columns
    return [grid[top : top + side : SCALE, left : left + side : SCALE] for top in tops for left in lefts]


def test_an_image_grid_holds_what_generate_gives(folders: Path) -> None:
    options = "--num-images 5 --label dog --label 0 --guidance-scale 2 --temperature 0.7 --top-k 9 --top-p 0.9 --seed 3"
    output = sample("--prior", "runs/prior", "--tokenizer", "tok", "--out", "new/grid.png", *options.split())
    assert "5 images on new/grid.png" in output
    assert "next: vqtok push runs/prior/model" in output
    expected = generate(
        load_prior("runs/prior"),
        VQTokenizer.from_pretrained("tok"),
        num_images=5,
        labels=[1, 0],
        guidance_scale=2,
        temperature=0.7,
        top_k=9,
        top_p=0.9,
        seed=3,
    )
    found = cells(folders / "new" / "grid.png", columns=3)
    assert len(found) == 6
    assert all(np.array_equal(cell, np.asarray(image)) for cell, image in zip(found, expected, strict=False))


@pytest.mark.parametrize(("num", "rows"), [(9, [3, 3, 3]), (8, [3, 3, 2]), (7, [3, 2, 2]), (3, [1, 1, 1])])
def test_every_class_has_a_row_and_there_are_as_many_images_as_asked(folders: Path, num: int, rows: list[int]) -> None:
    output = sample("--num-images", str(num), "--seed", "3")  # the newest prior, and the tokenizer it was trained with
    assert f"{num} of cat, dog, owl" in output and f"{num} images on samples.png" in output
    assert [line for line in output.splitlines() if "runs/prior" in line and line.strip().startswith("prior")]
    labels = [label for label, count in enumerate(rows) for _ in range(count)]
    tokenizer = VQTokenizer.from_pretrained("tok")
    sampled = iter(generate(load_prior("runs/prior"), tokenizer, num_images=num, labels=labels, seed=3))
    found = cells(folders / "samples.png", columns=rows[0])
    for row, count in enumerate(rows):
        for column in range(rows[0]):
            cell = found[row * rows[0] + column]
            assert np.array_equal(cell, np.asarray(next(sampled))) if column < count else (cell == 255).all()


def test_one_image_is_no_images(folders: Path) -> None:
    assert "1 image on samples.png" in sample("--num-images", "1")


@pytest.mark.parametrize(("num", "rows"), [(8, [2, 2, 2, 1, 1]), (64, [13, 13, 13, 13, 12]), (5, [1] * 5), (4, [2, 2])])
def test_classes_come_in_turn(num: int, rows: list[int]) -> None:
    binding = PriorBinding(fingerprint="f", grid=(1, 1), codebook_size=2, label_names=tuple("abcde"))
    labels, lengths = command.lay_out(binding, None, num)
    assert lengths == rows
    assert labels is not None and sorted(labels) == labels == sorted(index % 5 for index in range(num))


def test_classes_that_were_asked_for_and_none_at_all() -> None:
    binding = PriorBinding(fingerprint="f", grid=(1, 1), codebook_size=2, label_names=("a", "b", "c"))
    assert command.lay_out(binding, ["c", "0"], 5) == ([2, 0], [3, 2])
    assert command.lay_out(binding, ["c", "0"], 1) == ([2], [1])
    assert command.lay_out(PriorBinding(fingerprint="f", grid=(1, 1), codebook_size=2), None, 64) == (None, [8] * 8)


def test_a_prior_without_classes_is_sampled(folders: Path, tiny_tokenizer: VQTokenizer) -> None:
    save_prior(folders / "runs" / "plain", tiny_tokenizer.fingerprint, names=False)
    assert "4 of no class" in sample("--prior", "runs/plain", "--num-images", "4")


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--prior", "runs/no/other"], CheckpointError, "runs/no/other"),
        (["--prior", ""], CheckpointError, "neither a tokenizer nor a prior|no prior"),
        (["--tokenizer", ""], CheckpointError, "no tokenizer"),
        (["--device", ""], ConfigurationError, "there is no device ''"),
        (["--device", "meta"], ConfigurationError, "there is no device 'meta'"),
        (["--label", "cow"], ConfigurationError, "choose one of cat, dog, owl"),
        (["--num-images", "0"], ConfigurationError, "--num-images must be from 1 to 10,000, .* got 0"),
        (["--num-images", "99999999999"], ConfigurationError, "must be from 1 to 10,000, .* got 99,999,999,999"),
        (["--temperature", "0"], ConfigurationError, "temperature must be a number of at least 1e-6"),
        (["--out", "grid.jpg"], ConfigurationError, "must end in .png"),
    ],
)
def test_mistakes_are_refused(folders: Path, options: list[str], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sample(*options)
    assert not list(folders.glob("*.png"))


def test_a_prior_of_another_tokenizer_is_refused(folders: Path, tiny_tokenizer: VQTokenizer) -> None:
    save_prior(folders / "runs" / "foreign", "0" * 64)
    with pytest.raises(MismatchError, match=f"000000000000.*{tiny_tokenizer.fingerprint[:12]}"):
        sample("--prior", "runs/foreign", "--tokenizer", "tok")


def test_a_prior_that_does_not_know_its_tokenizer_asks_for_it(folders: Path, tiny_tokenizer: VQTokenizer) -> None:
    save_prior(folders / "runs" / "lost", tiny_tokenizer.fingerprint, tokenizer=None)
    with pytest.raises(ConfigurationError, match="name it with --tokenizer"):
        sample("--prior", "runs/lost")


def test_nothing_is_overwritten_unless_asked(folders: Path) -> None:
    (folders / "samples.png").write_bytes(b"mine")
    with pytest.raises(ConfigurationError, match=r"samples\.png exists"):
        sample("--num-images", "1")
    assert (folders / "samples.png").read_bytes() == b"mine"
    sample("--num-images", "1", "--overwrite")
    with Image.open(folders / "samples.png") as grid:
        assert grid.size == (16 * SCALE + 2 * GAP, 16 * SCALE + 2 * GAP)


def test_a_file_that_appears_meanwhile_stays(
    folders: Path, tiny_tokenizer: VQTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    detokenize = VQTokenizer.detokenize

    def write(self: VQTokenizer, codes: torch.Tensor) -> list[Image.Image]:
        (folders / "samples.png").write_bytes(b"mine")
        return detokenize(self, codes)

    monkeypatch.setattr(VQTokenizer, "detokenize", write)
    with pytest.raises(ConfigurationError, match=r"samples\.png exists, and is left alone") as error:
        sample("--num-images", "1")
    assert (folders / "samples.png").read_bytes() == b"mine"
    with Image.open(str(error.value).rpartition(" ")[2]) as kept:
        assert kept.size == (16 * SCALE + 2 * GAP, 16 * SCALE + 2 * GAP)


def test_the_permissions_of_an_image_grid_follow_the_umask(folders: Path) -> None:
    with umask(0o077):
        sample("--num-images", "1")
    assert (folders / "samples.png").stat().st_mode & 0o777 == 0o600


def test_no_prior_at_all_says_how_to_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match="vqtok train-prior"):
        sample()


@pytest.mark.parametrize(
    ("name", "allowed"), [("guidance-scale", "from -1e6 to 1e6"), ("temperature", "at least 1e-6"), ("top-p", "")]
)
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_numbers_that_are_none_are_refused_before_anything_is_sampled(
    folders: Path, name: str, allowed: str, value: str
) -> None:
    with pytest.raises(ConfigurationError, match=f"{name.replace('-', '_')} must be .*{allowed}.*, got {value}"):
        sample("--label", "cat", f"--{name}", value)
    assert not Path("samples.png").exists()


def test_a_damaged_run_beside_others_is_passed_over(folders: Path) -> None:
    for number, text in enumerate(("{", "[1]", '{"model_type": ["llama"]}', "null", "\xff")):
        config = Path(f"runs/damaged-{number}/model/config.json")
        config.parent.mkdir(parents=True)
        config.write_bytes(text.encode("latin-1"))
    assert "runs/prior" in sample("--num-images", "1")
