"""Gradients of discrete codes against the exact ones, by enumerating all codes of a tiny model."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.baselines.models import make, pixels
from vqtok.baselines import build_baseline
from vqtok.baselines.categorical import CategoricalPosterior, score_function
from vqtok.baselines.latent_variable import multi_sample_bound
from vqtok.baselines.vimco import leave_one_out


class GivenLogits(nn.Module):
    """An encoder that gives every image logits of its own, so that one backward pass has a gradient for each."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.logits[: len(pixel_values)]


def tiny(method: str, copies: int, **options: Any) -> Any:
    """4x4 images with one position of two codes of three values: nine grids of codes; many copies of one posterior."""
    torch.manual_seed(0)
    model: Any = build_baseline(
        {"type": method, "num_codebooks": 2, "codebook_size": 3, "code_dim": 4, **options},
        image_size=4,
        num_channels=1,
        network={"hidden_size": 4, "residual_size": 2, "num_residual_blocks": 1},
        likelihood={"type": "gaussian", "std": 0.5},
    )
    model.encoder = GivenLogits(torch.randn(1, 6, 1, 1).repeat(copies, 1, 1, 1))
    return model.double().eval()


def images(copies: int) -> Tensor:
    return pixels(1)[:, :, :4, :4].double().repeat(copies, 1, 1, 1)


def exact_gradient(model: Any, samples: int) -> tuple[Tensor, Tensor, float]:
    """The bound in nats per dimension with its sign turned, by all draws of so many samples: its gradient to the logits
    (6,) and to the decoder's first bias (4,), and itself.
    """
    q = model.posterior(images(1))
    codes = torch.cartesian_prod(torch.arange(3), torch.arange(3)).view(9, 1, 1, 1, 2)
    log_q = q.log_prob(codes)[:, 0]  # (9,)
    log_p_x = model.log_likelihood(model.decode(model.embed(codes.flatten(0, 1))), images(1))[:, 0]
    log_w = log_p_x - 2 * math.log(3) - log_q
    draws = torch.tensor(list(itertools.product(range(9), repeat=samples))).T  # (S, 9^S)
    loss = -(log_q[draws].sum(0).exp() * multi_sample_bound(log_w[draws])).sum() / 16
    logits, bias = torch.autograd.grad(loss, [model.encoder.logits, model.decoder[0].bias])
    return logits[0].flatten(), bias, float(loss.detach())


COPIES = 5000


def estimates(method: str, batches: int = 1, **options: Any) -> tuple[Any, Tensor, Tensor, Tensor]:
    """The model; of many draws the gradients to the logits (N, 6); of each batch that to the bias, and the loss."""
    model = tiny(method, COPIES, **options)
    if model_expects := getattr(model, "expected", None):
        optimizer = torch.optim.Adam(model_expects.parameters(), lr=0.02)
        for _ in range(100):
            optimizer.zero_grad()
            model(images(64), reconstruct=False).loss.backward()
            optimizer.step()
    torch.manual_seed(3)
    logits, biases, losses = [], [], []
    for _ in range(batches):
        loss = model(images(COPIES), reconstruct=False).loss
        each, bias = torch.autograd.grad(loss, [model.encoder.logits, model.decoder[0].bias])
        logits.append(each.flatten(1) * COPIES)
        biases.append(bias)
        losses.append(loss.detach())
    return model, torch.cat(logits), torch.stack(biases), torch.stack(losses)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("vimco", {"num_samples": 2}),
        ("vimco", {"num_samples": 3}),
        ("likelihood-ratio", {"num_samples": 1}),
        ("likelihood-ratio", {"num_samples": 2}),
        ("likelihood-ratio", {"num_samples": 2, "baseline": "none"}),
    ],
)
def test_gradients_are_unbiased(method: str, options: dict[str, Any]) -> None:
    """The mean of 60,000 estimates is within 4.5 standard errors of the exact gradient, which is far from zero."""
    model, logits, biases, losses = estimates(method, 12, **options)
    exact_logits, exact_bias, bound = exact_gradient(model, options["num_samples"])
    for found, exact in ((logits, exact_logits), (biases, exact_bias), (losses, torch.tensor(bound))):
        error = found.std(0) / math.sqrt(len(found))
        assert ((found.mean(0) - exact).abs() < 4.5 * error).all()
    error = logits.std(0).norm() / math.sqrt(len(logits))
    assert exact_logits.norm() > 20 * error or options.get("baseline") == "none"


