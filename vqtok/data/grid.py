"""One sheet with many small pictures on it: samples by class, originals over reconstructions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from vqtok.errors import ConfigurationError, DataError

__all__ = ["picture_grid"]


def picture_grid(
    pictures: Sequence[Image.Image | np.ndarray],
    *,
    columns: int,
    gap: int = 2,
    scale: int = 1,
    background: int | tuple[int, int, int] = 255,
) -> Image.Image:
    """Lay pictures of one size out row by row, `gap` pixels between them and around the whole.

    Args:
        pictures: PIL images, or uint8 arrays (H, W) or (C, H, W) with C 1 or 3; at least one, all of one size.
        columns: pictures in a row; the last row may be shorter.
        gap: pixels of background between pictures and around the sheet, counted after enlargement.
        scale: whole number by which each picture is enlarged, every pixel becoming a square of `scale` x `scale`.
        background: grey level, or red, green and blue, each in [0, 255].

    Returns:
        A picture of mode "L" where every picture and the background are grey, otherwise "RGB".

    Raises:
        DataError: there are no pictures, they differ in size, or an array is not a picture.
        ConfigurationError: `columns` or `scale` is below 1, or `gap` below 0.
    """
    for name, value, least in (("columns", columns, 1), ("scale", scale, 1), ("gap", gap, 0)):
        if value < least:
            raise ConfigurationError(f"{name} must be at least {least}, got {value}")
    images = [_as_image(picture) for picture in pictures]
    if not images:
        raise DataError("a grid needs at least one picture, got none")
    sizes = {image.size for image in images}
    if len(sizes) > 1:
        raise DataError(f"the pictures of one grid must have one size, got {sorted(sizes)} (width, height)")

    grey = isinstance(background, int) and all(image.mode == "L" for image in images)
    paper = (background,) * 3 if isinstance(background, int) and not grey else background
    width, height = images[0].width * scale, images[0].height * scale
    rows = -(-len(images) // columns)
    columns = min(columns, len(images))
    sheet = Image.new("L" if grey else "RGB", (gap + columns * (width + gap), gap + rows * (height + gap)), color=paper)
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        enlarged = image.convert(sheet.mode).resize((width, height), Image.Resampling.NEAREST)
        sheet.paste(enlarged, (gap + column * (width + gap), gap + row * (height + gap)))
    return sheet


def _as_image(picture: Image.Image | np.ndarray) -> Image.Image:
    if isinstance(picture, Image.Image):
        return picture
    if picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[0] in (1, 3):
        picture = picture[0] if picture.shape[0] == 1 else picture.transpose(1, 2, 0)
    elif picture.dtype != np.uint8 or picture.ndim != 2:
        raise DataError(
            f"an array must be uint8 of shape (H, W), (1, H, W) or (3, H, W), got {picture.dtype} {picture.shape}"
        )
    return Image.fromarray(np.ascontiguousarray(picture))
