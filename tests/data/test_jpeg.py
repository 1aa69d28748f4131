"""With simplejpeg or without, a JPEG file gives the same pixels or the same error."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile, ImageOps

from tests.data.images import encoded
from tests.data.jpegs import arithmetic, photograph, plain_jpegs, rotated, scans, simplejpeg, with_size
from vqtok.data import image_array, images, jpeg, load_image
from vqtok.errors import DataError

PLAIN = dict(plain_jpegs())
KINDS = {
    "4:2:0": encoded(photograph(60, 44), "JPEG"),
    "progressive": encoded(photograph(60, 44), "JPEG", progressive=True, subsampling="4:2:2"),
    "restarts": encoded(photograph(60, 44), "JPEG", restart_marker_blocks=1),
    "grey": encoded(photograph(60, 44).convert("L"), "JPEG"),
    "rotated": rotated(photograph(60, 44), 6),
    "4:4:0": simplejpeg.encode_jpeg(np.asarray(photograph(60, 44)), colorsubsampling="440"),
    "CMYK": rotated(photograph(60, 44).convert("CMYK"), 8),
    **arithmetic(),
}


@pytest.fixture
def decoded_by_simplejpeg(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """For each file that was opened, whether simplejpeg decoded it."""
    decode, found = jpeg.decode_jpeg, []

    def watched(*args: Any) -> Image.Image | None:
        image = decode(*args)
        found.append(image is not None)
        return image

    monkeypatch.setattr(images, "decode_jpeg", watched)
    return found


@pytest.fixture(autouse=True, scope="module")
def the_package_is_used() -> None:
    """Pillow and simplejpeg, both from wheels, decode alike; without that these tests would test nothing."""
    assert jpeg.simplejpeg() is simplejpeg


def result(source: Any, size: tuple[int, int], num_channels: int = 3) -> Any:
    try:
        return image_array(source, num_channels=num_channels, size=size, name="it").tolist()
    except DataError as error:
        return str(error)


def by_pillow(*args: Any) -> Any:
    """What `result` is where simplejpeg is not installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jpeg, "simplejpeg", lambda: None)
        return result(*args)


@pytest.mark.parametrize("num_channels", [1, 3])
def test_plain_files_give_the_pixels_of_pillow(num_channels: int, decoded_by_simplejpeg: list[bool]) -> None:
    for name, data in PLAIN.items():
        with Image.open(io.BytesIO(data)) as image:
            expected = np.asarray(image.convert("L" if num_channels == 1 else "RGB"))
        pixels = image_array(data, num_channels=num_channels, size=expected.shape[:2])
        expected = expected[None] if num_channels == 1 else expected.transpose(2, 0, 1)
        np.testing.assert_array_equal(pixels, expected, err_msg=name)
        assert pixels.flags.c_contiguous and pixels.flags.writeable
        assert result(data, (16, 16), num_channels) == by_pillow(data, (16, 16), num_channels), name
    assert len(PLAIN) > 300
    assert decoded_by_simplejpeg.count(True) == 2 * len(PLAIN), "by_pillow is the rest"


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_files_are_turned_as_their_exif_says(mode: str, orientation: int, decoded_by_simplejpeg: list[bool]) -> None:
    data = rotated(photograph(21, 34).convert(mode), orientation)
    with Image.open(io.BytesIO(data)) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    pixels = image_array(data, num_channels=3, size=expected.shape[:2])
    np.testing.assert_array_equal(pixels.transpose(1, 2, 0), expected)
    assert decoded_by_simplejpeg == [mode != "CMYK"]


@pytest.mark.parametrize("name", arithmetic())
def test_arithmetic_coding_is_read_where_pillow_reads_it(name: str) -> None:
    assert result(KINDS[name], (20, 28)) == by_pillow(KINDS[name], (20, 28))


@pytest.mark.parametrize("name", KINDS)
def test_files_cut_short_are_refused_as_pillow_refuses_them(name: str) -> None:
    data = KINDS[name]
    for end in sorted({*range(0, len(data), 23), *range(len(data) - 40, len(data))}):
        expected = by_pillow(data[:end], (8, 8))
        assert result(data[:end], (8, 8)) == expected, end
        assert isinstance(expected, str), end


@pytest.mark.parametrize("name", ["4:2:0", "progressive", "arithmetic progressive"])
def test_files_that_end_early_but_properly_give_what_pillow_makes_of_them(name: str) -> None:
    """Whole scans are missing, or half of one; libjpeg smooths the first and only warns of the second."""
    data = KINDS[name]
    for end in sorted({*scans(data)[1:], *range(300, len(data), 31)}):
        cut = data[:end] + b"\xff\xd9"
        assert result(cut, (44, 60)) == by_pillow(cut, (44, 60)), end


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_damaged_files_give_what_pillow_makes_of_them(name: str, data: st.DataObject) -> None:
    damaged = bytearray(KINDS[name])
    for position in data.draw(st.lists(st.integers(2, len(damaged) - 1), min_size=1, max_size=4)):
        damaged[position] = data.draw(st.integers(0, 255))
    start, length = data.draw(st.integers(2, len(damaged))), data.draw(st.sampled_from([0, 0, 1, 7, 300]))
    del damaged[start : start + length]
    for num_channels in (1, 3):
        expected = by_pillow(bytes(damaged), (9, 7), num_channels)
        assert result(bytes(damaged), (9, 7), num_channels) == expected