def test_vimco_varies_less_than_the_plain_estimator() -> None:
    """Of the same bound of three samples: VIMCO, a learned baseline, and nothing taken off the signal."""
    vimco = estimates("vimco", num_samples=3)[1].var(0).sum()
    learned = estimates("likelihood-ratio", num_samples=3)[1].var(0).sum()
    plain = estimates("likelihood-ratio", num_samples=3, baseline="none")[1].var(0).sum()
    assert vimco < 0.9 * learned and learned < 0.5 * plain


def test_leave_one_out_is_the_loop_of_the_paper() -> None:
    torch.manual_seed(0)
    log_w = 3 * torch.randn(5, 2, dtype=torch.float64)
    found = leave_one_out(log_w)
    for image in range(2):
        for left_out in range(5):
            others = [log_w[s, image].exp() for s in range(5) if s != left_out]
            geometric = math.prod(others) ** (1 / 4)
            wanted = math.log((sum(others) + geometric) / 5)
            assert float(found[left_out, image]) == pytest.approx(wanted, rel=1e-12)
    moved = log_w.clone()
    moved[2] += 10  # what is expected of a sample does not depend on it
    assert torch.equal(leave_one_out(moved)[2], found[2])
    assert leave_one_out(1e6 * log_w).isfinite().all()


def test_a_score_function_has_a_gradient_and_no_value() -> None:
    log_q = torch.randn(3, 2, requires_grad=True)
    signals = torch.randn(3, 2, requires_grad=True)
    added = score_function(log_q, signals)
    assert torch.equal(added, torch.zeros(2))
    added.sum().backward()
    assert log_q.grad is not None and torch.equal(log_q.grad, signals.detach())
    assert signals.grad is None


def test_codes_come_as_often_as_they_are_probable() -> None:
    torch.manual_seed(0)
    log_probs = (2 * torch.randn(1, 1, 2, 2, 7)).log_softmax(-1)
    log_probs[0, 0, 0, 0] = torch.tensor([0.0] + [-torch.inf] * 6)  # certain of the first value
    log_probs[0, 0, 0, 1] = torch.tensor([-torch.inf] * 6 + [0.0])
    codes = CategoricalPosterior(log_probs).sample(40_000, torch.Generator().manual_seed(0))
    assert codes.shape == (40_000, 1, 1, 2, 2) and codes.dtype == torch.int64
    shares = torch.stack([(codes == value).double().mean(0) for value in range(7)], dim=-1)
    deviation = (log_probs.exp() * (1 - log_probs.exp()) / 40_000).sqrt()
    assert ((shares - log_probs.exp()).abs() <= 5 * deviation + 1e-12).all()


def test_log_probabilities_and_divergence_are_those_of_torch() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 3, 4, 2, 5, dtype=torch.float64)
    q = CategoricalPosterior(logits.log_softmax(-1))
    theirs = torch.distributions.Independent(torch.distributions.Categorical(logits=logits), 3)
    codes = q.sample(6)
    torch.testing.assert_close(q.log_prob(codes), theirs.log_prob(codes))
    uniform = torch.distributions.Independent(torch.distributions.Categorical(logits=torch.zeros_like(logits)), 3)
    torch.testing.assert_close(q.kl(), torch.distributions.kl_divergence(theirs, uniform))


def test_embeddings_stand_one_after_another() -> None:
    model = make("vimco")
    codes = torch.randint(5, (2, 4, 4, 2))
    latents = model.embed(codes)
    assert latents.shape == (2, 6, 4, 4)
    for book in range(2):
        wanted = model.codebook[5 * book : 5 * (book + 1)][codes[1, 2, 3, book]]
        assert torch.equal(latents[1, 3 * book : 3 * (book + 1), 2, 3], wanted)
    best = model.posterior(pixels()).log_probs.argmax(-1)
    assert torch.equal(model.encode(pixels()), model.embed(best))
