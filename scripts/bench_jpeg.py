"""How many JPEG files a second become pixels, with simplejpeg (`pip install vqtok[fast]`) and without.

    python scripts/bench_jpeg.py

Three sizes, each from bytes in memory: decoding alone by Pillow and by simplejpeg, then `vqtok.data.image_array`, which
also resizes to 256 x 256, with the package hidden and with it. Both take turns on the same files; figures are medians,
with one thread per second of processor time, since other processes disturb that less, with two per second of the clock.
"""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import numpy as np
import simplejpeg
from PIL import Image

from vqtok.data import image_array, jpeg

SIZES = {(256, 256): 24, (500, 375): 12, (1024, 768): 6}  # width and height: files a round
Work = Callable[[bytes], object]


def photograph(width: int, height: int, seed: int) -> bytes:
    """Something of every scale with noise: at quality 90 it takes 0.4 bytes a pixel, as photographs do."""
    noise = np.random.default_rng(seed)
    pixels = noise.normal(0, 9, (height, width, 3))
    for scale in (4, 16, 64, 256):
        coarse = noise.integers(0, 256, (height // scale + 2, width // scale + 2, 3), dtype=np.uint8)
        pixels += np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)) / 4.0
    buffer = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def by_pillow(data: bytes) -> None:
    Image.open(io.BytesIO(data)).load()


def fitted(data: bytes) -> object:
    return image_array(data, num_channels=3, size=(256, 256))


def ways() -> dict[str, tuple[Work, bool]]:
    """What is measured, and whether image_array finds the package."""
    return {
        "Pillow alone": (by_pillow, True),
        "simplejpeg alone": (simplejpeg.decode_jpeg, True),
        "image_array without": (fitted, False),
        "image_array with": (fitted, True),
    }


def rate(work: Work, found: bool, files: list[bytes], threads: int) -> float:
    package = jpeg.simplejpeg() if found else None
    with patch.object(jpeg, "simplejpeg", lambda: package), ThreadPoolExecutor(threads) as pool:
        run, clock = (map, time.process_time) if threads == 1 else (pool.map, time.perf_counter)
        list(run(work, files[:threads]))
        start = clock()
        list(run(work, files))
        return len(files) / (clock() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=25)
    rounds = parser.parse_args().rounds
    if jpeg.simplejpeg() is None:
        raise SystemExit("simplejpeg decodes otherwise than this build of Pillow, so vqtok does not use it")
    for (width, height), count in SIZES.items():
        files = [photograph(width, height, seed) for seed in range(count)]
        print(f"{width} x {height}, {sum(map(len, files)) // count >> 10} KiB each, files a second:")
        for threads in (1, 2):
            took = [{name: rate(*way, files, threads) for name, way in ways().items()} for _ in range(rounds)]
            medians = {name: statistics.median(one[name] for one in took) for name in ways()}
            gains = {
                kind: statistics.median(one[fast] / one[slow] for one in took)
                for kind, fast, slow in (
                    ("alone", "simplejpeg alone", "Pillow alone"),
                    ("image_array", "image_array with", "image_array without"),
                )
            }
            shown = [f"{name} {median:.0f}" for name, median in medians.items()]
            shown += [f"{kind} x{gain:.2f}" for kind, gain in gains.items()]
            print(f"  {threads} thread{'s' * (threads > 1)}: {', '.join(shown)}")


if __name__ == "__main__":
    main()
