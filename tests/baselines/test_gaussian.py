"""The Gaussian posterior and the bounds of VAE and IWAE, against torch.distributions and what is known exactly."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Independent, MultivariateNormal, Normal, kl_divergence

from tests.baselines.models import make, pixels
from vqtok.baselines import VAE
from vqtok.baselines.gaussian import DiagonalGaussian, log_normal
from vqtok.baselines.latent_variable import multi_sample_bound
from vqtok.losses import to_values


def posterior() -> DiagonalGaussian:
    torch.manual_seed(0)
    return DiagonalGaussian.of(2 * torch.randn(3, 8, 2, 2, dtype=torch.float64))


def test_kl_and_log_probabilities_are_those_of_torch() -> None:
    q = posterior()
    theirs = Independent(Normal(q.mean, (0.5 * q.log_variance).exp()), 3)
    unit = Independent(Normal(torch.zeros_like(q.mean), torch.ones_like(q.mean)), 3)
    torch.testing.assert_close(q.kl(), kl_divergence(theirs, unit))
    noise = q.noise(5, torch.Generator().manual_seed(0))
    z = q.at(noise)
    torch.testing.assert_close(q.log_prob(noise), theirs.log_prob(z))
    torch.testing.assert_close(log_normal(z), unit.log_prob(z))


def test_near_the_prior_the_kl_keeps_its_digits() -> None:
    """At variance 1 + 1e-6 it is 2.5e-13, where variance - 1 - ln variance is lost in float32."""
    small = torch.full((1, 1, 1, 1), 1e-6)
    assert float(DiagonalGaussian(torch.zeros_like(small), small).kl()) >= 0
    wanted = 0.5 * (math.expm1(0.01) - 0.01)
    found = DiagonalGaussian(torch.zeros_like(small), torch.full_like(small, 0.01)).kl()
    assert float(found) == pytest.approx(wanted, rel=1e-4)


def test_whatever_the_encoder_gives_all_is_finite_and_inside_the_bounds_exact() -> None:
    extreme = torch.tensor([-1e30, -20.0, 0.0, 20.0, 1e30]).view(1, 5, 1, 1)
    given = torch.cat([extreme, extreme.flip(1)], dim=1).requires_grad_()
    q = DiagonalGaussian.of(given)
    total = q.kl().sum() + q.at(q.noise(2)).square().mean()
    total.backward()
    assert total.isfinite() and given.grad is not None and given.grad.isfinite().all()
    inside = torch.randn(1, 4, 1, 1, dtype=torch.float64, requires_grad=True)
    assert torch.equal(
        torch.cat([DiagonalGaussian.of(inside).mean, DiagonalGaussian.of(inside).log_variance], 1), inside
    )
    assert torch.autograd.gradcheck(lambda given: DiagonalGaussian.of(given).kl(), inside)
    half = DiagonalGaussian.of(torch.randn(1, 4, 1, 1, dtype=torch.bfloat16))
    assert half.mean.dtype == half.log_variance.dtype == torch.float32


class LinearGaussian(VAE):
    """x = W z + noise of one deviation, whose p(x) is known; the posterior is given, and is not the exact one."""

    def linear(self) -> tuple[Tensor, float]:
        generator = torch.Generator().manual_seed(5)
        return torch.randn(256, 16, generator=generator, dtype=torch.float64) / 12, 0.3

    def posterior(self, pixel_values: Tensor, labels: Tensor | None = None) -> DiagonalGaussian:
        weights, std = self.linear()
        precision = torch.eye(16, dtype=torch.float64) + weights.T @ weights / std**2
        mean = torch.linalg.solve(precision, weights.T @ pixel_values.double().flatten(1).T / std**2).T
        log_variance = -torch.log(precision.diagonal()) + self.widening
        return DiagonalGaussian(mean.view(-1, 1, 4, 4), log_variance.view(1, 1, 4, 4).expand(len(mean), -1, -1, -1))

    def decode(self, latents: Tensor, labels: Tensor | None = None) -> Tensor:
        return (latents.double().flatten(1) @ self.linear()[0].T).view(-1, 1, 16, 16)

    widening = 0.4


def linear_problem() -> tuple[Any, Tensor, Tensor]:
    """A model, images that it is likely to make, and ln p(x) of each, exactly."""
    base = make("vae", likelihood={"type": "gaussian", "std": 0.3}, latent_dim=1)
    model = LinearGaussian(base.config).eval()
    weights, std = model.linear()
    covariance = weights @ weights.T + std**2 * torch.eye(256, dtype=torch.float64)
    exact = MultivariateNormal(torch.zeros(256, dtype=torch.float64), covariance)
    torch.manual_seed(2)
    images = exact.sample((3,)).clamp(-1, 1)
    images = to_values(((images + 1) * 127.5).round().long()).view(3, 1, 16, 16)
    units = 256 * math.log(2 / 255)  # densities here are in units of one level of 8 bits
    return model, images, exact.log_prob(images.double().flatten(1)) + units


def test_bounds_of_a_linear_gaussian_are_above_and_close_to_what_is_exact() -> None:
    """One sample is the exact value plus KL(q || exact posterior); many samples come within a fraction of it."""
    model, images, exact = linear_problem()
    weights, std = model.linear()
    q = model.posterior(images)
    precision = torch.eye(16, dtype=torch.float64) + weights.T @ weights / std**2
    true = MultivariateNormal(q.mean.flatten(1), precision_matrix=precision)
    gap = kl_divergence(MultivariateNormal(q.mean.flatten(1), torch.diag_embed(q.log_variance.flatten(1).exp())), true)
    generator = torch.Generator().manual_seed(0)
    single = torch.stack([model.bound(images, generator=generator).total for _ in range(100)])
    error = single.std(0) / 10
    assert ((single.mean(0) - (gap - exact)).abs() < 5 * error).all() and gap.min() > 0.5
    many = model.bound(images, num_samples=2000, generator=generator).total
    assert ((many + exact).abs() < 0.1 * gap).all()


def test_the_bound_of_several_samples_rises_with_them_and_is_the_elbo_at_one() -> None:
    """On common random numbers: S samples as S, as S / 2 twice, and as one at a time."""
    model, images, exact = linear_problem()
    draw = model.draw(model.posterior(images), 2048, torch.Generator().manual_seed(1))
    weights = (model.log_likelihood(model.decode(draw.latents), images) + draw.log_p - draw.log_q).view(-1, 32, 3)
    means = [
        torch.stack([multi_sample_bound(each) for each in weights.reshape(-1, size, 3)]).mean(0)
        for size in (1, 4, 16, 64, 512)
    ]
    for tighter, looser in zip(means[1:], means[:-1], strict=True):
        assert (tighter > looser).all()
    assert (means[-1] < exact + 0.05).all()
    torch.testing.assert_close(means[0], weights.flatten(0, 1).mean(0))  # the estimate of the ELBO


def test_iwae_of_one_sample_is_the_elbo_with_the_same_noise() -> None:
    model, images = make("iwae", num_samples=1), pixels(3)
    torch.manual_seed(7)
    loss = model(images).loss
    torch.manual_seed(7)
    q = model.posterior(images)
    draw = model.draw(q, 1)
    log_p_x = model.log_likelihood(model.decode(draw.latents), images)
    torch.testing.assert_close(loss, (-(log_p_x + draw.log_p - draw.log_q).mean() / 256).float())
    torch.manual_seed(7)
    vae = make("vae")
    vae.load_state_dict(model.state_dict())
    torch.manual_seed(7)
    output = vae(images)
    other = (draw.log_q - draw.log_p).mean() / 256 - q.kl().mean() / 256
    torch.testing.assert_close(loss - output.loss, other.float(), atol=1e-5, rtol=1e-4)  # only the KL is another


@pytest.mark.parametrize("method", ["vae", "iwae"])
def test_gradients_are_those_of_finite_differences_with_fixed_noise(method: str) -> None:
    model, images = make(method).double().train(), pixels(2).double()
    parameters = dict(model.named_parameters())

    def loss() -> Tensor:
        """In float64; the loss of training is the same in float32."""
        q = model.posterior(images)
        noise = torch.Generator().manual_seed(3)
        if method == "vae":
            latents = q.at(q.noise(1, noise))[0]
            return model.likelihood.loss(model.decode(latents), images) + q.kl().mean() / 256
        draw = model.draw(q, 3, noise)
        weights = model.log_likelihood(model.decode(draw.latents), images) + draw.log_p - draw.log_q
        return -multi_sample_bound(weights).mean() / 256

    loss().backward()
    for name in ("encoder.0.weight", "decoder.0.bias", "decoder.0.weight"):
        each = parameters[name]
        assert each.grad is not None
        index = int(each.grad.abs().argmax())
        with torch.no_grad():
            flat = each.view(-1)
            before = float(flat[index])
            flat[index] = before + 1e-5
            above = float(loss())
            flat[index] = before - 1e-5
            below = float(loss())
            flat[index] = before
        assert (above - below) / 2e-5 == pytest.approx(float(each.grad.view(-1)[index]), rel=1e-4)
    torch.manual_seed(0)
    trained = model(images)  # and what is trained is that loss
    trained.loss.backward()
    assert trained.loss.dtype == torch.float32 or method == "vae"


def test_beta_weighs_the_rate() -> None:
    images, losses = pixels(3), []
    for beta in (0.0, 1.0, 4.0):
        model = make("vae", beta=beta)
        torch.manual_seed(1)
        output = model(images)
        losses.append(output.loss)
        parts = output.losses
        torch.testing.assert_close(output.loss, parts["distortion"] + beta * parts["rate"])
    assert losses[0] < losses[1] < losses[2]
