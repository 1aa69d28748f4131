"""Residual quantization: each stage codes what the ones before it left.

Zeghidour et al. 2021, arXiv:2107.03312, algorithm 1:

    r_1 = z        r_(i+1) = r_i - sg[e_i]        quantized = e_1 + ... + e_Q

The commitment of every stage reaches the encoder, for r_i carries the gradient of z: only the codes are held constant.
The sum passes its gradient back once, however many stages there are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from vqtok.options import TrainingOnly, Types
from vqtok.quantizers.base import BatchPart, Quantizer, QuantizerOptions, QuantizerOutput, from_rows, to_rows
from vqtok.quantizers.codebook import CodebookQuantizer
from vqtok.quantizers.codebook_options import NearestCodeOptions
from vqtok.quantizers.distributed import SharedNoise
from vqtok.quantizers.ema import EMAOptions
from vqtok.quantizers.gradients import GRADIENTS
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
    stage_dropout: Annotated[float, TrainingOnly()] = Field(
        0.0,
        ge=0,
        lt=1,
        description="probability that a training batch uses only the first stages, so that fewer codes decode to "
        "something as well",
    )
    gradient: Annotated[Literal["rotation", "straight-through"], TrainingOnly()] = Field(
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

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.num_codebooks = self.options.num_codebooks
        count = 1 if self.options.shared else self.num_codebooks
        self.stages = nn.ModuleList(build_part(self.options.each) for _ in range(count))
        for member in self.members():
            member.nested = True
        first = self.stage(0)
        self.code_dim = first.code_dim
        self.codebook_size = first.codebook_size
        self.training_state = first.training_state
        self.noise = SharedNoise()
        self.noise.reset_parameters()

    def members(self) -> Sequence[CodebookQuantizer]:
        """The quantizer of each stage, or the one of all of them."""
        return [stage for stage in self.stages if isinstance(stage, CodebookQuantizer)]

    def stage(self, index: int) -> CodebookQuantizer:
        """The quantizer of one stage."""
        return self.members()[0 if self.options.shared else index]

    def reset_parameters(self) -> None:
        self.noise.reset_parameters()
        for member in self.members():
            member.reset_parameters()

    def forward(self, latents: Tensor) -> QuantizerOutput:
        grid = (latents.shape[0], latents.shape[2], latents.shape[3])
        used = self.stages_used()
        with torch.autocast(latents.device.type, enabled=False):
            rows = to_rows(latents)
            total = quantized = torch.zeros_like(rows)  # of all stages, and of those that this batch uses
            found = []
            for index in range(self.num_codebooks):
                residual = rows - total
                if self.training:
                    self.stage(index).initialize_once(residual.detach(), self.stage_part(index, self.batch_part))
                found.append(self.stage(index).quantize_rows(residual))
                if self.training:
                    self.collect(index, residual.detach(), found[-1].codes, used)
                total = total + found[-1].vectors.detach()
                quantized = torch.where(index < used, total, quantized)
            if self.training:
                self.end_part()
            quantized = GRADIENTS[self.options.gradient](rows, quantized)
        codes = [torch.where(index < used, stage.codes, -1) for index, stage in enumerate(found)]
        return QuantizerOutput(
            quantized=from_rows(quantized, grid),
            codes=torch.stack(codes, dim=-1).view(*grid, self.num_codebooks),
            loss=mean_of_first([stage.loss for stage in found], used),
            metrics={name: mean_of_first([stage.metrics[name] for stage in found], used) for name in found[0].metrics},
        )

    @torch.no_grad()
    def initialize(self, latents: Tensor) -> None:
        with torch.autocast(latents.device.type, enabled=False):
            rows = to_rows(latents)
            total = torch.zeros_like(rows)
            for index in range(self.num_codebooks):
                stage, residual = self.stage(index), rows - total
                stage.initialize_once(residual, self.stage_part(index, BatchPart()))
                total = total + stage.decode_rows(stage.encode_rows(residual))

    def stages_used(self) -> Tensor:
        """How many stages this batch uses, the same on all processes, a scalar on the device."""
        every = self.noise.noise_seed.new_full((), self.num_codebooks)
        if not self.training or self.options.stage_dropout == 0:
            return every
        drops, number = self.noise(2)
        fewer = drops < self.options.stage_dropout * 2**31
        return torch.where(fewer, 1 + number % (self.num_codebooks - 1), every)

    def collect(self, index: int, residual: Tensor, codes: Tensor, used: Tensor) -> None:
        """Let a stage remember its rows (N, D) of a training batch, unless the batch does without that stage."""
        weight = (index < used).to(residual.dtype)
        self.stage(index).collect(residual, codes, self.stage_part(index, self.batch_part), weight)

    def stage_part(self, index: int, part: BatchPart) -> BatchPart:
        """A part of a training batch as a stage sees it: a shared codebook sees it once for every stage."""
        if not self.options.shared:
            return part
        return replace(part, first=part.first and index == 0, stage=index, stages=self.num_codebooks)

    def learn(self) -> None:
        super().learn()
        self.noise.batches_seen += 1

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
        with torch.autocast(codes.device.type, enabled=False):
            total = torch.zeros(codes[..., 0].numel(), self.code_dim, device=codes.device, dtype=torch.float32)
            for index, chosen in enumerate(codes.flatten(end_dim=-2).unbind(dim=-1)):
                vectors = self.stage(index).decode_rows(chosen.clamp(min=0))
                total = total + torch.where(chosen[:, None] < 0, 0.0, vectors)
        return from_rows(total, grid)


def mean_of_first(values: list[Tensor], number: Tensor) -> Tensor:
    """The mean of the first so many scalars."""
    used = [torch.where(index < number, value, 0.0) for index, value in enumerate(values)]
    return torch.stack(used).sum() / number
