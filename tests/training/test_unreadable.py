"""Images that cannot be read, in training and held out."""

from __future__ import annotations

import shutil
import signal
from functools import partial
from pathlib import Path

import pytest

from tests.training.runs import at_step, differences, make, rows
from vqtok.data import ImageDataset, ImageSource, open_splits
from vqtok.errors import DataError
from vqtok.training import tokenizer
from vqtok.training.tokenizer import train_tokenizer


@pytest.fixture
def damaged(folder: Path, tmp_path: Path) -> tuple[ImageSource, ImageSource]:
    """Thirty images for training, two of which are cut off."""
    images = shutil.copytree(folder, tmp_path / "damaged")
    train, test = open_splits(str(images), test_share=0.25)
    for index in (4, 9):
        path = Path(train.row_name(index, train.encoded([index])[0]))
        path.write_bytes(path.read_bytes()[:60])
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
        monkeypatch.setattr(tokenizer, "ImageDataset", partial(ImageDataset, memory_limit=limit))
    changes = {"max_unreadable": 0.1, "usage_warning": 0.0}
    train_tokenizer(make(tmp_path / "whole", **changes), *damaged)
    names = [Path(damaged[0].row_name(index, damaged[0].encoded([index])[0])).name for index in (4, 9)]
    notes = " ".join(row["note"] for row in rows(tmp_path / "whole", "note"))
    assert [notes.count(name) for name in names] == [1, 1]
    assert "cannot be read, and others take their place" in notes
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
        monkeypatch.setattr(tokenizer, "ImageDataset", partial(ImageDataset, memory_limit=limit))
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
    assert note.startswith("step 2: 2 images held out cannot be read, and are left out: ")
    assert (tmp_path / "run" / "samples" / "step-000002.png").is_file()
