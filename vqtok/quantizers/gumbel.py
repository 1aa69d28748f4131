"""Sampling made soft: Gumbel-softmax over the codes. Jang et al. 2017, arXiv:1611.01144; Maddison et al. 2017.

In training a code is drawn from q = softmax(logits), relaxed at temperature tau,

    y = softmax((logits + g) / tau),  g ~ Gumbel(0, 1)        quantized = y E  (soft)  or  E[argmax y]  (hard)

where hard carries the gradient of the soft mixture (straight-through Gumbel). The loss is the divergence of q from
the uniform prior, KL(q || 1/K) = log K - H(q), as in the discrete autoencoder of Ramesh et al. 2021. Evaluation takes
the argmax of the logits.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, linear

from vqtok.errors import ConfigurationError
from vqtok.quantizers.base import QuantizerOutput, from_rows, to_rows
from vqtok.quantizers.codebook import CodebookQuantizer
from vqtok.quantizers.lookup import nearest_codes

__all__ = ["GumbelQuantizer"]


class GumbelQuantizer(CodebookQuantizer):
    """Codes drawn at random in training, the most probable one in evaluation.

    Args:
        codebook_size: K, number of codes.
        code_dim: D, dimension of each.
        logits: "distance" takes -||z - e_k||^2, so that evaluation is nearest-code search; "linear" learns a map
            from latents to K logits.
        hard: pass one code on rather than the mixture.
        kl_weight: weight of the divergence from the uniform prior, in nats per position.
        temperature, temperature_end, temperature_steps: tau falls from the first to the second over that many training
            batches along an exponential, then stays.
        start, restart_threshold, decay: see CodebookQuantizer; only for logits="distance", where a code without
            latents near it is never drawn.

    Shapes: latents (B, D, h, w); codes (B, h, w) in [0, K). A hard forward pass in training gives drawn codes, so
    `decode(output.codes)` equals `output.quantized` there, and `encode` may give others.
    """

    batches_seen: Tensor
    training_state = ("cluster_size", "started", "batches_seen")

    def __init__(
        self,
        *,
        codebook_size: int = 512,
        code_dim: int = 64,
        logits: str = "distance",
        hard: bool = True,
        kl_weight: float = 5e-4,
        temperature: float = 1.0,
        temperature_end: float = 0.0625,
        temperature_steps: int = 5000,
        start: str = "latents",
        restart_threshold: float = 0.05,
        decay: float = 0.99,
    ) -> None:
        super().__init__(
            codebook_size=codebook_size,
            code_dim=code_dim,
            start=start,
            restart_threshold=restart_threshold,
            decay=decay,
        )
        if logits not in ("distance", "linear"):
            raise ConfigurationError(f"quantizer.logits must be 'distance' or 'linear', got {logits!r}")
        if logits == "linear" and (start != "normal" or restart_threshold != 0):
            raise ConfigurationError(
                "quantizer.logits='linear' does not place codes on latents: "
                "set quantizer.start=normal and quantizer.restart_threshold=0"
            )
        if not kl_weight >= 0:
            raise ConfigurationError(f"quantizer.kl_weight must be at least 0, got {kl_weight}")
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
        self.codebook = nn.Parameter(torch.empty(codebook_size, code_dim))
        if logits == "linear":
            self.to_logits = nn.Linear(code_dim, codebook_size)
        self.register_buffer("batches_seen", torch.empty((), dtype=torch.int64))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.batches_seen)
        if self.logits == "linear":
            nn.init.xavier_uniform_(self.to_logits.weight)
            nn.init.zeros_(self.to_logits.bias)

    def encode(self, latents: Tensor) -> Tensor:
        batch, _, height, width = latents.shape
        return self.most_probable(to_rows(latents)).view(batch, height, width)

    def forward(self, latents: Tensor) -> QuantizerOutput:
        batch, _, height, width = latents.shape
        grid = (batch, height, width)
        with torch.autocast(latents.device.type, enabled=False):
            rows = to_rows(latents)
            if self.training:
                self.start_once(rows.detach())
            codebook = self.codebook.clone()  # a restart below may write to the original before backward
            logits = self.logits_of(rows, codebook)
            log_q = logits.log_softmax(dim=1)
            kl = (log_q.exp() * log_q).sum(dim=1).mean() + torch.log(logits.new_tensor(self.codebook_size))
            metrics = {"kl": kl.detach()}
            if self.training:
                metrics["temperature"] = tau = self.current_temperature()
                quantized, codes = self.draw(logits, codebook, tau)
                counts = self.count_use(rows, codes)
                self.restart_dead(rows.detach(), counts.sum())
                self.batches_seen += 1
            else:
                codes = self.most_probable(rows)
                quantized = embedding(codes, self.codebook)
        return QuantizerOutput(
            quantized=from_rows(quantized, grid), codes=codes.view(grid), loss=self.kl_weight * kl, metrics=metrics
        )

    def logits_of(self, rows: Tensor, codebook: Tensor) -> Tensor:
        """Unnormalised log-probabilities of the codes, (N, D) -> (N, K)."""
        if self.logits == "linear":
            return linear(rows, self.to_logits.weight.float(), self.to_logits.bias.float())
        squares = rows.square().sum(dim=1, keepdim=True) + codebook.square().sum(dim=1)
        return torch.addmm(squares, rows, codebook.t(), beta=-1, alpha=2)

    @torch.no_grad()
    def most_probable(self, rows: Tensor) -> Tensor:
        """argmax of the logits, (N, D) -> int64 (N,)."""
        if self.logits == "distance":
            return nearest_codes(rows, self.codebook)
        with torch.autocast(rows.device.type, enabled=False):
            return self.logits_of(rows, self.codebook).argmax(dim=1)

    def draw(self, logits: Tensor, codebook: Tensor, tau: Tensor) -> tuple[Tensor, Tensor]:
        """One relaxed draw a row: vectors (N, D) with their gradient, and the codes (N,) it leans to most."""
        exponential = torch.empty_like(logits).exponential_()
        soft = ((logits - exponential.log()) / tau).softmax(dim=1)
        codes = soft.argmax(dim=1)
        if not self.hard:
            return soft @ codebook, codes
        mixture = soft @ codebook.detach()
        return embedding(codes, codebook) + (mixture - mixture.detach()), codes

    def current_temperature(self) -> Tensor:
        """tau after the batches seen so far, a scalar on the device."""
        progress = (self.batches_seen / self.temperature_steps).clamp(max=1.0)
        return self.temperature * (self.temperature_end / self.temperature) ** progress
