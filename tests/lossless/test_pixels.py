from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.lossless.models import noise
from vqtok.errors import DataError
from vqtok.lossless import exact_pixels

RAINBOW = noise(6, 5)


def refused(image: Any, num_channels: int = 3) -> str:
    with pytest.raises(DataError) as caught:
        exact_pixels(image, num_channels=num_channels, name="it")
    return str(caught.value)


@pytest.mark.parametrize("suffix", ["png", "bmp", "webp", "tif"])
def test_pixels_of_lossless_formats_are_as_stored(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    RAINBOW.save(path, **({"lossless": True} if suffix == "webp" else {}))
    assert np.array_equal(exact_pixels(path, num_channels=3, name="a"), np.asarray(RAINBOW))
    RAINBOW.convert("L").save(tmp_path / "grey.png")
    grey = exact_pixels(tmp_path / "grey.png", num_channels=1, name="a")
    assert grey.shape == (6, 5, 1) and np.array_equal(grey[:, :, 0], np.asarray(RAINBOW.convert("L")))


def test_what_would_lose_something_is_refused(tmp_path: Path) -> None:
    RAINBOW.convert("RGBA").save(tmp_path / "alpha.png")
    RAINBOW.save(tmp_path / "key.png", transparency=(1, 2, 3))
    RAINBOW.convert("P").save(tmp_path / "palette.png")
    Image.fromarray(np.full((4, 4), 40_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    (tmp_path / "deep.ppm").write_bytes(b"P6\n2 2\n65535\n" + bytes(24))
    for name in ("alpha.png", "key.png"):
        assert (
            refused(tmp_path / name) == "it is transparent, which is not kept: compose it over a colour first, as RGB"
        )
    assert refused(tmp_path / "palette.png") == 'it has a palette: convert it first, as by image.convert("RGB")'
    for name in ("deep.png", "deep.ppm"):
        assert refused(tmp_path / name) == "it has 16 bits a channel, and 8 are kept: convert it to 8 bits first"
    assert refused(RAINBOW.convert("L")).startswith("it is of mode L and the tokenizer is of RGB: convert the image")
    assert refused(RAINBOW, 1).startswith("it is of mode RGB and the tokenizer is of L")
    assert refused(RAINBOW.convert("CMYK")).startswith("it is of mode CMYK")
    assert refused(tmp_path / "none.png") == "there is no image it"


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("suffix", ["png", "webp", "tif"])
def test_all_frames_but_one_would_be_lost(tmp_path: Path, suffix: str, orientation: int) -> None:
    """However they are turned: what is turned upright is one frame, and no longer knows of others."""
    exif = Image.Exif()
    exif[0x112] = orientation
    path = tmp_path / f"moving.{suffix}"
    RAINBOW.save(path, save_all=True, append_images=[noise(6, 5, seed=1)], exif=exif)
    assert refused(path) == "it has several frames, of which one would be kept: save that one alone"


def test_gif_is_told_by_its_frames_and_its_palette(tmp_path: Path) -> None:
    grey = RAINBOW.convert("L")
    grey.save(tmp_path / "one.gif")
    grey.save(tmp_path / "two.gif", save_all=True, append_images=[noise(6, 5, seed=1).convert("L")])
    assert refused(tmp_path / "one.gif", 1).startswith("it has a palette")
    assert refused(tmp_path / "two.gif", 1).startswith("it has several frames")
    data = (tmp_path / "two.gif").read_bytes()
    (tmp_path / "broken.gif").write_bytes(data[: len(data) - 40])
    assert refused(tmp_path / "broken.gif", 1)  # one error of ours, whatever the decoder says
