"""A folder of images as they come from anywhere: every format that is read, odd names, and hostile files among them.

    python -m tests.made_images FOLDER --images 2000 --list made.json

What is made depends on the numbers given and the seed alone. Photographs and drawings are made up of gradients, noise
of several scales, shapes and text, so that no two files are alike and none is flat.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

__all__ = ["MadeImages", "make_images"]

Noise = np.random.Generator
CLASSES = ("tench", "great white shark", "Käfer", "猫と犬", "line\nbreak")
# Every image gets one of these after its number, which keeps the names apart.
NAMES = (
    "",
    " with spaces ",
    "new\nline",
    "ünï",
    "u\u0308 decomposed",
    "日本語",
    "שלום",
    "🦈",
    "100%20#?&",
    "'\"`$(x)",
    "a.b",
)
LONG = "long" * 50  # a name may have 255 bytes
FAST = Image.Quantize.FASTOCTREE  # the best method takes more time than all else here


@dataclass(frozen=True, kw_only=True)
class MadeImages:
    """What lies in the folder, by its path below it, with what it is.

    Attributes:
        good: images that are read, each with its format.
        bad: files and links that are listed as images but cannot be read.
        left_out: entries with the name of an image that are no files, which no reader may open.
    """

    folder: Path
    good: dict[str, str] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)


def make_images(
    folder: Path, count: int, *, hostile: int = 50, seed: int = 0, sides: tuple[int, int] = (48, 400)
) -> MadeImages:
    """Make `count` images that are good and `hostile` entries that are not, in class folders.

    Args:
        sides: the least and the largest width and height in pixels.
    """
    noise = np.random.default_rng(seed)
    made = MadeImages(folder=folder)
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        kind = list(GOOD)[number % len(GOOD)]
        suffix, encode = GOOD[kind]
        path = _path(number, suffix, noise)
        (folder / path).write_bytes(encode(picture(noise, sides), noise))
        made.good[path] = kind
    makers = [*BAD.items(), *LEFT_OUT.items()][:hostile]
    makers += [("cut short", cut)] * (hostile - len(makers))
    for number, (kind, make) in enumerate(makers, start=count):
        path = _path(number, (".jpg", ".png", ".webp", ".gif", ".bmp", ".tif")[number % 6], noise)
        make(folder / path, noise)
        (made.left_out if kind in LEFT_OUT else made.bad)[path] = kind
    return made


def _path(number: int, suffix: str, noise: Noise) -> str:
    name = LONG if number % 97 == 50 else str(noise.choice(NAMES))
    return f"{CLASSES[number % len(CLASSES)]}/{number:05d}{name}{suffix}"


def picture(noise: Noise, sides: tuple[int, int]) -> Image.Image:
    """A photograph or a drawing: RGB, width and height between the two sides."""
    width, height = (int(side) for side in noise.integers(sides[0], sides[1], 2, endpoint=True))
    return (photograph if noise.random() < 0.6 else drawing)(width, height, noise)


def photograph(width: int, height: int, noise: Noise) -> Image.Image:
    """A gradient, blurs of several sizes, a few shapes behind them, and grain."""
    scene = _gradient(width, height, noise)
    _shapes(scene, noise, 4)
    pixels = np.asarray(scene, dtype=np.float32)
    for scale in (4, 16, 64):
        coarse = noise.integers(0, 256, (height // scale + 2, width // scale + 2, 3), dtype=np.uint8)
        blur = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
        pixels = pixels + (np.asarray(blur, dtype=np.float32) - 128) * (0.1 + 0.1 * np.log2(scale) / 2)
    grain = noise.standard_normal((height, width, 1), dtype=np.float32) * noise.uniform(2, 10)
    return Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8))


def drawing(width: int, height: int, noise: Noise) -> Image.Image:
    """Sharp shapes and text on a gradient."""
    image = _gradient(width, height, noise)
    _shapes(image, noise, 10)
    draw, font = ImageDraw.Draw(image), ImageFont.load_default()
    for _ in range(3):
        text = "".join(map(chr, noise.integers(65, 123, 12)))
        draw.text((int(noise.integers(width)) - 20, int(noise.integers(height))), text, fill=_colour(noise), font=font)
    return image


def _gradient(width: int, height: int, noise: Noise) -> Image.Image:
    corners = noise.integers(0, 256, (2, 2, 3), dtype=np.uint8)
    return Image.fromarray(corners).resize((width, height), Image.Resampling.BILINEAR)


def _shapes(image: Image.Image, noise: Noise, count: int) -> None:
    draw, limits = ImageDraw.Draw(image), np.array(image.size * 2)
    for number in range(count):
        left, top, right, bottom = (int(value) for value in noise.uniform(-0.2, 1.2, 4) * limits)
        box = (min(left, right), min(top, bottom), max(left, right), max(top, bottom))
        if number % 3 == 0:
            draw.ellipse(box, fill=_colour(noise))
        elif number % 3 == 1:
            draw.rectangle(box, fill=_colour(noise), outline=_colour(noise))
        else:
            draw.line((left, top, right, bottom), fill=_colour(noise), width=int(noise.integers(1, 8)))


def _colour(noise: Noise) -> tuple[int, ...]:
    return tuple(int(value) for value in noise.integers(0, 256, 3))


Encode = Callable[[Image.Image, Noise], bytes]


def encoded(form: str, mode: str = "RGB", **options: Any) -> Encode:
    """What encodes an image in a format of Pillow's, after it is converted to a mode."""

    def encode(image: Image.Image, noise: Noise) -> bytes:
        image = image.convert(mode) if mode != "RGB" else image
        if mode in ("RGBA", "LA"):
            image.putalpha(picture(noise, (8, 8)).convert("L").resize(image.size))
        return _saved(image, form, **options)

    return encode


