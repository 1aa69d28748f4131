from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from vqtok.quantizers import lookup, nearest_codes


def brute_force(rows: torch.Tensor, codebook: torch.Tensor) -> torch.Tensor:
    differences = rows.double().numpy()[:, None, :] - codebook.double().numpy()[None, :, :]
    return torch.from_numpy((differences**2).sum(axis=2).argmin(axis=1))  # numpy's argmin takes the first


@settings(max_examples=20, deadline=None)
@given(
    count=st.integers(0, 40),
    size=st.integers(1, 30),
    dim=st.integers(1, 9),
    held=st.sampled_from([1, 7, 30, 64, 2**19]),
    seed=st.integers(0, 2**16),
)
def test_equals_brute_force_with_ties_to_the_lowest(count: int, size: int, dim: int, held: int, seed: int) -> None:
    """Small whole numbers are exact in float32, and many of them tie."""
    noise = np.random.default_rng(seed)
    rows = torch.from_numpy(noise.integers(-2, 3, (count, dim)).astype(np.float32))
    codebook = torch.from_numpy(noise.integers(-2, 3, (size, dim)).astype(np.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lookup, "SCORES_ON_CPU", held)
        codes = nearest_codes(rows, codebook)
    assert codes.dtype == torch.int64
    assert torch.equal(codes, brute_force(rows, codebook))


def test_equals_brute_force_on_real_numbers() -> None:
    torch.manual_seed(0)
    rows, codebook = torch.randn(500, 64), torch.randn(512, 64)
    assert torch.equal(nearest_codes(rows, codebook), brute_force(rows, codebook))


def test_a_codebook_of_one_vector_gives_its_first_code_everywhere() -> None:
    torch.manual_seed(0)
    codebook = torch.randn(1, 64).expand(37, 64).contiguous()
    assert nearest_codes(torch.randn(200, 64), codebook).unique().tolist() == [0]


@pytest.mark.parametrize("count", [9, 10, 11, 20, 21])
def test_chunks_join_without_a_seam(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    rows, codebook = torch.randn(count, 3), torch.randn(8, 3)
    monkeypatch.setattr(lookup, "SCORES_ON_CPU", 8 * 10)
    assert torch.equal(nearest_codes(rows, codebook), brute_force(rows, codebook))


class LargestTensor(TorchDispatchMode):
    """Remembers the elements of the largest tensor that any operation made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, list | tuple) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_rows_by_codes_are_never_held_whole() -> None:
    rows, codebook = torch.randn(8192, 2), torch.randn(256, 2)
    with LargestTensor() as largest:
        nearest_codes(rows, codebook)
    assert rows.numel() <= largest.elements <= lookup.SCORES_ON_CPU < len(rows) * len(codebook)


def test_autocast_does_not_blunt_the_search() -> None:
    """Codes 0 and 1 are one number in bfloat16."""
    codebook = torch.tensor([[1.0, 0.0], [1.001, 0.0]])
    rows = torch.tensor([[1.0008, 0.0], [1.0002, 0.0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nearest_codes(rows, codebook).tolist() == [1, 0]


def test_gradients_are_not_recorded() -> None:
    rows = torch.randn(4, 2, requires_grad=True)
    assert not nearest_codes(rows, torch.randn(3, 2, requires_grad=True)).requires_grad
