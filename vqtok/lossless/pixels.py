"""The pixels of an image that can be kept whole: 8 bits, grey or RGB as the tokenizer reads them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from vqtok.data import channel_bits, has_frames, load_image
from vqtok.data.images import ImageInput
from vqtok.errors import DataError

__all__ = ["MODES", "as_image", "exact_pixels"]

MODES = {1: "L", 3: "RGB"}
"""By channels what Pillow calls such an image."""


def exact_pixels(image: ImageInput, *, num_channels: int, name: str) -> npt.NDArray[np.uint8]:
    """The pixels of an image, uint8 (H, W, C), upright as its EXIF orientation says, and otherwise as they are stored.

    Args:
        num_channels: 1 or 3, those of the tokenizer.
        name: what an error calls the image.

    Raises:
        DataError: it cannot be read, or has more bits, a palette, transparency, several frames or other channels.
    """
    if (bits := channel_bits(image, name=name)) > 8:
        raise DataError(f"{name} has {bits} bits a channel, and 8 are kept: convert it to 8 bits first")
    if has_frames(image, name=name):
        raise DataError(f"{name} has several frames, of which one would be kept: save that one alone")
    loaded = load_image(image, name=name)
    wanted = MODES[num_channels]
    if loaded.has_transparency_data:
        raise DataError(f"{name} is transparent, which is not kept: compose it over a colour first, as {wanted}")
    if loaded.mode == "P":
        raise DataError(f'{name} has a palette: convert it first, as by image.convert("{wanted}")')
    if loaded.mode != wanted:
        raise DataError(
            f"{name} is of mode {loaded.mode} and the tokenizer is of {wanted}: convert the image, or take a tokenizer "
            f"of its channels"
        )
    return np.array(loaded).reshape(loaded.height, loaded.width, num_channels)


def as_image(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """uint8 (H, W, C) as an image that is L or RGB."""
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
