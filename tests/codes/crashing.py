"""Images that crash the process which decodes them, or take their time, in every process that Python starts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

__all__ = ["CRASHING", "crash_decoders", "save_images"]

CRASHING = "17.png"
SITE = """
import os, signal, time
from PIL.PngImagePlugin import PngImageFile

prepare = PngImageFile.load_prepare

def load_prepare(self):
    time.sleep(float(self.info.get("seconds", 0)))
    if "crash" in self.info:
        os.kill(os.getpid(), signal.SIGSEGV)
    prepare(self)

PngImageFile.load_prepare = load_prepare
"""


def crash_decoders(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes that are started from now on decode PNG files as they ask for: this one decodes them all."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SITE)
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")


def save_images(folder: Path, number: int, *, seconds: float = 0, crashing: str = "") -> Path:
    """Noise of 16 x 16 pixels in files 00.png, 01.png, ...; some take their time, one crashes its decoder."""
    noise = np.random.default_rng(0)
    folder.mkdir()
    for index in range(number):
        info, name = PngInfo(), f"{index:02d}.png"
        if seconds:
            info.add_text("seconds", str(seconds))
        if name == crashing:
            info.add_text("crash", "yes")
        Image.fromarray(noise.integers(0, 256, (16, 16), dtype=np.uint8)).save(folder / name, pnginfo=info)
    return folder
