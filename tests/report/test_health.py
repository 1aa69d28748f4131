"""Drawings of a codebook's health: four images to look at and the numbers beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from PIL import Image

from vqtok.data import open_images
from vqtok.errors import ConfigurationError
from vqtok.evaluation import CodebookHealth, measure_health
from vqtok.report import draw_health
from vqtok.report.examples import draw_examples, in_colour
from vqtok.report.health import draw_distances, draw_frequencies, draw_positions
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig

NAMES = ["frequencies.png", "distances.png", "positions.png", "examples.png", "health.json"]
QUANTIZERS: dict[str, dict[str, Any]] = {
    "one": {"type": "ema", "codebook_size": 16, "code_dim": 4},
    "smallest": {"type": "vq", "codebook_size": 2, "code_dim": 1},
    "several": {"type": "residual", "num_codebooks": 5, "each": {"type": "ema", "codebook_size": 8, "code_dim": 2}},
    "large": {"type": "lfq", "codebook_size": 8192},
    "bits": {"type": "bsq", "codebook_size": 2**36},
    "levels": {"type": "product", "num_codebooks": 2, "each": {"type": "fsq", "levels": [8, 8, 8, 5, 5, 5, 7]}},
}


def health_of(images: Path, quantizer: str, num_channels: int = 1) -> CodebookHealth:
    torch.manual_seed(0)
    tokenizer = VQTokenizer(
        VQTokenizerConfig(
            image_size=16,
            num_channels=num_channels,
            network={"type": "conv", "hidden_size": 8, "residual_size": 4, "num_residual_blocks": 1},
            quantizer=QUANTIZERS[quantizer],
        )
    )
    return measure_health(tokenizer, open_images(str(images), split="train"))


def words(figure: Figure) -> str:
    """Everything that is written on a figure."""
    figure.draw_without_rendering()
    return "\n".join(text.get_text() for text in figure.findobj(lambda one: hasattr(one, "get_text")))


@pytest.mark.parametrize(("quantizer", "num_channels"), [*((name, 1) for name in QUANTIZERS), ("one", 3)])
def test_four_drawings_and_the_numbers(quantizer: str, num_channels: int, images_folder: Path, tmp_path: Path) -> None:
    health = health_of(images_folder, quantizer, num_channels)
    files = draw_health(health, tmp_path / "health")
    assert [path.name for path in files] == NAMES
    assert sorted(path.name for path in (tmp_path / "health").iterdir()) == sorted(NAMES)
    for path in files[:4]:
        with Image.open(path) as drawing:
            pixels = np.asarray(drawing.convert("RGB"))
            colours = drawing.convert("RGB").getcolors(maxcolors=2**24)
        assert min(pixels.shape[:2]) > 200 and (pixels[[0, -1]] == 255).all()  # on white
        assert len(colours) > 20
    numbers = json.loads(files[4].read_text())
    assert numbers == {**health.about, **health.numbers()}
    if not health.counting.by_dimension:
        assert numbers["codes_in_use"] == int((health.counts > 0).sum())


def test_an_earlier_drawing_is_replaced_and_nothing_else(images_folder: Path, tmp_path: Path) -> None:
    health, folder = health_of(images_folder, "smallest"), tmp_path / "drawn"
    draw_health(health, folder)
    (folder / "mine.txt").write_text("mine")
    (folder / "positions.png").write_text("old")
    draw_health(health, folder)
    assert (folder / "mine.txt").read_text() == "mine"
    assert (folder / "positions.png").read_bytes().startswith(b"\x89PNG")
    assert len(list(folder.iterdir())) == 6
    (folder / "health.json").unlink()
    with pytest.raises(ConfigurationError, match="holds no health.json of vqtok"):
        draw_health(health, folder)


def test_dead_codes_and_even_use_are_told(images_folder: Path) -> None:
    health = health_of(images_folder, "one")
    counts = np.array([[40] * 5 + [0] * 11])
    text = words(draw_frequencies(replace(health, counts=counts)))
    assert "5 of 16 codes in use, 11 never used (shaded)" in text and "even use: 6.25%" in text
    assert "never used" in words(draw_distances(replace(health, counts=counts)))
    alive = words(draw_frequencies(replace(health, counts=np.ones((1, 16), dtype=np.int64))))
    assert "16 of 16 codes in use" in alive and "never used" not in alive


def test_bars_are_the_shares_in_order(images_folder: Path) -> None:
    counts = np.array([[2, 0, 5, 3] + [0] * 12])
    axes = draw_frequencies(replace(health_of(images_folder, "one"), counts=counts)).axes[0]
    (bars,) = axes.patches[:1]
    assert bars.get_data().values.tolist() == [50, 30, 20]
    assert axes.get_yscale() == "log" and axes.get_ylim()[0] < 6.25


def test_a_sample_of_codes_is_said_to_be_one(images_folder: Path) -> None:
    text = words(draw_distances(health_of(images_folder, "large")))
    assert "all pairs of a sample of 1,024 codes" in text


def test_counts_by_dimension_and_samples_are_said_to_be_so(images_folder: Path) -> None:
    health = health_of(images_folder, "bits")
    text = words(draw_frequencies(health))
    assert "counted by dimension, because 68,719,476,736 codes are too many to count" in text
    assert f"at most {health.numbers()['bits_in_use']:.1f} of 36.0 bits in use" in text
    distances = words(draw_distances(health))
    assert f"codes, of a sample of {health.numbers()['sampled_codes']}" in distances
    assert "distance to the nearest other code of the sample" in distances
    assert "What codes of a sample stand for" in words(draw_examples(health))
    positions = words(draw_positions(health))
    assert "bits in use at each position" in positions and "dimensions that vary at each position" in positions


def test_bars_of_dimensions_are_the_shares_of_their_values(images_folder: Path) -> None:
    health = health_of(images_folder, "levels")
    axes = draw_frequencies(health).axes[1]  # of the second codebook
    heights = np.array([[bar.get_height() for bar in bars] for bars in axes.containers])  # values x dimensions
    counts = health.counts[7:]
    np.testing.assert_allclose(heights, 100 * counts.T / counts.sum(axis=1), rtol=1e-6)


def test_several_codebooks_have_rows_of_their_own(images_folder: Path) -> None:
    health = health_of(images_folder, "several")
    for draw in (draw_frequencies, draw_distances, draw_positions):
        text = words(draw(health))
        assert [f"codebook {number} of 5" in text for number in range(1, 6)] == [True] * 4 + [False]
    assert {each.codebook for each in health.examples} == {0, 1, 2, 3}


def test_examples_are_named_and_framed(images_folder: Path) -> None:
    health = health_of(images_folder, "one")
    figure = draw_examples(health)
    text = words(figure)
    assert all(f"code {each.code}\n{100 * each.share:.2g}%" in text for each in health.examples)
    tiles = sum(1 + len(each.patches) for each in health.examples)
    assert len(figure.axes[0].images) == tiles and len(figure.axes[0].patches) == 2 * tiles


def test_squares_of_positions_are_said_to_be_so(images_folder: Path) -> None:
    health = health_of(images_folder, "one")
    assert "squares of 3 x 3 positions as one" in words(draw_positions(replace(health, block=3)))
    assert "squares" not in words(draw_positions(health))


def test_grey_and_colour_keep_their_edges() -> None:
    grey = np.stack([np.full((2, 2), 7, np.uint8), np.array([[255, 0], [255, 255]], np.uint8)])
    assert in_colour(grey)[0, 0].tolist() == [7, 7, 7, 255] and in_colour(grey)[0, 1, 3] == 0
    colour = np.arange(16, dtype=np.uint8).reshape(4, 2, 2)
    assert in_colour(colour)[1, 0].tolist() == [2, 6, 10, 14]
