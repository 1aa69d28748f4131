"""Several views of each image, as priors are trained on them: mirror images, ten crops, or random ones.

    center     2: the image as the tokenizer's own preprocessing gives it, and its mirror image
    ten-crop  10: the four corners and the middle of the image at 1.1 times the size, then those of its mirror image
    random:K   K: a part with 0.8 to 1 of the sides that the center has, from anywhere, mirrored with probability 1/2

Ten crops lie where those of LlamaGen do (Sun et al. 2024, arXiv:2406.06525), in the order of torchvision's `TenCrop`;
random ones are as in guided diffusion (Dhariwal and Nichol 2021, arXiv:2105.05233), but that any share of the sides in
these bounds is as likely as any other.
A random view depends on the seed, the number of its image and its own number alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from vqtok.data.fitting import CENTER, Crop
from vqtok.errors import ConfigurationError, did_you_mean, shortened

__all__ = ["Views"]

KINDS = {"center": 2, "ten-crop": 10}
MOST_RANDOM = 1000
ENLARGED = 1.1  # the size that ten crops are cut from
LEAST_SHARE = 0.8  # of the sides that the center has

Fit = Callable[..., Image.Image]
"""`fit_image` of one image; takes size and crop."""


@dataclass(frozen=True, kw_only=True)
class Views:
    """Which views of an image there are.

    Attributes:
        kind: "center", "ten-crop" or "random".
        count: how many.
        seed: of random ones.
    """

    kind: str
    count: int
    seed: int = 0

    @classmethod
    def parse(cls, text: str, *, seed: int = 0) -> Views:
        """Read center, ten-crop or random:K.

        Raises:
            ConfigurationError: the text is none of them.
        """
        if text in KINDS:
            return cls(kind=text, count=KINDS[text], seed=seed)
        random = re.fullmatch(r"random:([1-9]\d{0,3})", text)
        if random is None or int(random[1]) > MOST_RANDOM:
            raise ConfigurationError(
                f"views must be center, ten-crop or random:K with K from 1 to {MOST_RANDOM:,}, got {shortened(text)}."
                f"{did_you_mean(text, [*KINDS, 'random:4'])}"
            )
        return cls(kind="random", count=int(random[1]), seed=seed)

    def of(self, number: int, size: tuple[int, int], fit: Fit) -> Iterator[Image.Image]:
        """The views of an image, each of a size (H, W).

        Args:
            number: of the image.
            fit: the image, to a size and from a crop.
        """
        if self.kind == "random":
            for view in range(self.count):
                share, x, y, mirror = np.random.default_rng((self.seed, number, view)).random(4).tolist()
                crop = Crop(share=LEAST_SHARE + (1 - LEAST_SHARE) * share, x=x, y=y)
                yield _mirrored(fit(size=size, crop=crop)) if mirror < 0.5 else fit(size=size, crop=crop)
            return
        if self.kind == "center":
            image = fit(size=size, crop=CENTER)
            yield from (image, _mirrored(image))
            return
        height, width = (max(int(side * ENLARGED), side + 2) for side in size)  # five crops of a small image differ too
        larger = fit(size=(height, width), crop=CENTER)
        yield from _five_crops(larger, size)
        yield from _five_crops(_mirrored(larger), size)


def _five_crops(image: Image.Image, size: tuple[int, int]) -> Iterator[Image.Image]:
    """Top left, top right, bottom left, bottom right, middle."""
    height, width = size
    right, bottom = image.width - width, image.height - height
    for left, top in ((0, 0), (right, 0), (0, bottom), (right, bottom), (round(right / 2), round(bottom / 2))):
        yield image.crop((left, top, left + width, top + height))


def _mirrored(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
