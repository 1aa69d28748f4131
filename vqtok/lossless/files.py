"""The file of a losslessly compressed image, version 1.

    "VQT" 01         what it is, and the version
    1 byte           channels, 1 or 3; plus 128 where a learned prior was used
    1 to 5 bytes     height, then as many of the width: 7 bits a byte, the lowest first, 128 added to all but the last
    6 bytes          the first of the tokenizer's fingerprint, as people are shown it
    4 bytes          the first of a sha256 over likelihood and decoder
    4 bytes          the first of a sha256 over the prior, where one was used
    4 bytes          CRC-32 of the pixels, row by row, the channels of a pixel next to each other; lowest byte first
    the rest         words of the range coder, 32 bits, lowest byte first, without zeros at the end

The words are of the codes, then of the pixels. What comes before them takes 21 to 33 bytes, which has to stay well
below 2% of the 1,700 of an image of CIFAR-10.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vqtok.data.images import open_file
from vqtok.errors import DataError, one_line

__all__ = ["DIGEST_BYTES", "NAME_BYTES", "SUFFIX", "Header", "read_compressed"]

SUFFIX = ".vqt"
MAGIC, VERSION = b"VQT", 1
NAME_BYTES = 6  # of a tokenizer: the twelve letters that people are shown
DIGEST_BYTES = 4  # of decoders and priors
PRIOR = 128  # in the byte of the channels
MOST_BYTES = 2**30  # of a file: more than an image of as many pixels as are read takes
LONGEST = 35  # bits of a height or width in a file


@dataclass(frozen=True, kw_only=True)
class Header:
    """What comes before the bits.

    Attributes:
        height, width, channels: of the image.
        tokenizer: the first bytes of its fingerprint.
        decoder: of the digest of likelihood and decoder.
        prior: of the digest of the prior; None where all codes were equally probable.
        checksum: CRC-32 of the pixels.
    """

    height: int
    width: int
    channels: int
    tokenizer: bytes
    decoder: bytes
    prior: bytes | None
    checksum: int

    def to_bytes(self) -> bytes:
        form = self.channels + (PRIOR if self.prior else 0)
        size = _written(self.height) + _written(self.width)
        names = self.tokenizer + self.decoder + (self.prior or b"")
        return MAGIC + bytes([VERSION, form]) + size + names + self.checksum.to_bytes(4, "little")

    @classmethod
    def from_bytes(cls, data: bytes) -> tuple[Header, bytes]:
        """The header of a file and what follows it.

        Raises:
            DataError: something else, another version, or cut short.
        """
        if data[: len(MAGIC)] != MAGIC:
            raise DataError("it is no compressed image of vqtok")
        reader = _Reader(data, len(MAGIC))
        if (version := reader.byte()) != VERSION:
            raise DataError(f"it has version {version} and this vqtok reads version {VERSION}: update vqtok")
        form = reader.byte()
        header = cls(
            height=reader.number(),
            width=reader.number(),
            channels=form % PRIOR,
            tokenizer=reader.take(NAME_BYTES),
            decoder=reader.take(DIGEST_BYTES),
            prior=reader.take(DIGEST_BYTES) if form >= PRIOR else None,
            checksum=int.from_bytes(reader.take(4), "little"),
        )
        return header, data[reader.at :]


class _Reader:
    """Bytes one after another; what is missing is a DataError."""

    def __init__(self, data: bytes, at: int) -> None:
        self.data, self.at = data, at

    def take(self, count: int) -> bytes:
        self.at += count
        if self.at > len(self.data):
            raise DataError("it is cut short: it ends before the image begins")
        return self.data[self.at - count : self.at]

    def byte(self) -> int:
        return self.take(1)[0]

    def number(self) -> int:
        total = 0
        for shift in range(0, LONGEST, 7):
            byte = self.byte()
            total += (byte & 127) << shift
            if byte < 128:
                return total
        raise DataError("it is damaged: its height or width has more digits than any image's")


def _written(number: int) -> bytes:
    parts = []
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])


def read_compressed(path: Path) -> bytes:
    """The bytes of a file that may be of anybody.

    Raises:
        DataError: there is none, it is no regular file, may not be read, or is longer than any compressed image.
    """
    with open_file(path, str(path)) as file:
        try:
            data = file.read(MOST_BYTES + 1)
        except OSError as error:
            raise DataError(f"{path} cannot be read: {one_line(error)}") from error
    if len(data) > MOST_BYTES:
        raise DataError(f"{path} is longer than the {MOST_BYTES:,} bytes that a compressed image may have")
    return data
