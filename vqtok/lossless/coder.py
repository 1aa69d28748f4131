"""Symbols to bits and back by a range coder (Martin 1979), that of constriction: Bamler 2022, arXiv:2201.01741.

Encoder and decoder have the same methods and return the symbols, so that one function that walks through an image is
both directions: nothing of it can differ between them but floats. The coder takes probabilities as multiples of 2^-24,
each at least one of these, so that any symbol can be coded, and costs at most 24 bits.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from vqtok.errors import ConfigurationError, DataError

__all__ = ["DAMAGED", "MOST_SYMBOLS", "Coder", "Decoder", "Encoder", "package"]

Symbols = npt.NDArray[np.int64]

MOST_SYMBOLS = 2**24
"""Symbols that a uniform distribution of the coder may have; of any other it must be well below."""
PART = 2**16  # what larger uniform distributions are cut into
DAMAGED = "it is damaged, or was compressed on a machine whose arithmetic differs in the last digits"


def package() -> Any:
    """constriction, an optional package, imported when it is first needed.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import constriction
    except ImportError:
        raise ConfigurationError(
            "lossless compression needs the package constriction: pip install 'vqtok[lossless]'"
        ) from None
    return constriction.stream


class Coder(Protocol):
    """An encoder, which is given symbols and returns them, or a decoder, which is given None and finds them."""

    def code(self, probabilities: npt.NDArray[np.float64], symbols: Symbols | None) -> Symbols:
        """N symbols of distributions (N, K) of their own."""

    def code_uniform(self, count: int, size: int, symbols: Symbols | None) -> Symbols:
        """N symbols that are equally probable, from 0 to `size` - 1."""


class Encoder:
    """Symbols to bytes."""

    def __init__(self) -> None:
        self.stream = package()
        self.coder = self.stream.queue.RangeEncoder()

    def code(self, probabilities: npt.NDArray[np.float64], symbols: Symbols | None) -> Symbols:
        assert symbols is not None
        self.coder.encode(symbols.astype(np.int32), self.stream.model.Categorical(perfect=False), probabilities)
        return symbols

    def code_uniform(self, count: int, size: int, symbols: Symbols | None) -> Symbols:
        assert symbols is not None
        rest = symbols
        while size > MOST_SYMBOLS:
            self._uniform(rest % PART, PART)
            rest, size = rest // PART, -(-size // PART)
        self._uniform(rest, size)
        return symbols

    def _uniform(self, symbols: Symbols, size: int) -> None:
        self.coder.encode(symbols.astype(np.int32), self.stream.model.Uniform(size))

    @property
    def data(self) -> bytes:
        """All symbols so far: little-endian words of 32 bits, without the zeros at the end, which a decoder adds."""
        return bytes(self.coder.get_compressed().astype("<u4").tobytes()).rstrip(b"\0")


class Decoder:
    """Bytes to symbols.

    Raises:
        DataError: from any method, bytes that no encoder gave for these distributions.
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.again = data, Encoder()
        self.stream = package()
        words = np.frombuffer(data + bytes(-len(data) % 4), dtype="<u4").astype(np.uint32)
        self.coder = self.stream.queue.RangeDecoder(words)

    def code(self, probabilities: npt.NDArray[np.float64], symbols: Symbols | None = None) -> Symbols:
        found = self._decoded(self.stream.model.Categorical(perfect=False), probabilities)
        return self.again.code(probabilities, found)

    def code_uniform(self, count: int, size: int, symbols: Symbols | None = None) -> Symbols:
        total, factor, left = np.zeros(count, dtype=np.int64), 1, size
        while left > MOST_SYMBOLS:
            total += factor * self._decoded(self.stream.model.Uniform(PART), count)
            factor, left = factor * PART, -(-left // PART)
        total += factor * self._decoded(self.stream.model.Uniform(left), count)
        if (total >= size).any():
            raise DataError(DAMAGED)
        return self.again.code_uniform(count, size, total)

    def check_end(self) -> None:
        """Refuse bytes that are not exactly those of an encoder: the symbols are encoded again as they are found.

        The last word has bits that decide nothing, and the package itself does not tell where its words end.
        """
        if self.again.data != self.data:
            raise DataError(DAMAGED)

    def _decoded(self, model: Any, argument: Any) -> Symbols:
        try:
            found: Symbols = self.coder.decode(model, argument).astype(np.int64)
        except AssertionError:  # what constriction says of words that no encoder gives
            raise DataError(DAMAGED) from None
        return found
