"""Discrete codes with a probability for each: what `vimco` and `likelihood-ratio` learn by different gradients.

At each position of the grid stand Q codes of K values. The encoder gives a softmax over the values of each, the prior
is uniform, and the decoder gets the embeddings of a position's codes one after another, as those of `product`.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import embedding

from vqtok.baselines.base import BaselineOutput
from vqtok.baselines.configuration import BaselineConfig, MethodOptions
from vqtok.baselines.latent_variable import Draw, LatentVariableModel, multi_sample_bound, per_dimension
from vqtok.losses.base import exact

__all__ = ["CategoricalModel", "CategoricalOptions", "CategoricalPosterior", "score_function"]


class CategoricalOptions(MethodOptions):
    """What the options of every method with discrete codes have; by default the 8 x 8 x 10 codes of the paper."""

    num_codebooks: int = Field(10, ge=1, le=2**10, description="codes per position, Q")
    codebook_size: int = Field(512, ge=2, le=2**16, description="values of a code, K")
    code_dim: int = Field(16, ge=1, le=2**12, description="dimension of the embedding of a code")


@dataclass(frozen=True)
class CategoricalPosterior:
    """q(z | x), in which codes are independent: `log_probs` is (B, h, w, Q, K) in float32 at least."""

    log_probs: Tensor

    def kl(self) -> Tensor:
        """KL(q || uniform) = L ln K - H(q), nats per image: (B,)."""
        values = self.log_probs.shape[-1]
        codes = self.log_probs[0].numel() // values
        return codes * math.log(values) + (self.log_probs.exp() * self.log_probs).flatten(1).sum(1)

    @torch.no_grad()
    def sample(self, num_samples: int, generator: torch.Generator | None = None) -> Tensor:
        """Codes int64 (S, B, h, w, Q), where the distribution function passes uniform numbers."""
        # torch.multinomial draws K numbers for one sample of K values: 300 ms more for 32 images of the paper's codes
        cdf = self.log_probs.exp().cumsum_(-1)
        uniform = torch.rand((*cdf.shape[:-1], num_samples), generator=generator, dtype=cdf.dtype, device=cdf.device)
        codes = torch.searchsorted(cdf, uniform * cdf[..., -1:], right=True).clamp_(max=cdf.shape[-1] - 1)
        return codes.movedim(-1, 0)

    def log_prob(self, codes: Tensor) -> Tensor:
        """ln q(z | x) of codes (S, B, h, w, Q) in nats: float64 (S, B)."""
        each = self.log_probs.gather(-1, codes.movedim(0, -1))  # (B, h, w, Q, S)
        precise = torch.float32 if each.device.type == "mps" else torch.float64
        return each.flatten(1, -2).sum(1, dtype=precise).t()


class CategoricalModel(LatentVariableModel):
    """Images to probabilities of codes (B, h, w, Q) and back.

    `codebook` is (Q * K, code_dim): the embeddings of the first code of a position, then those of the second.
    """

    def __init__(self, config: BaselineConfig) -> None:
        chosen = config.chosen
        self.num_codebooks, self.codebook_size = chosen.num_codebooks, chosen.codebook_size
        logits = self.num_codebooks * self.codebook_size
        super().__init__(config, encoder_dim=logits, decoder_dim=self.num_codebooks * chosen.code_dim)
        self.codebook = nn.Parameter(torch.randn(logits, chosen.code_dim))

    def forward(
        self, pixel_values: Tensor, labels: Tensor | None = None, *, reconstruct: bool = True
    ) -> BaselineOutput:
        self.checked_labels(labels, len(pixel_values))
        posterior = self.posterior(pixel_values)
        draw = self.draw(posterior, self.config.chosen.num_samples)
        parameters = self.decode(draw.latents)
        log_likelihood = self.log_likelihood(parameters, pixel_values)
        log_weights = log_likelihood + draw.log_p - draw.log_q
        signals, extra = self.signals(log_weights.detach(), pixel_values)
        # The bound itself has the gradient to the decoder and that of its weights to q; what remains is that other
        # codes would have been drawn. It adds a gradient and no value, and the loss is the bound.
        bound = multi_sample_bound(log_weights) + score_function(draw.log_q, signals)
        parts = {"distortion": -log_likelihood.detach(), "rate": (draw.log_q - draw.log_p).detach()}
        loss = per_dimension(-bound, pixel_values)
        for error in extra.values():
            loss = loss + (error - error.detach())
        return BaselineOutput(
            loss=loss,
            losses={name: per_dimension(nats, pixel_values) for name, nats in parts.items()}
            | {name: error.detach() for name, error in extra.items()},
            reconstruction=self.likelihood.mean(parameters[: len(pixel_values)]) if reconstruct else None,
        )

    @abstractmethod
    def signals(self, log_weights: Tensor, pixel_values: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """How much better each sample did than expected, in nats, by which ln q of its codes is to rise.

        Args:
            log_weights: ln w of each sample, (S, B), without a gradient.
            pixel_values: what they are samples for.

        Returns:
            (S, B), without a gradient; and losses, by name, of what learns to expect.
        """

    def posterior(self, pixel_values: Tensor, labels: Tensor | None = None) -> CategoricalPosterior:
        logits = self.encoder(self.checked(pixel_values)).permute(0, 2, 3, 1)
        logits = exact(logits).unflatten(-1, (self.num_codebooks, self.codebook_size))
        return CategoricalPosterior(logits.log_softmax(-1))

    def encode(self, pixel_values: Tensor, labels: Tensor | None = None) -> Tensor:
        self.checked_labels(labels, len(pixel_values))
        return self.embed(self.posterior(pixel_values).log_probs.argmax(-1))

    def embed(self, codes: Tensor) -> Tensor:
        """Latents (B, Q * code_dim, h, w) of codes int64 (B, h, w, Q), in channels_last."""
        first = torch.arange(self.num_codebooks, device=codes.device) * self.codebook_size
        return embedding(codes + first, self.codebook).flatten(-2).permute(0, 3, 1, 2)

    def draw(
        self, posterior: CategoricalPosterior, num_samples: int = 1, generator: torch.Generator | None = None
    ) -> Draw:
        codes = posterior.sample(num_samples, generator)
        log_q = posterior.log_prob(codes)
        codes_per_image = codes[0, 0].numel()
        log_p = torch.full_like(log_q, -codes_per_image * math.log(self.codebook_size), requires_grad=False)
        return Draw(self.embed(codes.flatten(0, 1)), log_q, log_p)

    def sample_prior(self, num_images: int, generator: torch.Generator | None) -> Tensor:
        shape = (num_images, *self.grid, self.num_codebooks)
        codes = torch.randint(self.codebook_size, shape, generator=generator)
        return self.embed(codes.to(self.device))


def score_function(log_q: Tensor, signals: Tensor) -> Tensor:
    """sum_s signal_s grad ln q(z_s | x) as the gradient of zeros (B,), of ln q and signals, both (S, B).

    It is the likelihood-ratio gradient, or REINFORCE: Williams 1992.
    """
    weighted = (signals.detach() * log_q).sum(0)
    return weighted - weighted.detach()
