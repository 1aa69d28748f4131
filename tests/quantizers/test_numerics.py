"""Numbers and shapes at the edge: nothing crashes, nothing becomes NaN that was not, and NaN is not kept silent."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
import torch

from tests.quantizers.methods import VARIANTS, small
from vqtok.quantizers import Quantizer, build_quantizer

every_variant = pytest.mark.parametrize("options", VARIANTS, ids=lambda options: options["type"])
INITS = ["data", "kmeans", "normal"]


def sized(options: dict[str, Any], size: int, **more: Any) -> dict[str, Any]:
    """The options with another K, where a codebook is learned; `more` where that is an option too."""
    if "each" in options:
        return options | {"each": sized(options["each"], size, **more)}
    if options["type"] in ("bsq", "lfq"):
        return options | {"codebook_size": size}
    if options["type"] == "fsq":
        return options | {"levels": [size]}
    return options | {"codebook_size": size} | (more if options.get("logits") != "linear" else {})


def train(quantizer: Quantizer, batches: Sequence[torch.Tensor], *, learning_rate: float = 1e-2) -> None:
    """A step a batch, with an optimizer, under bfloat16 autocast every other time; everything must stay finite."""
    scales = torch.ones(quantizer.code_dim, 1, 1, requires_grad=True)  # the smallest encoder there is
    optimizer = torch.optim.AdamW([scales, *quantizer.parameters()], lr=learning_rate)
    quantizer.train()
    for step, batch in enumerate(batches):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=step % 2 == 1):
            latents = batch * scales
            output = quantizer(latents)
            loss = output.loss + output.quantized.square().sum() / max(1, latents.numel())
        assert output.quantized.isfinite().all() and loss.isfinite(), f"step {step}"
        assert all(value.isfinite() for value in output.metrics.values())
        assert bool(((output.codes >= -1) & (output.codes < quantizer.codebook_size)).all())
        optimizer.zero_grad()
        loss.backward()
        for parameter in (scales, *quantizer.parameters()):
            assert parameter.grad is None or parameter.grad.isfinite().all(), f"step {step}"
        optimizer.step()
    for name, tensor in quantizer.state_dict().items():
        assert tensor.isfinite().all(), name
    output = quantizer.eval()(batches[0])
    assert output.quantized.isfinite().all() and output.loss.isfinite()
    assert torch.equal(quantizer.decode(quantizer.encode(batches[0])), output.quantized)
    assert quantizer.distortion(batches[0]).isfinite().all()


def noise(quantizer: Quantizer, *shape: int) -> list[torch.Tensor]:
    batch, height, width = shape
    return list(torch.randn(6, batch, quantizer.code_dim, height, width))


@pytest.mark.parametrize("scale", [1e15, 1e4, 1e-4, 1e-20, 0.0])
@every_variant
def test_latents_of_any_size(options: dict[str, Any], scale: float) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(options)
    train(quantizer, [scale * batch for batch in noise(quantizer, 2, 3, 3)])


@pytest.mark.parametrize("scale", [1e15, 1e-20, 0.0])
@pytest.mark.parametrize(
    ("method", "option"),
    [
        *itertools.product(["ema", "vq", "simvq", "ibq", "gumbel"], [{"metric": "cosine"}, {"entropy_weight": 1.0}]),
        *((method, {"gradient": "rotation"}) for method in ("ema", "vq", "simvq")),  # the others have their own
    ],
    ids=str,
)
def test_latents_of_any_size_with_every_option(method: str, option: dict[str, Any], scale: float) -> None:
    torch.manual_seed(0)
    quantizer = small(method, **option)
    train(quantizer, [scale * batch for batch in noise(quantizer, 2, 3, 3)])


def test_an_entropy_term_between_codes_out_of_reach_has_a_gradient() -> None:
    """The probability of a code far from all latents is 0 in float32, and the slope of -p log p there is infinite."""
    torch.manual_seed(0)
    quantizer = build_quantizer(
        {"type": "vq", "codebook_size": 8, "code_dim": 3, "init": "normal", "entropy_weight": 1.0}
    )
    with torch.no_grad():
        quantizer.codebook[4:] = 100.0
    train(quantizer, noise(quantizer, 2, 3, 3))


def test_the_rotation_of_a_latent_of_length_zero_passes_no_gradient() -> None:
    quantizer = build_quantizer({"type": "vq", "code_dim": 3, "gradient": "rotation", "init": "normal", "beta": 0.0})
    latents = torch.zeros(1, 3, 1, 2, requires_grad=True)
    with torch.no_grad():
        latents[0, 0, 0, 1] = 1.0
    quantizer(latents).quantized.sum().backward()
    assert latents.grad is not None
    assert latents.grad[..., 0].abs().max() == 0
    assert 0 < latents.grad[..., 1].abs().max() < 10


@every_variant
def test_one_row(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(options)
    train(quantizer, noise(quantizer, 1, 1, 1))


@every_variant
def test_two_codes(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(sized(options, 2))
    assert quantizer.codebook_size == 2
    train(quantizer, noise(quantizer, 2, 3, 3))


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("method", ["ema", "gumbel", "ibq", "simvq", "vq"])
def test_more_codes_than_rows(method: str, init: str) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer({"type": method, "codebook_size": 50, "code_dim": 3, "init": init})
    train(quantizer, noise(quantizer, 1, 2, 2))


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("options", [o for o in VARIANTS if "each" in o and o["each"]["type"] != "fsq"])
def test_more_codes_than_rows_in_every_codebook(options: dict[str, Any], init: str) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(sized(options, 50, init=init))
    train(quantizer, noise(quantizer, 1, 2, 2))


@pytest.mark.parametrize("place", [0, 3])
@every_variant
def test_an_empty_batch(options: dict[str, Any], place: int) -> None:
    """As the first one, too: the codes start on the next."""
    torch.manual_seed(0)
    quantizer = build_quantizer(options)
    batches = noise(quantizer, 2, 3, 3)
    batches.insert(place, batches[0][:0])
    train(quantizer, batches)
    empty = quantizer(batches[place])
    number = () if quantizer.num_codebooks == 1 else (quantizer.num_codebooks,)
    assert empty.codes.shape == quantizer.encode(batches[place]).shape == (0, 3, 3, *number)


@pytest.mark.parametrize("init", ["data", "kmeans"])
def test_codes_start_on_the_first_batch_with_rows(init: str) -> None:
    quantizer = build_quantizer({"type": "vq", "codebook_size": 4, "code_dim": 2, "init": init, "decay": 0.0})
    before = quantizer.codebook.detach().clone()
    quantizer(torch.randn(0, 2, 3, 3))
    assert not bool(quantizer.initialized)
    assert torch.equal(quantizer.codebook, before)
    rows = 100 + torch.randn(1, 2, 2, 2)
    quantizer(rows)
    assert bool(quantizer.initialized)
    assert quantizer.codebook.min() > 90


def test_an_empty_batch_leaves_a_moving_average_without_memory_where_it_was() -> None:
    """Counts and sums are 0 then, and 0 / 0 is no place for a code."""
    quantizer = build_quantizer({"type": "ema", "codebook_size": 4, "code_dim": 2, "decay": 0.0, "init": "normal"})
    before = quantizer.codebook.clone()
    quantizer(torch.randn(0, 2, 3, 3))
    assert torch.equal(quantizer.codebook, before)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("where", ["everywhere", "one number"])
@every_variant
def test_nan_is_not_kept_silent(options: dict[str, Any], where: str, training: bool) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(options)
    latents = noise(quantizer, 2, 3, 3)[0]
    quantizer(latents)
    latents[0, 0, 0, 0] = torch.nan
    if where == "everywhere":
        latents.fill_(torch.nan)
    output = quantizer.train(training)(latents)
    assert output.quantized[0, :, 0, 0].isnan().any() or output.loss.isnan()
    assert -1 <= int(output.codes.min()) <= int(output.codes.max()) < quantizer.codebook_size
    codes = quantizer.encode(latents)
    assert 0 <= int(codes.min()) <= int(codes.max()) < quantizer.codebook_size
