"""One image, whatever it comes as, to uint8 pixels of the size and channels that a tokenizer reads.

Everything in this project that resizes an image does it here, so that one image always gives one set of codes:

    file, bytes, array, PIL image ─load_image→ PIL image, upright ─fit_image→ L or RGB ─→ uint8 (C, H, W)

Limits on purpose: only the formats of `formats.py` are decoded, images above `PIL.Image.MAX_IMAGE_PIXELS` (89 million
pixels) are refused rather than warned about, truncated files are refused rather than filled with grey, and animations
and multi-page files give their first frame. JPEG files are decoded in full: `Image.draft` is faster for large ones but
moves pixels by several levels, and then the codes of a path would not be the codes of the same image handed in decoded.
`jpeg.py` decodes them faster where it can to the same pixels.
All threads of a process together decode at most `budget.PIXELS_AT_A_TIME` pixels at a time.
"""

from __future__ import annotations

import io
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile, UnidentifiedImageError

from vqtok.data.budget import DECODING
from vqtok.data.fitting import STRIP_PIXELS, WHITE, fit_image
from vqtok.data.formats import FORMATS, readable_formats
from vqtok.data.jpeg import decode_jpeg
from vqtok.data.views import Views
from vqtok.errors import DataError, one_line
from vqtok.text import printable

__all__ = ["ImageInput", "channel_bits", "has_frames", "image_array", "image_views", "load_image", "open_file"]

ImageInput = str | Path | bytes | Image.Image | npt.NDArray[Any]

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
        DataError: there is no such file, it is no regular file or no image of a format that is read, it is cut short,
            or it has too many pixels.
    """
    name = printable(name or _image_name(source))
    with _opened(source, name) as (image, file), DECODING.take(image.width * image.height):
        return _upright(image, file, name)


def channel_bits(source: ImageInput, *, name: str | None = None) -> int:
    """Bits of each channel as an image is stored: 8 or fewer are 8; of 16 and 32 `fit_image` and Pillow keep 8.

    Pillow reads grey of 16 bits as it is, and of RGB the upper 8 bits: only the layout of the file tells. That of
    JPEG2000 and AVIF is not looked at, which are 8 here. Errors are those of `load_image`, and no pixel is decoded.
    """
    with _opened(source, printable(name or _image_name(source))) as (image, _):
        if image.mode.startswith("I;16") or any(map(_is_deep, getattr(image, "tile", ()))):
            return 16
        return 32 if image.mode in ("I", "F") else 8


def _is_deep(tile: Any) -> bool:
    """Whether a part of a file has 16 bits a channel, as Pillow describes it to its decoder."""
    arguments = tile.args if isinstance(tile.args, tuple) else (tile.args,)
    if tile.codec_name == "ppm":  # mode and what white is
        return bool(arguments[-1] > 255)
    modes = (one for one in arguments if isinstance(one, str))
    return any(";16" in mode and not mode.startswith("BGR;") for mode in modes)  # BGR;16 has 16 bits a pixel


def has_frames(source: ImageInput, *, name: str | None = None) -> bool:
    """Whether an image is the first of several, as of an animation or a file of several pages.

    Errors are those of `load_image`. The others are looked for while the file is open, and not decoded.
    """
    name = printable(name or _image_name(source))
    with _opened(source, name) as (image, _):
        try:
            return getattr(image, "n_frames", 1) > 1
        except MemoryError:
            raise
        except Exception as error:  # as in _read_header
            raise DataError(f"{name} is broken: {one_line(error)}") from error


def image_array(
    source: ImageInput,
    *,
    num_channels: int,
    size: tuple[int, int],
    resample: str = "bicubic",
    background: str = WHITE,
    name: str | None = None,
) -> npt.NDArray[np.uint8]:
    """Load an image, fit it to a size and give its pixels: uint8 (C, H, W).

    Arguments and errors are those of `load_image` and `fit_image`.
    """
    name = printable(name or _image_name(source))
    with _opened(source, name) as (image, file), DECODING.take(image.width * image.height):
        image = _upright(image, file, name)
        return _pixels(
            fit_image(image, num_channels=num_channels, size=size, resample=resample, background=background, name=name)
        )


def image_views(
    source: ImageInput,
    views: Views,
    number: int,
    *,
    num_channels: int,
    size: tuple[int, int],
    resample: str = "bicubic",
    background: str = WHITE,
    name: str | None = None,
) -> npt.NDArray[np.uint8]:
    """Load an image once and give the pixels of all of its views: uint8 (V, C, H, W).

    Args:
        number: of the image in its set; random views depend on it and on nothing else but their seed.

    The other arguments, and errors, are those of `image_array`.
    """
    name = printable(name or _image_name(source))
    with _opened(source, name) as (image, file), DECODING.take(image.width * image.height):
        image = _upright(image, file, name)
        fit = partial(fit_image, image, num_channels=num_channels, resample=resample, background=background, name=name)
        return np.stack([_pixels(view) for view in views.of(number, size, fit)])


def _pixels(image: Image.Image) -> npt.NDArray[np.uint8]:
    """uint8 (C, H, W) of an image that is L or RGB."""
    # Pillow packs each row as all of its red, green, blue, which is quicker to turn than single pixels are.
    rows = image.tobytes("raw", "L" if image.mode == "L" else "RGB;L")
    pixels = np.frombuffer(rows, dtype=np.uint8).reshape(image.height, -1, image.width)
    return pixels.transpose(1, 0, 2).copy()  # a copy, so that it can be written to and torch takes it


@contextmanager
def _opened(source: ImageInput, name: str) -> Iterator[tuple[Image.Image, IO[bytes] | None]]:
    """An image whose size is known but whose pixels may still have to be decoded, and the file it was read from."""
    if isinstance(source, str | os.PathLike):
        with open_file(Path(source), name) as file:
            yield _read_header(file, name), file
    elif isinstance(source, bytes | bytearray | memoryview):
        file = io.BytesIO(source)
        yield _read_header(file, name), file
    elif isinstance(source, Image.Image):
        if isinstance(source, ImageFile.ImageFile) and source.format not in (*readable_formats(), "MPO"):
            raise DataError(
                f"{name} is a file of the format {source.format}; only {', '.join(FORMATS)} are read: "
                'convert it first, as by image.convert("RGB")'
            )
        _check_size(source, name)
        yield source, None
    elif isinstance(source, np.ndarray):
        yield _array_image(source, name), None
    else:
        raise DataError(
            f"cannot read an image from {type(source).__name__}; give a path, bytes, a PIL image or an array"
        )


def open_file(path: Path, name: str) -> IO[bytes]:
    """Open the file of an image; a named pipe is not waited for.

    Raises:
        DataError: there is none, it is no regular file, or may not be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # opening a named pipe would wait for ever
            raise DataError(f"{name} cannot be read: it is no regular file")
        return path.open("rb")
    except FileNotFoundError:
        raise DataError(f"there is no image {name}") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise DataError(f"{name} cannot be read: {one_line(error)}") from error


