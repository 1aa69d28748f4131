"""The size and channels that images have by themselves, which decide those of a tokenizer where the user does not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vqtok.data.images import channel_bits, load_image
from vqtok.data.sources import ImageSource
from vqtok.errors import ConfigurationError, DataError

__all__ = ["ImageFormat", "native_format"]

PROBES = 32  # rows that native_format looks at
LARGEST_DEFAULT = 256  # pixels a side: nobody trains at more without asking for it
GREY_MODES = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"}


@dataclass(frozen=True, kw_only=True)
class ImageFormat:
    """What images are like, as far as they were looked at.

    Attributes:
        sizes: (H, W) of those that can be read, without repetitions, ascending.
        num_channels: 1 where all of them are grey, else 3.
        channel_bits: the most that one has of a channel, of which 8 are read.
    """

    sizes: tuple[tuple[int, int], ...]
    num_channels: int
    channel_bits: int = 8

    def training_size(self, name: str) -> tuple[tuple[int, int], str | None]:
        """The size (H, W) to train at where the user chooses none, and a note where it is not simply the images' own.

        Images of one size up to 256 pixels a side keep it. Where sizes differ it is a square: the largest power of two
        within the smallest image, at most 256.

        Args:
            name: what an error calls the images.

        Raises:
            ConfigurationError: all images have one size above 256 pixels; the networks would be slow and their grids
                large, so it must be chosen.
        """
        if len(self.sizes) == 1:
            height, width = self.sizes[0]
            if max(height, width) > LARGEST_DEFAULT:
                raise ConfigurationError(
                    f"the images of {name} are {height} x {width} pixels (height x width); above {LARGEST_DEFAULT} a "
                    f"size must be chosen: image_size {LARGEST_DEFAULT} crops them to their centre and resizes them"
                )
            return (height, width), None
        shortest = min(min(size) for size in self.sizes)
        side = min(LARGEST_DEFAULT, 2 ** (shortest.bit_length() - 1))
        smallest, largest = (" x ".join(map(str, size)) for size in (self.sizes[0], self.sizes[-1]))
        return (side, side), (
            f"the images differ in size ({smallest} to {largest} pixels, height x width, among those looked at), so "
            f"the largest central square of each is resized to {side} x {side}; image_size chooses another size"
        )


def native_format(source: ImageSource) -> ImageFormat:
    """The sizes, channels and depth of up to 32 images, spread over the source; those that cannot be read do not count.

    Raises:
        DataError: none of them can be read.
    """
    rows = np.unique(np.linspace(0, len(source) - 1, PROBES).round().astype(int)).tolist()
    sizes, grey, bits, errors = set(), True, 8, []
    for stored in source.stored(rows):
        try:
            data = stored.data()
            image = load_image(data, name=stored.name)
            depth = channel_bits(data, name=stored.name)
        except DataError as error:  # the first one is raised below if there is nothing else
            errors.append(error)
            continue
        sizes.add((image.height, image.width))
        bits = max(bits, depth)
        grey = grey and image.mode in GREY_MODES
    if not sizes:
        raise errors[0]
    ascending = sorted(sizes, key=lambda size: (size[0] * size[1], size))
    return ImageFormat(sizes=tuple(ascending), num_channels=1 if grey else 3, channel_bits=bits)
