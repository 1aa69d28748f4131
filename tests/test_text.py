"""One of a thing is not called several."""

from __future__ import annotations

from vqtok.text import counted


def test_one_is_no_plural() -> None:
    assert [counted(number, "image") for number in (0, 1, 1200)] == ["0 images", "1 image", "1,200 images"]
