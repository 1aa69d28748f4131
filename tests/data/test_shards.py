"""Rows of tar files: their images may have any suffix, and those without one are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.data.images import levels, png, write_tar
from vqtok.data import open_all, read_images
from vqtok.errors import DataError


def test_images_of_a_tar_may_have_different_suffixes(tmp_path: Path) -> None:
    names = ["0.png", "1.jpg", "2.JPG", "3.png", "4.bmp", "5.jpeg", "6.png"]
    write_tar(tmp_path / "a.tar", {name: png(level) for level, name in enumerate(names)})
    masked = {"7.png": png(7), "7.mask.png": png(0), "8.jpg": png(8), "8.mask.jpg": png(0), "9.webp": png(9)}
    write_tar(tmp_path / "b.tar", masked)
    source = open_all(str(tmp_path))["train"]
    assert levels(source) == [*range(10)] and source.image_column == "image"
    assert source.dataset.column_names == ["image", "__key__"]  # and no path of this machine


def test_a_row_of_a_tar_without_an_image_is_named_by_its_key(tmp_path: Path) -> None:
    members = {f"{number}.png": png(number) for number in range(5)}
    write_tar(tmp_path / "a.tar", {**members, "5.cls": b"3", "5.txt": b"a"})
    source = open_all(str(tmp_path / "a.tar"))["train"]
    _, good, broken = read_images(source, range(6), image_size=(1, 1), num_channels=1)
    assert good == [0, 1, 2, 3, 4]
    assert str(broken[5]) == f"row 5 of {source.name}, split train (5) holds no image in the column image"


def test_the_order_of_files_in_a_tar_does_not_move_images_between_columns(tmp_path: Path) -> None:
    members: dict[str, bytes] = {}
    for row in range(8):  # photo first in the first six rows, mask first in the others
        photo, mask = (f"{row}.jpg", png(200)), (f"{row}.png", png(0))
        members |= dict([photo, mask] if row < 6 else [mask, photo])
    write_tar(tmp_path / "pairs.tar", {**members, "8.jpg": png(200), "9.mask.png": png(9), "9.jpg": png(200)})
    name = str(tmp_path / "pairs.tar")
    assert levels(open_all(name, image_column="jpg")["train"]) == [200] * 10
    with pytest.raises(DataError, match="several columns of images: jpg, png; name one of them as image_column"):
        open_all(name)
