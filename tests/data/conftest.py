"""What all tests of data have."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest

from vqtok.data import ImageSource, open_all


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing that another test or run left in the cache of `datasets` is found again."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


@pytest.fixture
def source(images_folder: Path) -> ImageSource:
    return open_all(str(images_folder))["train"]
