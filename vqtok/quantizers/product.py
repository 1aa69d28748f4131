"""Product quantization: the latent in Q groups, each with a codebook of its own. Jegou et al. 2011, section II.B.

With K codes each, Q codebooks of K D/Q numbers tell K^Q latents apart. The 8x8x10 discrete latents of the CIFAR-10
experiment of van den Oord et al. 2017, section 4.1, are this with Q = 10.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from vqtok.options import Types
from vqtok.quantizers.base import Quantizer, QuantizerOptions, QuantizerOutput
from vqtok.quantizers.ema import EMAOptions
from vqtok.quantizers.registry import SINGLE_CODEBOOK, build_part

__all__ = ["ProductOptions", "ProductQuantizer"]


class ProductOptions(QuantizerOptions):
    """Options of `product`; D is Q times the dimension of a part."""

    type: Literal["product"] = "product"
    num_codebooks: int = Field(2, ge=2, le=2**10, description="codes per position, Q")
    each: Annotated[
        QuantizerOptions, Types({name: part.Options for name, part in SINGLE_CODEBOOK.items()}, default="ema")
    ] = Field(EMAOptions(), description="what each of them is: any method with one codebook")


class ProductQuantizer(Quantizer):
    """Q quantizers of one kind side by side.

    Shapes: latents (B, D, h, w), whose channels are the groups one after another; codes (B, h, w, Q) in [0, K). The
    loss and every metric are means over the codebooks.
    """

    paper = "Jegou et al. 2011, doi:10.1109/TPAMI.2010.57"

    Options = ProductOptions
    options: ProductOptions

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.num_codebooks = self.options.num_codebooks
        self.groups = nn.ModuleList(build_part(self.options.each) for _ in range(self.num_codebooks))
        for member in self.members():
            member.nested = True
        first = self.members()[0]
        self.group_dim = first.code_dim
        self.code_dim = self.num_codebooks * first.code_dim
        self.codebook_size = first.codebook_size
        self.code_levels = first.code_levels
        self.training_state = first.training_state

    def members(self) -> Sequence[Quantizer]:
        """The quantizer of each group."""
        return [group for group in self.groups if isinstance(group, Quantizer)]

    def reset_parameters(self) -> None:
        for member in self.members():
            member.reset_parameters()

    def forward(self, latents: Tensor) -> QuantizerOutput:
        outputs = [member(group) for member, group in self.split(latents)]
        if self.training:
            self.end_part()
        return QuantizerOutput(
            quantized=torch.cat([output.quantized for output in outputs], dim=1),
            codes=torch.stack([output.codes for output in outputs], dim=-1),
            loss=torch.stack([output.loss for output in outputs]).mean(),
            metrics={
                name: torch.stack([output.metrics[name] for output in outputs]).mean() for name in outputs[0].metrics
            },
        )

    def initialize(self, latents: Tensor) -> None:
        for member, group in self.split(latents):
            member.initialize(group)

    def split(self, latents: Tensor) -> Iterator[tuple[Quantizer, Tensor]]:
        """(B, D, h, w) as Q times a quantizer and its (B, D / Q, h, w)."""
        return zip(self.members(), torch.split(latents, self.group_dim, dim=1), strict=True)

    def encode(self, latents: Tensor) -> Tensor:
        return torch.stack([member.encode(group) for member, group in self.split(latents)], dim=-1)

    def decode(self, codes: Tensor) -> Tensor:
        groups = []
        for member, chosen in zip(self.members(), codes.unbind(dim=-1), strict=True):
            vectors = member.decode(chosen.clamp(min=0))
            groups.append(torch.where(chosen[:, None] < 0, 0.0, vectors))
        return torch.cat(groups, dim=1)

    @torch.no_grad()
    def distortion(self, latents: Tensor) -> Tensor:
        return torch.stack([member.distortion(group) for member, group in self.split(latents)]).sum(dim=0)
