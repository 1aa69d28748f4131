"""What can be chosen of a VQGAN: one family of networks that covers the published image tokenizers."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from vqtok.networks.base import NetworkOptions
from vqtok.options import Allowed, TrainingOnly

__all__ = ["VQGANOptions"]

Level = Annotated[int, Field(ge=0)]


PATCHES = (1, 2, 4, 8)


def one_of(*numbers: int) -> AfterValidator:
    """A check for one of these whole numbers; a Literal would take True for 1."""

    def check(number: int) -> int:
        if number not in numbers:
            raise ValueError
        return number

    return AfterValidator(check)


Kernel = Annotated[int, one_of(1, 3), Allowed("1 or 3")]
KernelOrNone = Annotated[int, one_of(0, 1, 3), Allowed("0, 1 or 3")]
Patch = Annotated[int, one_of(*PATCHES), Allowed("1, 2, 4 or 8")]


class VQGANOptions(NetworkOptions):
    """Options of `vqgan`. Level 0 is that of the image, the last one that of the code grid.

    Levels that are not named, and `downsample_factor`, follow from the others: a saved configuration says them all.
    """

    type: Literal["vqgan"] = "vqgan"
    base_channels: int = Field(128, ge=1, le=2**16, description="channels that the multipliers multiply")
    channel_multipliers: list[Annotated[int, Field(ge=1, le=2**10)]] = Field(
        [1, 1, 2, 2, 4], min_length=1, max_length=16, description="channels of each level, in base_channels"
    )
    num_res_blocks: int = Field(2, ge=1, le=2**6, description="residual blocks of each level")
    decoder_extra_block: bool = Field(True, description="one residual block more for each level of the decoder")
    z_channels: int = Field(
        256, ge=1, le=2**16, description="channels of the latents before quant_conv brings them to the code dimension"
    )
    attention_levels: list[Level] | None = Field(
        None, description="levels with attention after each residual block; by default the last"
    )
    mid_attention: bool = Field(True, description="attention between the two middle blocks")
    mid_blocks: int = Field(2, ge=1, le=2**6, description="residual blocks in the middle")
    conv_bias: bool = Field(
        True, description="biases in residual blocks, their shortcuts and the first convolution of the encoder"
    )
    shortcut: Literal["input", "output"] = Field(
        "input",
        description="what a residual block whose channels change adds: a 1x1 convolution of its input, or of what its "
        "convolutions gave",
    )
    downsample: Literal["asymmetric", "symmetric", "average"] = Field(
        "asymmetric",
        description="a strided convolution with a border of zeros right and below, or on all sides, or the average",
    )
    upsample: Literal["nearest", "depth-to-space"] = Field(
        "nearest", description="nearest neighbours and a convolution, or one of four times the channels, rearranged"
    )
    down_levels: list[Level] | None = Field(
        None, description="levels of the encoder that end by halving; by default all but the last"
    )
    up_levels: list[Level] | None = Field(
        None, description="levels of the decoder that end by doubling; by default all but the first"
    )
    encoder_out_kernel: Kernel = Field(3, description="kernel of the last convolution of the encoder")
    quant_conv_kernel: KernelOrNone = Field(
        1,
        description="kernel of the convolutions between latents and codes; 0 for none, where z_channels are the code "
        "dimension",
    )
    decoder_norm: Literal["group", "spatial", "adaptive"] = Field(
        "group",
        description="norms of the decoder: of groups alone, scaled and shifted at each position by the codes there "
        "(spatial), or before each level by their mean and variance (adaptive)",
    )
    norm_groups: int = Field(32, ge=1, le=2**10, description="groups of channels that are normalised together")
    patch: Patch = Field(
        1, description="pixels a side that Haar wavelets turn into channels before the first convolution; 1 for none"
    )
    pixel_range: Literal["signed", "unit"] = Field(
        "signed", description="pixels inside the network lie in [-1, 1] (signed) or in [0, 1] (unit)"
    )
    dropout: Annotated[float, TrainingOnly()] = Field(
        0.0, ge=0, lt=1, description="dropout inside residual blocks, in training"
    )
    downsample_factor: int = Field(16, ge=1, description="pixels a side for one code; follows from the levels")

    @model_validator(mode="before")
    @classmethod
    def _fill_in(cls, given: Any) -> Any:
        """Fill in what follows from the rest; whatever is of the wrong type is left to the checks of the fields."""
        values = dict(given)
        multipliers = values.get("channel_multipliers", cls.model_fields["channel_multipliers"].default)
        if not isinstance(multipliers, list) or not multipliers:
            return values
        last = len(multipliers) - 1
        for name, levels in (
            ("attention_levels", [last]),
            ("down_levels", list(range(last))),
            ("up_levels", list(range(1, last + 1))),
        ):
            if values.get(name) is None:
                values[name] = levels
        patch, down = values.get("patch", 1), values["down_levels"]
        if "downsample_factor" not in values and type(patch) is int and patch in PATCHES and type(down) is list:
            values["downsample_factor"] = patch * 2 ** len(down)
        return values

    @field_validator("attention_levels", "down_levels", "up_levels")
    @classmethod
    def _in_order(cls, levels: list[int]) -> list[int]:
        if levels != sorted(set(levels)):
            raise ValueError("each level at most once, in ascending order")
        return levels

    @model_validator(mode="after")
    def _options_go_together(self) -> Self:
        levels = len(self.channel_multipliers)
        for name in ("attention_levels", "down_levels", "up_levels"):
            if (chosen := getattr(self, name)) and chosen[-1] >= levels:
                raise ValueError(f"{name} must be from 0 to {levels - 1}, one for each of channel_multipliers")
        if len(self.down_levels or ()) != len(self.up_levels or ()):
            raise ValueError("down_levels and up_levels must be as many, so that images keep their size")
        factor = self.patch * 2 ** len(self.down_levels or ())
        if self.downsample_factor != factor:
            raise ValueError(
                f"downsample_factor must be {factor}, as down_levels and patch make it, got {self.downsample_factor}: "
                "change channel_multipliers"
            )
        if self.mid_attention and self.mid_blocks != 2:
            raise ValueError("mid_attention stands between two middle blocks: set mid_blocks=2 or mid_attention=false")
        widths = {self.base_channels, *(self.base_channels * each for each in self.channel_multipliers)}
        if any(width % self.norm_groups for width in widths):
            raise ValueError(
                f"norm_groups must divide the channels of every level ({', '.join(map(str, sorted(widths)))}), got "
                f"{self.norm_groups}"
            )
        return self

    @property
    def widths(self) -> list[int]:
        """Channels of each level."""
        return [self.base_channels * each for each in self.channel_multipliers]

    def pixel_channels(self, num_channels: int) -> int:
        """Channels of the first and the last convolution, for images of so many channels."""
        return num_channels * self.patch**2
