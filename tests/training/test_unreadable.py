"""Images that cannot be read, in training and held out."""

from __future__ import annotations

import shutil
import signal
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.training.runs import at_step, differences, make, rows
from vqtok.data import ImageDataset, ImageSource, open_splits
from vqtok.errors import DataError
from vqtok.training import images
from vqtok.training.tokenizer import train_tokenizer


def break_image(source: ImageSource, index: int) -> None:
    path = Path(source.stored([index])[0].name)
    path.write_bytes(path.read_bytes()[:60])


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> tuple[ImageSource, ImageSource]:
    """Thirty images for training, two of which are cut off."""
    images = shutil.copytree(folder, tmp_path / "damaged")
    train, test = open_splits(str(images), test_share=0.25)
    for index in (4, 9):
        break_image(train, index)
    return train, test


@pytest.mark.parametrize("limit", [None, 0])
def test_images_that_cannot_be_read_are_counted_and_named_and_resuming_is_exact(
    limit: int | None,
    damaged: tuple[ImageSource, ImageSource],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whether everything is decoded at the start or each batch when it is asked for; eight steps see every image."""
    if limit is not None:
        monkeypatch.setattr(images, "ImageDataset", partial(ImageDataset, memory_limit=limit))
    changes = {"max_unreadable": 0.1, "usage_warning": 0.0}
    train_tokenizer(make(tmp_path / "whole", **changes), *damaged)
    names = [Path(damaged[0].stored([index])[0].name).name for index in (4, 9)]
    notes = " ".join(row["note"] for row in rows(tmp_path / "whole", "note"))
    assert [notes.count(name) for name in names] == [1, 1]
    assert "cannot be read, replaced by others: " in notes
    assert rows(tmp_path / "whole", "train")[-1]["unreadable_images"] == 2
    assert all(row["note"] in capsys.readouterr().err for row in rows(tmp_path / "whole", "note")[:1])

    with monkeypatch.context() as patch:
        at_step(patch, 4, lambda: signal.raise_signal(signal.SIGTERM))
        train_tokenizer(make(tmp_path / "part", **changes), *damaged)
    train_tokenizer(make(tmp_path / "part", **changes), *damaged, resume=True)
    assert differences(tmp_path / "whole", tmp_path / "part") == []
    assert rows(tmp_path / "whole") == rows(tmp_path / "part")


@pytest.mark.parametrize("limit", [None, 0])
def test_too_many_images_that_cannot_be_read_stop_the_run(
    limit: int | None, damaged: tuple[ImageSource, ImageSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two of thirty are more than the 1% that is allowed by default."""
    if limit is not None:
        monkeypatch.setattr(images, "ImageDataset", partial(ImageDataset, memory_limit=limit))
    with pytest.raises(DataError, match=r"of the 30 images of .* cannot be read, more than the 1% that may be skipped"):
        train_tokenizer(make(tmp_path / "run"), *damaged)
    assert not (tmp_path / "run" / "model").exists()


def test_held_out_images_that_cannot_be_read_are_left_out(
    damaged: tuple[ImageSource, ImageSource], tmp_path: Path
) -> None:
    test, train = damaged
    result = train_tokenizer(make(tmp_path / "run", steps=2, max_unreadable=0.1, usage_warning=0.0), train, test)
    assert result.metrics["unreadable_images"] == 2 and result.metrics["mse"] > 0
    (note,) = (row["note"] for row in rows(tmp_path / "run", "note"))
    assert note.startswith("step 2: 2 images held out cannot be read, left out: ")
    assert (tmp_path / "run" / "samples" / "step-000002.png").is_file()


@pytest.fixture
def whole(folder: Path, tmp_path: Path) -> tuple[ImageSource, ImageSource]:
    """Thirty images for training and ten held out, to be damaged."""
    return open_splits(str(shutil.copytree(folder, tmp_path / "images")), test_share=0.25)


def test_one_image_that_cannot_be_read_is_no_reason_to_stop(
    whole: tuple[ImageSource, ImageSource], tmp_path: Path
) -> None:
    """Though it is a tenth of those held out; unless none at all may be."""
    break_image(whole[1], 3)
    result = train_tokenizer(make(tmp_path / "run", steps=2, usage_warning=0.0), *whole)
    assert result.metrics["unreadable_images"] == 1
    (note,) = (row["note"] for row in rows(tmp_path / "run", "note"))
    assert note.startswith("step 2: 1 image held out cannot be read, left out: ")
    with pytest.raises(DataError, match="more than the 0% that may be skipped"):
        train_tokenizer(make(tmp_path / "strict", max_unreadable=0), *whole)


@pytest.mark.parametrize("split", ["training", "held out"])
def test_a_run_that_stops_for_unreadable_images_saves_what_is_due_and_can_go_on(
    split: str, whole: tuple[ImageSource, ImageSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where images are decoded on demand they are met only then, and again by a run that resumes."""
    monkeypatch.setattr(images, "ImageDataset", partial(ImageDataset, memory_limit=0))
    for index in range(0, 30, 3) if split == "training" else (0, 1):
        break_image(whole[split == "held out"], index)
    run, allowed = tmp_path / "run", {"max_unreadable": 0.5, "usage_warning": 0.0}
    for step in (4, 8):
        with pytest.raises(DataError, match="mend or remove them, or raise max_unreadable, which is 0.01: "):
            train_tokenizer(make(run, log_every=4), *whole, resume=step == 8)
        assert (run / "checkpoints" / f"step-{step:06d}").is_dir()
    assert not (run / "model").exists()
    train_tokenizer(make(run, log_every=4, **allowed), *whole, resume=True)
    train_tokenizer(make(tmp_path / "other", log_every=4, **allowed), *whole)
    assert differences(run, tmp_path / "other") == []


def test_the_image_grid_shows_those_that_can_be_read(
    whole: tuple[ImageSource, ImageSource], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where none of the first ones can."""
    monkeypatch.setattr(images, "SHOWN", 2)
    for index in range(8):
        break_image(whole[1], index)
    train_tokenizer(make(tmp_path / "run", steps=1, max_unreadable=0.9), *whole)
    pixels = ImageDataset(whole[1], image_size=(16, 16), num_channels=1).__getitems__([8, 9])["pixels"]
    with Image.open(tmp_path / "run" / "samples" / "step-000001.png") as grid:
        for column, image in enumerate(pixels):
            shown = grid.crop((2 + column * 66, 2, 66 + column * 66, 66)).resize((16, 16), Image.Resampling.NEAREST)
            assert np.array_equal(np.asarray(shown), image[0].numpy())
