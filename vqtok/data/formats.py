"""The image formats that are read, and the file names that they go by: one table for both.

Pillow would open many more, some of them by starting other programs (EPS starts Ghostscript) or through code that few
people use. Whatever is not in this table is never handed to its decoder, whatever its file is called.
"""

from __future__ import annotations

from functools import cache

from PIL import Image

__all__ = ["FORMATS", "SUFFIXES", "readable_formats"]

# By Pillow's name. TGA files have no signature, so they are tried last.
FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "DIB": (".dib",),
    "TIFF": (".tif", ".tiff"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm"),
    "AVIF": (".avif",),
    "JPEG2000": (".jp2", ".j2k"),
    "ICO": (".ico",),
    "TGA": (".tga",),
}
SUFFIXES = frozenset(suffix for suffixes in FORMATS.values() for suffix in suffixes)


@cache
def readable_formats() -> tuple[str, ...]:
    """The formats of the table that this build of Pillow has, such as AVIF; "MPO" is what it calls some JPEG files."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)
