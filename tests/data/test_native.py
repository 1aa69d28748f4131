"""The size and channels that images have by themselves: taken, proposed with a note, or asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from vqtok.data import native_format, open_all
from vqtok.errors import ConfigurationError, DataError


def save(path: Path, size: tuple[int, int], mode: str = "L") -> None:
    Image.new(mode, size).save(path)


def test_images_of_one_size_keep_it(tmp_path: Path) -> None:
    save(tmp_path / "1.png", (100, 70))
    found = native_format(open_all(str(tmp_path))["train"])
    assert (found.sizes, found.num_channels) == (((70, 100),), 1)
    assert found.training_size("x") == ((70, 100), None)


def test_images_that_differ_get_a_power_of_two_that_fits_them_all_and_a_note(tmp_path: Path) -> None:
    save(tmp_path / "1.png", (100, 70))
    save(tmp_path / "2.png", (300, 200), "RGB")
    (tmp_path / "0.png").touch()  # what cannot be read does not count
    found = native_format(open_all(str(tmp_path))["train"])
    size, note = found.training_size("x")
    assert (size, found.num_channels) == ((64, 64), 3)
    assert note == (
        "the images differ in size (70 x 100 to 200 x 300 pixels, height x width, among those looked at), so the "
        "largest central square of each is resized to 64 x 64; image_size chooses another size"
    )
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_text("")
    with pytest.raises(DataError, match="0.png is not an image"):
        native_format(open_all(str(tmp_path))["train"])


def test_large_images_that_differ_get_256_at_most(tmp_path: Path) -> None:
    save(tmp_path / "1.png", (1000, 700))
    save(tmp_path / "2.png", (900, 800))
    assert native_format(open_all(str(tmp_path))["train"]).training_size("x")[0] == (256, 256)


@pytest.mark.parametrize("size", [(400, 300), (257, 8)])
def test_large_images_of_one_size_need_a_choice(tmp_path: Path, size: tuple[int, int]) -> None:
    save(tmp_path / "1.jpg", size)
    found = native_format(open_all(str(tmp_path))["train"])
    with pytest.raises(
        ConfigurationError,
        match=rf"of photos are {size[1]} x {size[0]} pixels .*above 256 a size must be chosen: image_size 256",
    ):
        found.training_size("photos")
