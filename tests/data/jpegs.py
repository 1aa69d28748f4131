"""JPEG files of every kind that is met, written by Pillow or by simplejpeg, and a few that neither writes."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from tests.data.images import encoded

__all__ = ["arithmetic", "photograph", "plain_jpegs", "rotated", "scans", "simplejpeg", "with_size"]

simplejpeg = pytest.importorskip("simplejpeg")  # of the extra "fast"; it skips the tests that import from here

SIZES = [(1, 1), (1, 9), (7, 1), (8, 8), (15, 17), (16, 16), (33, 65), (70, 129)]  # width, height
# Of 28 x 20 pixels by "jpegtran -arithmetic", in base 85.
ARITHMETIC = {
    "colour": (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV02B@n5)Ta&5)cv>6%-gAG9exu93DL^E+jHZKuk+VKt@GST61DhRc%&9Mr4R(ZFhTtf`Lw8jhBp"
        "lmUDiAeE-`3Lje^R7akfOJ0T%Ed{ahKe0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0=}O01*fP6aX"
        "9p0U`hb5di}c0sqVZ3IGrg1pyEd1^?Or3<CiG0ucid06zf#0BV_~;Ysf2PD629W@QnT?<on!9cw=0%Hr7xmkJ6l7v5p*<^>?djrrF%$O"
        "s250WkcO{Qm$(Jsf_>$wXWZ!HloXsto;Fr@k(ZsVtE{V`y^q3HwX+N_v^Ea{mBh5J3Og"
    ),
    "progressive": (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV02B@n5)Ta&5)cv>6%-gAG9exu93DL^E+jHZKuk+VKt@GST61DhRc%&9Mr4R(ZFhTtf`Lw8jhBp"
        "lmUDiAeE-`3Lje^R7akfOJ0T%Ed{ahKe0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0+R-e0=}P01*fP6aX"
        "9p0U`hb5di}c0sqVZ1^^HN5dYc$3<CiG0uTcb00060+iSyGQ;G(lAiy3eoy&+~>g>OO|I7dc5C#9*00;pA009L86Ee(5O^CENzyHht1Q"
        "7-Q+5iXv0|5a)0T;Bxpa0AN1Q7-Q+5iXv0s#R(0Ud(td+J{U|I7dc5C#9*00;pA00ut-!2iqu1P}%P+5iXv0RRC%A&g^XSpNX$*^y7^|"
        "Jncy0|5X600RI301)(`IseQ61Q7-Q+5iXv0|5a)5HmA(*8j`^1Q7-Q+5iXv0s#R(5O}fuITdR?2s*(3%m4%s1^?Or2mt{A0Y4BQUQs7x"
        "HldL^p&o7sKVfK91f{+^uf^AZ|Je"
    ),
    "grey": (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV02B@n5)Ta&5)cv>6%-gAG9exu93DL^E+jHZKuk+VKt@GST61DhRc%&9Mr4R(ZFhTtf`Lw8jhBp"
        "lmUDiAeE-P+3kU!d02~1U5di<p00saM5C#9*00;pA002J#{{U*4rQu2L=S~eKS$;-7lPm5l-v0n_sS!6rwyT4%1ojLF-2CYZv7$O&Nr~"
        "dnY}_Md&=i32*`)74|Je"
    ),
}


def photograph(width: int, height: int, seed: int = 0) -> Image.Image:
    """Something smooth with noise on it."""
    noise = np.random.default_rng(seed)
    coarse = noise.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), dtype=np.float64)
    return Image.fromarray((smooth + noise.normal(0, 12, smooth.shape)).clip(0, 255).astype(np.uint8))


def plain_jpegs() -> Iterator[tuple[str, bytes]]:
    """Files that simplejpeg is to decode, and what they are called."""
    for number, (width, height) in enumerate(SIZES):
        image = photograph(width, height, number)
        for quality in (20, 75, 97):
            name = f"{width}x{height} quality {quality}"
            pixels = np.asarray(image)
            for kind in ("444", "422", "420", "440", "411"):
                yield f"{name} {kind}", simplejpeg.encode_jpeg(pixels, quality=quality, colorsubsampling=kind)
            for kind in ("4:4:4", "4:2:2", "4:2:0"):
                yield (
                    f"{name} {kind} progressive",
                    encoded(image, "JPEG", quality=quality, subsampling=kind, progressive=True),
                )
            for option in ("restart_marker_blocks", "restart_marker_rows"):
                yield f"{name} {option}", encoded(image, "JPEG", quality=quality, **{option: 2})
            yield f"{name} RGB", encoded(image, "JPEG", quality=quality, keep_rgb=True)
            for progressive in (False, True):
                grey = encoded(image.convert("L"), "JPEG", quality=quality, progressive=progressive)
                yield f"{name} grey {progressive=}", grey
    image = photograph(40, 30)
    for extra in (b"\0" * 100_000, b"garbage", b"\xff\xd9", encoded(image, "JPEG"), encoded(image, "PNG")):
        yield f"{len(extra)} bytes after the end", encoded(image, "JPEG") + extra
    yield "an ICC profile of 200 kB", encoded(image, "JPEG", icc_profile=bytes(range(256)) * 800)
    yield "a comment", encoded(image, "JPEG", comment=b"\xff\xd9 \xff\xda")


def arithmetic() -> dict[str, bytes]:
    """Files with arithmetic coding, which this build of Pillow may lack."""
    return {f"arithmetic {name}": base64.b85decode(text) for name, text in ARITHMETIC.items()}


def rotated(image: Image.Image, orientation: int, **options: object) -> bytes:
    """A JPEG file whose EXIF says how to turn it."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(image, "JPEG", exif=exif, **options)


def scans(data: bytes) -> list[int]:
    """Where the scans of a file start."""
    return [at for at in range(len(data)) if data[at : at + 2] == b"\xff\xda"]


def with_size(data: bytes, width: int, height: int) -> bytes:
    """The file with another size in its header."""
    for start in (b"\xff\xc0", b"\xff\xc2"):
        if (at := data.find(start)) >= 0:
            size = height.to_bytes(2, "big") + width.to_bytes(2, "big")
            return data[: at + 5] + size + data[at + 9 :]
    raise ValueError("no start of frame")
