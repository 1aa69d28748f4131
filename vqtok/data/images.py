"""One image, whatever it comes as, to uint8 pixels of the size and channels that a tokenizer reads.

Everything in this project that resizes an image does it here, so that one image always gives one set of codes:

    file, bytes, array, PIL image ─load_image→ PIL image, upright ─fit_image→ L or RGB ─→ uint8 (C, H, W)

Limits on purpose: only the formats of `formats.py` are decoded, images above `PIL.Image.MAX_IMAGE_PIXELS` (89 million
pixels) are refused rather than warned about, truncated files are refused rather than filled with grey, and animations
and multi-page files give their first frame. JPEG files are decoded in full: `Image.draft` is faster for large ones but
moves pixels by several levels, and then the codes of a path would not be the codes of the same image handed in decoded.
"""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from vqtok.data.formats import FORMATS, readable_formats
from vqtok.errors import ConfigurationError, DataError, did_you_mean

__all__ = ["RESAMPLING", "ImageInput", "fit_image", "image_array", "load_image"]

ImageInput = str | Path | bytes | Image.Image | npt.NDArray[Any]

RESAMPLING = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "lanczos": Image.Resampling.LANCZOS,
    "nearest": Image.Resampling.NEAREST,
}

EXIF_ORIENTATION = 0x0112
# What undoes each EXIF orientation; 1 is upright (Exif 2.32, table 6).
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def load_image(source: ImageInput, *, name: str | None = None) -> Image.Image:
    """Decode an image and turn it upright as its EXIF orientation says.

    Args:
        source: a file's path, the bytes of one, a PIL image, or an array: (H, W), (H, W, C) or (C, H, W) with C 1, 3
            or 4 (channels last where both fit), uint8 in 0..255 or floating point in [0, 1].
        name: what an error calls the image; the path where there is one.

    Raises:
        DataError: there is no such file, it is no image, it is cut short, or it has too many pixels.
    """
    if isinstance(source, str | os.PathLike):
        return _open_file(Path(source), name or str(source))
    if isinstance(source, bytes | bytearray | memoryview):
        return _decode(io.BytesIO(source), name or f"an image of {len(source)} bytes")
    if isinstance(source, Image.Image):
        return _checked(source, name or _image_name(source))
    if isinstance(source, np.ndarray):
        return _array_image(source, name or f"the array of shape {source.shape}")
    raise DataError(f"cannot read an image from {type(source).__name__}; give a path, bytes, a PIL image or an array")


def fit_image(
    image: Image.Image,
    *,
    num_channels: int,
    size: tuple[int, int],
    resample: str = "bicubic",
    name: str = "the image",
) -> Image.Image:
    """Bring an image to a mode (L for 1 channel, RGB for 3) and to a size (H, W).

    The largest centred part with the proportions of `size` is kept and resampled (with Pillow's antialiasing) to it; a
    image whose shorter side is already right is only cropped, one of the right size is not touched. Transparency is
    laid over white, 16-bit images are scaled to 8 bits.

    Raises:
        ConfigurationError: a number of channels, a size or a resampling method that does not exist.
        DataError: a mode or values that cannot become L or RGB.
    """
    if num_channels not in (1, 3):
        raise ConfigurationError(f"num_channels must be 1 (grey) or 3 (RGB) to read images, got {num_channels}")
    if resample not in RESAMPLING:
        raise ConfigurationError(
            f"resample must be one of {', '.join(sorted(RESAMPLING))}, got {resample!r}."
            f"{did_you_mean(resample, RESAMPLING)}"
        )
    height, width = size
    if height < 1 or width < 1:
        raise ConfigurationError(f"the size of an image must be at least 1 x 1, got {height} x {width}")
    try:
        image = _to_mode(image, "L" if num_channels == 1 else "RGB", name)
        return _cover(image, height, width, RESAMPLING[resample])
    except (OSError, ValueError) as error:
        raise DataError(f"{name} cannot be converted: {_one_line(error)}") from error


def image_array(
    source: ImageInput, *, num_channels: int, size: tuple[int, int], resample: str = "bicubic", name: str | None = None
) -> npt.NDArray[np.uint8]:
    """Open, fit and give the pixels: uint8 (C, H, W). Arguments and errors are those of the two functions above."""
    image = load_image(source, name=name)
    image = fit_image(image, num_channels=num_channels, size=size, resample=resample, name=name or _image_name(source))
    pixels = np.array(image)  # a copy, so that it can be written to and torch takes it
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def _open_file(path: Path, name: str) -> Image.Image:
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would wait for ever
            raise DataError(f"{name} cannot be read: it is no regular file")
        with path.open("rb") as file:
            return _decode(file, name)
    except FileNotFoundError:
        raise DataError(f"there is no image {name}") from None
    except OSError as error:
        raise DataError(f"{name} cannot be read: {_one_line(error)}") from error