def test_truncated_files_that_pillow_is_told_to_load_are_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for data in KINDS.values():
        half = data[: 9 * len(data) // 10]
        assert result(half, (8, 8)) == by_pillow(half, (8, 8))


def unusual() -> Iterator[Any]:
    """Bytes, and whether they are an image at all."""
    first, second = photograph(24, 16), photograph(24, 16, seed=1)
    yield pytest.param(encoded(first, "MPO", save_all=True, append_images=[second]), True, id="MPO")
    yield pytest.param(encoded(first.convert("CMYK"), "JPEG", progressive=True), True, id="CMYK")
    plain = encoded(first, "JPEG")
    at = plain.index(b"\xff\xc0") + 4
    yield pytest.param(plain[:at] + b"\x0c" + plain[at + 1 :], False, id="12 bits")
    yield pytest.param(plain.replace(b"\xff\xc0", b"\xff\xc3"), False, id="lossless")
    yield pytest.param(with_size(plain, 24, 0), False, id="no pixels")
    yield pytest.param(encoded(first, "JPEG", streamtype=2), False, id="no tables")
    yield pytest.param(encoded(first, "JPEG", streamtype=1), False, id="only tables")


@pytest.mark.parametrize(("data", "good"), list(unusual()))
def test_unusual_files_are_left_to_pillow(data: bytes, good: bool, decoded_by_simplejpeg: list[bool]) -> None:
    expected = by_pillow(data, (16, 24))
    assert result(data, (16, 24)) == expected
    assert isinstance(expected, list) == good
    assert True not in decoded_by_simplejpeg


def test_sizes_are_checked_before_anything_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jpeg, "simplejpeg", lambda: pytest.fail("asked for the decoder"))
    for side in (9500, 20_000, 65_500):
        with pytest.raises(DataError, match="it is refused"):
            load_image(with_size(KINDS["4:2:0"], side, side), name="it")


def test_a_header_that_pillow_reads_otherwise_is_not_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it could ask for any amount of memory."""
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda *_, **__: pytest.fail("decoded"))
    with Image.open(io.BytesIO(KINDS["4:2:0"])) as image:
        assert jpeg.decode_jpeg(io.BytesIO(with_size(KINDS["4:2:0"], 60000, 60000)), image) is None
        assert jpeg.decode_jpeg(io.BytesIO(KINDS["grey"]), image) is None


def test_a_file_that_is_far_too_long_is_not_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, decoded_by_simplejpeg: list[bool]
) -> None:
    path = tmp_path / "long.jpg"
    path.write_bytes(KINDS["4:2:0"])
    expected = result(path, (8, 8))
    with path.open("ab") as file:
        file.truncate(4 * 60 * 44 + (16 << 20))
    assert result(path, (8, 8)) == expected
    with path.open("ab") as file:
        file.truncate(1 << 40)  # a hole
    assert result(path, (8, 8)) == expected
    assert decoded_by_simplejpeg == [True, True, False]


def test_files_and_bytes_give_the_same(tmp_path: Path, decoded_by_simplejpeg: list[bool]) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(KINDS["rotated"])
    expected = by_pillow(path, (8, 8))
    for source in (path, KINDS["rotated"], bytearray(KINDS["rotated"]), memoryview(KINDS["rotated"])):
        assert result(source, (8, 8)) == expected
    assert decoded_by_simplejpeg[1:] == [True] * 4


def test_an_image_that_pillow_opened_stays_with_pillow(decoded_by_simplejpeg: list[bool]) -> None:
    with Image.open(io.BytesIO(KINDS["4:2:0"])) as image:
        assert result(image, (8, 8)) == by_pillow(KINDS["4:2:0"], (8, 8))
    assert decoded_by_simplejpeg == [False]


def test_a_loaded_image_is_its_own(decoded_by_simplejpeg: list[bool]) -> None:
    """Its pixels are the memory of the decoded array, which stays as long as the image, and can be written to."""
    data = encoded(photograph(60, 44), "JPEG", dpi=(72, 72), icc_profile=b"profile")
    image = load_image(data)
    with Image.open(io.BytesIO(data)) as expected:
        assert image.info == expected.info and image == expected.copy()
    image.putpixel((0, 0), (1, 2, 3))
    assert image.getpixel((0, 0)) == (1, 2, 3)
    assert load_image(data).getpixel((0, 0)) != (1, 2, 3)
    assert decoded_by_simplejpeg == [True, True]


def test_threads_decode_as_one_does(decoded_by_simplejpeg: list[bool]) -> None:
    work = list(PLAIN.values())[-60:] * 5
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda data: result(data, (8, 8)), work))
    assert found == [result(data, (8, 8)) for data in work]
    assert all(decoded_by_simplejpeg)


class Rounding:
    """A package that decodes noise with one pixel a level off."""

    encode_jpeg = staticmethod(simplejpeg.encode_jpeg)
    decode_jpeg_header = staticmethod(simplejpeg.decode_jpeg_header)

    @staticmethod
    def decode_jpeg(data: bytes, **options: Any) -> np.ndarray:
        pixels = simplejpeg.decode_jpeg(data, **options)
        if simplejpeg.decode_jpeg_header(data)[3] == "440":
            pixels[9, 9, 0] ^= 1
        return pixels


@pytest.mark.parametrize("package", [None, Rounding, object()])
def test_a_package_that_decodes_otherwise_or_is_missing_is_not_used(
    package: Any, monkeypatch: pytest.MonkeyPatch, decoded_by_simplejpeg: list[bool]
) -> None:
    monkeypatch.setitem(sys.modules, "simplejpeg", package)
    monkeypatch.setattr(jpeg, "simplejpeg", uncached := jpeg.simplejpeg.__wrapped__)
    assert uncached() is None
    assert result(KINDS["4:2:0"], (8, 8)) == by_pillow(KINDS["4:2:0"], (8, 8))
    assert True not in decoded_by_simplejpeg


def test_the_package_is_judged_whatever_the_limit_of_pixels_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1)
    assert jpeg.simplejpeg.__wrapped__() is simplejpeg
