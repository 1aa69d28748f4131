"""JPEG files decoded by simplejpeg, an optional package (`pip install vqtok[fast]`), where it gives Pillow's pixels.

Both packages bring libjpeg-turbo. simplejpeg hands it the whole file at once, where Pillow feeds it in blocks of 64 kB
and copies its rows once more. Pillow stays the judge: it has read the header and checked the size before a file comes
here, and it decodes whatever is not plain here: CMYK (whose conversion differs by a level), several images in one file,
a header that both do not read alike, and anything that libjpeg-turbo so much as warns of. So pixels and errors are
Pillow's with and without the package, and codes do not depend on it.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from functools import cache
from typing import IO, Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

__all__ = ["decode_jpeg"]

# By the mode that Pillow reads a file in, the layout to decode it to and the colours that it may hold. RGBX is how
# Pillow keeps an image of mode RGB, in four bytes a pixel.
LAYOUTS = {"L": ("GRAY", ("Gray",)), "RGB": ("RGBX", ("YCbCr", "RGB"))}
START_OF_SCAN, END_OF_IMAGE = b"\xff\xda", b"\xff\xd9"
SLACK = 16 << 20  # bytes beyond 4 a pixel that a file may have to be read whole; some cameras append a video


def decode_jpeg(file: IO[bytes], image: Image.Image) -> Image.Image | None:
    """The pixels of a JPEG file as Pillow would decode them, or None where Pillow has to.

    Args:
        file: what the image was opened from; its position is changed.
        image: the image that Pillow opened, with its header read and its size allowed, but not its pixels decoded.
    """
    if image.format != "JPEG" or image.mode not in LAYOUTS or (package := simplejpeg()) is None:
        return None
    if file.seek(0, os.SEEK_END) > 4 * image.width * image.height + SLACK:
        return None
    file.seek(0)
    try:
        pixels = _decoded(package, file.read(), image)
    except MemoryError:
        raise
    except Exception:  # whatever is wrong with the file, Pillow says it
        return None
    if pixels is None:
        return None
    decoded = _over(pixels, image.mode)
    decoded.info = image.info.copy()
    return decoded


@cache
def simplejpeg() -> Any | None:
    """The package, or None where it is not installed or decodes otherwise than Pillow.

    A Pillow that was built against another libjpeg may round or interpolate in another way. So both decode noise at
    each subsampling once, and an image whose last scan is missing, which they smooth.
    """
    try:
        import simplejpeg as package

        return package if all(_alike(package, data) for data in _probes(package)) else None
    except Exception:  # it is not installed, or not in order
        return None


def _probes(package: Any) -> Iterator[bytes]:
    noise = np.random.default_rng(0).integers(0, 256, (37, 45, 3), dtype=np.uint8)
    for subsampling in ("444", "422", "420", "440", "411"):
        yield package.encode_jpeg(noise, colorsubsampling=subsampling)
    yield package.encode_jpeg(noise[:, :, :1].copy(), colorspace="GRAY", colorsubsampling="Gray")
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "JPEG", progressive=True)
    progressive = buffer.getvalue()
    yield progressive[: progressive.rindex(START_OF_SCAN)] + END_OF_IMAGE


def _alike(package: Any, data: bytes) -> bool:
    with JpegImageFile(io.BytesIO(data)) as image:
        pixels = _decoded(package, data, image)
        return pixels is not None and np.array_equal(np.asarray(_over(pixels, image.mode)), np.asarray(image))


def _decoded(package: Any, data: bytes, image: Image.Image) -> npt.NDArray[np.uint8] | None:
    """uint8 (H, W, 1) or (H, W, 4), or None where the header is not what Pillow read.

    Without that comparison a file whose header can be read in two ways could ask for any amount of memory.
    """
    layout, colours = LAYOUTS[image.mode]
    height, width, colour, _ = package.decode_jpeg_header(data)
    if (width, height) != image.size or colour not in colours:
        return None
    pixels: npt.NDArray[np.uint8] = package.decode_jpeg(data, colorspace=layout)
    return pixels


def _over(pixels: npt.NDArray[np.uint8], mode: str) -> Image.Image:
    """An image that uses the memory of an array (H, W, 1 or 4): a copy would take a fifth as long as decoding."""
    import pyarrow as pa  # here, since `import vqtok` comes by this file and has no need of it

    height, width, channels = pixels.shape
    values = pa.Array.from_buffers(pa.uint8(), pixels.size, [None, pa.py_buffer(pixels)])
    if channels == 4:
        values = pa.FixedSizeListArray.from_arrays(values, 4)
    return Image.fromarrow(values, mode, (width, height))
