from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtok.codes.buffers import RowBuffers


def make_parts(lengths: list[int], shape: tuple[int, ...], dtype: str, skew: int = 0) -> list[npt.NDArray[Any]]:
    """Arrays that count on from one another, each in memory of its own that begins `skew` bytes late."""
    parts, start = [], 0
    for length in lengths:
        size = length * int(np.prod(shape))
        values = np.arange(start, start + size).astype(dtype)
        memory = np.zeros(values.nbytes + skew, dtype=np.uint8)
        memory[skew:] = values.view(np.uint8)
        parts.append(memory[skew:].view(dtype).reshape(length, *shape))
        start += size
    return parts


def read(buffers: RowBuffers, rows: list[int]) -> npt.NDArray[Any]:
    return buffers.gather(buffers.find(np.array(rows, dtype=np.int64))[1])


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(0, 40) | st.sampled_from([0, 1, 500]), max_size=30),
    shape=st.sampled_from([(1,), (2, 3), (7, 7), (4, 4, 3)]),
    dtype=st.sampled_from(["uint8", "uint16", "uint32", "int64"]),
    skew=st.integers(0, 9),
)
def test_rows_are_those_of_the_parts_one_after_another(
    lengths: list[int], shape: tuple[int, ...], dtype: str, skew: int
) -> None:
    parts = make_parts(lengths, shape, dtype, skew)
    buffers, whole = RowBuffers(parts, shape, dtype), np.concatenate([np.empty((0, *shape), dtype), *parts])
    assert len(buffers) == len(whole)
    order = np.random.default_rng(0).permutation(len(whole))
    numbers, places = buffers.find(order)
    assert np.array_equal(buffers.gather(places), whole[order])
    assert np.array_equal(numbers, np.repeat(np.arange(len(lengths)), lengths)[order])
    for wrong in (-1, -len(whole) - 1, len(whole), len(whole) + 1, len(whole) + 700, 2**63 - 1, -(2**63)):
        with pytest.raises(IndexError):
            read(buffers, [wrong])


def test_what_is_read_is_a_copy_of_its_own() -> None:
    parts = make_parts([3, 2], (2, 2), "uint16")
    rows = read(RowBuffers(parts, (2, 2), "uint16"), [4, 0])
    rows += 1
    assert parts[0][0, 0, 0] == 0
    assert rows.dtype == np.uint16 and rows.flags.aligned and rows.flags.c_contiguous


def test_the_buffers_are_kept_alive() -> None:
    """Freed memory would be given to the arrays that are made in between."""
    buffers = RowBuffers(make_parts([1000] * 20, (16, 16), "uint16"), (16, 16), "uint16")
    fill = [np.full((1000, 16, 16), 7, dtype=np.uint16) for _ in range(40)]
    assert np.array_equal(read(buffers, [19_999])[0].ravel(), (np.arange(256) + 19_999 * 256).astype(np.uint16))
    assert len(fill) == 40


@pytest.mark.parametrize(
    "part", [np.zeros((3, 2), "uint16"), np.zeros((3, 4), "uint8"), np.zeros((3, 8), "uint16")[:, ::2]]
)
def test_parts_of_another_kind_are_refused(part: npt.NDArray[Any]) -> None:
    with pytest.raises(ValueError, match="contiguous arrays of"):
        RowBuffers([part], (4,), "uint16")
