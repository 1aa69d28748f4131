"""An image of any mode and size to grey or RGB of the size that a tokenizer reads.

An image of up to four megapixels is converted and resampled whole. A larger one is converted and resampled strip by
strip, first across, then down, which is the order of Pillow's own two passes: the pixels are the same, but beside the
image itself only a strip and the narrowed image are in memory. Composing 80 megapixels over a colour as a whole took
1.5 GB more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image, ImageColor

from vqtok.data.recipes import RECIPES
from vqtok.errors import ConfigurationError, DataError, did_you_mean, one_line, shortened

__all__ = ["CENTER", "RESAMPLING", "RESIZING", "WHITE", "Crop", "check_resizing", "colour", "fit_image"]

RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}
RESIZING = (*RESAMPLING, *RECIPES)
"""The filters, and the recipes of `recipes.py`."""

MOST_ELONGATED = 100  # sides of an image that a recipe resizes whole: one of 30,000 x 1 pixels would take 22 GiB
WHOLE_PIXELS = 1 << 22  # up to so many pixels an image is handled whole
STRIP_PIXELS = 1 << 20  # pixels of a strip

WHITE = "#ffffff"

Convert = Callable[[Image.Image], Image.Image]


@dataclass(frozen=True, kw_only=True)
class Crop:
    """Which part of an image is kept; its proportions are those of the size that it is brought to.

    Attributes:
        share: of the sides of the largest such part, above 0 and at most 1.
        x, y: where it lies, from 0 (left, top) to 1 (right, bottom).
    """

    share: float = 1.0
    x: float = 0.5
    y: float = 0.5


CENTER = Crop()


def colour(text: str) -> str:
    """A colour as #rrggbb, from that, the name of one, or its red, green and blue from 0 to 255: 255,128,0.

    Raises:
        ConfigurationError: the text is none.
    """
    try:
        numbers = [int(part) for part in text.split(",")] if "," in text else ImageColor.getrgb(text.strip())
    except ValueError:
        numbers = []
    if len(numbers) != 3 or not all(0 <= number <= 255 for number in numbers):
        raise ConfigurationError(
            f"a colour must be a name such as white or black, #rrggbb, or red,green,blue from 0 to 255, got "
            f"{shortened(text)}"
        )
    return "#{:02x}{:02x}{:02x}".format(*numbers)


def fit_image(
    image: Image.Image,
    *,
    num_channels: int,
    size: tuple[int, int],
    resample: str = "bicubic",
    background: str = WHITE,
    crop: Crop = CENTER,
    name: str = "the image",
) -> Image.Image:
    """Bring an image to a mode (L for 1 channel, RGB for 3) and to a size (H, W).

    The largest centred part with the proportions of `size` is kept and resampled (with Pillow's antialiasing) to it. An
    image whose shorter side is already right is only cropped; one of the right size keeps its pixels. Transparent
    images are composed over the background, 16-bit images are scaled to 8 bits.

    Args:
        resample: the filter, or one of `recipes.py`, which resize and crop in their own way.
        background: what `colour` gives.
        crop: another part to keep.

    Raises:
        ConfigurationError: a number of channels, a size or a resampling method that does not exist.
        DataError: a mode or values that cannot become L or RGB; an image much longer than wide, with a recipe.
    """
    if num_channels not in (1, 3):
        raise ConfigurationError(f"num_channels must be 1 (grey) or 3 (RGB) to read images, got {num_channels}")
    height, width = size
    if height < 1 or width < 1:
        raise ConfigurationError(f"the size of an image must be at least 1 x 1, got {height} x {width}")
    check_resizing(resample, size)
    if resample in RECIPES and crop != CENTER:
        raise ConfigurationError(f"{resample} keeps the middle of an image: take the views center or ten-crop")
    try:
        convert = _conversion(image, "L" if num_channels == 1 else "RGB", background, name)
        if resample in RECIPES:
            _check_elongation(image, resample, name)
            return RECIPES[resample](_by_strips(image, convert) if convert else image, height)
        return _cover(image, height, width, RESAMPLING[resample], convert, crop)
    except (OSError, ValueError) as error:
        raise DataError(f"{name} cannot be converted: {one_line(error)}") from error


def _check_elongation(image: Image.Image, resample: str, name: str) -> None:
    short, long = sorted(image.size)
    if long > MOST_ELONGATED * short:
        raise DataError(
            f"{name} of {image.width} x {image.height} pixels is more than {MOST_ELONGATED} times as long as wide, and "
            f"{resample} resizes the whole of an image: cut it, or leave it out"
        )


def check_resizing(name: str, size: tuple[int, int]) -> None:
    """Refuse a way to resize that does not exist, or does not lead to a size (H, W).

    Raises:
        ConfigurationError: says what there is.
    """
    if name not in RESIZING:
        raise ConfigurationError(
            f"resample must be one of {', '.join(RESIZING)}, got {shortened(name)}.{did_you_mean(str(name), RESIZING)}"
        )
    if name in RECIPES and size[0] != size[1]:
        raise ConfigurationError(
            f"{name} gives square images, and the size is {size[0]} x {size[1]}: take another size, or one of "
            f"{', '.join(RESAMPLING)}"
        )


def _cover(
    image: Image.Image, height: int, width: int, method: Image.Resampling, convert: Convert | None, crop: Crop
) -> Image.Image:
    if image.size == (width, height) and crop.share == 1:
        return _by_strips(image, convert) if convert else image
    scale = max(width / image.width, height / image.height) / crop.share
    if scale == 1.0 and crop == CENTER:  # nothing to resample: whole pixels only
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
        return _by_strips(image, convert) if convert else image
    kept_width, kept_height = min(image.width, width / scale), min(image.height, height / scale)
    x, y = (image.width - kept_width) * crop.x, (image.height - kept_height) * crop.y
    if convert and _is_large(image):

        def narrow(strip: Image.Image) -> Image.Image:
            return convert(strip).resize((width, strip.height), method, box=(x, 0, x + kept_width, strip.height))

        return _by_strips(image, narrow).resize((width, height), method, box=(0, y, width, y + kept_height))
    image = convert(image) if convert else image
    return image.resize((width, height), method, box=(x, y, x + kept_width, y + kept_height))


def _is_large(image: Image.Image) -> bool:
    return image.width * image.height > WHOLE_PIXELS


def _by_strips(image: Image.Image, change: Convert) -> Image.Image:
    """Change an image that is large in strips, each of which keeps its height."""
    if not _is_large(image):
        return change(image)
    changed, top = None, 0
    for strip in _strips(image):
        part = change(strip)
        if changed is None:
            changed = Image.new(part.mode, (part.width, image.height))
        changed.paste(part, (0, top))
        top += part.height
    assert changed is not None
    return changed


def _strips(image: Image.Image) -> Iterator[Image.Image]:
    rows = max(1, STRIP_PIXELS // image.width)
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def _conversion(image: Image.Image, mode: str, background: str, name: str) -> Convert | None:
    """What brings the image, or any strip of it, to a mode pixel by pixel; None where it has it already."""
    if image.mode == mode and "transparency" not in image.info:
        return None
    top = _range(image, name) if image.mode == "F" or image.mode.startswith("I") else None
    return partial(_to_mode, mode=mode, background=background, top=top)


def _to_mode(image: Image.Image, mode: str, background: str, top: float | None) -> Image.Image:
    if top is not None:
        values, transparent = np.asarray(image), image.info.get("transparency")
        image = Image.fromarray(np.rint(values.astype(np.float64) * (255.0 / top)).astype(np.uint8))
        if transparent is not None:  # one level, of the 16 bits that it was stored with
            image.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    if image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image  # Pillow converts La to nothing else
        image = image.convert("RGBA")  # also RGBa, and a transparent colour of P, L and RGB
        image = Image.alpha_composite(Image.new("RGBA", image.size, background), image).convert("RGB")
    if image.mode == "LAB":
        image = image.convert("RGB")  # Pillow does not convert LAB to L
    return image if image.mode == mode else image.convert(mode)


def _range(image: Image.Image, name: str) -> float:
    """What white is in an image of 16 or 32 bits.

    Modes I and F do not say their range, so it is read off the largest value of the whole image. I;16 is 0..65535. I is
    0..255 or 0..65535, F is 0..1 or 0..255: the narrower where the values fit into it.
    """
    highest = 0.0
    for strip in _strips(image):
        values = np.asarray(strip)
        if not np.isfinite(values).all() or values.min() < 0:
            raise DataError(f"{name} has values below 0 or not finite (mode {image.mode}); give 8-bit or 16-bit images")
        highest = max(highest, float(values.max()))
    ranges = {"F": (1.0, 255.0), "I": (255.0, 65535.0)}.get(image.mode, (65535.0,))
    top = next((limit for limit in ranges if highest <= limit), None)
    if top is None:
        raise DataError(f"{name} has values up to {highest:g} (mode {image.mode}), at most {ranges[-1]:g} is allowed")
    return top
