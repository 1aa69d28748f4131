"""Anything with images in it, to batches of pixels.

    name or folder ─sources→ ImageSource ─dataset→ ImageDataset ─loading→ batches of uint8 ─to_pixels→ [-1, 1]

Names are loaded when they are first used: `sources` needs the `datasets` library, which takes seconds to import, and a
tokenizer that is only loaded and run does not need it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqtok.data.dataset import Batch, ImageDataset, UnreadableImage, read_images
    from vqtok.data.fitting import fit_image
    from vqtok.data.grid import image_grid
    from vqtok.data.images import channel_bits, has_frames, image_array, load_image
    from vqtok.data.loading import ordered_batches, to_pixels, training_batches
    from vqtok.data.masking import MaskedImage, masked_image
    from vqtok.data.native import ImageFormat, native_format
    from vqtok.data.sources import ImageSource, open_all, open_images, open_splits

__all__ = [
    "Batch",
    "ImageDataset",
    "ImageFormat",
    "ImageSource",
    "MaskedImage",
    "UnreadableImage",
    "channel_bits",
    "fit_image",
    "has_frames",
    "image_array",
    "image_grid",
    "load_image",
    "masked_image",
    "native_format",
    "open_all",
    "open_images",
    "open_splits",
    "ordered_batches",
    "read_images",
    "to_pixels",
    "training_batches",
]

_HOMES = {
    "ImageSource": "sources",
    "Batch": "dataset",
    "ImageDataset": "dataset",
    "ImageFormat": "native",
    "MaskedImage": "masking",
    "UnreadableImage": "dataset",
    "channel_bits": "images",
    "has_frames": "images",
    "fit_image": "fitting",
    "native_format": "native",
    "open_all": "sources",
    "open_images": "sources",
    "load_image": "images",
    "masked_image": "masking",
    "open_splits": "sources",
    "ordered_batches": "loading",
    "image_array": "images",
    "image_grid": "grid",
    "read_images": "dataset",
    "to_pixels": "loading",
    "training_batches": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vqtok.data' has no attribute {name!r}")
    return getattr(import_module(f"vqtok.data.{_HOMES[name]}"), name)
