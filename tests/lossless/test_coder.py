from __future__ import annotations

import sys

import numpy as np
import pytest

from vqtok.errors import ConfigurationError, DataError
from vqtok.lossless.coder import Decoder, Encoder


@pytest.mark.parametrize("count", [1, 10, 1000])
def test_symbols_take_their_entropy_and_at_most_one_word_more(count: int) -> None:
    random = np.random.default_rng(count)
    table = random.dirichlet(np.full(256, 0.3), size=count)
    symbols = np.array([random.choice(256, p=row) for row in table])
    encoder = Encoder()
    assert encoder.code(table, symbols) is symbols
    bits = -np.log2(table[range(count), symbols]).sum()
    assert bits - 1 <= 8 * len(encoder.data) <= bits * (1 + 1e-4) + 33
    decoder = Decoder(encoder.data)
    assert np.array_equal(decoder.code(table), symbols)
    decoder.check_end()


@pytest.mark.parametrize("size", [2, 3, 512, 64_000, 2**24 - 1, 2**24, 2**24 + 1, 10**10, 2**62])
def test_equally_probable_symbols_of_any_number(size: int) -> None:
    symbols = np.random.default_rng(0).integers(0, size, 200, dtype=np.int64)
    symbols[:3] = 0, size - 1, size // 2
    encoder = Encoder()
    encoder.code_uniform(200, size, symbols)
    bits = 200 * np.log2(float(size))
    assert bits - 1 <= 8 * len(encoder.data) <= bits * 1.0003 + 33
    assert np.array_equal(Decoder(encoder.data).code_uniform(200, size), symbols)


def test_a_symbol_without_probability_can_be_coded() -> None:
    table = np.zeros((3, 256))
    table[:, 7] = 1
    encoder = Encoder()
    encoder.code(table, np.array([7, 0, 255]))
    assert 8 * len(encoder.data) <= 2 * 24 + 33
    assert Decoder(encoder.data).code(table).tolist() == [7, 0, 255]


@pytest.mark.parametrize("data", [b"\xff" * 12, b"\xff" * 400])
def test_bytes_of_no_encoder_are_refused(data: bytes) -> None:
    table = np.random.default_rng(0).dirichlet(np.full(256, 0.3), size=50)
    with pytest.raises(DataError, match="damaged, or was compressed on a machine whose arithmetic differs"):
        decoder = Decoder(data)
        decoder.code(table)
        decoder.check_end()
    with pytest.raises(DataError, match="damaged"):
        Decoder(data).code_uniform(5, 2**24 + 2**18)


def test_bytes_after_the_last_symbol_are_refused() -> None:
    encoder = Encoder()
    encoder.code_uniform(100, 512, np.arange(100))
    for more in (b"\0", b"\1", b"\1\2\3\4", bytes(range(1, 13))):
        longer = Decoder(encoder.data + more)
        assert np.array_equal(longer.code_uniform(100, 512), np.arange(100))
        with pytest.raises(DataError, match="damaged"):
            longer.check_end()


def test_a_missing_package_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "constriction", None)
    with pytest.raises(ConfigurationError, match=r"needs the package constriction: pip install 'vqtok\[lossless\]'"):
        Encoder()
