"""Sampling made soft: Gumbel-softmax over the codes. Jang et al. 2017, arXiv:1611.01144; Maddison et al. 2017.

In training a code is drawn from q = softmax(logits), relaxed at temperature tau,

    y = softmax((logits + g) / tau),  g ~ Gumbel(0, 1)        quantized = y E  (soft)  or  E[argmax y]  (hard)

where hard carries the gradient of the soft mixture (straight-through Gumbel). The loss is the divergence of q from
the uniform prior, KL(q || 1/K) = log K - H(q), as in the discrete autoencoder of Ramesh et al. 2021. Evaluation takes
the argmax of the logits.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from vqtok.errors import ConfigurationError
from vqtok.quantizers.base import at_least_zero, one_of
from vqtok.quantizers.codebook import Chosen
from vqtok.quantizers.lookup import gather_codes
from vqtok.quantizers.restart import RestartingQuantizer

__all__ = ["GumbelQuantizer"]

LOGITS = ("distance", "linear")


class GumbelQuantizer(RestartingQuantizer):
    """Codes drawn at random in training, the most probable one in evaluation.

    Args:
        logits: "distance" takes -||z - e_k||^2, so that evaluation is nearest-code search; "linear" learns a map
            from latents to K logits. There codes are not placed on latents, which needs start="normal" and
            restart_threshold=0, and have no distances, so that metric and entropy_weight stay at their defaults.
        hard: pass one code on rather than the mixture.
        kl_weight: weight of the divergence from the uniform prior, in nats per position.
        restart_threshold: CIFAR-10, 400 steps, MSE over variance and codes in use of 512: 0.1268 and 499 with 0.2,
            0.1417 and 433 with 0.05.
        temperature, temperature_end, temperature_steps: tau falls from the first to the second over that many training
            batches along an exponential, then stays.
        shared: see RestartingQuantizer and CodebookQuantizer.

    Shapes: latents (B, D, h, w); codes (B, h, w) in [0, K). A hard forward pass in training gives drawn codes, so
    `decode(output.codes)` equals `output.quantized` there, and `encode` may give others.
    """

    paper = "Jang et al. 2017, arXiv:1611.01144"

    batches_seen: Tensor
    training_state = ("batches_seen", "cluster_size", "started")

    def __init__(
        self,
        *,
        logits: str = "distance",
        hard: bool = True,
        kl_weight: float = 5e-4,
        temperature: float = 1.0,
        temperature_end: float = 0.0625,
        temperature_steps: int = 5000,
        restart_threshold: float = 0.2,
        **shared: Any,
    ) -> None:
        super().__init__(restart_threshold=restart_threshold, **shared)
        one_of("logits", logits, LOGITS)
        at_least_zero(kl_weight=kl_weight)
        if logits == "linear" and (self.start != "normal" or self.restart_threshold != 0):
            raise ConfigurationError(
                "quantizer.logits='linear' does not place codes on latents: "
                "set quantizer.start=normal and quantizer.restart_threshold=0"
            )
        if logits == "linear" and (self.metric != "euclidean" or self.entropy_weight != 0):
            raise ConfigurationError(
                "quantizer.logits='linear' measures no distances: "
                "leave out quantizer.metric and quantizer.entropy_weight, or set quantizer.logits=distance"
            )
        if not temperature >= temperature_end > 0:
            raise ConfigurationError(
                "quantizer.temperature must be at least quantizer.temperature_end and both above 0, "
                f"got {temperature} and {temperature_end}"
            )
        if temperature_steps < 1:
            raise ConfigurationError(f"quantizer.temperature_steps must be at least 1, got {temperature_steps}")
        self.logits = logits
        self.hard = hard
        self.kl_weight = kl_weight
        self.temperature = temperature
        self.temperature_end = temperature_end
        self.temperature_steps = temperature_steps
        self.codebook = nn.Parameter(torch.empty(self.codebook_size, self.vector_dim))
        if logits == "linear":
            self.to_logits = nn.Linear(self.vector_dim, self.codebook_size)
        self.register_buffer("batches_seen", torch.empty((), dtype=torch.int64))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.batches_seen)
        if self.logits == "linear":
            nn.init.xavier_uniform_(self.to_logits.weight)
            nn.init.zeros_(self.to_logits.bias)

    def choose(self, rows: Tensor) -> Chosen:
        table = self.table()
        logits = self.logits_of(rows, table)
        log_q = logits.log_softmax(dim=1)
        divergences = (log_q.exp() * log_q).sum(dim=1) + math.log(self.codebook_size)
        losses = {"kl": (self.kl_weight, divergences.sum() / max(1, len(rows)))}
        losses |= dict(self.entropy_losses(rows, table))
        if not self.training:
            codes = self.code_of(rows)
            return Chosen(vectors=gather_codes(table, codes), codes=codes, losses=losses)
        tau = self.current_temperature()
        vectors, codes = self.draw(logits, table, tau)
        return Chosen(vectors=vectors, codes=codes, losses=losses | {"temperature": (0.0, tau)})

    @torch.no_grad()
    def learn(self, rows: Tensor, codes: Tensor) -> None:
        if self.restart_threshold > 0:  # noise draws codes that evaluation never takes: those count as dead
            super().learn(rows, self.code_of(rows))
        self.batches_seen += 1

    def logits_of(self, rows: Tensor, table: Tensor) -> Tensor:
        """Unnormalised log-probabilities of the codes, (N, d) -> (N, K)."""
        if self.logits == "linear":
            return linear(rows, self.to_logits.weight.float(), self.to_logits.bias.float())
        return self.affinity(rows, table)

    @torch.no_grad()
    def code_of(self, rows: Tensor) -> Tensor:
        """argmax of the logits, (N, d) -> int64 (N,)."""
        if self.logits == "distance":
            return super().code_of(rows)
        return self.logits_of(rows, self.codebook).argmax(dim=1)

    def draw(self, logits: Tensor, table: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        """One relaxed draw a row: vectors (N, d) with their gradient, and the codes (N,) it leans to most."""
        exponential = torch.empty_like(logits).exponential_()
        soft = ((logits - exponential.log()) / tau).softmax(dim=1)
        codes = soft.argmax(dim=1)
        if not self.hard:
            return soft @ table, codes
        mixture = soft @ table.detach()
        return gather_codes(table, codes) + (mixture - mixture.detach()), codes

    def current_temperature(self) -> Tensor:
        """tau after the batches seen so far, a scalar on the device."""
        progress = (self.batches_seen / self.temperature_steps).clamp(max=1.0)
        return self.temperature * (self.temperature_end / self.temperature) ** progress
