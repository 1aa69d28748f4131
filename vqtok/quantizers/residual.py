"""Residual quantization: each stage codes what the ones before it left.

Zeghidour et al. 2021, arXiv:2107.03312, algorithm 1:

    r_1 = z        r_(i+1) = r_i - sg[e_i]        quantized = e_1 + ... + e_Q

The commitment of every stage reaches the encoder, for r_i carries the gradient of z: only the codes are held constant.
The sum passes its gradient back once, however many stages there are.
"""

from __future__ import annotations

import random
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vqtok.options import Types
from vqtok.quantizers.base import GRADIENTS, Quantizer, QuantizerOptions, QuantizerOutput, from_rows, to_rows
from vqtok.quantizers.codebook import CodebookQuantizer, NearestCodeOptions, QuantizedRows
from vqtok.quantizers.ema import EMAOptions
from vqtok.quantizers.registry import SINGLE_CODEBOOK, build_part

__all__ = ["ResidualOptions", "ResidualQuantizer"]

STAGES = {name: part.Options for name, part in SINGLE_CODEBOOK.items() if issubclass(part.Options, NearestCodeOptions)}


class ResidualOptions(QuantizerOptions):
    """Options of `residual`."""

    type: Literal["residual"] = "residual"
    num_codebooks: int = Field(2, ge=2, le=2**10, description="codes per position, Q: the number of stages")
    each: Annotated[NearestCodeOptions, Types(STAGES, default="ema")] = Field(
        EMAOptions(),
        description="what each stage is: a method that takes the nearest code of a learned codebook, without "
        "projection, cosine metric or a gradient of its own",
    )
    shared: bool = Field(False, description="all stages use one codebook, which learns from the rows of all of them")
    stage_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="probability that a training batch uses only the first stages, so that fewer codes decode to "
        "something as well",
    )
    gradient: Literal["rotation", "straight-through"] = Field(
        "straight-through", description="how the gradient passes from the sum of the stages to the latents"
    )

    @model_validator(mode="after")
    def _stages_are_plain(self) -> Self:
        """A residual has a length and is compared where the latents are, and the gradient is that of the sum."""
        plain = {"projection_dim": 0, "metric": "euclidean", "gradient": "straight-through"}
        for name, value in plain.items():
            given = getattr(self.each, name)
            if given != value:
                hint = "set the gradient of the residual quantizer" if name == "gradient" else "leave it out"
                raise ValueError(f"each.{name} cannot be {given!r} in a residual quantizer: {hint}")
        return self


class ResidualQuantizer(Quantizer):
    """Q stages of one kind, from coarse to fine.

    Where a training batch uses fewer stages (Zeghidour et al. 2021, section III.C), their number is drawn evenly from 1
    to Q - 1, and the codes of the others are -1.

    Shapes: latents (B, D, h, w); codes (B, h, w, Q) in [0, K), the coarsest first. The loss and every metric are means
    over the stages that were used.
    """

    paper = "Zeghidour et al. 2021, arXiv:2107.03312"

    Options = ResidualOptions
    options: ResidualOptions
    batches_seen: Tensor

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.num_codebooks = self.options.num_codebooks
        count = 1 if self.options.shared else self.num_codebooks
        self.stages = nn.ModuleList(build_part(self.options.each) for _ in range(count))
        first = self.stage(0)
        self.code_dim = first.code_dim
        self.codebook_size = first.codebook_size
        self.training_state = ("batches_seen", *first.training_state)
        self._batches: int | None = None
        self.register_buffer("batches_seen", torch.zeros((), dtype=torch.int64))

    def stage(self, index: int) -> CodebookQuantizer:
        """The quantizer of one stage."""
        stage = self.stages[0 if self.options.shared else index]
        assert isinstance(stage, CodebookQuantizer)
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
                    self.stage(index).initialize_once(residual.detach())
                chosen.append(self.stage(index).quantize_rows(residual))
                residuals.append(residual.detach())
                total = total + chosen[-1].vectors.detach()
            if self.training:
                self.update(residuals, [found.codes for found in chosen])
            quantized = GRADIENTS[self.options.gradient](rows, total)
            loss = torch.stack([found.loss for found in chosen]).mean() + self.touch(used)
        codes = [found.codes for found in chosen] + [torch.full_like(chosen[0].codes, -1)] * (self.num_codebooks - used)
        return QuantizerOutput(
            quantized=from_rows(quantized, grid),
            codes=torch.stack(codes, dim=-1).view(*grid, self.num_codebooks),
            loss=loss,
            metrics=mean_metrics(chosen),
        )

    @torch.no_grad()
    def update(self, residuals: list[Tensor], codes: list[Tensor]) -> None:
        """Moving averages and restarts, after all stages are chosen: a shared codebook must not move in between."""
        if (
            self.options.shared
        ):  # row by row, so that the parts of several processes follow each other as the whole does
            self.stage(0).update(torch.stack(residuals, dim=1).flatten(0, 1), torch.stack(codes, dim=1).flatten())
            return
        for index, (residual, found) in enumerate(zip(residuals, codes, strict=True)):
            self.stage(index).update(residual, found)

    def stages_used(self) -> int:
        """How many stages this batch uses: all of them, but for some training batches.

        Drawn from the number of the batch, so that all processes draw alike and a resumed run goes on alike. The host
        counts along, having asked the device once.
        """
        if not self.training or self.options.stage_dropout == 0:
            return self.num_codebooks
        if self._batches is None:
            self._batches = int(self.batches_seen)
        noise = random.Random(self._batches)
        self._batches += 1
        self.batches_seen += 1
        return (
            noise.randint(1, self.num_codebooks - 1)
            if noise.random() < self.options.stage_dropout
            else self.num_codebooks
        )

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
                codes.append(self.stage(index).encode_rows(rows - total))
                total = total + self.stage(index).decode_rows(codes[-1])
        return torch.stack(codes, dim=-1).view(latents.shape[0], *latents.shape[2:], self.num_codebooks)

    def decode(self, codes: Tensor) -> Tensor:
        grid = (codes.shape[0], codes.shape[1], codes.shape[2])
        total = torch.zeros(codes[..., 0].numel(), self.code_dim, device=codes.device)
        for index, chosen in enumerate(codes.flatten(end_dim=-2).unbind(dim=-1)):
            vectors = self.stage(index).decode_rows(chosen.clamp(min=0))
            total = total + torch.where(chosen[:, None] < 0, 0.0, vectors)
        return from_rows(total, grid)


def mean_metrics(chosen: list[QuantizedRows]) -> dict[str, Tensor]:
    """The mean of every metric over the stages."""
    metrics = [found.metrics for found in chosen]
    return {name: torch.stack([values[name] for values in metrics]).mean() for name in metrics[0]}
