"""Which files are taken for images: by their names and by what is in them, from one table."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqtok.data import image_array, load_image, open_all
from vqtok.errors import DataError

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program called gs that leaves a file behind when it is started; the file."""
    witness = tmp_path / "gs-was-started"
    program = tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {witness}\nexit 1\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # Pillow remembers whether there is one
    return witness


def test_postscript_called_png_starts_no_other_program(tmp_path: Path, ghostscript: Path) -> None:
    (tmp_path / "images").mkdir()
    file = tmp_path / "images" / "cat.png"
    file.write_bytes(EPS)
    source = open_all(str(tmp_path / "images"))["train"]
    with pytest.raises(DataError, match=r"cat.png is not an image of a format that is read \(JPEG, PNG"):
        image_array(file, num_channels=3, size=(8, 8))
    with pytest.raises(DataError, match="is not an image of a format"):
        load_image(EPS, name=source.name)
    with pytest.raises(DataError, match="of the format EPS; only JPEG, PNG"):
        load_image(Image.open(io.BytesIO(EPS)))
    assert not ghostscript.exists()


@pytest.mark.parametrize(
    "form", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "AVIF", "JPEG2000", "ICO", "TGA"]
)
def test_every_format_of_the_table_is_read(form: str, tmp_path: Path) -> None:
    if form not in Image.registered_extensions().values():
        pytest.skip(f"this build of Pillow has no {form}")
    suffixes = [suffix for suffix, name in Image.registered_extensions().items() if name == form]
    path = tmp_path / f"a{suffixes[0]}"
    Image.new("RGB", (16, 16), (200, 100, 50)).save(path, form)
    pixels = image_array(path, num_channels=3, size=(1, 1))
    np.testing.assert_allclose(pixels.ravel(), (200, 100, 50), atol=3)


@pytest.mark.parametrize("form", ["PDF", "EPS", "SGI", "IM", "PCX", "DDS", "ICNS", "XBM", "SPIDER"])
def test_other_formats_are_refused_by_name_and_by_content(form: str, tmp_path: Path) -> None:
    image = Image.new("F" if form == "SPIDER" else "1" if form == "XBM" else "RGB", (16, 16))
    data = io.BytesIO()
    image.save(data, form)
    with pytest.raises(DataError, match="is not an image of a format that is read"):
        load_image(data.getvalue())
    (tmp_path / f"a.{form.lower()}").write_bytes(data.getvalue())
    with pytest.raises(DataError, match="none of them an image"):
        open_all(str(tmp_path))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_named_pipe_is_never_opened(tmp_path: Path) -> None:
    Image.new("L", (4, 4)).save(tmp_path / "b.png")
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a.png cannot be read: it is no regular file$"):
        load_image(tmp_path / "a.png")
    source = open_all(str(tmp_path))["train"]
    assert source.dataset["file_name"][:] == ["b.png"]
    assert source.notes == ("left out as no regular files: a.png",)
