"""Anything with pictures in it, to batches of pixels.

    name or folder ─sources→ ImageSource (undecoded rows) ─loading→ Pictures ─→ batches of uint8 ─to_pixels→ [-1, 1]

Names are loaded when they are first used: `sources` needs the `datasets` library, which takes seconds to import, and a
tokenizer that is only loaded and run does not need it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqtok.data.grid import picture_grid
    from vqtok.data.loading import Pictures, ordered_batches, read_pictures, to_pixels, training_batches
    from vqtok.data.pictures import fit_picture, open_picture, picture_array
    from vqtok.data.sources import ImageSource, native_format, open_all, open_images, open_splits

__all__ = [
    "ImageSource",
    "Pictures",
    "fit_picture",
    "native_format",
    "open_all",
    "open_images",
    "open_picture",
    "open_splits",
    "ordered_batches",
    "picture_array",
    "picture_grid",
    "read_pictures",
    "to_pixels",
    "training_batches",
]

_HOMES = {
    "ImageSource": "sources",
    "Pictures": "loading",
    "fit_picture": "pictures",
    "native_format": "sources",
    "open_all": "sources",
    "open_images": "sources",
    "open_picture": "pictures",
    "open_splits": "sources",
    "ordered_batches": "loading",
    "picture_array": "pictures",
    "picture_grid": "grid",
    "read_pictures": "loading",
    "to_pixels": "loading",
    "training_batches": "loading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vqtok.data' has no attribute {name!r}")
    return getattr(import_module(f"vqtok.data.{_HOMES[name]}"), name)
