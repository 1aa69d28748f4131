"""The images that a tokenizer held out, told apart by its run alone: those that `open_splits` gives to test on."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import yaml
from datasets import Dataset, DatasetDict, Features, Image
from PIL import Image as PillowImage

from vqtok.codes.held_out import HeldOut, find_held_out_images
from vqtok.data import open_all, open_splits
from vqtok.data.opening import OpenedRows, open_rows
from vqtok.errors import CheckpointError

RUN = {"out": "runs/x", "steps": 5, "checkpoint_every": 5, "test_share": 0.25, "seed": 3}
NUMBERS = itertools.count()


@pytest.fixture
def model(tmp_path: Path, images_folder: Path) -> Path:
    """The model/ of a run that was trained on the folder of twelve images."""
    return write_run(tmp_path / "run", images_folder)


def write_run(run: Path, images: Path | str, **values: object) -> Path:
    (run / "model").mkdir(parents=True, exist_ok=True)
    (run / "config.yaml").write_text(yaml.safe_dump(RUN | {"dataset": str(images)} | values))
    (run / "images.json").write_text(open_splits(str(images))[0].record().model_dump_json())
    return run / "model"


def opened(images: Path, scratch: Path) -> OpenedRows:
    return open_rows(str(images), folder=scratch / f"listing-{next(NUMBERS)}", shard_rows=5)


@pytest.mark.parametrize(("share", "seed"), [(0.25, 3), (0.1, 0), (0.01, 7), (0.99, 1)])
def test_the_rows_are_those_that_training_held_out(
    images_folder: Path, tmp_path: Path, share: float, seed: int
) -> None:
    model = write_run(tmp_path / "run", images_folder, test_share=share, seed=seed)
    held, notes = find_held_out_images(model, str(images_folder), opened(images_folder, tmp_path))
    assert held == HeldOut(split="train", total=12, share=share, seed=seed) and notes == ()
    every = open_all(str(images_folder))["train"].dataset["file_name"][:]
    train, test = open_splits(str(images_folder), test_share=share, seed=seed)
    told = held.rows()
    assert [name for name, is_held in zip(every, told, strict=True) if is_held] == test.dataset["file_name"][:]
    assert [name for name, is_held in zip(every, told, strict=True) if not is_held] == train.dataset["file_name"][:]
    assert told.dtype == np.bool_


def test_the_same_images_by_another_name_are_the_same(
    model: Path, images_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(images_folder.parent)
    for tokenizer, name in ((model, "images"), (str(model), "./images/")):
        assert find_held_out_images(tokenizer, name, opened(images_folder, tmp_path))[0] is not None


@pytest.mark.parametrize(
    "changed",
    [{"dataset": "elsewhere"}, {"dataset_config": "large"}, {"tokenizer": None}, {"tokenizer": "org/vq"}],
    ids=str,
)
def test_where_it_does_not_hold_nothing_is_said(
    model: Path, images_folder: Path, changed: dict[str, object], tmp_path: Path
) -> None:
    rows = opened(images_folder, tmp_path)
    given = {"tokenizer": model, "dataset": str(images_folder), "opened": rows} | changed
    assert find_held_out_images(**given) == (None, ())  # type: ignore[arg-type]


def test_images_that_came_went_or_were_renamed_since_are_not_those_of_the_run(
    model: Path, images_folder: Path, tmp_path: Path
) -> None:
    """A share by a seed would be that of other images."""
    name = str(images_folder)

    def told() -> tuple[str, ...]:
        held, notes = find_held_out_images(model, name, opened(images_folder, tmp_path))
        assert held is None
        return notes

    (images_folder / "cat" / "zz.png").write_bytes((images_folder / "cat" / "00.png").read_bytes())
    assert told() == (
        "there is no column held_out: the images of train were 12 and are 13 since the tokenizer was trained",
    )
    (images_folder / "dog" / "01.png").unlink()
    assert told() == (
        "there is no column held_out: the images of train have other names or another order since the tokenizer was "
        "trained",
    )
    (images_folder / "cat" / "zz.png").rename(images_folder / "dog" / "01.png")
    assert find_held_out_images(model, name, opened(images_folder, tmp_path))[0] is not None


def test_a_run_that_kept_no_record_says_nothing(model: Path, images_folder: Path, tmp_path: Path) -> None:
    (model.parent / "images.json").unlink()
    assert find_held_out_images(model, str(images_folder), opened(images_folder, tmp_path)) == (None, ())


def test_a_dataset_on_the_hub_must_be_of_one_commit(model: Path, images_folder: Path, tmp_path: Path) -> None:
    rows = opened(images_folder, tmp_path)
    record = open_splits(str(images_folder))[0].record().model_copy(update={"revision": "1f" * 20})
    (model.parent / "images.json").write_text(record.model_dump_json())
    held, notes = find_held_out_images(model, str(images_folder), rows)
    assert held is None and notes[0].startswith(f"there is no column held_out: the dataset was at {'1f' * 20} and is ")


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # of pandas
def test_the_rows_of_files_and_of_a_cache_have_one_record(images_folder: Path, tmp_path: Path) -> None:
    """Training reads through `open_splits`, tokenizing through `open_rows`."""
    paths = sorted(str(path) for path in images_folder.rglob("*.png"))
    embedded = Dataset.from_dict({"image": paths}, features=Features({"image": Image()}))
    named = embedded.add_column("file_name", [Path(path).name for path in paths])
    (tmp_path / "plain").mkdir()
    (tmp_path / "named").mkdir()
    embedded.to_parquet(tmp_path / "plain" / "train.parquet")
    named.to_parquet(tmp_path / "named" / "train.parquet")
    DatasetDict({"train": named}).save_to_disk(tmp_path / "saved")
    (tmp_path / "told").mkdir()
    for number in range(4):
        PillowImage.new("RGB", (8, 8)).save(tmp_path / "told" / f"{number}.png")
    (tmp_path / "told" / "metadata.csv").write_text("file_name,kind\n3.png,a\n1.png,b\n2.png,b\n0.png,a\n")
    for name in ("plain", "named", "saved", "told"):
        trained = open_splits(str(tmp_path / name))[0].record()
        assert opened(tmp_path / name, tmp_path).record("train") == trained
        assert (trained.names is None) == (name == "plain"), trained


def test_a_split_to_test_on_tells_them_apart_as_in_training(tmp_path: Path) -> None:
    pixels = [np.full((4, 4), level, np.uint8) for level in range(4)]
    rows = Dataset.from_dict({"image": pixels}, features=Features({"image": Image()}))
    images = tmp_path / "images"
    for held_out in ("val", "test"):
        DatasetDict({"train": rows, held_out: rows.select([0])}).save_to_disk(images / held_out)
        model = write_run(tmp_path / "run", images / held_out)
        train, test = open_splits(str(images / held_out))
        assert (len(train), test.split) == (4, held_out)
        found = opened(images / held_out, tmp_path)
        assert find_held_out_images(model, str(images / held_out), found) == (None, ())


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # of pandas
def test_a_split_to_test_on_without_rows_tells_nothing_apart(tmp_path: Path) -> None:
    """Training holds images out where it finds no others."""
    pixels = [np.full((4, 4), level, np.uint8) for level in range(8)]
    rows = Dataset.from_dict({"image": pixels}, features=Features({"image": Image()}))
    splits = {"train": rows, "test": rows.select([])}
    DatasetDict(splits).save_to_disk(tmp_path / "saved")
    (tmp_path / "files").mkdir()
    for name, split in splits.items():
        split.to_parquet(tmp_path / "files" / f"{name}.parquet")
    for name, asked in (("saved", None), ("saved", "train"), ("files", None)):
        images = tmp_path / name
        found = open_rows(str(images), folder=tmp_path / f"listing-{next(NUMBERS)}", split=asked)
        held, notes = find_held_out_images(write_run(tmp_path / "run", images), str(images), found)
        assert held is not None and held.rows().sum() == 2 and notes == ()
        assert len(open_splits(str(images), test_share=0.25)[1]) == 2


def test_beside_a_prior_another_program_or_a_damaged_run(model: Path, images_folder: Path, tmp_path: Path) -> None:
    rows, name = opened(images_folder, tmp_path), str(images_folder)
    run = model.parent
    record = (run / "images.json").read_text()
    (run / "images.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"images\.json is damaged: split is missing: delete it"):
        find_held_out_images(model, name, rows)
    (run / "images.json").write_text(record)
    for key, value in (("seed", "x"), ("seed", -1), ("test_share", float("nan")), ("test_share", 0), ("test_share", 2)):
        (run / "config.yaml").write_text(yaml.safe_dump(RUN | {"dataset": name, key: value}))
        with pytest.raises(CheckpointError, match=rf"config\.yaml is damaged: {key}"):
            find_held_out_images(model, name, rows)
    (run / "config.yaml").write_text(f"dataset: {name}\n")
    assert find_held_out_images(model, name, rows) == (None, ())
    (run / "config.yaml").write_text(yaml.safe_dump(RUN | {"codes": "codes"}))
    (run / "images.json").unlink()
    assert find_held_out_images(model, name, rows) == (None, ())
