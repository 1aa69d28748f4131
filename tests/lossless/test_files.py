from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from vqtok.errors import DataError
from vqtok.lossless import files, read_compressed
from vqtok.lossless.files import Header

HEADER = Header(
    height=8, width=300, channels=3, tokenizer=b"abcdef", decoder=b"wxyz", prior=b"1234", checksum=0x01020304
)


def test_a_header_is_what_the_documentation_says() -> None:
    written = HEADER.to_bytes()
    assert written == b"VQT\x01" + bytes([128 + 3, 8, 300 % 128 + 128, 300 // 128]) + b"abcdefwxyz1234\x04\x03\x02\x01"
    assert len(replace(HEADER, width=8, prior=None).to_bytes()) == 21


@pytest.mark.parametrize("size", [1, 127, 128, 16_383, 16_384, 2**35 - 1])
@pytest.mark.parametrize("prior", [None, b"1234"])
def test_headers_are_read_as_they_were_written(size: int, prior: bytes | None) -> None:
    header = replace(HEADER, height=size, width=size, prior=prior)
    assert Header.from_bytes(header.to_bytes() + b"words") == (header, b"words")


def test_what_is_no_header_is_refused() -> None:
    written = HEADER.to_bytes()
    for cut in range(3):
        with pytest.raises(DataError, match="no compressed image of vqtok"):
            Header.from_bytes(written[:cut])
    for cut in range(3, len(written)):
        with pytest.raises(DataError, match="cut short: it ends before the image begins"):
            Header.from_bytes(written[:cut])
    with pytest.raises(DataError, match="no compressed image of vqtok"):
        Header.from_bytes(b"\x89PNG" + written)
    with pytest.raises(DataError, match="version 2 and this vqtok reads version 1: update vqtok"):
        Header.from_bytes(b"VQT\x02" + written[4:])
    with pytest.raises(DataError, match="more digits than any image's"):
        Header.from_bytes(b"VQT\x01\x03" + b"\xff" * 40)


def test_only_a_regular_file_of_a_sensible_length_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.vqt"
    path.write_bytes(b"VQT" * 10)
    assert read_compressed(path) == b"VQT" * 10
    monkeypatch.setattr(files, "MOST_BYTES", 29)
    with pytest.raises(DataError, match="a.vqt is longer than the 29 bytes that a compressed image may have"):
        read_compressed(path)
    with pytest.raises(DataError, match="there is no image .*b.vqt"):
        read_compressed(tmp_path / "b.vqt")
    os.mkfifo(tmp_path / "pipe.vqt")
    for name in ("pipe.vqt", "."):
        with pytest.raises(DataError, match="no regular file"):
            read_compressed(tmp_path / name)
