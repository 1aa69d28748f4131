"""One image with many small ones on it: samples by class, originals over reconstructions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from vqtok.errors import ConfigurationError, DataError

__all__ = ["image_grid"]


def image_grid(
    images: Sequence[Image.Image | np.ndarray],
    *,
    columns: int,
    gap: int = 2,
    scale: int = 1,
    background: int | tuple[int, int, int] = 255,
) -> Image.Image:
    """Lay images of one size out row by row, `gap` pixels between them and around the whole.

    Args:
        images: PIL images, or uint8 arrays (H, W) or (C, H, W) with C 1 or 3; at least one, all of one size.
        columns: images in a row; the last row may be shorter.
        gap: pixels of background between images and around the grid, counted after enlargement.
        scale: whole number by which each image is enlarged, every pixel becoming a square of `scale` x `scale`.
        background: grey level, or red, green and blue, each in [0, 255].

    Returns:
        An image of mode "L" where every image and the background are grey, otherwise "RGB".

    Raises:
        DataError: there are no images, they differ in size, or an array is not an image.
        ConfigurationError: `columns` or `scale` is below 1, or `gap` below 0.
    """
    for name, value, least in (("columns", columns, 1), ("scale", scale, 1), ("gap", gap, 0)):
        if value < least:
            raise ConfigurationError(f"{name} must be at least {least}, got {value}")
    tiles = [_as_image(image) for image in images]
    if not tiles:
        raise DataError("a grid needs at least one image, got none")
    sizes = {tile.size for tile in tiles}
    if len(sizes) > 1:
        raise DataError(f"the images of one grid must have one size, got {sorted(sizes)} (width, height)")

    grey = isinstance(background, int) and all(tile.mode == "L" for tile in tiles)
    fill = (background,) * 3 if isinstance(background, int) and not grey else background
    width, height = tiles[0].width * scale, tiles[0].height * scale
    rows = -(-len(tiles) // columns)
    columns = min(columns, len(tiles))
    grid = Image.new("L" if grey else "RGB", (gap + columns * (width + gap), gap + rows * (height + gap)), color=fill)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        enlarged = tile.convert(grid.mode).resize((width, height), Image.Resampling.NEAREST)
        grid.paste(enlarged, (gap + column * (width + gap), gap + row * (height + gap)))
    return grid


def _as_image(image: Image.Image | np.ndarray) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if image.dtype == np.uint8 and image.ndim == 3 and image.shape[0] in (1, 3):
        image = image[0] if image.shape[0] == 1 else image.transpose(1, 2, 0)
    elif image.dtype != np.uint8 or image.ndim != 2:
        raise DataError(
            f"an array must be uint8 of shape (H, W), (1, H, W) or (3, H, W), got {image.dtype} {image.shape}"
        )
    return Image.fromarray(np.ascontiguousarray(image))
