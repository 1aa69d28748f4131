"""What holds for every quantizer, whatever the method."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.quantizers.methods import (
    METHODS,
    SMALL,
    VARIANTS,
    defaults,
    drops_stages,
    numbers_of,
    options_of,
    samples,
    small,
)
from vqtok.errors import ConfigurationError
from vqtok.quantizers import QUANTIZERS, EMAQuantizer, Quantizer, build_quantizer

TYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
few = settings(max_examples=25, deadline=None)
shapes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
every_method = pytest.mark.parametrize("method", METHODS)
every_variant = pytest.mark.parametrize("options", VARIANTS, ids=lambda options: options["type"])


def latents_for(quantizer: Quantizer, *shape: int, **options: Any) -> torch.Tensor:
    batch, height, width = shape
    return torch.randn(batch, quantizer.code_dim, height, width, **options)


def test_no_method_is_left_out() -> None:
    assert set(SMALL) == set(METHODS) == {options["type"] for options in VARIANTS}


@every_method
@few
@given(data=st.data(), shape=shapes, dtype=st.sampled_from(TYPES), seed=st.integers(0, 2**16))
def test_shapes_types_and_ranges(
    method: str, data: st.DataObject, shape: tuple[int, int, int], dtype: torch.dtype, seed: int
) -> None:
    options = data.draw(options_of(method))
    torch.manual_seed(seed)
    quantizer = build_quantizer(options)
    size, number, dim = numbers_of(options)
    assert (quantizer.codebook_size, quantizer.num_codebooks, quantizer.code_dim) == (size, number, dim)
    for training in (True, False):
        latents = latents_for(quantizer, *shape, dtype=dtype, requires_grad=True)
        output = quantizer.train(training)(latents)
        assert output.quantized.shape == latents.shape
        assert output.quantized.dtype == output.loss.dtype == torch.float32
        assert output.codes.shape == (shape if number == 1 else (*shape, number))
        assert output.codes.dtype == torch.int64
        lowest = -1 if training and options.get("stage_dropout") else 0
        assert lowest <= int(output.codes.min()) <= int(output.codes.max()) < size
        assert output.loss.shape == () and output.loss.isfinite()
        assert all(value.shape == () and not value.requires_grad for value in output.metrics.values())
        (output.loss + output.quantized.sum()).backward()
        assert latents.grad is not None and latents.grad.isfinite().all()
        distortion = quantizer.distortion(latents)
        assert distortion.shape == shape and distortion.dtype == torch.float32
        assert distortion.min() >= 0 and not distortion.requires_grad


@pytest.mark.parametrize("training", [True, False])
@every_method
@few
@given(data=st.data(), shape=shapes, dtype=st.sampled_from(TYPES), seed=st.integers(0, 2**16))
def test_decode_of_encode_is_what_a_forward_pass_gives(
    method: str, training: bool, data: st.DataObject, shape: tuple[int, int, int], dtype: torch.dtype, seed: int
) -> None:
    """Bit for bit from one state. A forward pass in training moves the state, so two copies start from it."""
    options = data.draw(options_of(method))
    torch.manual_seed(seed)
    quantizer = build_quantizer(options)
    for _ in range(3):
        quantizer(latents_for(quantizer, *shape))  # started, moved, perhaps restarted
    latents = latents_for(quantizer, *shape, dtype=dtype)
    other = copy.deepcopy(quantizer)
    output = quantizer.train(training)(latents)
    if not (training and drops_stages(options)):
        assert torch.equal(other.encode(latents), output.codes)
    if not (training and samples(options)):
        assert torch.equal(other.decode(output.codes), output.quantized)


@every_variant
def test_no_term_depends_on_the_batch_size(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(options).eval()
    latents = latents_for(quantizer, 4, 3, 5)
    once, twice = quantizer(latents), quantizer(torch.cat([latents, latents]))
    torch.testing.assert_close(once.loss, twice.loss)
    for name, value in once.metrics.items():
        torch.testing.assert_close(value, twice.metrics[name])


@every_variant
def test_autocast_changes_nothing(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(options)
    latents = latents_for(quantizer, 4, 3, 5)
    same = copy.deepcopy(quantizer)
    torch.manual_seed(1)
    plain = quantizer(latents)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast = same(latents)
        encoded = same.eval().encode(latents)
        decoded, distortion = same.decode(encoded), same.distortion(latents)
    assert torch.equal(plain.quantized, cast.quantized)
    assert torch.equal(plain.codes, cast.codes)
    assert torch.equal(plain.loss, cast.loss)
    assert torch.equal(quantizer.eval().encode(latents), encoded)
    assert torch.equal(quantizer.decode(encoded), decoded)
    assert torch.equal(quantizer.distortion(latents), distortion)


@every_variant
def test_channels_last_changes_nothing(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(options).eval()
    latents = latents_for(quantizer, 2, 4, 5)
    last = latents.to(memory_format=torch.channels_last)
    assert torch.equal(quantizer(latents).quantized, quantizer(last).quantized)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
@every_variant
def test_one_that_was_cast_to_another_type_still_works_in_float32(options: dict[str, Any], dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(options).eval().to(dtype)
    latents = latents_for(quantizer, 2, 4, 5, dtype=dtype)
    output = quantizer(latents)
    decoded = quantizer.decode(quantizer.encode(latents))
    assert decoded.dtype == torch.float32
    assert torch.equal(decoded, output.quantized)


@every_variant
def test_state_survives_saving_and_a_reset_begins_anew(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(options)
    quantizer(latents_for(quantizer, 2, 4, 4))
    other = build_quantizer(options)
    other.load_state_dict(quantizer.state_dict())
    latents = latents_for(quantizer, 2, 4, 4)
    torch.manual_seed(1)
    output = quantizer(latents)
    torch.manual_seed(1)
    assert torch.equal(other(latents).quantized, output.quantized)
    assert {name.rsplit(".", 1)[-1] for name in quantizer.state_dict()} >= set(quantizer.training_state)

    for tensor in [*other.parameters(), *other.buffers()]:
        tensor.detach().fill_(torch.nan if tensor.is_floating_point() else 9)
    fresh = build_quantizer(options)
    for each in (other, fresh):
        torch.manual_seed(2)
        each.reset_parameters()
        output = each(latents)
    torch.manual_seed(2)
    other.reset_parameters()
    assert torch.equal(other(latents).quantized, output.quantized)
    for name, tensor in fresh.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_the_registry_is_the_classes_by_name() -> None:
    assert list(QUANTIZERS) == sorted(SMALL)
    for method, kind in QUANTIZERS.items():
        assert set(SMALL[method]) <= set(defaults(method))
        assert type(build_quantizer({"type": method, **SMALL[method]})) is kind


def test_options_of_a_method_can_be_changed_without_changing_its_defaults() -> None:
    defaults("product")["each"]["type"] = "vq"
    defaults("fsq")["levels"].append(9)
    one, other = small("fsq", levels=[3, 3]), build_quantizer({"type": "fsq"})
    other.options.model_dump()["levels"].append(9)
    build_quantizer({"type": "fsq"}).levels.append(9)
    assert defaults("product")["each"] == {"type": "ema"} | defaults("ema")
    assert defaults("fsq")["levels"] == [8, 8, 8]
    assert (one.codebook_size, other.codebook_size) == (9, 512)


def test_a_method_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigurationError, match=r"one of bsq, ema, .*, vq, got 'gumble'. Did you mean 'gumbel'\?"):
        build_quantizer({"type": "gumble"})


def test_the_type_is_that_of_the_class() -> None:
    assert build_quantizer({}).options.type == "ema"
    assert EMAQuantizer(type="ema").options.type == "ema"
    with pytest.raises(ConfigurationError, match="^quantizer.type must be ema, got 'vq'$"):
        EMAQuantizer(type="vq")
    with pytest.raises(ConfigurationError, match=r"^quantizer.type must be one of bsq, .*, vq, got \['vq'\]$"):
        build_quantizer({"type": ["vq"]})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"type": "ema", "codebook_size": 1},
            "quantizer.codebook_size must be a whole number from 2 to 4294967296, got 1",
        ),
        ({"type": "vq", "code_dim": 0}, "quantizer.code_dim must be a whole number from 1 to 65536, got 0"),
        (
            {"type": "vq", "code_dim": 3, "projection_dim": 4},
            "quantizer: projection_dim must be at most code_dim 3, or 0 for none, got 4",
        ),
        ({"type": "vq", "projection_dim": -1}, "projection_dim must be a whole number of at least 0, got -1"),
        ({"type": "vq", "beta": -0.1}, "beta must be a number of at least 0, got -0.1"),
        ({"type": "simvq", "beta": float("nan")}, "beta must be a number of at least 0 and finite, got nan"),
        ({"type": "ibq", "beta": float("inf")}, "beta must be a number of at least 0 and finite, got inf"),
        ({"type": "vq", "metric": "cosin"}, r"metric must be one of cosine, euclidean, .* Did you mean 'cosine'\?"),
        ({"type": "vq", "gradient": "rotate"}, r"one of rotation, straight-through, .* Did you mean 'rotation'\?"),
        ({"type": "ema", "init": "zeros"}, "init must be one of data, kmeans, normal, got 'zeros'"),
        ({"type": "ibq", "entropy_weight": -1.0}, "entropy_weight must be a number of at least 0, got -1.0"),
        ({"type": "ibq", "entropy_temperature": 0.0}, "entropy_temperature must be a number above 0, got 0.0"),
        ({"type": "ema", "decay": 1.0}, "decay must be a number of at least 0 and below 1, got 1.0"),
        ({"type": "ema", "epsilon": 0.0}, "epsilon must be a number above 0, got 0.0"),
        (
            {"type": "vq", "restart_threshold": 1.0},
            "restart_threshold must be a number of at least 0 and below 1, got 1.0",
        ),
        ({"type": "gumbel", "logits": "cosine"}, "logits must be one of distance, linear, got 'cosine'"),
        ({"type": "gumbel", "logits": "linear"}, "quantizer: .* set init=normal and restart_threshold=0"),
        (
            {"type": "gumbel", "logits": "linear", "init": "normal", "restart_threshold": 0.0, "metric": "cosine"},
            "quantizer: .* leave out metric and entropy_weight, or set logits=distance",
        ),
        ({"type": "gumbel", "kl_weight": -1.0}, "kl_weight must be a number of at least 0, got -1.0"),
        (
            {"type": "gumbel", "temperature_end": 2.0},
            "quantizer: temperature must be at least temperature_end, got 1 and 2",
        ),
        ({"type": "gumbel", "temperature_end": 0.0}, "temperature_end must be a number above 0, got 0.0"),
        (
            {"type": "gumbel", "temperature_steps": 0},
            "temperature_steps must be a whole number of at least 1 or null, got 0",
        ),
        (
            {"type": "product", "num_codebooks": 1},
            "quantizer.num_codebooks must be a whole number from 2 to 1024, got 1",
        ),
        ({"type": "product", "each": {"type": "product"}}, "each.type must be one of bsq, .*, vq, got 'product'"),
        ({"type": "product", "each": {"type": "residual"}}, "each.type must be one of bsq, .*, vq, got 'residual'"),
        (
            {"type": "product", "each": {"type": "vq", "codebook_size": 1}},
            "quantizer.each.codebook_size must be a whole number from 2 to 4294967296, got 1",
        ),
        (
            {"type": "residual", "num_codebooks": 0},
            "quantizer.num_codebooks must be a whole number from 2 to 1024, got 0",
        ),
        (
            {"type": "residual", "stage_dropout": 1.0},
            "quantizer.stage_dropout must be a number of at least 0 and below 1, got 1.0",
        ),
        ({"type": "residual", "gradient": "none"}, "quantizer.gradient must be one of rotation, straight-through"),
        ({"type": "residual", "each": {"type": "fsq"}}, "each.type must be one of ema, simvq, vq, got 'fsq'"),
        ({"type": "residual", "each": {"type": "gumbel"}}, "each.type must be one of ema, simvq, vq, got 'gumbel'"),
        ({"type": "residual", "each": {"type": "ibq"}}, "each.type must be one of ema, simvq, vq, got 'ibq'"),
        ({"type": "residual", "each": {"type": "vq", "metric": "cosine"}}, "each.metric cannot be 'cosine' .* leave"),
        ({"type": "residual", "each": {"type": "vq", "projection_dim": 2}}, "each.projection_dim cannot be 2"),
        (
            {"type": "residual", "each": {"type": "vq", "gradient": "rotation"}},
            "each.gradient cannot be 'rotation' .* set the gradient of the residual quantizer",
        ),
        (
            {"type": "residual", "each": {"type": "ema", "decay": 2.0}},
            "quantizer.each.decay must be a number of at least 0 and below 1, got 2.0",
        ),
    ],
)
def test_options_that_make_no_sense_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        build_quantizer(options)
    assert "\n" not in str(caught.value)
