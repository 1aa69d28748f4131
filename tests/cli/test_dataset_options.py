"""What the commands say of a dataset before they work: its size, its configurations, what is private."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import datasets
import numpy as np
import pytest
from PIL import Image

Said = tuple[int, str, str]
QUICK = ["--steps", "1", "--batch-size", "2", "--hidden-size", "8", "--codebook-size", "8", "--code-dim", "4"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def photos(folder: Path, *sizes: tuple[int, int]) -> str:
    """Grey JPEGs of (width, height)."""
    folder.mkdir()
    for number, (width, height) in enumerate(sizes):
        noise = np.random.default_rng(number).integers(0, 256, (height, width), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.jpg")
    return str(folder)


def test_large_photos_of_one_size_need_a_chosen_size(vqtok: Callable[..., Said], tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", *[(400, 300)] * 4)
    code, _, said = vqtok("train", "--dataset", folder, "--out", "run", *QUICK)
    assert code == 2 and not (tmp_path / "run").exists()
    assert "are 300 x 400 pixels (height x width); above 256 a size must be chosen: --image-size 256" in said
    code, printed, _ = vqtok("train", "--dataset", folder, "--out", "run", "--image-size", "16", *QUICK)
    assert code == 0 and "tokenizer written to run/model" in printed


def test_the_size_that_mixed_photos_get_is_said_before_training(vqtok: Callable[..., Said], tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", *[(30, 40), (20, 50), (60, 70)] * 3)
    code, printed, said = vqtok("train", "--dataset", folder, "--out", "run", *QUICK)
    assert code == 0
    text = printed + said
    assert "the images differ in size (50 x 20 to 70 x 60 pixels" in text and "is resized to 16 x 16" in text
    assert text.index("differ in size") < text.index("tokenizer written to")


def test_a_size_cut_to_the_downsample_factor_is_said(vqtok: Callable[..., Said], tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", *[(18, 16)] * 4)
    code, printed, said = vqtok("train", "--dataset", folder, "--out", "run", *QUICK)
    assert code == 0 and "the images are 16 x 18 pixels (height x width) and are cropped to 16 x 16" in printed + said
