"""What every baseline does alike."""

from __future__ import annotations

import math
import re

import pytest
import torch

from tests.baselines.models import METHODS, WITH_PRIOR, make, make_labels, pixels
from vqtok.baselines import BASELINES, BaselineOutput
from vqtok.errors import CheckpointError, ConfigurationError
from vqtok.hub import BASELINES as CALLED


@pytest.mark.parametrize("method", METHODS)
def test_a_step_lowers_the_loss_of_the_same_images(method: str) -> None:
    model, images, labels = make(method).train(), pixels(8), make_labels(method, 8)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(30):
        output: BaselineOutput = model(images, labels)
        assert output.loss is not None and output.losses is not None
        assert output.loss.shape == () and output.loss.dtype == torch.float32
        assert all(not part.requires_grad for part in output.losses.values())
        optimizer.zero_grad()
        output.loss.backward()
        assert all(each.grad is not None and each.grad.isfinite().all() for each in model.parameters())
        optimizer.step()
        losses.append(float(output.loss.detach()))
    assert losses[-1] < losses[0] - 0.05
    assert output.reconstruction is not None and output.reconstruction.shape == images.shape
    assert model(images, labels, reconstruct=False).reconstruction is None


@pytest.mark.parametrize("likelihood", ["categorical", "logistic", "mixture", "gaussian"])
@pytest.mark.parametrize("method", METHODS)
def test_any_likelihood_and_colour(method: str, likelihood: str) -> None:
    model, images = make(method, likelihood=likelihood, num_channels=3), pixels(2, num_channels=3)
    labels = make_labels(method, 2)
    model(images, labels).loss.backward()
    assert model.reconstruct(images, labels).shape == images.shape


@pytest.mark.parametrize("method", METHODS)
def test_reconstructions_and_the_ends_of_interpolations_are_the_same(method: str) -> None:
    model, images, labels = make(method), pixels(4), make_labels(method, 4)
    decoded = model.reconstruct(images, labels)
    assert decoded.shape == images.shape and decoded.abs().max() <= 1
    torch.testing.assert_close(model.reconstruct(images, labels), decoded)  # without noise
    between = model.interpolate(images[:2], images[2:], 5, None if labels is None else labels[:2])
    assert between.shape == (2, 5, 1, 16, 16)
    torch.testing.assert_close(between[:, 0], decoded[:2])
    if labels is None:
        torch.testing.assert_close(between[:, -1], decoded[2:])
    a, b = (model.encode(half, None if labels is None else labels[:2]) for half in images.split(2))
    middle = model.pixels_of((a + b) / 2, None if labels is None else labels[:2])
    torch.testing.assert_close(between[:, 2], middle)


@pytest.mark.parametrize("method", WITH_PRIOR)
def test_samples_are_those_of_their_seed(method: str) -> None:
    model, labels = make(method), make_labels(method, 4)
    first = model.sample(4, labels, seed=3)
    assert first.shape == (4, 1, 16, 16) and first.abs().max() <= 1
    torch.rand(3)
    torch.testing.assert_close(model.sample(4, labels, seed=3), first, rtol=0, atol=0)
    assert not torch.equal(model.sample(4, labels, seed=4), first)
    assert not torch.equal(first[0], first[3])
    fresh = [model.sample(4, labels) for _ in range(2)]
    assert not torch.equal(*fresh)


@pytest.mark.parametrize("method", WITH_PRIOR)
def test_a_bound_is_distortion_and_rate_and_falls_with_samples(method: str) -> None:
    model, images, labels = make(method), pixels(3), make_labels(method)
    generator = torch.Generator()
    single = model.bound(images, labels, generator=generator.manual_seed(0))
    assert all(each.shape == (3,) and each.dtype == torch.float64 for each in single)
    torch.testing.assert_close(single.total, single.distortion + single.rate)
    assert single.rate.min() > 0
    repeated = model.bound(images, labels, generator=generator.manual_seed(0))
    assert all(torch.equal(*pair) for pair in zip(single, repeated, strict=True))
    # So many samples that they come in several groups: the rate is in closed form, the total is tighter on average.
    many = model.bound(images, labels, 40, generator.manual_seed(0))
    torch.testing.assert_close(many.rate, single.rate)
    assert (many.total < many.distortion + many.rate).all()


@pytest.mark.parametrize("method", WITH_PRIOR)
def test_the_rate_is_the_mean_of_ln_q_minus_ln_p(method: str) -> None:
    """The KL in closed form against samples: the mean over 4,000 within five standard errors."""
    model, labels = make(method), make_labels(method)
    with torch.no_grad():
        posterior = model.posterior(pixels(3), labels)
        draw = model.draw(posterior, 4000, torch.Generator().manual_seed(0))
    each = (draw.log_q - draw.log_p).double()
    error = each.std(0) / math.sqrt(len(each))
    assert ((each.mean(0) - posterior.kl()).abs() < 5 * error).all()


@pytest.mark.parametrize("method", METHODS)
def test_what_does_not_fit_is_refused_in_one_line(method: str) -> None:
    model, images, labels = make(method), pixels(2), make_labels(method, 2)
    with pytest.raises(ConfigurationError, match=r"pixel values must be \(B, 1, H, W\), got \(2, 3, 16, 16\)"):
        model(pixels(2, num_channels=3), labels)
    with pytest.raises(ConfigurationError, match="at least 2 steps, got .* and 1 steps"):
        model.interpolate(images, images, 1, labels)
    if method == "cvae":
        with pytest.raises(ConfigurationError, match="type cvae needs the classes of the images as labels"):
            model(images)
        with pytest.raises(ConfigurationError, match=r"labels must be in \[0, 3\), got 0 to 3"):
            model(images, torch.tensor([0, 3]))
        with pytest.raises(ConfigurationError, match=r"labels must be int64 \(2,\), got torch.float32 \(2,\)"):
            model.sample(2, torch.zeros(2))
    else:
        with pytest.raises(ConfigurationError, match=f"type {method} has no classes: leave the labels out"):
            model(images, torch.zeros(2, dtype=torch.int64))
    if method == "autoencoder":
        for refused in (lambda: model.sample(2), lambda: model.bound(images)):
            with pytest.raises(ConfigurationError, match="an autoencoder has no prior to .*: train a vae, or a VQ-VAE"):
                refused()
    else:
        with pytest.raises(ConfigurationError, match="num_samples must be at least 1, got 0"):
            model.bound(images, labels, 0)
        with pytest.raises(ConfigurationError, match="num_images must be at least 1, got 0"):
            model.sample(0)
    with pytest.raises(CheckpointError, match=r"holds a baseline \(.*\): only tokenizers, priors and codes are pushed"):
        model.push_to_hub("somebody/something")


def test_the_hub_knows_every_baseline() -> None:
    assert set(CALLED) == {config.model_type for config, _ in BASELINES.values()}
    for name, (config, _) in BASELINES.items():
        assert config.model_type == f"vqtok-{name}" and re.fullmatch("[a-z-]+", name)
        assert config.method.model_fields["type"].default == name
