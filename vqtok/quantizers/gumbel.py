"""Sampling made soft: Gumbel-softmax over the codes. Jang et al. 2017, arXiv:1611.01144; Maddison et al. 2017.

In training a code is sampled from q = softmax(logits), relaxed at temperature tau,

    y = softmax((logits + g) / tau),  g ~ Gumbel(0, 1)        quantized = y E  (soft)  or  E[argmax y]  (hard)

where hard carries the gradient of the soft mixture (straight-through Gumbel). The loss is the divergence of q from
the uniform prior, KL(q || 1/K) = log K - H(q), as in the discrete autoencoder of Ramesh et al. 2021. Evaluation takes
the argmax of the logits.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx, once_differentiable

from vqtok.options import TrainingOnly
from vqtok.quantizers.codebook import CodebookQuantizer, Projection, QuantizedRows
from vqtok.quantizers.codebook_options import CodebookOptions
from vqtok.quantizers.lookup import gather_codes
from vqtok.quantizers.restart import RestartOptions

__all__ = ["GumbelOptions", "GumbelQuantizer"]


WITHOUT_A_RUN = 5000  # training batches until the last temperature, where nobody said how long training will take


class GumbelOptions(RestartOptions, CodebookOptions):
    """Options of `gumbel`; the temperature is tau. Codes that noise alone chooses restart sooner than elsewhere."""

    type: Literal["gumbel"] = "gumbel"
    logits: Literal["distance", "linear"] = Field(
        "distance",
        description="distance takes -||z - e||^2, so that evaluation is nearest-code search; linear learns a map from "
        "latents to K logits, with init=normal and restart_threshold=0",
    )
    hard: Annotated[bool, TrainingOnly()] = Field(True, description="pass one code on rather than the mixture")
    kl_weight: Annotated[float, TrainingOnly()] = Field(
        5e-4, ge=0, description="weight of the KL to the uniform prior, in nats per position"
    )
    temperature: Annotated[float, TrainingOnly()] = Field(1.0, gt=0, description="temperature at the start")
    temperature_end: Annotated[float, TrainingOnly()] = Field(
        0.0625, gt=0, description="temperature that it falls to exponentially"
    )
    temperature_steps: Annotated[Annotated[int, Field(ge=1)] | None, TrainingOnly()] = Field(
        None, description="training batches until then; null takes half of a run's steps"
    )
    restart_threshold: Annotated[float, TrainingOnly()] = Field(
        0.2, ge=0, lt=1, description=RestartOptions.model_fields["restart_threshold"].description
    )

    @model_validator(mode="after")
    def _options_go_together(self) -> Self:
        linear = self.logits == "linear"
        if linear and (self.init != "normal" or self.restart_threshold != 0):
            raise ValueError("logits=linear does not put codes on latents: set init=normal and restart_threshold=0")
        if linear and (self.metric != "euclidean" or self.entropy_weight != 0):
            raise ValueError(
                "logits=linear measures no distances: leave out metric and entropy_weight, or set logits=distance"
            )
        if self.temperature < self.temperature_end:
            raise ValueError(
                f"temperature must be at least temperature_end, got {self.temperature:g} and {self.temperature_end:g}"
            )
        return self


class DivergenceFromUniform(Function):
    """KL(softmax(l) || 1/K) of rows of logits (N, K), whose derivative is q_k (log q_k - sum_j q_j log q_j).

    Autograd would keep three (N, K) and go over them eleven times; this keeps the derivative alone.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, logits: Tensor) -> Tensor:
        # Nothing under e^-80: a CPU is many times slower on numbers that are no longer normal.
        log_q = logits.log_softmax(dim=1).clamp_(min=-80.0)
        q = log_q.exp()
        products = log_q.mul_(q)
        negative_entropies = products.sum(dim=1, keepdim=True)
        ctx.save_for_backward(products.addcmul_(q, negative_entropies, value=-1))
        return negative_entropies.squeeze(1) + math.log(logits.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        derivative: Tensor = ctx.saved_tensors[0]
        return derivative * gradient[:, None]


def divergence_from_uniform(logits: Tensor) -> Tensor:
    """KL(softmax(logits) || 1/K) in nats, (N, K) -> (N,)."""
    divergences: Tensor = DivergenceFromUniform.apply(logits)
    return divergences


class GumbelQuantizer(CodebookQuantizer):
    """Codes sampled in training, the most probable one in evaluation.

    Shapes: latents (B, D, h, w); codes (B, h, w) in [0, K). The codes of a forward pass in training are those of
    `encode` as well, so that what is counted as used, and restarts, is what evaluation takes; `quantized` is sampled.
    """

    paper = "Jang et al. 2017, arXiv:1611.01144"

    Options = GumbelOptions
    options: GumbelOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.codebook = nn.Parameter(torch.empty(self.codebook_size, self.embedding_dim))
        if self.options.logits == "linear":
            self.to_logits = Projection(self.embedding_dim, self.codebook_size)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.options.logits == "linear":
            self.to_logits.init_weights()

    def quantize_rows(self, rows: Tensor) -> QuantizedRows:
        embeddings = self.embeddings()
        logits = self.logits_of(rows, embeddings)
        losses = {"kl": (self.options.kl_weight, divergence_from_uniform(logits).sum() / max(1, len(rows)))}
        losses |= self.entropy_losses(rows, embeddings)
        codes = self.encode_rows(rows)
        tau = self.current_temperature()
        if not self.training:
            vectors = gather_codes(embeddings, codes)
            if rows.requires_grad:  # of an encoder that learns while this is frozen
                mixture = (logits / tau).softmax(dim=1) @ embeddings.detach()
                vectors = vectors + (mixture - mixture.detach())
            return QuantizedRows(vectors=vectors, codes=codes, losses=losses)
        vectors = self.sample(logits, embeddings, tau)
        return QuantizedRows(vectors=vectors, codes=codes, losses=losses | {"temperature": (0.0, tau)})

    def logits_of(self, rows: Tensor, embeddings: Tensor) -> Tensor:
        """Unnormalised log-probabilities of the codes, (N, d) -> (N, K)."""
        if self.options.logits == "linear":
            logits: Tensor = self.to_logits(rows)
            return logits
        return self.affinity(rows, embeddings)

    @torch.no_grad()
    def encode_rows(self, rows: Tensor) -> Tensor:
        """argmax of the logits, (N, d) -> int64 (N,)."""
        if self.options.logits == "distance":
            return super().encode_rows(rows)
        return self.logits_of(rows, self.codebook).argmax(dim=1)

    def sample(self, logits: Tensor, embeddings: Tensor, tau: Tensor) -> Tensor:
        """One relaxed sample a row, or the vector of the code that it leans to most: (N, d) with its gradient."""
        # -log of an exponential number; torch draws uniform ones and takes their logarithm four times as fast.
        exponential = torch.empty_like(logits).uniform_().log_().neg_()
        soft = ((logits - exponential.log_()) / tau).softmax(dim=1)
        if not self.options.hard:
            return soft @ embeddings
        mixture = soft @ embeddings.detach()
        return gather_codes(embeddings, soft.argmax(dim=1)) + (mixture - mixture.detach())

    def current_temperature(self) -> Tensor:
        """tau after the batches seen so far, a scalar on the device."""
        first, last = self.options.temperature, self.options.temperature_end
        steps = self.options.temperature_steps or WITHOUT_A_RUN
        progress = (self.noise.batches_seen / steps).clamp(max=1.0)
        return first * (last / first) ** progress
