"""Small images, most of one level that tells which one it is: alone, as files, as rows of a table, as a dataset."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
from datasets import Dataset, DatasetDict, Features, Value
from PIL import Image

from vqtok.data import ImageDataset, ImageSource, image_array, read_images

NOISE = np.random.default_rng(0).integers(0, 256, (12, 20, 3), dtype=np.uint8)


def flat(mode: str, value: Any) -> Image.Image:
    return Image.new(mode, (4, 4), value)


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    """The bytes of an image in a format of Pillow's."""
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def png(level: int) -> bytes:
    return encoded(flat("L", level), "PNG")


def colour(image: Image.Image | bytes, num_channels: int = 3, background: str = "#ffffff") -> tuple[int, ...]:
    """The one colour of an image of one colour."""
    pixels = image_array(image, num_channels=num_channels, size=(2, 2), background=background)
    assert (pixels == pixels[:, :1, :1]).all()
    return tuple(int(value) for value in pixels[:, 0, 0])


def save(path: Path, level: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    flat("L", level).save(path)
    return path


def with_metadata(folder: Path, names: Iterable[str], *, at: str = "") -> str:
    """Images of the levels 0, 1, 2, ..., named in a metadata.jsonl that lies `at` a folder below."""
    rows = []
    for level, name in enumerate(names):
        save(folder / at / name, level)
        rows.append(json.dumps({"file_name": name, "level": level}))
    (folder / at / "metadata.jsonl").write_text("\n".join(rows) + "\n")
    return str(folder)


def write_tar(file: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(file, "w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def digits(count: int = 4, **columns: list[Any]) -> Dataset:
    """Rows of the levels 0, 1, 2, ..., and integers beside them."""
    images = [flat("L", level) for level in range(count)]
    return Dataset.from_dict(
        {"image": images, **columns},
        features=Features({"image": datasets.Image(), **{name: Value("int64") for name in columns}}),
    )


def labels_of(source: ImageSource) -> list[int]:
    """The class number of every image."""
    labels = source.labels()
    assert labels is not None
    return labels.tolist()


def levels(source: ImageSource) -> list[int]:
    """The level of every image."""
    pixels, _, broken = read_images(source, range(len(source)), image_size=(1, 1), num_channels=1)
    assert not broken
    return [int(level) for level in pixels.ravel()]


def images_of(source: ImageSource, memory_limit: int = 1 << 20) -> ImageDataset:
    return ImageDataset(source, image_size=(8, 8), num_channels=1, memory_limit=memory_limit)


class Builder:
    """What `load_dataset_builder` gives, of splits in memory."""

    def __init__(self, splits: DatasetDict) -> None:
        self.splits = splits
        self.hash = None
        self.config = datasets.BuilderConfig()
        counts = [{"name": name, "num_examples": len(rows)} for name, rows in splits.items()]
        self.info = datasets.DatasetInfo(splits=counts)

    def download_and_prepare(self) -> None:
        pass

    def as_dataset(self, split: str) -> Dataset:
        return self.splits[split]
