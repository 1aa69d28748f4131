from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from vqtok.data.grid import image_grid
from vqtok.errors import ConfigurationError, DataError


def test_every_image_stands_in_its_row_and_column() -> None:
    images = [np.full((2, 3), 10 * (index + 1), dtype=np.uint8) for index in range(5)]
    grid = np.asarray(image_grid(images, columns=2, gap=1, scale=2, background=0))
    assert grid.shape == (1 + 3 * (4 + 1), 1 + 2 * (6 + 1))
    for index in range(5):
        row, column = divmod(index, 2)
        top, left = 1 + row * 5, 1 + column * 7
        assert (grid[top : top + 4, left : left + 6] == 10 * (index + 1)).all()
    assert grid.sum() == sum(24 * 10 * (index + 1) for index in range(5))


def test_enlargement_keeps_pixels_square_and_exact() -> None:
    image = np.arange(12, dtype=np.uint8).reshape(3, 4)
    grid = np.asarray(image_grid([image], columns=8, gap=0, scale=3))
    assert np.array_equal(grid, image.repeat(3, axis=0).repeat(3, axis=1))


def test_colour_among_grey_makes_a_colour_grid() -> None:
    colour = np.zeros((3, 2, 2), dtype=np.uint8)
    colour[0] = 200
    grid = image_grid([Image.new("L", (2, 2), 7), colour], columns=2, gap=1)
    pixels = np.asarray(grid)
    assert grid.mode == "RGB"
    assert pixels[1, 1].tolist() == [7, 7, 7]
    assert pixels[1, 4].tolist() == [200, 0, 0]
    assert pixels[0, 0].tolist() == [255, 255, 255]


def test_grey_stays_grey() -> None:
    assert image_grid([np.zeros((1, 2, 2), dtype=np.uint8)], columns=1).mode == "L"


@pytest.mark.parametrize(("name", "value"), [("columns", 0), ("scale", 0), ("gap", -1)])
def test_numbers_out_of_range_are_refused(name: str, value: int) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be at least .* got {value}"):
        image_grid([np.zeros((2, 2), dtype=np.uint8)], **{"columns": 1, name: value})


@pytest.mark.parametrize(
    "images",
    [
        [],
        [np.zeros((2, 2), dtype=np.uint8), np.zeros((2, 3), dtype=np.uint8)],
        [np.zeros((2, 2), dtype=np.float32)],
        [np.zeros((2, 2, 4), dtype=np.uint8)],
    ],
)
def test_what_is_no_image_is_refused(images: list[np.ndarray]) -> None:
    with pytest.raises(DataError):
        image_grid(images, columns=1)