def _saved(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def jpeg(mode: str = "RGB", *, turned: bool = False, **options: Any) -> Encode:
    """A JPEG file of a random quality, turned by its EXIF if asked for."""

    def encode(image: Image.Image, noise: Noise) -> bytes:
        exif = Image.Exif()
        if turned:
            exif[0x0112] = int(noise.integers(2, 9))
        chosen = {"quality": int(noise.integers(50, 96)), "subsampling": int(noise.integers(3)), **options}
        return _saved(image.convert(mode), "JPEG", exif=exif, **chosen)

    return encode


def sixteen_bits(form: str) -> Encode:
    def encode(image: Image.Image, noise: Noise) -> bytes:
        levels = np.asarray(image.convert("L"), dtype=np.uint16) * 256
        return _saved(Image.fromarray(levels + noise.integers(0, 256, levels.shape, dtype=np.uint16)), form)

    return encode


def palette(form: str, **options: Any) -> Encode:
    return lambda image, noise: _saved(image.quantize(int(noise.integers(2, 200)), FAST), form, **options)


def animated(image: Image.Image, noise: Noise) -> bytes:
    others = [drawing(*image.size, noise).quantize(64, FAST) for _ in range(2)]
    return _saved(image.quantize(64, FAST), "GIF", save_all=True, append_images=others)


GOOD: dict[str, tuple[str, Encode]] = {
    "JPEG": (".jpg", jpeg()),
    "progressive JPEG": (".jpeg", jpeg(progressive=True)),
    "grey JPEG": (".JPG", jpeg("L")),
    "turned JPEG": (".jpg", jpeg(turned=True)),
    "turned CMYK JPEG": (".jpg", jpeg("CMYK", turned=True)),
    "JPEG with restarts": (".jfif", jpeg(restart_marker_rows=1)),
    "PNG": (".png", encoded("PNG")),
    "grey PNG": (".png", encoded("PNG", "L")),
    "1-bit PNG": (".png", encoded("PNG", "1")),
    "palette PNG": (".png", palette("PNG")),
    "transparent palette PNG": (".png", palette("PNG", transparency=0)),
    "16-bit PNG": (".png", sixteen_bits("PNG")),
    "RGBA PNG": (".PNG", encoded("PNG", "RGBA")),
    "grey PNG with alpha": (".png", encoded("PNG", "LA")),
    "WebP": (".webp", encoded("WEBP", quality=80, method=0)),
    "lossless WebP with alpha": (".webp", encoded("WEBP", "RGBA", lossless=True, quality=0, method=0)),
    "GIF": (".gif", palette("GIF")),
    "animated GIF": (".gif", animated),
    "BMP": (".bmp", encoded("BMP")),
    "1-bit BMP": (".bmp", encoded("BMP", "1")),
    "palette BMP": (".bmp", palette("BMP")),
    "TIFF": (".tif", encoded("TIFF")),
    "LZW TIFF": (".tiff", encoded("TIFF", compression="tiff_lzw")),
    "1-bit TIFF": (".tif", encoded("TIFF", "1", compression="group4")),
    "16-bit TIFF": (".tif", sixteen_bits("TIFF")),
    "CMYK TIFF": (".tif", encoded("TIFF", "CMYK")),
}

Make = Callable[[Path, Noise], None]
CUT = ("JPEG", "progressive JPEG", "turned CMYK JPEG", "PNG", "16-bit PNG", "RGBA PNG", "WebP", "GIF", "BMP", "TIFF")


def cut(path: Path, noise: Noise) -> None:
    """A good file of some format with its end cut off anywhere."""
    data = GOOD[str(noise.choice(CUT))][1](picture(noise, (48, 400)), noise)
    path.write_bytes(data[: int(len(data) * noise.uniform(0.001, 0.9))])


def content(data: bytes) -> Make:
    return lambda path, noise: path.write_bytes(data) and None


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def png_bomb(path: Path, noise: Noise) -> None:
    """50,000 x 50,000 black pixels, of which a few kilobytes are there."""
    header = (50_000).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    rows = zlib.compress(bytes(4 << 20), 9)
    chunks = _chunk(b"IHDR", header) + _chunk(b"IDAT", rows) + _chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def jpeg_bomb(path: Path, noise: Noise) -> None:
    """A JPEG file whose header says 65,500 x 65,500."""
    data = _saved(picture(noise, (64, 64)), "JPEG")
    at = data.index(b"\xff\xc0") + 5
    path.write_bytes(data[:at] + (65_500).to_bytes(2, "big") * 2 + data[at + 4 :])


BAD: dict[str, Make] = {
    "a PNG of 50,000 x 50,000": png_bomb,
    "a JPEG of 65,500 x 65,500": jpeg_bomb,
    "empty": content(b""),
    "text": content(b"this is no image\n" * 20),
    "a page": content(b"<!DOCTYPE html><html><body>404 Not Found</body></html>"),
    "a drawing in SVG": content(b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'),
    "PostScript": content(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"),
    "zeros": content(bytes(5000)),
    "random bytes": lambda path, noise: path.write_bytes(noise.bytes(5000)) and None,
    "only a signature": content(b"\x89PNG\r\n\x1a\n"),
    "only a start": content(b"\xff\xd8\xff\xe0"),
    "a broken link": lambda path, noise: path.symlink_to("nowhere.jpg"),
}
LEFT_OUT: dict[str, Make] = {
    "a folder": lambda path, noise: path.mkdir(),
    "a named pipe": lambda path, noise: os.mkfifo(path),
    "a link to itself": lambda path, noise: path.symlink_to(path.name),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--hostile", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--list", type=Path, help="write what was made to this file, as JSON")
    given = parser.parse_args()
    made = make_images(given.folder, given.images, hostile=given.hostile, seed=given.seed)
    if given.list:
        given.list.write_text(json.dumps(asdict(made), indent=2, default=str))
    print(f"{given.folder}: {len(made.good)} good, {len(made.bad)} bad, {len(made.left_out)} no files")


if __name__ == "__main__":
    main()
