"""Images that crash the processes which decode them, or make their shard, or that take their time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from vqtok.codes import drivers, tokenize_images
from vqtok.codes.schedule import CRASHED
from vqtok.codes.shard import tokenize_shard
from vqtok.tokenizer import VQTokenizer

__all__ = ["OPTIONS", "crash_decoders", "save_images", "tokenize_without"]

OPTIONS = {"batch_size": 2, "shard_rows": 2, "max_bad_share": 1.0, "progress": False}
SITE = """
import hashlib, os, signal, time
from PIL.PngImagePlugin import PngImageFile

prepare, sha256 = PngImageFile.load_prepare, hashlib.sha256

def load_prepare(self):
    time.sleep(float(self.info.get("seconds", 0)))
    if "crash" in self.info:
        os.kill(os.getpid(), signal.SIGSEGV)
    prepare(self)

def sha256_of(data=b"", **options):
    if isinstance(data, memoryview) and b"deadly" in bytes(data):  # of a shard with an image of this name
        os.kill(os.getpid(), signal.SIGSEGV)
    return sha256(data, **options)

PngImageFile.load_prepare, hashlib.sha256 = load_prepare, sha256_of
"""


def crash_decoders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes that are started from now on crash where `save_images` says so; this one decodes them all."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SITE)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")


def save_images(folder: Path, number: int, *, seconds: float = 0, named: str = "") -> Path:
    """Noise of 16 x 16 pixels in files 00.png, 01.png, ..., which take their time to decode; one has a name of its own.

    That is the one in the middle; called `crashing` it crashes its decoder, called `deadly` whatever makes its shard.
    """
    noise = np.random.default_rng(0)
    folder.mkdir()
    for index in range(number):
        info = PngInfo()
        info.add_text("seconds", str(seconds))
        if named == "crashing" and index == number // 2:
            info.add_text("crash", "yes")
        name = f"{index:02d}-{named}.png" if named and index == number // 2 else f"{index:02d}.png"
        Image.fromarray(noise.integers(0, 256, (16, 16), dtype=np.uint8)).save(folder / name, pnginfo=info)
    return folder


def tokenize_without(
    row: int, images: Path, tokenizer: VQTokenizer, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Make the codes of images in this process, all but one, which is taken for one that crashed its decoder."""
    with monkeypatch.context() as patch:
        patch.setattr(drivers, "tokenize_shard", lambda shard, job: tokenize_shard(shard, job, skip={row: CRASHED}))
        tokenize_images(images, tokenizer, out, **OPTIONS)
