from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtok.quantizers.base import entropy, from_rows, perplexity, to_rows


@settings(max_examples=20, deadline=None)
@given(batch=st.integers(1, 3), dim=st.integers(1, 5), height=st.integers(1, 4), width=st.integers(1, 4))
def test_rows_are_positions_in_reading_order(batch: int, dim: int, height: int, width: int) -> None:
    latents = torch.randn(batch, dim, height, width)
    rows = to_rows(latents)
    assert rows.shape == (batch * height * width, dim)
    b, y, x = batch - 1, height - 1, width // 2
    assert torch.equal(rows[(b * height + y) * width + x], latents[b, :, y, x])
    assert torch.equal(from_rows(rows, (batch, height, width)), latents)


def test_rows_are_float32() -> None:
    assert to_rows(torch.zeros(1, 2, 3, 4, dtype=torch.bfloat16)).dtype == torch.float32


def test_entropy_has_a_slope_where_a_probability_is_zero() -> None:
    probabilities = torch.tensor([0.5, 0.5, 0.0], requires_grad=True)
    assert entropy(probabilities).item() == pytest.approx(math.log(2))
    entropy(probabilities).backward()
    assert probabilities.grad is not None
    assert probabilities.grad[:2].tolist() == pytest.approx([math.log(2) - 1] * 2)
    assert probabilities.grad.isfinite().all()


def test_perplexity_counts_codes_in_even_use() -> None:
    assert perplexity(torch.tensor([5.0, 5.0, 0.0, 5.0])).item() == pytest.approx(3)
    assert perplexity(torch.tensor([0.0, 7.0])).item() == pytest.approx(1)
    assert perplexity(torch.zeros(4)).item() == pytest.approx(1)
    uneven = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert perplexity(torch.tensor([30, 10])).item() == pytest.approx(math.exp(uneven))