def _read_header(file: IO[bytes], name: str) -> Image.Image:
    try:
        image = Image.open(file, formats=readable_formats())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{name} is refused: {one_line(error)}") from error
    except UnidentifiedImageError:
        raise DataError(f"{name} is not an image of a format that is read ({', '.join(FORMATS)})") from None
    except MemoryError:
        raise
    except Exception as error:  # a decoder fed with broken bytes may raise anything; whatever it is, the file is broken
        raise DataError(f"{name} is broken: {one_line(error)}") from error
    _check_size(image, name)
    return image


def _check_size(image: Image.Image, name: str) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise DataError(
            f"{name} is refused: {image.width} x {image.height} pixels are more than the {limit:,} that are allowed; "
            "make it smaller, or raise PIL.Image.MAX_IMAGE_PIXELS"
        )


def _upright(image: Image.Image, file: IO[bytes] | None, name: str) -> Image.Image:
    try:
        decoded = decode_jpeg(file, image) if file else None
        if decoded is None:
            image.load()
            decoded = image
        if image.width == 0 or image.height == 0:
            raise ValueError(f"it has {image.width} x {image.height} pixels")
        turn = UPRIGHT.get(image.getexif().get(EXIF_ORIENTATION, 1))
        return decoded if turn is None else decoded.transpose(turn)
    except MemoryError:
        raise
    except Exception as error:  # as in _read_header
        raise DataError(f"{name} is broken: {one_line(error)}") from error


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
            raise DataError(
                f"{name} has values from {pixels.min():.9g} to {pixels.max():.9g}; floats must lie in [0, 1]"
            )
        pixels = _eight_bits(pixels)
    elif pixels.dtype != np.uint8:
        raise DataError(f"{name} is {pixels.dtype}; give uint8 in 0..255 or floats in [0, 1]")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[:, :, 0]
    return Image.fromarray(np.ascontiguousarray(pixels))


def _eight_bits(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Floats in [0, 1] to 0..255, a strip at a time: float64 of a large image would be eight times its size."""
    pixels = np.empty(values.shape, dtype=np.uint8)
    rows = max(1, STRIP_PIXELS // values[0].size)
    for top in range(0, len(values), rows):
        pixels[top : top + rows] = np.rint(values[top : top + rows].astype(np.float64) * 255)
    return pixels


def _image_name(source: ImageInput) -> str:
    if isinstance(source, str | os.PathLike):
        return str(source)
    if isinstance(source, bytes | bytearray | memoryview):
        return f"an image of {len(source)} bytes"
    if isinstance(source, np.ndarray):
        return f"the array of shape {source.shape}"
    return str(getattr(source, "filename", "")) or "the image"
