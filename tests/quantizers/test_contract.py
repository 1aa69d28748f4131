"""What holds for every quantizer, whatever the method."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vqtok.errors import ConfigurationError
from vqtok.quantizers import QUANTIZERS, Quantizer, build_quantizer, quantizer_options

METHODS = sorted(QUANTIZERS)
VARIANTS: list[dict[str, Any]] = [
    {"type": "ema"},
    {"type": "vq"},
    {"type": "gumbel"},
    {"type": "gumbel", "logits": "linear", "start": "normal", "restart_threshold": 0.0},
]
shapes = given(
    batch=st.integers(1, 3),
    dim=st.integers(1, 6),
    height=st.integers(1, 4),
    width=st.integers(1, 4),
    size=st.integers(2, 40),
    seed=st.integers(0, 2**16),
)
few = settings(max_examples=20, deadline=None)


def make(options: dict[str, Any], **more: Any) -> Quantizer:
    return build_quantizer({"codebook_size": 16, "code_dim": 3} | options | more)


@pytest.mark.parametrize("options", VARIANTS)
@few
@shapes
def test_shapes_types_and_ranges(
    options: dict[str, Any], batch: int, dim: int, height: int, width: int, size: int, seed: int
) -> None:
    torch.manual_seed(seed)
    quantizer = make(options, codebook_size=size, code_dim=dim)
    assert (quantizer.codebook_size, quantizer.code_dim, quantizer.num_codebooks) == (size, dim, 1)
    for training in (True, False):
        latents = torch.randn(batch, dim, height, width, requires_grad=True)
        output = quantizer.train(training)(latents)
        assert output.quantized.shape == latents.shape
        assert output.quantized.dtype == torch.float32
        assert output.codes.shape == (batch, height, width)
        assert output.codes.dtype == torch.int64
        assert 0 <= int(output.codes.min()) <= int(output.codes.max()) < size
        assert output.loss.shape == () and output.loss.isfinite()
        assert all(value.shape == () and not value.requires_grad for value in output.metrics.values())
        (output.loss + output.quantized.sum()).backward()
        assert latents.grad is not None and latents.grad.isfinite().all()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("options", VARIANTS)
@few
@shapes
def test_decode_of_encode_is_what_a_forward_pass_gives(
    options: dict[str, Any], training: bool, batch: int, dim: int, height: int, width: int, size: int, seed: int
) -> None:
    """Bit for bit from one state. A forward pass in training moves the state, so two copies start from it."""
    torch.manual_seed(seed)
    quantizer = make(options, codebook_size=size, code_dim=dim, decay=0.5)
    for _ in range(3):
        quantizer(torch.randn(batch, dim, height, width))  # started, moved, perhaps restarted
    latents = torch.randn(batch, dim, height, width)
    other = copy.deepcopy(quantizer)
    output = quantizer.train(training)(latents)
    if training and options["type"] == "gumbel":
        assert torch.equal(other.decode(output.codes), output.quantized)  # codes are drawn here
    else:
        assert torch.equal(other.encode(latents), output.codes)
        assert torch.equal(other.decode(other.encode(latents)), output.quantized)


@pytest.mark.parametrize("options", VARIANTS)
def test_no_term_depends_on_the_batch_size(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    quantizer = make(options).eval()
    latents = torch.randn(4, 3, 3, 5)
    once, twice = quantizer(latents), quantizer(torch.cat([latents, latents]))
    torch.testing.assert_close(once.loss, twice.loss)
    for name, value in once.metrics.items():
        torch.testing.assert_close(value, twice.metrics[name])


@pytest.mark.parametrize("options", VARIANTS)
def test_autocast_changes_nothing(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    quantizer = make(options, codebook_size=300)
    latents = torch.randn(4, 3, 3, 5)
    same = copy.deepcopy(quantizer)
    torch.manual_seed(1)
    plain = quantizer(latents)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = same(latents)
        encoded = same.eval().encode(latents)
    assert torch.equal(plain.quantized, cast.quantized)
    assert torch.equal(plain.codes, cast.codes)
    assert torch.equal(plain.loss, cast.loss)
    assert torch.equal(quantizer.eval().encode(latents), encoded)


@pytest.mark.parametrize("options", VARIANTS)
def test_channels_last_changes_nothing(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    quantizer = make(options).eval()
    latents = torch.randn(2, 3, 4, 5)
    last = latents.to(memory_format=torch.channels_last)
    assert torch.equal(quantizer(latents).quantized, quantizer(last).quantized)


@pytest.mark.parametrize("options", VARIANTS)
def test_state_survives_saving_and_a_reset_fills_everything(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    quantizer = make(options)
    quantizer(torch.randn(2, 3, 4, 4))
    other = make(options)
    other.load_state_dict(quantizer.state_dict())
    latents = torch.randn(2, 3, 4, 4)
    torch.manual_seed(1)
    output = quantizer(latents)
    torch.manual_seed(1)
    assert torch.equal(other(latents).quantized, output.quantized)
    assert set(quantizer.training_state) | {"codebook"} <= set(quantizer.state_dict())
    for tensor in [*other.parameters(), *other.buffers()]:
        tensor.detach().fill_(torch.nan if tensor.is_floating_point() else 9)
    other.reset_parameters()
    assert all(tensor.isfinite().all() for tensor in other.state_dict().values())
    assert not bool(other.started)


def test_the_registry_is_the_classes_by_name() -> None:
    assert METHODS == ["ema", "gumbel", "vq"]
    for method, kind in QUANTIZERS.items():
        options = quantizer_options(method)
        assert options["codebook_size"] == 512 and options["code_dim"] == 64
        assert type(build_quantizer({"type": method, "codebook_size": 4, "code_dim": 2})) is kind


def test_a_method_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"one of ema, gumbel, vq, got 'gumble'. Did you mean 'gumbel'\?"):
        quantizer_options("gumble")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "ema", "codebook_size": 1}, "codebook_size must be at least 2, got 1"),
        ({"type": "vq", "code_dim": 0}, "code_dim must be at least 1, got 0"),
        ({"type": "vq", "beta": -0.1}, "beta must be at least 0, got -0.1"),
        ({"type": "ema", "beta": -0.1}, "beta must be at least 0, got -0.1"),
        ({"type": "ema", "decay": 1.0}, r"decay must be in \[0, 1\), got 1.0"),
        ({"type": "ema", "epsilon": 0.0}, "epsilon must be above 0, got 0.0"),
        ({"type": "ema", "start": "zeros"}, "start must be 'latents' or 'normal', got 'zeros'"),
        ({"type": "vq", "restart_threshold": 1.0}, r"restart_threshold must be in \[0, 1\), got 1.0"),
        ({"type": "gumbel", "logits": "cosine"}, "logits must be 'distance' or 'linear', got 'cosine'"),
        ({"type": "gumbel", "logits": "linear"}, "set quantizer.start=normal and quantizer.restart_threshold=0"),
        ({"type": "gumbel", "kl_weight": -1.0}, "kl_weight must be at least 0, got -1.0"),
        ({"type": "gumbel", "temperature_end": 2.0}, "both above 0, got 1.0 and 2.0"),
        ({"type": "gumbel", "temperature_end": 0.0}, "both above 0, got 1.0 and 0.0"),
        ({"type": "gumbel", "temperature_steps": 0}, "temperature_steps must be at least 1, got 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make(options)
