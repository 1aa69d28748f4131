"""A split as a dataset of pixels: the right ones, in memory and on demand, and what cannot be read is named."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.data.images import images_of
from vqtok.data import ImageDataset, ImageSource, image_array, open_all, open_images, read_images
from vqtok.errors import DataError


def test_pixels_are_those_of_image_array_in_memory_and_on_demand(source: ImageSource, images_folder: Path) -> None:
    files = [images_folder / name for name in source.dataset["file_name"]]
    expected = torch.from_numpy(np.stack([image_array(file, num_channels=1, size=(8, 8)) for file in files]))
    wanted = [11, 0, 0, 5]
    for limit, in_memory in ((12 * 64, True), (12 * 64 - 1, False)):
        images = images_of(source, limit)
        assert images.in_memory is in_memory and len(images) == 12
        batch = images.__getitems__(wanted)
        assert batch["pixels"].dtype == torch.uint8 and torch.equal(batch["pixels"], expected[wanted])
        assert batch["labels"].tolist() == [1, 0, 0, 0] and batch["labels"].dtype == torch.int64
        assert torch.equal(images[3]["pixels"], expected[3]) and images[3]["labels"] == 0
        copy = pickle.loads(pickle.dumps(images))  # as processes that are spawned would get it
        assert torch.equal(copy.__getitems__(wanted)["pixels"], expected[wanted])


@pytest.mark.parametrize("memory_limit", [0, 1 << 20])
def test_an_unreadable_image_that_is_asked_for_is_named_in_one_line(
    source: ImageSource, images_folder: Path, memory_limit: int
) -> None:
    broken = images_folder / "cat" / "04.png"
    broken.write_text("no image at all")
    images = images_of(source, memory_limit)
    with pytest.raises(DataError, match=rf"^{broken} is not an image of a format that is read [^\n]*$"):
        images[2]
    assert len(images) == 12 and images[3]["pixels"].shape == (1, 8, 8)


def test_read_images_keeps_broken_rows_apart(source: ImageSource, images_folder: Path) -> None:
    (images_folder / "cat" / "02.png").write_bytes((images_folder / "cat" / "02.png").read_bytes()[:60])
    (images_folder / "dog" / "01.png").unlink()
    pixels, good, broken = read_images(source, range(12), image_size=(8, 8), num_channels=3)
    assert good == [0, 2, 3, 4, 5, 7, 8, 9, 10, 11] and pixels.shape == (10, 3, 8, 8)
    assert sorted(broken) == [1, 6]
    assert "02.png is broken" in str(broken[1]) and "there is no image" in str(broken[6])
    files = [images_folder / source.dataset["file_name"][index] for index in good]
    np.testing.assert_array_equal(pixels[4], image_array(files[4], num_channels=3, size=(8, 8)))
    nothing, good, broken = read_images(source, [1], image_size=(8, 8), num_channels=3)
    assert nothing.shape == (0, 3, 8, 8) and good == [] and list(broken) == [1]


def test_threads_decode_what_one_thread_decodes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    for number in range(6):
        Image.fromarray(noise.integers(0, 256, (90, 90, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
    source = open_all(str(tmp_path))["train"]
    pixels, _, _ = read_images(source, range(6), image_size=(16, 16), num_channels=3)
    for index in range(6):
        alone, _, _ = read_images(source, [index], image_size=(16, 16), num_channels=3)
        np.testing.assert_array_equal(alone[0], pixels[index])


def test_the_built_in_digits_load(tmp_path: Path) -> None:
    test = ImageDataset(open_images("mnist-mini", split="test"), image_size=(28, 28), num_channels=1)
    assert test.pixels is not None and test.pixels.shape == (2000, 1, 28, 28)
    assert test.labels is not None and torch.bincount(test.labels).tolist() == [200] * 10
    assert 30 < test.pixels.float().mean() < 37  # MNIST's mean is 33.3
