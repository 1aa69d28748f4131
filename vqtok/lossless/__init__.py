"""Images to files that give back the very pixels, in as many bits as the bits per dimension of an evaluation say.

    image -encode-> codes z -p(z)-> bits        image, z -p(x | z)-> bits

It is the proof of those numbers, not a rival of image formats: a decoder has to hold tokenizer and prior.
"""

from __future__ import annotations

from vqtok.lossless.codec import LosslessCodec
from vqtok.lossless.files import SUFFIX, read_compressed
from vqtok.lossless.pixels import as_image, exact_pixels

__all__ = ["SUFFIX", "LosslessCodec", "as_image", "exact_pixels", "read_compressed"]
