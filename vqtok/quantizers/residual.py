"""Residual quantization: each stage codes what the ones before it left.

Zeghidour et al. 2021, arXiv:2107.03312, algorithm 1:

    r_1 = z        r_(i+1) = r_i - sg[e_i]        quantized = e_1 + ... + e_Q

The commitment of every stage reaches the encoder, for r_i carries the gradient of z: only the codes are held constant.
The sum passes its gradient back once, however many stages there are.
"""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn

from vqtok.errors import ConfigurationError
from vqtok.quantizers.base import EACH, GRADIENTS, Quantizer, QuantizerOutput, from_rows, one_of, to_rows
from vqtok.quantizers.codebook import Chosen
from vqtok.quantizers.nearest import NearestCodeQuantizer

__all__ = ["ResidualQuantizer"]


class ResidualQuantizer(Quantizer):
    """Q stages of one kind, from coarse to fine.

    Args:
        num_codebooks: Q, the number of stages, at least 2.
        each: what each stage is, `{"type": "ema", ...}`: a method that takes the nearest code of a learned codebook
            (ema, simvq, vq), without projection, cosine codes or a gradient of its own, since a residual has a length
            and the gradient is that of the sum.
        shared: all stages use one codebook, which starts on the latents and learns from the rows of all of them.
        stage_dropout: probability that a training batch uses only the first stages, their number drawn evenly from 1
            to Q - 1 (section III.C), so that fewer codes decode to something as well. The codes of the others are -1.
        gradient: "straight-through" or "rotation", from the sum to the latents.

    Shapes: latents (B, D, h, w); codes (B, h, w, Q) in [0, K), the coarsest first. The loss and every metric are means
    over the stages that were used.
    """

    paper = "Zeghidour et al. 2021, arXiv:2107.03312"

    batches_seen: Tensor

    def __init__(
        self,
        *,
        num_codebooks: int = 2,
        each: dict[str, Any] = EACH,
        shared: bool = False,
        stage_dropout: float = 0.0,
        gradient: str = "straight-through",
    ) -> None:
        super().__init__()
        from vqtok.quantizers import build_each  # which knows this class

        if num_codebooks < 2:
            raise ConfigurationError(f"quantizer.num_codebooks must be at least 2, got {num_codebooks}")
        if not 0 <= stage_dropout < 1:
            raise ConfigurationError(f"quantizer.stage_dropout must be in [0, 1), got {stage_dropout}")
        one_of("gradient", gradient, sorted(GRADIENTS))
        self.num_codebooks = num_codebooks
        self.shared = shared
        self.stage_dropout = stage_dropout
        self.gradient = gradient
        self.stages = nn.ModuleList(build_each(each) for _ in range(1 if shared else num_codebooks))
        check_stage(self.stages[0], each)
        first = self.stage(0)
        self.code_dim = first.code_dim
        self.codebook_size = first.codebook_size
        self.training_state = ("batches_seen", *first.training_state)
        self._batches: int | None = None
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.int64))

    def stage(self, index: int) -> NearestCodeQuantizer:
        """The quantizer of one stage."""
        stage = self.stages[0 if self.shared else index]
        assert isinstance(stage, NearestCodeQuantizer)
        return stage

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.batches_seen)
        self._batches = None
        for index in range(len(self.stages)):
            self.stage(index).reset_parameters()

    def forward(self, latents: Tensor) -> QuantizerOutput:
        grid = (latents.shape[0], latents.shape[2], latents.shape[3])
        used = self.stages_used()
        with torch.autocast(latents.device.type, enabled=False):
            rows = to_rows(latents)
            total, chosen, residuals = torch.zeros_like(rows), [], []
            for index in range(used):
                residual = rows - total
                if self.training:
                    self.stage(index).start_once(residual.detach())
                chosen.append(self.stage(index).choose(residual))
                residuals.append(residual.detach())
                total = total + chosen[-1].vectors.detach()
            if self.training:
                self.learn(residuals, [found.codes for found in chosen])
            quantized = GRADIENTS[self.gradient](rows, total)
            loss = torch.stack([found.loss for found in chosen]).mean() + self.touch(used)
        codes = [found.codes for found in chosen] + [torch.full_like(chosen[0].codes, -1)] * (self.num_codebooks - used)
        return QuantizerOutput(
            quantized=from_rows(quantized, grid),
            codes=torch.stack(codes, dim=-1).view(*grid, self.num_codebooks),
            loss=loss,
            metrics=mean_metrics(chosen),
        )

    @torch.no_grad()
    def learn(self, residuals: list[Tensor], codes: list[Tensor]) -> None:
        """Moving averages and restarts, after all stages are chosen: a shared codebook must not move in between."""
        if self.shared:  # row by row, so that the parts of several processes follow each other as the whole does
            self.stage(0).learn(torch.stack(residuals, dim=1).flatten(0, 1), torch.stack(codes, dim=1).flatten())
            return
        for index, (residual, found) in enumerate(zip(residuals, codes, strict=True)):
            self.stage(index).learn(residual, found)

    def stages_used(self) -> int:
        """How many stages this batch uses: all of them, but for some training batches.

        Drawn from the number of the batch, so that all processes draw alike and a resumed run goes on alike. The host
        counts along, having asked the device once.
        """
        if not self.training or self.stage_dropout == 0:
            return self.num_codebooks
        if self._batches is None:
            self._batches = int(self.batches_seen)
        noise = random.Random(self._batches)
        self._batches += 1
        self.batches_seen += 1
        return noise.randint(1, self.num_codebooks - 1) if noise.random() < self.stage_dropout else self.num_codebooks

    def touch(self, used: int) -> Tensor:
        """Zero, with a gradient of zero for stages left out: data parallel training waits for every parameter's."""
        unused = self.stages[used:]
        zero = self.stage(0).codebook.new_zeros(())
        return sum((parameter.sum() * 0 for parameter in unused.parameters() if parameter.requires_grad), zero)

    def encode(self, latents: Tensor) -> Tensor:
        with torch.autocast(latents.device.type, enabled=False):
            rows, codes = to_rows(latents), []
            total = torch.zeros_like(rows)
            for index in range(self.num_codebooks):
                codes.append(self.stage(index).code_of(rows - total))
                total = total + self.stage(index).rows_of(codes[-1])
        return torch.stack(codes, dim=-1).view(latents.shape[0], *latents.shape[2:], self.num_codebooks)

    def decode(self, codes: Tensor) -> Tensor:
        grid = (codes.shape[0], codes.shape[1], codes.shape[2])
        total = torch.zeros(codes[..., 0].numel(), self.code_dim, device=codes.device)
        for index, chosen in enumerate(codes.flatten(end_dim=-2).unbind(dim=-1)):
            vectors = self.stage(index).rows_of(chosen.clamp(min=0))
            total = total + torch.where(chosen[:, None] < 0, 0.0, vectors)
        return from_rows(total, grid)


def check_stage(stage: nn.Module, options: dict[str, Any]) -> None:
    """Refuse what cannot be a stage."""
    if not isinstance(stage, NearestCodeQuantizer):
        raise ConfigurationError(
            f"quantizer.each.type must be one of ema, simvq, vq in a residual quantizer, got {options['type']!r}: "
            "a stage needs a learned codebook of which it takes the nearest code"
        )
    plain = {"projection_dim": 0, "metric": "euclidean", "gradient": "straight-through"}
    for name, value in plain.items():
        if options.get(name, value) != value:
            hint = "set quantizer.gradient" if name == "gradient" else "leave it out"
            raise ConfigurationError(
                f"quantizer.each.{name} cannot be {options[name]!r} in a residual quantizer: {hint}"
            )


def mean_metrics(chosen: list[Chosen]) -> dict[str, Tensor]:
    """The mean of every metric over the stages."""
    metrics = [found.metrics for found in chosen]
    return {name: torch.stack([values[name] for values in metrics]).mean() for name in metrics[0]}
