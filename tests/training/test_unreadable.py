"""A run whose training images cannot all be read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import load_file

from vqtok.data import ImageDataset, ImageSource, open_splits
from vqtok.errors import DataError
from vqtok.training import TokenizerTrainingConfig, train_tokenizer


@pytest.fixture
def sources(tmp_path: Path) -> tuple[ImageSource, ImageSource]:
    """60 images to train on, two of them broken, and 8 to test on, one of them broken."""
    noise = np.random.default_rng(0)
    for split, count, broken in (("train", 60, (7, 31)), ("test", 8, (2,))):
        (tmp_path / "images" / split).mkdir(parents=True)
        for number in range(count):
            path = tmp_path / "images" / split / f"{number:02d}.png"
            if number in broken:
                path.write_text("no image")
            else:
                Image.fromarray(noise.integers(0, 256, (16, 16), dtype=np.uint8)).save(path)
    return open_splits(str(tmp_path / "images"))


def config(out: Path, **changes: Any) -> TokenizerTrainingConfig:
    settings: dict[str, Any] = {
        "out": str(out),
        "steps": 12,
        "batch_size": 6,
        "image_size": 16,
        "num_channels": 1,
        "network": {"hidden_size": 4, "residual_size": 2},
        "quantizer": {"codebook_size": 8, "code_dim": 2},
        "log_every": 4,
        "eval_every": 6,
        "checkpoint_every": 4,
        "keep_checkpoints": 10,
        "max_unreadable": 0.05,
    }
    return TokenizerTrainingConfig(**settings | changes)


def rows(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "images_per_second"} for row in found]


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_training_goes_on_past_images_that_cannot_be_read_and_names_them(
    in_memory: bool,
    num_workers: int,
    sources: tuple[ImageSource, ImageSource],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Also when it goes on from a checkpoint: the same weights and the same rows."""
    if not in_memory:
        monkeypatch.setitem(ImageDataset.__init__.__kwdefaults__, "memory_limit", 0)
        assert not ImageDataset(sources[0], image_size=(16, 16), num_channels=1).in_memory
    whole = config(tmp_path / "whole", num_workers=num_workers)
    result = train_tokenizer(whole, *sources)
    assert result.model is not None
    last = [row for row in rows(tmp_path / "whole") if row["split"] == "train"][-1]
    assert last["unreadable_images"] == 2
    notes = " ".join(row["note"] for row in rows(tmp_path / "whole") if row["split"] == "note")
    assert "07.png is not an image" in notes and "31.png is not an image" in notes
    assert "07.png is not an image" in capsys.readouterr().err

    part = tmp_path / "part"
    shutil.copytree(tmp_path / "whole", part)
    for gone in ("checkpoints/step-000012", "checkpoints/step-000008", "model"):
        shutil.rmtree(part / gone)
    train_tokenizer(config(part, num_workers=num_workers), *sources, resume=True)
    assert rows(part) == rows(tmp_path / "whole")
    one, two = (load_file(run / "model" / "model.safetensors") for run in (tmp_path / "whole", part))
    assert all((tensor == two[name]).all() for name, tensor in one.items())


def test_too_many_unreadable_images_stop_the_run(sources: tuple[ImageSource, ImageSource], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 of .*60 .*07.png is not an image"):
        train_tokenizer(config(tmp_path / "run", max_unreadable=0.01), *sources)
    assert not (tmp_path / "run").exists()
