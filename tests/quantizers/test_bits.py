"""What lfq and bsq share, alone and in two processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.two_processes import run_two_processes
from vqtok.errors import ConfigurationError
from vqtok.quantizers import build_quantizer
from vqtok.quantizers.bits import BitQuantizer, bits_of, codes_of, mean_of_sums

METHODS = ["bsq", "lfq"]
SPLITS = [(4, 4), (5, 3), (8, 0), (0, 8)]  # images of the first and of the second process
every_method = pytest.mark.parametrize("method", METHODS)


def make(method: str, **options: Any) -> BitQuantizer:
    softness = {"bsq": {"inverse_temperature": 5.0}, "lfq": {"temperature": 2.0}}[method]
    common = {"codebook_size": 32, "beta": 0.3, "entropy_weight": 0.5}
    quantizer = build_quantizer({"type": method} | common | softness | options)
    assert isinstance(quantizer, BitQuantizer)
    return quantizer


@settings(max_examples=50, deadline=None)
@given(number=st.integers(1, 62), data=st.data())
def test_codes_and_their_bits(number: int, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.integers(0, 2**number - 1), min_size=6, max_size=6))
    codes = torch.tensor(values).view(1, 2, 3)
    bits = bits_of(codes, number)
    assert bits.shape == (1, number, 2, 3) and bits.dtype == torch.bool
    assert torch.equal(codes_of(bits), codes)
    for index, value in enumerate(values):
        written = "".join("1" if bit else "0" for bit in bits[0, :, index // 3, index % 3])
        assert int(written[::-1], 2) == value  # the first bit is the least significant


@every_method
def test_codes_are_the_signs_and_zero_is_what_the_paper_says(method: str) -> None:
    quantizer = make(method, codebook_size=8)
    latents = torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1], [0, -0.0, -1]]).view(4, 3, 1, 1)
    output = quantizer(latents)
    positive = latents > 0 if method == "lfq" else latents >= 0
    assert output.codes.flatten().tolist() == [1, 2, 4, 0 if method == "lfq" else 3]
    assert torch.equal(output.quantized, quantizer.scale * torch.where(positive, 1.0, -1.0))
    assert torch.equal(quantizer.decode(quantizer.encode(latents)), output.quantized)


@settings(max_examples=40, deadline=None)
@given(
    method=st.sampled_from(METHODS),
    bits=st.integers(1, 10),
    shape=st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(1, 3)),
    size=st.sampled_from([0.0, 1e-20, 1.0, 1e3, 1e15]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    training=st.booleans(),
    seed=st.integers(0, 2**16),
)
def test_latents_of_any_size_and_number(
    method: str, bits: int, shape: tuple[int, int, int], size: float, dtype: torch.dtype, training: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    quantizer = build_quantizer({"type": method, "codebook_size": 2**bits, "beta": 0.25}).train(training)
    batch, height, width = shape
    latents = (size * torch.randn(batch, bits, height, width)).to(dtype).requires_grad_()
    output = quantizer(latents)
    (output.loss + output.quantized.sum()).backward()
    assert output.loss.isfinite() and output.quantized.isfinite().all()
    assert output.quantized.dtype == torch.float32
    assert latents.grad is not None and latents.grad.isfinite().all()
    assert torch.equal(quantizer.encode(latents), output.codes)
    assert torch.equal(quantizer.decode(output.codes), output.quantized)
    assert quantizer.distortion(latents).isfinite().all()
    if batch:
        assert 0 <= int(output.codes.min()) <= int(output.codes.max()) < 2**bits


@every_method
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_latents_that_are_not_numbers_show(method: str, bad: float) -> None:
    quantizer = make(method)
    latents = torch.randn(2, 5, 3, 3)
    latents[0, 1, 2, 0] = bad
    output = quantizer(latents)
    assert not output.loss.isfinite()
    assert output.quantized[0, 1, 2, 0].isnan()
    assert 0 <= int(output.codes.min()) <= int(output.codes.max()) < 32


@every_method
def test_there_is_nothing_to_save_and_the_meta_device_does_no_harm(method: str) -> None:
    with torch.device("meta"):
        quantizer = make(method)
    assert quantizer.state_dict() == {}
    assert quantizer(torch.randn(1, 5, 3, 3)).loss.isfinite()


@every_method
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"codebook_size": 500}, "quantizer.codebook_size must be a power of two up to 2.62, got 500: take 256 or 512"),
        ({"codebook_size": 1}, "got 1: take 2 or 4"),
        ({"codebook_size": 2**63}, f"got {2**63}: take {2**61} or {2**62}"),
        ({"codebook_size": 10**30}, f"got {10**30}: take {2**61} or {2**62}"),
        ({"codebook_size": 16.0}, "must be a power of two up to 2.62, got 16.0$"),
        ({"codebook_size": -8}, "got -8: take 2 or 4"),
        ({"beta": -1.0}, "quantizer.beta must be a number of at least 0, got -1.0"),
        ({"entropy_weight": -1.0}, "quantizer.entropy_weight must be a number of at least 0, got -1.0"),
        ({"diversity_gamma": -1.0}, "quantizer.diversity_gamma must be a number of at least 0, got -1.0"),
    ],
)
def test_options_that_make_no_sense_are_refused(method: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make(method, **options)


def test_means_of_sums_have_their_gradient_and_none_without_rows() -> None:
    sums = torch.tensor([2.0, 6.0], requires_grad=True)
    means = mean_of_sums(sums, 4, over_processes=True)
    means.sum().backward()
    assert means.tolist() == [0.5, 1.5]
    assert sums.grad is not None and sums.grad.tolist() == [0.25, 0.25]
    assert mean_of_sums(torch.zeros(2), 0, over_processes=True).tolist() == [0, 0]


def step(method: str, latents: torch.Tensor) -> dict[str, torch.Tensor]:
    """Loss, metrics and gradient of one training step on a part of a batch."""
    latents = latents.clone().requires_grad_()
    output = make(method)(latents)
    output.loss.backward()
    assert latents.grad is not None
    return {"loss": output.loss.detach(), "gradient": latents.grad, **output.metrics}


def batch() -> torch.Tensor:
    return torch.randn(8, 5, 2, 2, generator=torch.Generator().manual_seed(0))


def worker(rank: int, folder: Path) -> dict[Any, dict[str, torch.Tensor]]:
    """One of the two processes."""
    results = {(method, split): step(method, batch().split(split)[rank]) for method in METHODS for split in SPLITS}
    if rank == 0:
        for method in METHODS:  # the other process takes no part
            results[method, "evaluation"] = make(method).eval()(batch()).metrics
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, dict[str, torch.Tensor]]]:
    return run_two_processes(worker, tmp_path_factory.mktemp("two"))


@every_method
@pytest.mark.parametrize("split", SPLITS)
def test_two_processes_on_parts_of_a_batch_are_one_on_the_whole(
    method: str, split: tuple[int, int], results: list[dict[Any, dict[str, torch.Tensor]]]
) -> None:
    alone = step(method, batch())
    first, second = (result[method, split] for result in results)
    gradient = torch.cat([first.pop("gradient"), second.pop("gradient")]) / 2  # as data parallel training averages
    torch.testing.assert_close(gradient, alone.pop("gradient"), rtol=1e-5, atol=1e-7)
    for name, value in alone.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, rtol=1e-5, atol=1e-6)


@every_method
def test_evaluation_waits_for_nobody(method: str, results: list[dict[Any, dict[str, torch.Tensor]]]) -> None:
    alone = make(method).eval()(batch()).metrics
    torch.testing.assert_close(results[0][method, "evaluation"], alone)
