"""What decoding costs: the peak of a process over what it had, for one large image and for several at a time."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqtok.data.budget import PixelBudget

ROOT = Path(__file__).resolve().parents[2]
# Each measurement in a process of its own, forked so that the libraries are imported once; MiB over the start.
MEASURE = """
import json, os, resource, sys, pyarrow
from concurrent.futures import ThreadPoolExecutor
from vqtok.data.images import image_array

def measure(path, threads):
    peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    def decode(_):
        return image_array(path, num_channels=3, size=(256, 256))
    before = peak()
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(decode, range(threads)))
    return peak() - before

found = []
for path, threads in json.loads(sys.argv[1]):
    read, write = os.pipe()
    if os.fork() == 0:
        os.write(write, str(measure(path, threads)).encode())
        os._exit(0)
    os.wait()
    found.append(float(os.read(read, 100)))
print(json.dumps(found))
"""


def save_large(folder: Path, side: int) -> dict[str, Path]:
    """Square images that compress to a hundredth, by kind."""
    step = np.arange(side) // 16
    levels = ((step[:, None] + step[None, :]) % 256).astype(np.uint8)
    images = {
        "rgba": (Image.fromarray(np.stack([levels, levels.T, 255 - levels, levels // 2 + 100], -1)), {}),
        "palette": (Image.fromarray(levels).convert("P"), {"transparency": 3}),
        "16bit": (Image.fromarray(levels.astype(np.uint16) * 257), {}),
    }
    for kind, (image, options) in images.items():
        image.save(folder / f"{kind}.png", compress_level=1, **options)
    Image.fromarray(np.stack([levels, levels.T, 255 - levels], -1)).save(folder / "rgb.jpg", quality=90)
    return {kind: folder / f"{kind}.png" for kind in images} | {"jpeg": folder / "rgb.jpg"}


def peaks(work: list[tuple[Path, int]]) -> list[float]:
    """MiB that decoding takes at its peak, for each image and number of threads."""
    given = json.dumps([(str(path), threads) for path, threads in work])
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, given], cwd=ROOT, capture_output=True, text=True, timeout=500, check=True
    )
    return [float(peak) for peak in json.loads(done.stdout)]


def test_a_large_image_takes_little_more_than_its_pixels(tmp_path: Path) -> None:
    paths = save_large(tmp_path, 4096)  # 16.8 megapixels: 64 MiB as RGBA or RGB, 16 as a palette, 32 as 16 bits
    rgba, palette, sixteen, jpeg = peaks([(paths[kind], 1) for kind in ("rgba", "palette", "16bit", "jpeg")])
    assert rgba < 150 and palette < 110 and sixteen < 130 and jpeg < 110


@pytest.mark.slow
def test_eighty_megapixels_take_little_more_than_their_pixels_and_eight_of_them_not_eight_times_that(
    tmp_path: Path,
) -> None:
    paths = save_large(tmp_path, 8960)  # 80 megapixels: 306 MiB as RGBA, 77 as a palette, 153 as 16 bits
    kinds = ("rgba", "palette", "16bit")
    alone = peaks([(paths[kind], 1) for kind in kinds])
    together = peaks([(paths[kind], 8) for kind in kinds])
    print("MiB alone and eight at a time:", dict(zip(kinds, zip(alone, together, strict=True), strict=True)))
    assert alone[0] < 500 and alone[1] < 300 and alone[2] < 400
    assert max(together) < 900


def test_threads_take_no_more_pixels_than_there_are() -> None:
    budget = PixelBudget(10)
    now, most, lock = 0, 0, threading.Lock()

    def work(pixels: int) -> None:
        nonlocal now, most
        with budget.take(pixels):
            with lock:
                now += min(pixels, 10)
                most = max(most, now)
            time.sleep(0.002)
            with lock:
                now -= min(pixels, 10)

    threads = [threading.Thread(target=work, args=(pixels,)) for pixels in [3, 4, 9, 1, 25, 10, 2, 6] * 5]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert not any(thread.is_alive() for thread in threads)
    assert 7 <= most <= 10  # some at a time, and one above the limit alone


def test_pixels_are_given_back_after_an_error() -> None:
    budget = PixelBudget(5)
    for _ in range(3):
        with pytest.raises(ValueError), budget.take(5):
            raise ValueError
    with budget.take(5):
        pass
