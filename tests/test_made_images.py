"""The images that tests make: what is called good is read, and what is called bad or no file is not."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from tests.made_images import BAD, GOOD, LEFT_OUT, make_images
from vqtok.data import image_array
from vqtok.data.folders import list_files
from vqtok.errors import DataError


def digests(folder: Path) -> dict[str, str]:
    """By path what a file holds."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_numbers_make_the_same_files(tmp_path: Path) -> None:
    one, two = (make_images(tmp_path / name, 30, seed=3, sides=(16, 64)) for name in "ab")
    assert (one.good, one.bad, one.left_out) == (two.good, two.bad, two.left_out)
    assert digests(one.folder) == digests(two.folder)
    other = make_images(tmp_path / "c", 30, seed=4, sides=(16, 64))
    images = [{digests(made.folder)[path] for path in made.good} for made in (one, other)]
    assert len(images[0]) == 30 and not images[0] & images[1]


@pytest.mark.parametrize(("count", "hostile"), [(60, 100), pytest.param(2000, 50, marks=pytest.mark.slow)])
def test_everything_is_what_it_is_called(count: int, hostile: int, tmp_path: Path) -> None:
    made = make_images(tmp_path, count, hostile=hostile)
    assert (len(made.good), len(made.bad) + len(made.left_out)) == (count, hostile)
    assert set(made.good.values()) == set(GOOD)
    assert set(made.bad.values()) == {*BAD, "cut short"} and set(made.left_out.values()) == set(LEFT_OUT)
    assert any("\n" in path for path in made.good) and any("\n" in path for path in made.bad)
    listed = list_files(tmp_path).images
    assert sorted(listed) == sorted({**made.good, **made.bad})
    assert max(path.stat().st_size for path in map(tmp_path.joinpath, made.bad) if path.exists()) < 1 << 20
    seen = set()
    for path in made.good:
        pixels = image_array(tmp_path / path, num_channels=3, size=(16, 16))
        assert pixels.std() > 2, path
        seen.add(pixels.tobytes())
    assert len(seen) == count
    for path in {**made.bad, **made.left_out}:
        with pytest.raises(DataError) as caught:
            image_array(tmp_path / path, num_channels=3, size=(16, 16))
        assert "\n" not in str(caught.value)
