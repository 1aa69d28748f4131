"""The few pieces of HTML that the parts of the page are made of."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from vqtok.errors import DataError
from vqtok.report.images import data_uri

__all__ = ["figure", "image", "number", "section"]


def section(heading: str, text: str, body: str) -> str:
    return f"<section>\n<h2>{heading}</h2>\n<p>{text}</p>\n{body}\n</section>"


def image(
    path: Path,
    alternative: str,
    names: Sequence[str] = (),
    *,
    narrow: bool = False,
    caption: str = "",
    drawing: bool = False,
) -> str:
    """An image file as a figure, its rows named on the left; pixels stay sharp unless it is a drawing.

    Raises:
        DataError: the file is missing or no image.
    """
    try:
        with Image.open(path) as opened:
            opened.load()
            return figure(opened, alternative, names, narrow=narrow, caption=caption, drawing=drawing)
    except OSError as error:
        raise DataError(f"{path} cannot be read as an image: {error}") from error


def figure(
    image: Image.Image,
    alternative: str,
    names: Sequence[str] = (),
    *,
    narrow: bool = False,
    caption: str = "",
    drawing: bool = False,
) -> str:
    labels = "".join(f"<span>{escape(name)}</span>" for name in names)
    side = f'<div class="classes">{labels}</div>' if names else ""
    told = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    opening = '<figure class="narrow">' if narrow else "<figure>"
    kind = "image-grid drawing" if drawing else "image-grid"
    return (
        f'{opening}<div class="{kind}">{side}'
        f'<img alt="{escape(alternative)}" src="{data_uri(image)}"></div>{told}</figure>'
    )


def number(value: float | None, unit: str = "") -> str:
    return "&ndash;" if value is None else f"{value:.3g}{unit}"
