"""Images of every mode get the right colours, and those of every size the one asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.images import NOISE, colour, encoded, flat
from vqtok.data import fit_image, fitting, image_array
from vqtok.data.fitting import RESAMPLING, Crop
from vqtok.data.fitting import colour as named_colour
from vqtok.errors import ConfigurationError, DataError


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (flat("RGB", (10, 20, 30)), (10, 20, 30)),
        (flat("L", 77), (77, 77, 77)),
        (flat("1", 1), (255, 255, 255)),
        (flat("RGBA", (10, 20, 30, 255)), (10, 20, 30)),
        (flat("RGBA", (10, 20, 30, 0)), (255, 255, 255)),
        (flat("RGBA", (0, 0, 0, 51)), (204, 204, 204)),  # a fifth of black over white
        (flat("LA", (0, 51)), (204, 204, 204)),
        (flat("LA", (0, 51)).convert("La"), (204, 204, 204)),
        (flat("RGBA", (0, 0, 0, 51)).convert("RGBa"), (204, 204, 204)),
        (flat("RGB", (200, 0, 0)).convert("P", palette=Image.Palette.ADAPTIVE), (200, 0, 0)),
        (flat("CMYK", (0, 255, 255, 0)), (255, 0, 0)),
        (flat("HSV", (0, 0, 90)), (90, 90, 90)),
        (flat("YCbCr", (60, 128, 128)), (60, 60, 60)),
        (flat("I;16", 128 * 257), (128, 128, 128)),
        (flat("I;16", 200), (1, 1, 1)),  # 16 bits are 16 bits, however dark
        (flat("I", 200), (200, 200, 200)),
        (flat("I", 128 * 257), (128, 128, 128)),
        (flat("F", 0.2), (51, 51, 51)),
        (flat("F", 51.0), (51, 51, 51)),
    ],
    ids=lambda value: value.mode if isinstance(value, Image.Image) else str(value[0]),
)
def test_every_mode_has_the_right_colours(image: Image.Image, expected: tuple[int, ...]) -> None:
    assert colour(image) == expected
    grey = Image.new("RGB", (1, 1), expected).convert("L").getpixel((0, 0))
    assert colour(image, num_channels=1) == (grey,)


def test_lab_comes_back_as_the_colour_that_it_was() -> None:
    lab = flat("RGB", (200, 100, 50)).convert("LAB")
    np.testing.assert_allclose(colour(lab), (200, 100, 50), atol=2)
    np.testing.assert_allclose(colour(lab, num_channels=1), (124,), atol=2)


def test_a_transparent_colour_of_a_palette_or_of_rgb_is_white() -> None:
    red = flat("RGB", (200, 0, 0))
    palette = red.convert("P", palette=Image.Palette.ADAPTIVE)
    assert colour(encoded(palette, "PNG", transparency=palette.getpixel((0, 0)))) == (255, 255, 255)
    assert colour(encoded(red, "PNG", transparency=(200, 0, 0))) == (255, 255, 255)
    assert colour(encoded(red, "PNG", transparency=(1, 2, 3))) == (200, 0, 0)
    assert colour(encoded(flat("L", 9), "PNG", transparency=9), num_channels=1) == (255,)


def test_sixteen_bit_files_keep_their_brightness() -> None:
    levels = np.array([[0, 257 * 100, 65535]], dtype=np.uint16)
    for form in ("PNG", "TIFF"):
        pixels = image_array(encoded(Image.fromarray(levels), form), num_channels=1, size=(1, 3))
        assert pixels.tolist() == [[[0, 100, 255]]]


@pytest.mark.parametrize("value", [-1.0, 256.0, float("nan"), float("inf")])
def test_floats_out_of_range_are_refused(value: float) -> None:
    with pytest.raises(DataError, match="mode F"):
        colour(flat("F", value))


def test_an_image_of_the_right_size_is_not_touched_and_one_too_long_is_only_cropped() -> None:
    image = Image.fromarray(NOISE)
    assert fit_image(image, num_channels=3, size=(12, 20)) is image
    assert np.array_equal(np.asarray(fit_image(image, num_channels=3, size=(12, 12))), NOISE[:, 4:16])
    assert np.array_equal(
        np.asarray(fit_image(image.rotate(90, expand=True), num_channels=3, size=(20, 9))).shape, (20, 9, 3)
    )
    odd = fit_image(image, num_channels=3, size=(12, 11))  # 9 columns too many: whole pixels, no half ones
    assert np.array_equal(np.asarray(odd), NOISE[:, 4:15])
    tall = Image.fromarray(NOISE.transpose(1, 0, 2).copy())
    assert np.array_equal(np.asarray(fit_image(tall, num_channels=3, size=(12, 12))), np.asarray(tall)[4:16])


def test_the_largest_centred_part_is_resampled() -> None:
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 128, 3), dtype=np.uint8))
    for name, method in RESAMPLING.items():
        whole = np.asarray(image.resize((32, 16), method))  # halves of even numbers: cropping after is the same
        fitted = fit_image(image, num_channels=3, size=(16, 16), resample=name)
        np.testing.assert_allclose(np.asarray(fitted).astype(int), whole[:, 8:24], atol=1)


def test_shrinking_is_antialiased() -> None:
    stripes = Image.fromarray(np.tile(np.array([0, 255], dtype=np.uint8), (64, 32)))
    pixels = image_array(stripes, num_channels=1, size=(8, 8))
    assert abs(pixels.astype(int) - 127).max() <= 5  # nearest would give 0 or 255


def test_the_transparent_level_of_16_bits_is_white(tmp_path: Path) -> None:
    levels = np.array([[0, 257 * 100, 257 * 100 + 1]], dtype=np.uint16)
    Image.fromarray(levels).save(tmp_path / "a.png", transparency=257 * 100)
    for channels in (1, 3):
        pixels = image_array(tmp_path / "a.png", num_channels=channels, size=(1, 3))
        assert pixels.tolist() == [[[0, 255, 100]]] * channels


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (3, 2), (1000, 7)])
@pytest.mark.parametrize("size", [(8, 8), (5, 16), (1, 1)])
def test_any_proportions_fit_any_size(shape: tuple[int, int], size: tuple[int, int]) -> None:
    pixels = image_array(np.full(shape, 99, np.uint8), num_channels=1, size=size)
    assert pixels.shape == (1, *size) and (pixels == 99).all()


def gradient(mode: str, width: int, height: int) -> Image.Image:
    """An image of any mode in which every pixel counts."""
    noise = np.random.default_rng(5).integers(0, 256, (height, width, 4), dtype=np.uint8)
    if mode in ("I;16", "I;16B"):
        return Image.fromarray(noise[..., 0].astype(np.uint16) * 257).convert(mode)
    if mode in ("I", "F"):
        return Image.fromarray(noise[..., 0].astype(np.int32)).convert(mode)
    if mode == "P":
        image = Image.fromarray(noise[..., 0]).convert("P")
        image.info["transparency"] = 7
        return image
    image = Image.fromarray(noise)
    if mode in ("La", "RGBa"):
        return image.convert({"La": "LA", "RGBa": "RGBA"}[mode]).convert(mode)
    if mode == "LAB":
        return image.convert("RGB").convert("LAB")
    return image.convert("RGB" if mode in ("CMYK", "YCbCr", "HSV") else mode).convert(mode)


MODES = ["1", "L", "LA", "La", "P", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "LAB", "I", "I;16", "I;16B", "F"]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_channels", [1, 3])
def test_strips_give_the_pixels_of_the_whole_bit_for_bit(
    mode: str, num_channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = gradient(mode, 97, 61)
    for size in ((16, 16), (9, 40), (61, 61), (61, 97), (80, 50)):
        for resample in RESAMPLING:
            options: dict[str, Any] = {"num_channels": num_channels, "size": size, "resample": resample}
            whole = image_array(image, **options)
            with monkeypatch.context() as patch:
                patch.setattr(fitting, "WHOLE_PIXELS", 100)
                patch.setattr(fitting, "STRIP_PIXELS", 700)  # 7 rows
                np.testing.assert_array_equal(image_array(image, **options), whole)


def test_a_transparent_colour_is_transparent_in_every_strip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "WHOLE_PIXELS", 10)
    monkeypatch.setattr(fitting, "STRIP_PIXELS", 10)
    red = Image.new("RGB", (8, 8), (200, 0, 0))
    assert colour(encoded(red, "PNG", transparency=(200, 0, 0))) == (255, 255, 255)


def test_what_cannot_be_asked_for_is_refused() -> None:
    image = flat("L", 0)
    with pytest.raises(ConfigurationError, match="num_channels must be 1 .* got 2"):
        fit_image(image, num_channels=2, size=(4, 4))
    with pytest.raises(ConfigurationError, match="Did you mean 'bicubic'"):
        fit_image(image, num_channels=1, size=(4, 4), resample="bicubik")
    with pytest.raises(ConfigurationError, match="0 x 4"):
        fit_image(image, num_channels=1, size=(0, 4))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("white", "#ffffff"),
        ("Black", "#000000"),
        (" #FF8000 ", "#ff8000"),
        ("#f80", "#ff8800"),
        ("255,128,0", "#ff8000"),
        ("255, 128, 0", "#ff8000"),
    ],
)
def test_a_colour_is_named_in_many_ways(text: str, expected: str) -> None:
    assert named_colour(text) == expected


@pytest.mark.parametrize("text", ["", "whit", "#ff80", "#ff800080", "1,2", "1,2,256", "-1,2,3", "a,b,c", "1,2,3,4"])
def test_what_is_no_colour_is_refused(text: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^a colour must be a name such as white or black, #rrggbb, or [^\n]*$"
    ):
        named_colour(text)


TRANSPARENT = {
    "RGBA": flat("RGBA", (10, 20, 30, 0)),
    "RGBa": flat("RGBA", (0, 0, 0, 0)).convert("RGBa"),
    "LA": flat("LA", (9, 0)),
    "La": flat("LA", (9, 0)).convert("La"),
    "a colour of RGB": encoded(flat("RGB", (200, 0, 0)), "PNG", transparency=(200, 0, 0)),
    "a level of L": encoded(flat("L", 7), "PNG", transparency=7),
    "a level of 16 bits": encoded(flat("I;16", 700), "PNG", transparency=700),
    "a colour of a palette": encoded(flat("P", 0), "PNG", transparency=0),
}


@pytest.mark.parametrize("kind", TRANSPARENT)
def test_the_background_shows_through_whatever_is_transparent(kind: str) -> None:
    image = TRANSPARENT[kind]
    assert colour(image, background="#ff8000") == (255, 128, 0)
    assert colour(image) == (255, 255, 255)
    grey = Image.new("RGB", (1, 1), (255, 128, 0)).convert("L").getpixel((0, 0))
    assert colour(image, background="#ff8000", num_channels=1) == (grey,)


def test_half_transparent_is_a_mixture_and_opaque_is_not_touched() -> None:
    assert colour(flat("RGBA", (255, 255, 255, 51)), background="#000000") == (51, 51, 51)
    for mode, value in (("RGB", (1, 2, 3)), ("RGBA", (1, 2, 3, 255)), ("CMYK", (254, 253, 252, 0))):
        assert colour(flat(mode, value), background="#00ff00") == (1, 2, 3)


@pytest.mark.parametrize("whole", [True, False])
def test_a_crop_is_a_part_with_the_right_proportions(monkeypatch: pytest.MonkeyPatch, whole: bool) -> None:
    """Halves of the sides of the largest 2:1 part of 80 x 60, which is 80 x 40: 40 x 20 pixels, not resampled."""
    if not whole:
        monkeypatch.setattr(fitting, "WHOLE_PIXELS", 100)
        monkeypatch.setattr(fitting, "STRIP_PIXELS", 700)
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    for x, y, left, top in ((0, 0, 0, 0), (1, 1, 40, 40), (0.5, 0.5, 20, 20), (0.25, 1, 10, 40)):
        part = fit_image(Image.fromarray(pixels), num_channels=3, size=(20, 40), crop=Crop(share=0.5, x=x, y=y))
        assert np.array_equal(np.asarray(part), pixels[top : top + 20, left : left + 40])
    opaque = Image.fromarray(np.dstack([pixels, np.full((60, 80), 255, np.uint8)]))
    part = fit_image(opaque, num_channels=3, size=(20, 40), crop=Crop(share=0.5, x=0.25, y=1))
    assert np.array_equal(np.asarray(part), pixels[40:60, 10:50])
