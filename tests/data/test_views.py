"""Views of an image: what each shows, and what random ones depend on."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from vqtok.data import fit_image, image_array
from vqtok.data.images import image_views
from vqtok.data.views import Views
from vqtok.errors import ConfigurationError, DataError

SHAPE: dict[str, Any] = {"num_channels": 3, "size": (20, 40)}


def noise(height: int, width: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def views(image: Image.Image, text: str, number: int = 0, **changes: Any) -> npt.NDArray[np.uint8]:
    return image_views(image, Views.parse(text, seed=changes.pop("seed", 0)), number, **SHAPE | changes)


@pytest.mark.parametrize("image", [noise(33, 57), noise(20, 40), noise(20, 90)], ids=lambda image: str(image.size))
def test_center_is_the_image_as_ever_and_its_mirror_image(image: Image.Image) -> None:
    found = views(image, "center")
    assert found.shape == (2, 3, 20, 40) and found.dtype == np.uint8
    assert np.array_equal(found[0], image_array(image, **SHAPE))
    assert np.array_equal(found[1], found[0][:, :, ::-1])


def test_ten_crops_are_those_of_torchvision() -> None:
    """Of an image at 1.1 times the size: what its `ten_crop` takes, which crops the mirror image anew."""
    found = views(noise(60, 80), "ten-crop")
    larger = np.asarray(fit_image(noise(60, 80), num_channels=3, size=(22, 44))).transpose(2, 0, 1)
    both = larger, larger[:, :, ::-1]
    places = (0, 0), (0, 4), (2, 0), (2, 4), (1, 2)
    assert np.array_equal(found, np.stack([each[:, y : y + 20, x : x + 40] for each in both for y, x in places]))


def test_ten_crops_of_a_small_size_differ() -> None:
    assert len({view.tobytes() for view in views(noise(30, 30), "ten-crop", size=(8, 8))}) == 10


def test_random_views_depend_on_seed_and_number_alone() -> None:
    image = noise(60, 80)
    found = views(image, "random:6", 7, seed=3)
    assert np.array_equal(found, views(image, "random:6", 7, seed=3))
    assert np.array_equal(found[:2], views(image, "random:2", 7, seed=3))
    for other in (views(image, "random:6", 8, seed=3), views(image, "random:6", 7, seed=4)):
        assert not any(np.array_equal(mine, theirs) for mine, theirs in zip(found, other, strict=True))
    assert len({view.tobytes() for view in found}) == 6


def test_random_views_are_from_anywhere_and_mirrored_every_other_time() -> None:
    """A picture whose colours are its coordinates says of each view where it is from."""
    y, x = np.mgrid[0:200, 0:100].astype(np.uint8)
    image = Image.fromarray(np.stack([y, x, np.zeros_like(x)], axis=2))
    found = views(image, "random:400", num_channels=3, size=(10, 10)).astype(float)
    lefts, rights = found[:, 1, :, 0].mean(1), found[:, 1, :, -1].mean(1)
    mirrored = lefts > rights
    assert 160 < mirrored.sum() < 240
    sides = np.abs(rights - lefts) * 10 / 9  # of the first and last pixel the middles are seen
    assert 78 < sides.min() < 84 and 96 < sides.max() < 102
    tops = found[:, 0, 0].mean(1)
    assert tops.min() < 10 and tops.max() > 100


def test_views_of_a_broken_image_are_none() -> None:
    with pytest.raises(DataError, match="x is not an image"):
        image_views(b"text", Views.parse("center"), 0, name="x", **SHAPE)


@pytest.mark.parametrize("text", ["", "centre", "random", "random:0", "random:-1", "random:1001", "random:2.5", "ten"])
def test_other_views_are_refused(text: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^views must be center, ten-crop or random:K with K from 1 to 1,000, "
    ):
        Views.parse(text)
