"""How far off and how noisy is the gradient that each method has for discrete codes?

    python scripts/gradients.py [--draws 200000] [--seed 0]

On a toy whose gradients are known: an image of 4x4 pixels and two codes of four values, so that all sixteen pairs of
codes, and all draws of four of them, can be enumerated. The decoder is a tiny network of the library, the posterior is
given by eight logits, and the gradient is that of minus the bound in nats to these logits. Every estimate comes from
the code of the library that trains with it:

    straight-through    vqtok.quantizers.gradients.straight_through: the decoder gets the embeddings of sampled codes,
                        and its gradient goes to the mixture of all embeddings by their probabilities
    Gumbel-softmax      GumbelQuantizer.sample: soft, or hard with the gradient of the soft mixture
    likelihood ratio    LikelihoodRatio with nothing, a learned constant or the best constant off the signal
    VIMCO               VIMCO

Of the first two the KL is in closed form, of the others sampled. `bias` is |mean - exact| / |exact| and behind it what
an unbiased estimate shows in so many draws, `variance` the sum over the logits of the variance of one draw, divided by
|exact|^2, and `decoded` how many times one draw runs the decoder. `loss` says of which bound the gradient is.
"""

from __future__ import annotations

import argparse
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from vqtok.baselines import build_baseline
from vqtok.baselines.categorical import CategoricalModel
from vqtok.baselines.latent_variable import multi_sample_bound
from vqtok.quantizers import GumbelQuantizer
from vqtok.quantizers.gradients import straight_through

BOOKS, VALUES, DIM, SIDE = 2, 4, 4, 4
SAMPLES = 4
AT_ONCE = 5000  # draws in a batch


