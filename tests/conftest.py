"""What many tests share: a tiny tokenizer, a folder of small images, and a file system of its own."""

from __future__ import annotations

import copy
import gc
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vqtok import retries
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig


@pytest.fixture(autouse=True)
def quick_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is tried again is tried at once. In-process commands make the client of the Hub patient for good."""
    monkeypatch.setattr(retries, "WAITS", (0.0, 0.0, 0.0))


@pytest.fixture(scope="session")
def tiny_tokenizer_once() -> VQTokenizer:
    torch.manual_seed(0)
    config = VQTokenizerConfig(
        image_size=16,
        num_channels=1,
        network={"type": "conv", "hidden_size": 8, "residual_size": 4, "num_residual_blocks": 1},
        quantizer={"type": "ema", "codebook_size": 16, "code_dim": 4},
    )
    return VQTokenizer(config).eval()


@pytest.fixture
def tiny_tokenizer(tiny_tokenizer_once: VQTokenizer) -> VQTokenizer:
    """16x16 grey images to 4x4 grids of 16 codes; a copy that a test may change."""
    return copy.deepcopy(tiny_tokenizer_once)


@pytest.fixture
def images_folder(tmp_path: Path) -> Path:
    """Twelve small grey PNGs in two class folders."""
    noise = np.random.default_rng(0)
    folder = tmp_path / "images"
    for number in range(12):
        path = folder / ("cat", "dog")[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (16, 16), dtype=np.uint8)).save(path)
    return folder


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own in memory, as a volume that is mounted into a container."""
    point = tmp_path / "volume"
    point.mkdir()
    if os.geteuid() or shutil.which("mount") is None:
        pytest.skip("only root mounts")
    if subprocess.run(["mount", "-t", "tmpfs", "tmpfs", point], capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    yield point
    gc.collect()  # what an error holds may have mapped files of it
    subprocess.run(["umount", point], check=True)
