"""How published tokenizers bring an image to their size, to the pixel, by names that any tokenizer may choose.

    shorter-side-bilinear   torchvision's Resize of a PIL image and CenterCrop: MaskGIT, Open-MAGVIT2; also
                            shorter-side-bicubic and shorter-side-lanczos
    center-crop-adm         halved by boxes, then bicubic: guided diffusion and LlamaGen
    opencv-bilinear         albumentations' SmallestMaxSize and CenterCrop: taming-transformers, IBQ
    chameleon               Lanczos, sides rounded to the nearest: Chameleon

All of them bring the shorter side to the size and keep the middle of the image, which is L or RGB by then; they differ
in rounding and in the filter. The results are square.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["RECIPES", "Recipe"]

Recipe = Callable[[Image.Image, int], Image.Image]
"""Brings an image, L or RGB, to a square of this side."""

COEFFICIENT_BITS = 11  # of OpenCV's weights


def shorter_side(filter: Image.Resampling) -> Recipe:
    """As torchvision does it: the longer side is cut to whole pixels, the crop rounded to the nearest even."""

    def fit(image: Image.Image, side: int) -> Image.Image:
        short, long = sorted(image.size)
        if short != side:
            longer = int(side * long / short)
            size = (side, longer) if image.width <= image.height else (longer, side)
            image = image.resize(size, filter)
        left, top = round((image.width - side) / 2.0), round((image.height - side) / 2.0)
        return image.crop((left, top, left + side, top + side))

    return fit


def center_crop_adm(image: Image.Image, side: int) -> Image.Image:
    """Dhariwal and Nichol 2021, arXiv:2105.05233: `center_crop_arr` of their code."""
    while min(image.size) >= 2 * side:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = side / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    return _middle(image, side)


def chameleon(image: Image.Image, side: int) -> Image.Image:
    """Chameleon Team 2024, arXiv:2405.09818: `vqgan_input_from` of its code."""
    scale = side / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    return _middle(image, side)


def opencv_bilinear(image: Image.Image, side: int) -> Image.Image:
    """Bilinear between the four nearest pixels whatever the scale, which aliases, in OpenCV's whole numbers."""
    scale = side / min(image.size)
    width, height = (round(length * scale) for length in image.size)
    if (width, height) != image.size:
        pixels = np.asarray(image).reshape(image.height, image.width, -1)
        resized = _opencv_resized(pixels, height, width)
        image = Image.fromarray(resized[:, :, 0] if image.mode == "L" else resized)
    return _middle(image, side)


def _middle(image: Image.Image, side: int) -> Image.Image:
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))


def _opencv_resized(pixels: npt.NDArray[np.uint8], height: int, width: int) -> npt.NDArray[np.uint8]:
    """INTER_LINEAR of OpenCV for uint8 (H, W, C): weights of 11 bits, sums cut to 16 bits on the way down."""
    x, x_next, x_weights = _opencv_weights(pixels.shape[1], width, clamp=True)
    y, y_next, y_weights = _opencv_weights(pixels.shape[0], height, clamp=False)
    wide = pixels.astype(np.int32)
    rows = wide[:, x] * x_weights[0][:, None] + wide[:, x_next] * x_weights[1][:, None]
    above, below = rows[y] >> 4, rows[y_next] >> 4
    weights = [each[:, None, None] for each in y_weights]
    return ((((above * weights[0]) >> 16) + ((below * weights[1]) >> 16) + 2) >> 2).astype(np.uint8)


def _opencv_weights(
    before: int, after: int, *, clamp: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], list[npt.NDArray[np.int32]]]:
    """Of each new position the two old ones next to it, and their weights in units of 2^-11.

    At the border OpenCV gives the last position all the weight across (clamp), and down takes it twice.
    """
    at = ((np.arange(after) + 0.5) * (before / after) - 0.5).astype(np.float32)
    first = np.floor(at).astype(np.int64)
    share = at - first.astype(np.float32)
    if clamp:
        share[(first < 0) | (first >= before - 1)] = 0
        first = first.clip(0, before - 1)
    units = np.float32(1 << COEFFICIENT_BITS)
    weights = [np.rint((1 - share) * units).astype(np.int32), np.rint(share * units).astype(np.int32)]
    return first.clip(0, before - 1), (first + 1).clip(0, before - 1), weights


RECIPES: Mapping[str, Recipe] = {
    "center-crop-adm": center_crop_adm,
    "chameleon": chameleon,
    "opencv-bilinear": opencv_bilinear,
    "shorter-side-bicubic": shorter_side(Image.Resampling.BICUBIC),
    "shorter-side-bilinear": shorter_side(Image.Resampling.BILINEAR),
    "shorter-side-lanczos": shorter_side(Image.Resampling.LANCZOS),
}
