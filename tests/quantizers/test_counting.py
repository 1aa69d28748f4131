"""Use of codes, against counts made by hand: each code, or each dimension of codes that are too many to count."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from vqtok.quantizers import CodeCounting, CodeUse, DimensionUse, build_quantizer, even_use, perplexity, too_few_in_use


def counting_of(**options: Any) -> CodeCounting:
    return CodeCounting.of(build_quantizer(options))


def each_code(num_codebooks: int, codebook_size: int) -> CodeCounting:
    return CodeCounting(num_codebooks=num_codebooks, codebook_size=codebook_size, levels=(codebook_size,))


def counted(counting: CodeCounting, codes: torch.Tensor) -> torch.Tensor:
    counts = torch.zeros(counting.shape, dtype=torch.int64)
    counting.add(counts, codes)
    return counts


def use_of(*rows: list[int]) -> CodeUse:
    return CodeUse.from_counts(map(torch.tensor, rows), len(rows[0]))


def test_negative_codes_are_not_counted() -> None:
    counting = each_code(2, 3)
    counts = counted(counting, torch.tensor([[[[0, -1], [2, 1]]]]))
    counting.add(counts, torch.tensor([[[[0, 0], [-1, -1]]]]))
    assert counts.tolist() == [[2, 0, 1], [1, 1, 0]]


def test_numbers_are_those_of_the_counts() -> None:
    use = use_of([2, 1, 1, 0], [4, 0, 0, 0])
    entropy = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)
    assert use.perplexity == pytest.approx((math.exp(entropy) + 1) / 2, rel=1e-12)
    assert (use.usage, use.dead_codes, use.codes_in_use, use.num_codes) == (0.5, 4, 4, 8)
    assert str(use) == "4 of 8 codes in use (50.0%)"
    assert use_of([0, 0, 0, 0]).metrics() == {"perplexity": 1.0, "usage": 0.0, "dead_codes": 4}


def test_perplexity_is_k_for_even_use_one_for_a_single_code_and_that_of_the_quantizers() -> None:
    assert use_of([3] * 8).perplexity == pytest.approx(8)
    assert use_of([0, 9]).perplexity == pytest.approx(1)
    counts = np.random.default_rng(0).integers(0, 50, 64)
    assert use_of(counts.tolist()).perplexity == pytest.approx(float(perplexity(torch.from_numpy(counts))))


def test_few_samples_cannot_show_many_codes() -> None:
    """As many even samples as there are codes leave 1/e of them out."""
    samples = np.random.default_rng(0).integers(0, 1000, (200, 1000))
    found = np.mean([len(np.unique(each)) / 1000 for each in samples])
    assert even_use(use_of([1] * 1000)) == ", where even use would show 63%"
    assert even_use(CodeUse.from_counts([torch.ones(5)], 1000)) == ", where even use would show 0.5%"
    assert even_use(use_of([9] * 8)) == ""
    assert use_of([1] * 1000).attainable == pytest.approx(1 - math.exp(-1)) == pytest.approx(found, abs=2e-3)


@pytest.mark.parametrize(
    ("options", "levels"),
    [
        ({"type": "bsq", "codebook_size": 2**36}, (2,) * 36),
        ({"type": "bsq", "codebook_size": 2**62}, (2,) * 62),
        ({"type": "lfq", "codebook_size": 2**19}, (2,) * 19),
        ({"type": "fsq", "levels": [8, 1000, 5, 9]}, (8, 1000, 5, 9)),
        ({"type": "bsq", "codebook_size": 2**18}, (2**18,)),
        ({"type": "ema", "codebook_size": 2**18 + 1, "code_dim": 1}, (2**18 + 1,)),
        ({"type": "product", "num_codebooks": 3, "each": {"type": "bsq", "codebook_size": 2**20}}, (2,) * 20),
    ],
    ids=str,
)
def test_dimensions_are_counted_where_codes_are_too_many(options: dict[str, Any], levels: tuple[int, ...]) -> None:
    """Learned codebooks are tables already: a counter for each vector is little beside it."""
    assert counting_of(**options).levels == levels


@pytest.mark.parametrize(
    "options",
    [
        {"type": "bsq", "codebook_size": 2**62},
        {"type": "fsq", "levels": [8, 8, 8, 5, 5, 5, 7]},
        {"type": "product", "num_codebooks": 2, "each": {"type": "fsq", "levels": [9, 1000, 100]}},
    ],
    ids=str,
)
def test_values_of_dimensions_are_those_that_decode_tells_apart(options: dict[str, Any]) -> None:
    """Codes of latents, split into values, against a count of what each latent dimension was quantized to."""
    quantizer = build_quantizer(options).eval()
    counting = CodeCounting.of(quantizer)
    latents = torch.randn(3, quantizer.code_dim, 2, 5, generator=torch.Generator().manual_seed(0))
    output = quantizer(latents)
    counts = counted(counting, output.codes)
    assert counts.shape == (quantizer.code_dim, max(counting.levels)) and counts.sum() == 30 * quantizer.code_dim
    for dimension in range(quantizer.code_dim):
        _, expected = output.quantized[:, dimension].unique(return_counts=True)  # values rise with their numbers
        assert counts[dimension][counts[dimension] > 0].tolist() == expected.tolist()
    use = counting.use(counts)
    assert isinstance(use, DimensionUse)
    shares = [row[row > 0] / 30 for row in counts]
    assert use.bits_in_use == pytest.approx(-sum(float((share * share.log2()).sum()) for share in shares), rel=1e-5)
    assert use.num_bits == pytest.approx(quantizer.num_codebooks * math.log2(quantizer.codebook_size))


def test_two_opposite_codes_are_one_bit_each_and_one_code_is_none() -> None:
    """In which all values of all bits occur, or half of them: a share of values seen would call both healthy."""
    counting = counting_of(type="bsq", codebook_size=2**36)
    one = counting.use(counted(counting, torch.full((4, 2, 2), 5)))
    assert one.metrics() == {"bits_in_use": 0.0, "bit_usage": 0.0, "constant_dimensions": 36}
    assert too_few_in_use(one, 0.5)
    assert str(one) == "at most 0.0 of 36.0 bits in use (0.0%), 36 of 36 dimensions constant"
    rare = torch.full((1, 10, 10), 0)
    rare[0, 0, 0] = 2**36 - 1
    few = counting.use(counted(counting, rare))
    assert few.metrics()["constant_dimensions"] == 0 and few.usage == pytest.approx(0.0808, abs=1e-4)
    assert too_few_in_use(few, 0.5)
    noise = torch.randint(0, 2**36, (4, 10, 10), generator=torch.Generator().manual_seed(0))
    assert not too_few_in_use(counting.use(counted(counting, noise)), 0.9)
    assert not too_few_in_use(counting.use(torch.zeros(counting.shape, dtype=torch.int64)), 0.5)  # nothing seen yet