class GivenLogits(nn.Module):
    """An encoder that gives every image logits of its own, so that one backward pass has a gradient for each."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.logits[: len(pixel_values)]


@dataclass(frozen=True)
class Toy:
    """A model with as many copies of one posterior as there are draws at once, and the image, as often."""

    model: CategoricalModel
    pixels: Tensor

    @property
    def logits(self) -> nn.Parameter:
        assert isinstance(self.model.encoder, GivenLogits)
        return self.model.encoder.logits


def make(method: str, seed: int, *, copies: int = AT_ONCE, **options: object) -> Toy:
    """The toy; all methods have the same posterior, decoder and image for a seed."""
    torch.manual_seed(seed)
    model = build_baseline(
        {"type": method, "num_codebooks": BOOKS, "codebook_size": VALUES, "code_dim": DIM, **options},
        image_size=SIDE,
        num_channels=1,
        network={"hidden_size": 8, "residual_size": 4, "num_residual_blocks": 1},
        likelihood={"type": "gaussian", "std": 0.3},
    ).double()
    assert isinstance(model, CategoricalModel)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        model.codebook.copy_(torch.randn(model.codebook.shape, generator=generator))
        for each in model.decoder.parameters():
            each.copy_(torch.randn(each.shape, generator=generator) / math.sqrt(max(1, each[0].numel())))
        logits = torch.randn(1, BOOKS * VALUES, 1, 1, generator=generator, dtype=torch.float64)
        image = model.likelihood.mean(model.decode(model.embed(torch.zeros(1, 1, 1, BOOKS, dtype=torch.int64))))
    model.encoder = GivenLogits(logits.repeat(copies, 1, 1, 1))
    return Toy(model, image.clamp(-1, 1).repeat(copies, 1, 1, 1))


def exact_gradient(toy: Toy, samples: int) -> tuple[Tensor, float]:
    """By all draws of so many samples the gradient (8,) of minus the bound, and the best constant off the signal.

    With s the gradient of ln q of a draw, L its bound and g the gradient of L, an estimate is (L - c) s + g, whose
    variance is least at c = E[s . (L s + g)] / E[s . s].
    """
    model, image = toy.model, toy.pixels[:1]
    values = torch.arange(VALUES)
    codes = torch.cartesian_prod(*[values] * BOOKS).view(-1, 1, 1, 1, BOOKS)
    log_q = model.posterior(image).log_prob(codes)[:, 0]
    log_p_x = model.log_likelihood(model.decode(model.embed(codes.flatten(0, 1))), image)[:, 0]
    log_w = log_p_x.detach() - BOOKS * math.log(VALUES) - log_q
    draws = torch.tensor(list(itertools.product(range(len(codes)), repeat=samples))).T
    bounds, log_probability = multi_sample_bound(log_w[draws]), log_q[draws].sum(0)
    shares = log_w[draws].softmax(0).detach()
    (exact,) = torch.autograd.grad(-(log_probability.exp() * bounds).sum(), toy.logits, retain_graph=True)
    scores = torch.stack([torch.autograd.grad(each, toy.logits, retain_graph=True)[0][0].flatten() for each in log_q])
    score, own = scores[draws].sum(0), -(shares[..., None] * scores[draws]).sum(0)
    probability = log_probability.exp().detach()
    along = (score * (bounds.detach()[:, None] * score + own)).sum(1)
    best = (probability * along).sum() / (probability * score.square().sum(1)).sum()
    return exact[0].flatten(), float(best)


class Constant(nn.Module):
    """Expects the same of every image, in nats per dimension."""

    def __init__(self, nats: float) -> None:
        super().__init__()
        self.nats_per_dimension = nats / SIDE**2

    def forward(self, pixel_values: Tensor) -> Tensor:
        return pixel_values.new_full((len(pixel_values),), self.nats_per_dimension)


def learn_to_expect(toy: Toy) -> None:
    """Train the network of a LikelihoodRatio that expects, and nothing else."""
    assert isinstance(toy.model.expected, nn.Module)
    optimizer = torch.optim.Adam(toy.model.expected.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        toy.model(toy.pixels[:64], reconstruct=False).loss.backward()
        optimizer.step()


def of_training(toy: Toy) -> Tensor:
    """Minus the bound of every copy in nats, as the model is trained: a scalar."""
    loss: Tensor = toy.model(toy.pixels, reconstruct=False).loss
    return loss * SIDE**2


def with_vectors(toy: Toy, vectors: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """Minus the bound of one sample with the KL in closed form, where the vectors of a code come from its logits."""
    logits = toy.logits.view(-1, BOOKS, VALUES)
    books = toy.model.codebook.view(BOOKS, VALUES, DIM)
    latents = torch.cat([vectors(logits[:, book], books[book]) for book in range(BOOKS)], dim=1)
    log_p_x = toy.model.log_likelihood(toy.model.decode(latents[:, :, None, None]), toy.pixels)
    return (toy.model.posterior(toy.pixels).kl() - log_p_x[0]).mean()


def sampled_straight_through(logits: Tensor, book: Tensor) -> Tensor:
    """Embeddings of sampled codes, with the gradient of the mixture of all."""
    probabilities = logits.softmax(1)
    codes = torch.multinomial(probabilities.detach(), 1).squeeze(1)
    return straight_through(probabilities @ book, book[codes])


def gumbel(temperature: float, *, hard: bool) -> Callable[[Tensor, Tensor], Tensor]:
    quantizer = GumbelQuantizer(codebook_size=VALUES, code_dim=DIM, hard=hard)
    return lambda logits, book: quantizer.sample(logits, book, torch.tensor(temperature))


def methods(seed: int) -> Iterator[tuple[str, int, int, Toy, Callable[[Toy], Tensor]]]:
    """Name, samples of the bound, runs of the decoder, toy and loss of each row."""
    plain = make("vimco", seed)
    yield "straight-through", 1, 1, plain, lambda toy: with_vectors(toy, sampled_straight_through)
    for hard in (True, False):
        for tau in (1.0, 0.5, 0.1):
            vectors = gumbel(tau, hard=hard)
            name = f"Gumbel-softmax, {'hard' if hard else 'soft'}, temperature {tau:g}"
            yield name, 1, 1, plain, lambda toy, vectors=vectors: with_vectors(toy, vectors)  # type: ignore[misc]
    for samples in (1, SAMPLES):
        for baseline in ("nothing", "a learned baseline", "the best constant"):
            kind = "none" if baseline == "nothing" else "learned"
            toy = make("likelihood-ratio", seed, num_samples=samples, baseline=kind)
            if baseline == "a learned baseline":
                learn_to_expect(toy)
            elif baseline == "the best constant":
                toy.model.expected = Constant(exact_gradient(toy, samples)[1])
            yield f"likelihood ratio, {baseline} off the signal", samples, samples, toy, of_training
    yield "VIMCO", SAMPLES, SAMPLES, make("vimco", seed, num_samples=SAMPLES), of_training


def measured(toy: Toy, loss: Callable[[Toy], Tensor], exact: Tensor, draws: int) -> tuple[float, float, float]:
    """Bias of the mean of so many estimates, what noise alone would make of it, and the variance of one."""
    number, total, squares = 0, torch.zeros_like(exact), torch.zeros_like(exact)
    while number < draws:
        (gradient,) = torch.autograd.grad(loss(toy), toy.logits)
        each = gradient.flatten(1) * len(gradient)
        number, total, squares = number + len(each), total + each.sum(0), squares + each.square().sum(0)
    mean = total / number
    variance = float((squares / number - mean.square()).sum())
    size = float(exact.norm())
    return float((mean - exact).norm()) / size, math.sqrt(variance / number) / size, variance / size**2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=200_000, help="estimates of each gradient")
    parser.add_argument("--seed", type=int, default=0, help="of the toy and of all draws")
    chosen = parser.parse_args()
    exact = {samples: exact_gradient(make("vimco", chosen.seed), samples)[0] for samples in (1, SAMPLES)}
    print("| gradient | loss | decoded | bias | variance |")
    print("| --- | --- | ---: | ---: | ---: |")
    for name, samples, decoded, toy, loss in methods(chosen.seed):
        torch.manual_seed(chosen.seed + 1)
        bias, noise, variance = measured(toy, loss, exact[samples], chosen.draws)
        bound = "bound of one sample" if samples == 1 else f"bound of {samples} samples"
        print(f"| {name} | {bound} | {decoded} | {bias:.4f} (noise {noise:.4f}) | {variance:.4g} |", flush=True)


if __name__ == "__main__":
    main()
