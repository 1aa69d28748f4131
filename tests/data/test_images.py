"""Every kind of image becomes the right uint8 pixels, and whatever is none becomes one clear error."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from tests.data.images import NOISE, colour, encoded, flat
from vqtok.data import channel_bits, image_array, load_image
from vqtok.errors import DataError


def test_the_first_frame_of_an_animation_is_taken() -> None:
    frames = [flat("RGB", (0, 0, 200)), flat("RGB", (200, 0, 0))]
    for form in ("GIF", "PNG", "TIFF", "WEBP"):
        options = {"lossless": True} if form == "WEBP" else {}
        data = encoded(frames[0], form, save_all=True, append_images=frames[1:], **options)
        assert colour(data) == (0, 0, 200), form


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright_as_pillow_would(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "turned.png"
    Image.fromarray(NOISE).save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    size = expected.shape[0], expected.shape[1]
    np.testing.assert_array_equal(image_array(path, num_channels=3, size=size).transpose(1, 2, 0), expected)


def test_an_image_gives_the_same_pixels_however_it_is_handed_in(tmp_path: Path) -> None:
    smooth = Image.fromarray(NOISE).resize((900, 700), Image.Resampling.BICUBIC)
    path = tmp_path / "large.jpg"
    smooth.save(path, quality=90)
    with Image.open(path) as image:
        decoded = image.convert("RGB")
    options: dict[str, Any] = {"num_channels": 3, "size": (64, 64)}
    expected = image_array(decoded, **options)
    assert expected.dtype == np.uint8 and expected.shape == (3, 64, 64) and expected.flags.c_contiguous
    array = np.asarray(decoded)
    for source in (path, str(path), path.read_bytes(), Image.open(path), array, array.transpose(2, 0, 1)):
        np.testing.assert_array_equal(image_array(source, **options), expected)
    as_floats = array.astype(np.float32) / 255
    np.testing.assert_array_equal(image_array(as_floats, **options), expected)


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros((5, 6, 2), np.uint8), "no image"),
        (np.zeros((0, 4), np.uint8), "no image"),
        (np.zeros((2, 3, 4, 5), np.uint8), "no image"),
        (np.zeros((4, 4), np.int64), "int64"),
        (np.full((4, 4), 255.0), r"\[0, 1\]"),
        (np.full((4, 4), -1.0), r"\[0, 1\]"),
        (np.full((4, 4), np.nan), r"\[0, 1\]"),
    ],
)
def test_arrays_that_are_no_images_are_refused(array: np.ndarray, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        load_image(array)


def test_whatever_is_no_image_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "text.png"
    text.write_text("not an image")
    empty = tmp_path / "empty.jpg"
    empty.touch()
    for path in (text, empty):
        with pytest.raises(DataError, match=f"{path} is not an image"):
            load_image(path)
    with pytest.raises(DataError, match="there is no image .*gone.png"):
        load_image(tmp_path / "gone.png")
    with pytest.raises(DataError, match=f"{tmp_path} cannot be read"):
        load_image(tmp_path)
    with pytest.raises(DataError, match="row 7 is not an image"):
        load_image(b"", name="row 7")
    with pytest.raises(DataError, match="cannot read an image from dict"):
        load_image({})  # type: ignore[arg-type]


@pytest.mark.parametrize("read", [load_image, partial(image_array, num_channels=3, size=(8, 8))])
def test_a_path_of_two_lines_is_named_on_one(read: Callable[..., object], tmp_path: Path) -> None:
    path = tmp_path / "two\nlines\x1b[2J.png"
    path.write_text("not an image")
    for options in ({}, {"name": str(path)}):
        with pytest.raises(DataError, match=r"^.*/two\\nlines\\x1b\[2J\.png is not an image .*$") as caught:
            read(path, **options)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_a_file_cut_short_is_broken(form: str, tmp_path: Path) -> None:
    data = encoded(Image.fromarray(NOISE).resize((64, 64)), form)
    path = tmp_path / f"short.{form.lower()}"
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"short\.\w+ is (broken|not an image)"):
        load_image(path)
    if form in ("PNG", "JPEG"):
        unread = Image.open(io.BytesIO(data[: len(data) // 2]))
        with pytest.raises(DataError, match="broken"):
            load_image(unread)


@pytest.mark.parametrize("limit", [2000, 500])
def test_images_with_too_many_pixels_are_refused(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(flat("L", 1).resize((50, 50)), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)  # Pillow warns above it and raises above its double
    with pytest.raises(DataError, match="is refused"):
        load_image(data)
    with pytest.raises(DataError, match=f"50 x 50 pixels are more than the {limit:,}"):
        load_image(flat("L", 1).resize((50, 50)))


FORMS = {form: encoded(Image.fromarray(NOISE), form) for form in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FORMS)), st.data())
def test_damaged_files_give_pixels_or_a_data_error_and_nothing_else(form: str, data: st.DataObject) -> None:
    damaged = bytearray(FORMS[form])
    for position in data.draw(st.lists(st.integers(0, len(damaged) - 1), min_size=1, max_size=6)):
        damaged[position] = data.draw(st.integers(0, 255))
    try:
        pixels = image_array(bytes(damaged), num_channels=3, size=(8, 8))
    except DataError as error:
        assert "\n" not in str(error)
    else:
        assert pixels.shape == (3, 8, 8)


@pytest.mark.parametrize(
    ("mode", "form", "bits"),
    [
        ("L", "PNG", 8),
        ("RGB", "PNG", 8),
        ("P", "PNG", 8),
        ("1", "PNG", 8),
        ("RGB", "JPEG", 8),
        ("RGB", "PPM", 8),
        ("I;16", "PNG", 16),
        ("I;16", "TIFF", 16),
        ("I;16", "PPM", 16),
        ("F", "TIFF", 32),
    ],
)
def test_bits_of_a_channel_as_it_is_stored(mode: str, form: str, bits: int) -> None:
    assert channel_bits(encoded(Image.new(mode, (4, 4)), form)) == bits


def test_rgb_of_16_bits_is_known_though_pillow_reads_8_of_them() -> None:
    row = zlib.compress(bytes(2 * (1 + 2 * 6)))
    parts = {b"IHDR": struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0), b"IDAT": row, b"IEND": b""}
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts.items()
    ]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
    assert load_image(png).mode == "RGB" and channel_bits(png) == 16
    ppm = b"P6\n2 2\n1023\n" + bytes(24)
    assert load_image(ppm).mode == "RGB" and channel_bits(ppm) == 16
    assert channel_bits(np.zeros((4, 4, 3), dtype=np.uint8)) == 8
    header = struct.pack("<2sIHHI", b"BM", 54 + 16, 0, 0, 54)
    bmp = header + struct.pack("<IiiHHIIiiII", 40, 2, 4, 1, 16, 0, 16, 0, 0, 0, 0) + bytes(16)
    assert channel_bits(bmp) == 8  # 16 bits are those of a pixel
    with pytest.raises(DataError, match="there is no image"):
        channel_bits("nowhere.png")