def _decode(file: IO[bytes], name: str) -> Image.Image:
    try:
        image = Image.open(file, formats=readable_formats())
        _refuse_bomb(image, name)
        return _upright(image)
    except (DataError, MemoryError):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name} is refused: {_one_line(error)}") from error
    except UnidentifiedImageError:
        raise DataError(f"{name} is not an image of a format that is read ({', '.join(FORMATS)})") from None
    except Exception as error:  # a decoder fed with broken bytes may raise anything; whatever it is, the file is broken
        raise DataError(f"{name} is broken: {_one_line(error)}") from error


def _checked(image: Image.Image, name: str) -> Image.Image:
    """An image that the caller opened: its pixels may still have to be decoded, and its file may be broken."""
    if isinstance(image, ImageFile.ImageFile) and image.format not in (*readable_formats(), "MPO"):
        raise DataError(
            f"{name} is a file of the format {image.format}; only {', '.join(FORMATS)} are read: convert it first, "
            'as by image.convert("RGB")'
        )
    try:
        _refuse_bomb(image, name)
        return _upright(image)
    except (DataError, MemoryError):
        raise
    except Exception as error:  # as in _decode
        raise DataError(f"{name} is broken: {_one_line(error)}") from error


def _refuse_bomb(image: Image.Image, name: str) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise DataError(
            f"{name} is refused: {image.width} x {image.height} pixels are more than the {limit:,} that are allowed; "
            "make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS"
        )


def _upright(image: Image.Image) -> Image.Image:
    image.load()
    if image.width == 0 or image.height == 0:
        raise ValueError(f"it has {image.width} x {image.height} pixels")
    turn = UPRIGHT.get(image.getexif().get(EXIF_ORIENTATION, 1))
    return image if turn is None else image.transpose(turn)


def _to_mode(image: Image.Image, mode: str, name: str) -> Image.Image:
    if image.mode == mode and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        image = _to_eight_bits(image, name)
    if image.has_transparency_data:
        image = image.convert("LA") if image.mode == "La" else image  # Pillow knows no other way out of La
        image = image.convert("RGBA")  # also RGBa, and a transparent colour of P, L and RGB
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image).convert("RGB")
    if image.mode == "LAB":
        image = image.convert("RGB")  # and none from LAB to L
    return image if image.mode == mode else image.convert(mode)


def _to_eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Grey of 16 or 32 bits to L. Modes I and F do not say their range, so it is read off the largest value.

    I;16 is 0..65535. I is 0..255 or 0..65535, F is 0..1 or 0..255: the narrower where the values fit into it.
    """
    values = np.asarray(image).astype(np.float64)
    if not np.isfinite(values).all() or values.min() < 0:
        raise DataError(f"{name} has values below 0 or not finite (mode {image.mode}); give 8-bit or 16-bit images")
    ranges = {"F": (1.0, 255.0), "I": (255.0, 65535.0)}.get(image.mode, (65535.0,))
    top = next((limit for limit in ranges if values.max() <= limit), None)
    if top is None:
        raise DataError(
            f"{name} has values up to {values.max():g} (mode {image.mode}), at most {ranges[-1]:g} is allowed"
        )
    return Image.fromarray(np.rint(values * (255.0 / top)).astype(np.uint8))


def _cover(image: Image.Image, height: int, width: int, method: Image.Resampling) -> Image.Image:
    if image.size == (width, height):
        return image
    scale = max(width / image.width, height / image.height)
    if scale == 1.0:  # nothing to resample: whole pixels only
        left, top = (image.width - width) // 2, (image.height - height) // 2
        return image.crop((left, top, left + width, top + height))
    kept_width, kept_height = min(image.width, width / scale), min(image.height, height / scale)
    x, y = (image.width - kept_width) / 2, (image.height - kept_height) / 2
    return image.resize((width, height), method, box=(x, y, x + kept_width, y + kept_height))


def _array_image(array: npt.NDArray[Any], name: str) -> Image.Image:
    pixels = array
    if pixels.ndim == 3:
        channels_last = pixels.shape[2] in (1, 3, 4)
        if not channels_last and pixels.shape[0] in (1, 3, 4):
            pixels = pixels.transpose(1, 2, 0)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] not in (1, 3, 4)) or pixels.size == 0:
        raise DataError(f"{name} is no image; allowed are (H, W), (H, W, C) and (C, H, W) with C 1, 3 or 4")
    if np.issubdtype(pixels.dtype, np.floating):
        if not (pixels.min() >= 0 and pixels.max() <= 1):  # also catches NaN
            raise DataError(f"{name} has values from {pixels.min():g} to {pixels.max():g}; floats must lie in [0, 1]")
        pixels = np.rint(pixels.astype(np.float64) * 255).astype(np.uint8)
    elif pixels.dtype != np.uint8:
        raise DataError(f"{name} is {pixels.dtype}; give uint8 in 0..255 or floats in [0, 1]")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(pixels))


def _image_name(source: ImageInput) -> str:
    if isinstance(source, str | os.PathLike):
        return str(source)
    return str(getattr(source, "filename", "")) or "the image"


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
