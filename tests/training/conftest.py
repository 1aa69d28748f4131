"""Images to train on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState
from PIL import Image

from vqtok.data import ImageSource, open_splits


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Blots on paper: forty images of 16x16 in which there is something to learn."""
    noise = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("images")
    y, x = np.mgrid[:16, :16]
    for number in range(40):
        top, left = noise.integers(3, 13, 2)
        blot = 255 * np.exp(-((y - top) ** 2 + (x - left) ** 2) / 8)
        Image.fromarray(blot.astype(np.uint8)).save(folder / f"{number:02d}.png")
    return folder


@pytest.fixture(scope="module")
def sources(folder: Path) -> tuple[ImageSource, ImageSource]:
    return open_splits(str(folder), test_share=0.25)


@pytest.fixture
def any_precision() -> Iterator[None]:
    """accelerate holds one precision for a process; a test that wants another has to make it forget."""
    AcceleratorState._reset_state()
    yield
    AcceleratorState._reset_state()
