"""Every likelihood against sums over all values, an independent implementation, and the ends of float32."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical as TorchCategorical
from torch.distributions import Normal

from vqtok.errors import ConfigurationError
from vqtok.losses import LIKELIHOODS, Likelihood, build_reconstruction, in_bits, to_levels, to_values

PROPER: list[dict[str, Any]] = [{"type": "categorical"}, {"type": "logistic"}, {"type": "mixture", "num_components": 3}]
ALL = [*PROPER, {"type": "gaussian"}, {"type": "gaussian", "std": None}]


def likelihood(options: dict[str, Any], num_channels: int = 3) -> Likelihood:
    found = build_reconstruction(options, num_channels=num_channels)
    assert isinstance(found, Likelihood)
    return found


def parameters(found: Likelihood, *shape: int, spread: float = 2.0, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    batch, *size = shape
    return torch.randn(batch, found.num_parameters, *size, generator=generator) * spread


def random_levels(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("options", PROPER, ids=lambda options: options["type"])
@pytest.mark.parametrize("spread", [0.0, 1.0, 5.0])
def test_the_256_probabilities_of_each_channel_sum_to_1(options: dict[str, Any], spread: float) -> None:
    found = likelihood(options)
    given = parameters(found, 1, 1, 1, spread=spread).expand(256, -1, 1, 1)
    for channel in range(3):
        levels = random_levels(1, 3, 1, 1).expand(256, 3, 1, 1).clone()
        levels[:, channel, 0, 0] = torch.arange(256)
        total = found.log_prob(given, levels)[:, channel].exp().double().sum()
        assert float(total) == pytest.approx(1, abs=2e-6)


@pytest.mark.parametrize("options", PROPER, ids=lambda options: options["type"])
@pytest.mark.parametrize("log_scale", [-30.0, -4.0, 0.0, 30.0])
def test_in_float64_the_probabilities_sum_to_1_as_exactly(options: dict[str, Any], log_scale: float) -> None:
    """At the smallest scale an error of a float32 in the value of a level is one of 1e-5 in the sum."""
    found = likelihood(options, num_channels=1)
    given = parameters(found, 4, 2, 2).double()
    if options["type"] != "categorical":
        given[:, -given.shape[1] // 3 :] = log_scale
        given[:, : -given.shape[1] // 3] /= 4
    table = found.table(given, random_levels(4, 1, 2, 2), 0)
    torch.testing.assert_close(table.sum(-1), torch.ones(4, 2, 2, dtype=torch.float64), rtol=0, atol=1e-12)


def test_a_mixture_over_two_channels_sums_to_1_over_all_pairs() -> None:
    found = likelihood({"type": "mixture", "num_components": 4}, num_channels=2)
    pairs = torch.tensor(list(itertools.product(range(256), repeat=2)))[:, :, None, None]
    given = parameters(found, 1, 1, 1).expand(len(pairs), -1, 1, 1)
    assert float(found.negative_log_likelihood(given, to_values(pairs)).neg().exp().sum()) == pytest.approx(1, abs=1e-5)


def test_categorical_is_that_of_torch() -> None:
    found, levels = likelihood({"type": "categorical"}), random_levels(2, 3, 4, 5)
    given = parameters(found, 2, 4, 5)
    wanted = TorchCategorical(logits=given.view(2, 3, 256, 4, 5).movedim(2, -1)).log_prob(levels)
    torch.testing.assert_close(found.log_prob(given, levels), wanted)
    values = torch.arange(256) / 127.5 - 1
    mean = (given.view(2, 3, 256, 4, 5).softmax(2) * values[:, None, None]).sum(2)
    torch.testing.assert_close(found.mean(given), mean, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("options", PROPER, ids=lambda options: options["type"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_table_is_the_probability_of_every_level(options: dict[str, Any], dtype: torch.dtype) -> None:
    found, levels = likelihood(options), random_levels(2, 3, 2, 3)
    given = parameters(found, 2, 2, 3).to(dtype)
    for channel in range(3):
        hidden = levels.clone()
        hidden[:, channel:] = 0  # what a decoder does not know yet
        table = found.table(given, hidden, channel)
        assert table.shape == (2, 2, 3, 256) and table.dtype == dtype
        for level in (0, 1, 100, 254, 255):
            wanted = levels.clone()
            wanted[:, channel] = level
            torch.testing.assert_close(table[..., level], found.log_prob(given, wanted)[:, channel].exp())
        torch.testing.assert_close(table.sum(-1), torch.ones(2, 2, 3, dtype=dtype))


def test_a_density_has_no_table() -> None:
    found = likelihood({"type": "gaussian"})
    with pytest.raises(ConfigurationError, match="a density, which gives the levels of a pixel no probabilities"):
        found.table(parameters(found, 1, 1, 1), random_levels(1, 3, 1, 1), 0)


def cdf(x: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    return torch.special.expit((x - mean) / scale)


def written_out(levels: Tensor, means: Tensor, scales: Tensor) -> Tensor:
    """p of levels from two distribution functions in float64, as the paper writes it."""
    x = levels.double() / 127.5 - 1
    upper = torch.where(levels == 255, 1.0, cdf(x + 1 / 255, means, scales))
    lower = torch.where(levels == 0, 0.0, cdf(x - 1 / 255, means, scales))
    return upper - lower


def test_logistic_is_the_difference_of_two_distribution_functions() -> None:
    found, levels = likelihood({"type": "logistic"}), random_levels(2, 3, 8, 8)
    levels[0, 0] = 0
    levels[1, 1] = 255
    given = parameters(found, 2, 8, 8, spread=0.5)
    means, log_scales = given.double().chunk(2, dim=1)
    scales = torch.exp(log_scales + math.log(0.5 * math.sqrt(3) / math.pi))
    wanted = written_out(levels, means, scales).log()
    torch.testing.assert_close(found.log_prob(given, levels).double(), wanted, atol=2e-5, rtol=1e-5)


def test_logistic_is_exact_far_in_its_tails() -> None:
    """There a difference of float32 sigmoids is 0 and its logarithm -inf."""
    found = likelihood({"type": "logistic"}, num_channels=1)
    given = torch.tensor([0.9, -5.0]).view(1, 2, 1, 1)
    scale = math.exp(-5.0 + math.log(0.5 * math.sqrt(3) / math.pi))
    a, b = (((10 / 127.5 - 1) + side / 255 - 0.9) / scale for side in (1, -1))
    wanted = a + math.log(1 - math.exp(b - a))  # of sigmoid(a) = exp(a) where a is far below 0
    assert wanted < -500
    found_there = float(found.log_prob(given, torch.tensor([10]).view(1, 1, 1, 1)))
    assert found_there == pytest.approx(wanted, rel=1e-5)


def test_a_mixture_is_the_sum_over_its_components() -> None:
    found = likelihood({"type": "mixture", "num_components": 3})
    given, levels = parameters(found, 1, 1, 1, spread=0.7), random_levels(1, 3, 1, 1)
    logits, means, log_scales, slopes = given.flatten().double().split([3, 9, 9, 9])
    means, slopes = means.view(3, 3), slopes.view(3, 3).tanh()
    scales = torch.exp(log_scales.view(3, 3) + math.log(0.5 * math.sqrt(3) / math.pi))
    red, green, _ = (levels.flatten().double() / 127.5 - 1).unbind()
    total = torch.zeros((), dtype=torch.float64)
    for m in range(3):
        centres = [
            means[m, 0],
            means[m, 1] + slopes[m, 0] * red,
            means[m, 2] + slopes[m, 1] * red + slopes[m, 2] * green,
        ]
        each = written_out(levels.flatten(), torch.stack(centres), scales[m])
        total += logits.softmax(0)[m] * each.prod()
    assert float(found.log_prob(given, levels).sum()) == pytest.approx(float(total.log()), rel=1e-5)
    assert float(found.loss(given, to_values(levels))) == pytest.approx(-float(total.log()) / 3, rel=1e-5)


def test_gaussian_is_that_of_torch_in_units_of_a_level() -> None:
    levels = random_levels(2, 3, 4, 4)
    fixed, learned = (likelihood({"type": "gaussian", "std": std}) for std in (0.2, None))
    level = 2 / 255
    given = parameters(fixed, 2, 4, 4, spread=0.5)
    wanted = Normal(given, 0.2).log_prob(to_values(levels)) + math.log(level)
    torch.testing.assert_close(fixed.log_prob(given, levels), wanted)
    given = parameters(learned, 2, 4, 4, spread=0.5)
    means, log_stds = given.chunk(2, dim=1)
    wanted = Normal(means, 0.5 * log_stds.exp()).log_prob(to_values(levels)) + math.log(level)
    torch.testing.assert_close(learned.log_prob(given, levels), wanted)
    assert fixed.is_density and learned.is_density and not likelihood({"type": "logistic"}).is_density


@pytest.mark.parametrize("options", ALL, ids=lambda options: f"{options['type']}{options.get('std', '')}")
def test_samples_are_as_frequent_as_they_are_probable(options: dict[str, Any]) -> None:
    found = likelihood(options, num_channels=2)
    one = parameters(found, 1, 1, 1, spread=0.5)
    torch.manual_seed(0)
    drawn = found.sample(one.expand(20_000, -1, 1, 1))
    assert torch.equal(to_values(to_levels(drawn)), drawn)  # each is a level
    levels = to_levels(drawn).flatten(1)
    entropy = found.negative_log_likelihood(one.expand(20_000, -1, 1, 1), drawn)
    # the mean of -ln p over samples is the entropy, whose two halves of the samples agree
    assert float(entropy[:10_000].mean()) == pytest.approx(float(entropy[10_000:].mean()), rel=0.02)
    if not found.is_density:
        common = int(levels[:, 0].mode().values)
        every = torch.arange(256).view(256, 1, 1, 1).repeat(1, 2, 1, 1)
        p = float(found.log_prob(one.expand(256, -1, 1, 1), every)[common, 0].exp())
        assert float((levels[:, 0] == common).double().mean()) == pytest.approx(p, abs=4 * math.sqrt(p / 20_000))


def test_the_mean_is_that_of_samples() -> None:
    for options in ALL:
        found = likelihood(options)
        one = parameters(found, 1, 1, 1, spread=0.2)  # far from the edges, which cut the samples and not the mean
        log_scales = {6: slice(3, 6), 30: slice(12, 21)}.get(found.num_parameters)
        if log_scales:
            one[:, log_scales] -= 2.5
        torch.manual_seed(0)
        drawn = found.sample(one.expand(40_000, -1, 1, 1)).mean(0)
        torch.testing.assert_close(drawn, found.mean(one)[0], atol=0.01, rtol=0)


@pytest.mark.parametrize("options", ALL, ids=lambda options: f"{options['type']}{options.get('std', '')}")
def test_autocast_changes_nothing(options: dict[str, Any]) -> None:
    found, levels = likelihood(options), random_levels(2, 3, 4, 4)
    given = parameters(found, 2, 4, 4, spread=5.0)
    with torch.autocast("cpu", torch.bfloat16):
        autocast = [found.mean(given), found.log_prob(given, levels), found.loss(given, to_values(levels))]
        autocast += [] if found.is_density else [found.table(given, levels, 1)]
    plain = [found.mean(given), found.log_prob(given, levels), found.loss(given, to_values(levels))]
    plain += [] if found.is_density else [found.table(given, levels, 1)]
    for one, other in zip(autocast, plain, strict=True):
        torch.testing.assert_close(one, other)  # and of one type


def test_the_mean_of_a_mixture_has_no_component_beyond_the_edges() -> None:
    """A component far below black stands for black: half of it and half white are grey, as their samples are."""
    found = likelihood({"type": "mixture", "num_components": 2}, num_channels=2)
    means, log_scales, slopes = [-20.0, -20.0, 1.0, 0.0], [-3.0] * 4, [9.0] * 2  # black twice; white and what that is
    given = torch.tensor([0.0, 0.0, *means, *log_scales, *slopes]).view(1, -1, 1, 1)
    drawn = found.sample(given.expand(20_000, -1, 1, 1), torch.Generator().manual_seed(0)).mean(0)
    torch.testing.assert_close(found.mean(given)[0], drawn, atol=0.05, rtol=0)


@pytest.mark.parametrize("options", ALL, ids=lambda options: f"{options['type']}{options.get('std', '')}")
@pytest.mark.parametrize("size", [0.0, 1.0, 1e4, 1e30, -1e4, -1e30])
def test_values_and_gradients_are_finite_at_the_ends_of_float32(options: dict[str, Any], size: float) -> None:
    found = likelihood(options)
    for seed in range(3):
        given = parameters(found, 1, 2, 2, spread=1.0, seed=seed).sign() * size
        given.requires_grad_()
        levels = random_levels(1, 3, 2, 2)
        levels[..., 0, 0], levels[..., 1, 1] = 0, 255
        loss = found.loss(given, to_values(levels))
        loss.backward()
        assert loss.isfinite()
        assert given.grad is not None and given.grad.isfinite().all()


@pytest.mark.parametrize("options", ALL, ids=lambda options: f"{options['type']}{options.get('std', '')}")
def test_gradients_are_those_of_finite_differences(options: dict[str, Any]) -> None:
    found = likelihood(options, num_channels=2)
    given = parameters(found, 1, 2, 1, spread=0.5).double().requires_grad_()
    levels = random_levels(1, 2, 2, 1)
    levels[0, 0, 0], levels[0, 1, 0] = 0, 255
    assert torch.autograd.gradcheck(lambda p: found.log_prob(p, levels), (given,), atol=1e-6)


def test_a_uniform_decoder_has_exactly_8_bits() -> None:
    found = likelihood({"type": "categorical"})
    nats = found.negative_log_likelihood(torch.zeros(2, 768, 4, 4), to_values(random_levels(2, 3, 4, 4)))
    bits = in_bits(distortion=float(nats[0]) / 48, rate=0.0)
    assert bits["bits_per_dim"] == pytest.approx(8, abs=1e-7)
    assert in_bits(distortion=math.log(2), rate=2 * math.log(2)) == pytest.approx(
        {"bits_per_dim": 3, "distortion": 1, "rate": 2}
    )


def test_levels_and_values_are_inverse() -> None:
    levels = torch.arange(256)
    assert torch.equal(to_levels(to_values(levels)), levels)
    assert torch.equal(to_values(levels), levels.float().div(127.5).sub(1))


def test_bfloat16_parameters_are_taken_in_float32() -> None:
    found = likelihood({"type": "logistic"})
    given = parameters(found, 1, 2, 2).bfloat16()
    assert found.log_prob(given, random_levels(1, 3, 2, 2)).dtype == torch.float32


def test_every_likelihood_says_what_its_decoder_has_to_give() -> None:
    channels = {name: build_reconstruction({"type": name}, num_channels=3).num_parameters for name in LIKELIHOODS}
    assert channels == {"mse": 3, "categorical": 768, "logistic": 6, "mixture": 100, "gaussian": 3}


def test_a_gaussian_as_narrow_as_is_allowed_is_finite_and_a_narrower_one_is_refused() -> None:
    found = likelihood({"type": "gaussian", "std": 1e-4}, num_channels=1)
    given = torch.tensor([1e30, -1e30, 1.0]).view(1, 1, 1, 3).requires_grad_()
    loss = found.loss(given, torch.zeros(1, 1, 1, 3))
    (gradient,) = torch.autograd.grad(loss, given)
    assert loss.isfinite() and gradient.isfinite().all()
    for std in (1e-30, 0.0):
        with pytest.raises(ConfigurationError, match=r"likelihood.std must be a number from 0.0001 to 1000.0 or null"):
            likelihood({"type": "gaussian", "std": std})


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="likelihood.type must be one of mse, categorical"):
        build_reconstruction({"type": "softmax"}, num_channels=3)
    with pytest.raises(ConfigurationError, match="num_components must be"):
        build_reconstruction({"type": "mixture", "num_components": 0}, num_channels=3)
