"""A folder of images as people have them: many modes, formats and sizes, and three broken files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["BROKEN", "make_mixed_folder"]

SIZES = [(20, 12), (40, 24), (12, 20), (33, 57), (20, 30), (64, 9)]  # width, height; the first needs no resizing
FORMATS = {
    "png": ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"],
    "jpg": ["L", "RGB", "CMYK"],
    "gif": ["1", "L", "P", "RGB"],
    "bmp": ["1", "L", "P", "RGB", "RGBA"],
    "webp": ["L", "RGB", "RGBA"],
    "tiff": ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"],
}
BROKEN = ("text.png", "cut.jpg", "empty.gif")


def make_mixed_folder(folder: Path) -> Path:
    """30 good images in the class folders a and b, and the broken ones among them in b."""
    noise = np.random.default_rng(0)
    kinds = [(suffix, mode) for suffix, modes in FORMATS.items() for mode in modes]
    for number, (suffix, mode) in enumerate(kinds):
        width, height = SIZES[number % len(SIZES)]
        path = folder / "ab"[number % 2] / f"{number:02d}-{mode.replace(';', '')}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        if mode == "I;16":
            image = Image.fromarray(noise.integers(0, 65_536, (height, width), dtype=np.uint16))
        else:
            coarse = noise.integers(0, 256, (height // 4 + 1, width // 4 + 1, 4), dtype=np.uint8)
            image = Image.fromarray(coarse, "RGBA").resize((width, height)).convert(mode)
        image.save(path)
    (folder / "b" / "text.png").write_text("this is no image")
    whole = next(folder.rglob("*-RGB.jpg")).read_bytes()
    (folder / "b" / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "b" / "empty.gif").touch()
    return folder
