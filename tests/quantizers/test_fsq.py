from __future__ import annotations

import functools
import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vector_quantize_pytorch import FSQ

from vqtok.errors import ConfigurationError
from vqtok.quantizers import FiniteScalarQuantizer

LEVELS = [[8, 8, 8], [8, 5, 5, 5], [7, 5, 5, 5, 5], [3], [4, 3]]
levels_of_any_kind = st.lists(st.integers(2, 12), min_size=1, max_size=5)


def by_hand(number: float, levels: int) -> tuple[int, float, float]:
    """Level, quantized value and slope of one latent, by section 3.1 and appendix A.1 of the paper."""
    half = (levels - 1) * (1 - 1e-3) / 2
    offset = 0.0 if levels % 2 else 0.5
    shift = math.atanh(offset / half) if levels > 2 else 0.0
    bounded = math.tanh(number + shift) * half - offset
    value = round(bounded) / (levels // 2)
    return round(bounded) + levels // 2, value, (1 - math.tanh(number + shift) ** 2) * half / (levels // 2)


@settings(max_examples=30, deadline=None)
@given(levels=levels_of_any_kind, seed=st.integers(0, 2**16))
def test_values_codes_and_gradients_by_hand(levels: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    quantizer = FiniteScalarQuantizer(levels=levels)
    latents = (2 * torch.randn(2, len(levels), 2, 3)).requires_grad_()
    weights = torch.randn(latents.shape)
    output = quantizer(latents)
    (output.quantized * weights).sum().backward()
    assert output.loss.item() == 0 and output.metrics == {}
    assert latents.grad is not None
    for image, row, column in itertools.product(range(2), range(2), range(3)):
        code, step = 0, 1
        for dimension, number in enumerate(levels):
            index = (image, dimension, row, column)
            level, value, slope = by_hand(latents[index].item(), number)
            assert output.quantized[index].item() == pytest.approx(value, abs=1e-6)
            assert latents.grad[index].item() == pytest.approx(slope * weights[index].item(), rel=1e-4, abs=1e-5)
            code, step = code + level * step, step * number
        assert output.codes[image, row, column].item() == code


@pytest.mark.parametrize("levels", LEVELS)
def test_against_the_library(levels: list[int]) -> None:
    """It widens the bounds by 0.001 where the paper's appendix narrows them; told to narrow, it agrees throughout."""
    torch.manual_seed(0)
    quantizer, library = FiniteScalarQuantizer(levels=levels), FSQ(levels=levels)
    latents = (2 * torch.randn(4, len(levels), 8, 8)).requires_grad_()
    weights = torch.randn(latents.shape)
    output = quantizer(latents)
    (ours,) = torch.autograd.grad((output.quantized * weights).sum(), latents)

    _, codes = library(latents)
    assert (codes == output.codes).float().mean() > 0.98

    library.bound = functools.partial(library.bound, eps=-1e-3)
    quantized, codes = library(latents)
    (theirs,) = torch.autograd.grad((quantized * weights).sum(), latents)
    assert torch.equal(codes.long(), output.codes)
    torch.testing.assert_close(output.quantized, quantized, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    every = torch.arange(quantizer.codebook_size).view(1, 1, -1)
    torch.testing.assert_close(quantizer.decode(every), library.indices_to_codes(every), rtol=0, atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(levels=levels_of_any_kind)
def test_every_code_is_a_vector_of_its_own_within_the_cube(levels: list[int]) -> None:
    quantizer = FiniteScalarQuantizer(levels=levels)
    every = torch.arange(quantizer.codebook_size).view(1, 1, -1)
    vectors = quantizer.decode(every)[0, :, 0]
    assert vectors.abs().max() <= 1
    assert len(vectors.t().unique(dim=0)) == quantizer.codebook_size == math.prod(levels)


@settings(max_examples=30, deadline=None)
@given(number=st.integers(2, 1000))
def test_every_level_is_reached(number: int) -> None:
    quantizer = FiniteScalarQuantizer(levels=[number])
    latents = torch.atanh(torch.linspace(-1, 1, 40 * number, dtype=torch.float64)).clamp(-20, 20)
    codes = quantizer.encode(latents.view(1, 1, 1, -1)).flatten()
    assert torch.equal(codes.unique(), torch.arange(number))
    assert torch.equal(codes, codes.sort().values)


@pytest.mark.parametrize("number", range(2, 12))
def test_zero_is_zero_or_where_two_levels_meet(number: int) -> None:
    quantizer = FiniteScalarQuantizer(levels=[number])
    assert quantizer(torch.zeros(1, 1, 1, 1)).quantized.item() == 0
    small = torch.tensor([-1e-3, 1e-3]).view(1, 1, 1, 2)
    assert quantizer.encode(small).tolist() == ([[[0, 1]]] if number == 2 else [[[number // 2] * 2]])


def test_distortion_is_that_of_the_bounded_latents() -> None:
    torch.manual_seed(0)
    quantizer = FiniteScalarQuantizer(levels=[5, 4])
    latents = 3 * torch.randn(2, 2, 3, 3)
    bounded = torch.stack([torch.tanh(latents[:, 0]) * 1.998, torch.tanh(latents[:, 1] + 0.3470) * 1.4985 - 0.5], dim=1)
    expected = ((bounded / 2 - quantizer(latents).quantized) ** 2).sum(dim=1)
    torch.testing.assert_close(quantizer.distortion(latents), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("size", [0.0, 1e-20, 1.0, 1e15, math.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_latents_of_any_size(size: float, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    quantizer = FiniteScalarQuantizer(levels=[8, 5, 2])
    latents = torch.where(torch.randn(2, 3, 4, 4) > 0, size, -size).to(dtype).requires_grad_()
    output = quantizer(latents)
    output.quantized.sum().backward()
    assert output.quantized.dtype == torch.float32
    assert output.quantized.isfinite().all()
    assert latents.grad is not None and latents.grad.isfinite().all()
    assert torch.equal(quantizer.decode(quantizer.encode(latents)), quantizer.decode(output.codes))
    assert 0 <= int(output.codes.min()) <= int(output.codes.max()) < quantizer.codebook_size


def test_latents_that_are_not_numbers_show() -> None:
    quantizer = FiniteScalarQuantizer(levels=[8, 5])
    latents = torch.zeros(1, 2, 1, 3)
    latents[0, 0, 0, 0] = latents[0, 1, 0, 1] = torch.nan
    output = quantizer(latents)
    assert torch.equal(output.quantized.isnan(), latents.isnan())
    assert 0 <= int(output.codes.min()) <= int(output.codes.max()) < 40
    assert torch.equal(quantizer.encode(latents), output.codes)


def test_no_rows() -> None:
    output = FiniteScalarQuantizer()(torch.zeros(0, 3, 4, 4))
    assert output.quantized.shape == (0, 3, 4, 4) and output.codes.shape == (0, 4, 4) and output.loss.item() == 0


def test_there_is_nothing_to_save_and_the_meta_device_does_no_harm() -> None:
    with torch.device("meta"):
        quantizer = FiniteScalarQuantizer(levels=[8, 5])
    assert quantizer.state_dict() == {}
    assert quantizer(torch.randn(1, 2, 3, 3)).quantized.shape == (1, 2, 3, 3)


@pytest.mark.parametrize("levels", [[], [1, 8], [8, 1001], [8.0], [True, 8], ["8"]])
def test_levels_that_make_no_sense_are_refused(levels: list[int]) -> None:
    with pytest.raises(ConfigurationError, match="quantizer.levels must be a list of whole numbers from 2 to 1000"):
        FiniteScalarQuantizer(levels=levels)


@pytest.mark.parametrize("level", [2, 3, 4, 5, 8, 9, 1000])
def test_the_bound_keeps_within_what_its_docstring_says(level: int) -> None:
    quantizer = FiniteScalarQuantizer(levels=[level])
    bounded = quantizer.bound(torch.tensor([-1e6, 1e6]).view(2, 1, 1, 1)).flatten().tolist()
    lowest, highest = (-level / 2, level / 2 - 1) if level % 2 == 0 else (-(level - 1) / 2, (level - 1) / 2)
    assert lowest < bounded[0] < lowest + 0.5 + 1e-3 * level
    assert highest - 0.5 - 1e-3 * level < bounded[1] < highest


def test_codes_that_int64_cannot_number_are_refused() -> None:
    assert FiniteScalarQuantizer(levels=[4] * 31).codebook_size == 2**62
    with pytest.raises(ConfigurationError, match=r"got \[4, .*, 4\]: their product must be at most 2\^62$"):
        FiniteScalarQuantizer(levels=[4] * 31 + [2, 4])


@pytest.mark.parametrize("levels", [*LEVELS, [8, 8, 8, 5, 5, 5]])
def test_wider_bounds_are_those_of_the_library(levels: list[int]) -> None:
    """And of Cosmos Tokenizer, which took them over."""
    torch.manual_seed(0)
    quantizer, library = FiniteScalarQuantizer(levels=levels, margin=-1e-3), FSQ(levels=levels)
    latents = 2 * torch.randn(4, len(levels), 8, 8)
    quantized, codes = library(latents)
    assert torch.equal(quantizer.encode(latents), codes.long())
    torch.testing.assert_close(quantizer(latents).quantized, quantized)
