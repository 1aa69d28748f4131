"""What decides a run, as typed options; `resolution` fills them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, field_validator, model_validator
from torch import nn

from vqtok.networks import NetworkOptions, build_networks
from vqtok.options import Allowed, Options
from vqtok.pretrained import ImageModelOptions, ImageSize
from vqtok.quantizers import QuantizerOptions, build_quantizer
from vqtok.tokenizer.configuration import TokenizerOptions

__all__ = ["ImageTrainingConfig", "LoopConfig", "StartOptions", "TokenizerTrainingConfig"]


def no_as_text(value: Any) -> Any:
    """YAML reads no as false."""
    return "no" if value is False else value


def grey_or_colour(channels: int | None) -> int | None:
    """The number of channels, refused where no image has it."""
    if channels not in (1, 3, None):
        raise ValueError
    return channels


class LoopConfig(Options):
    """What the training of anything has."""

    out: str = Field(description="run folder to write")
    steps: int = Field(10_000, ge=1, description="number of optimizer steps")
    batch_size: int = Field(32, ge=1, description="images per optimizer step, over all processes and accumulated parts")
    gradient_accumulation_steps: int = Field(
        1, ge=1, description="parts that a batch is split into, to save memory; an entropy term is that of each part"
    )
    learning_rate: float = Field(
        1e-3, gt=0, le=1e30, description="peak learning rate: linear warm-up, then cosine to zero"
    )
    optimizer: Literal["adamw", "muon"] = Field(
        "muon", description="what moves convolution kernels and the matrices of a transformer; AdamW moves all else"
    )
    warmup_steps: Annotated[int | None, Field(ge=0)] = Field(
        None,
        validate_default=True,
        description="steps of the warm-up; by default a fiftieth of the steps for a tokenizer, at most 500, and a "
        "fifth for a prior, at most 100",
    )
    weight_decay: float = Field(0.0, ge=0, description="weight decay of weights of two and more dimensions")
    max_grad_norm: float = Field(1.0, ge=0, description="gradients are clipped to this norm; 0 never clips")
    precision: Annotated[Literal["no", "bf16", "fp16"], BeforeValidator(no_as_text)] = Field(
        "no", description="numeric precision: no is float32, bf16 and fp16 are mixed"
    )
    compile: bool = Field(False, description="run the model through torch.compile")
    seed: int = Field(
        0, ge=0, le=2**31, description="random seed of the weights, the order of the images and all noise"
    )
    log_every: int = Field(50, ge=1, description="steps between log lines")
    eval_every: int = Field(1000, ge=1, description="steps between evaluations")
    eval_images: int = Field(2000, ge=0, description="held-out images to evaluate on during training; 0 takes all")
    checkpoint_every: int = Field(1000, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="number of checkpoints to keep, the newest")
    tracker: Literal["none", "tensorboard", "trackio", "wandb"] = Field("none", description="experiment tracker")

    warmup_part: ClassVar[int] = 50  # one in so many steps
    longest_warmup: ClassVar[int] = 500

    @field_validator("warmup_steps")
    @classmethod
    def _warmup_of_the_run(cls, given: int | None, info: ValidationInfo) -> int:
        if given is not None:
            return given
        steps: int = info.data.get("steps", 0)
        return min(cls.longest_warmup, steps // cls.warmup_part)

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        """As where the configuration of a longer run is used again, in which the warm-up is spelled out."""
        if (self.warmup_steps or 0) > self.steps:
            raise ValueError(
                f"warmup_steps {self.warmup_steps} must be at most the {self.steps} steps of the run, or null for a "
                "share of them"
            )
        return self

    @model_validator(mode="after")
    def _batch_divides(self) -> Self:
        if self.batch_size % self.gradient_accumulation_steps:
            raise ValueError(
                f"batch_size {self.batch_size} must divide by gradient_accumulation_steps "
                f"{self.gradient_accumulation_steps}"
            )
        return self


def one_as_list(parts: Any) -> Any:
    """A word as a list of it."""
    return [parts] if isinstance(parts, str) else parts


def in_order(parts: list[str]) -> list[str]:
    """Each part once, in the order in which an image meets them."""
    return [part for part in ("encoder", "quantizer", "decoder") if part in parts]


class ImageTrainingConfig(ImageModelOptions, LoopConfig):
    """What the training of a model of images has: the images, and how they are read."""

    dataset: str = Field(
        "mnist-mini",
        description="images to train on: mnist-mini, mnist, cifar10, a dataset on the Hub (org/name, or "
        "org/name@revision), a folder of images, or data files such as parquet",
    )
    revision: str | None = Field(None, description="branch, tag or commit of a dataset on the Hub")
    dataset_config: str | None = Field(None, description="configuration of the dataset, if it has several")
    image_column: str | None = Field(None, description="column of the images, if the dataset has several")
    label_column: str | None = Field(None, description="column of the labels, if the dataset has several")
    test_share: float = Field(
        0.1, gt=0, lt=1, description="share of the training images to hold out if the dataset has no test split"
    )
    image_size: ImageSize | None = Field(  # type: ignore[assignment]  # the images decide where it is left out
        None,
        description="size that images are resized and cropped to, [height, width] or one number; by default their own, "
        "up to 256 pixels",
    )
    num_channels: Annotated[int | None, AfterValidator(grey_or_colour), Allowed("1 (grey), 3 (RGB) or null")] = Field(  # type: ignore[assignment]
        None, description="1 for grey, 3 for RGB; by default taken from the images"
    )
    max_unreadable: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="share of the images that may be unreadable, above 0 at least one: they are named and skipped, and "
        "a run with more stops",
    )
    num_workers: int = Field(0, ge=0, description="processes that read images, if they do not fit into memory")
    gradient_checkpointing: bool = Field(
        False, description="compute blocks of the network again in the backward pass, which saves memory and takes time"
    )
    learning_rate: float = Field(
        2e-3, gt=0, le=1e30, description="peak learning rate: linear warm-up, then cosine to zero"
    )

    @model_validator(mode="after")
    def _blocks_can_be_computed_again(self) -> Self:
        if self.gradient_checkpointing and not has_checkpointing(self.network):
            raise ValueError(
                f"gradient_checkpointing is of vqgan alone, and the network is {self.network.type}: leave it out"
            )
        return self


def has_checkpointing(network: NetworkOptions) -> bool:
    """Whether a network can compute its blocks again in the backward pass; looked at on the meta device."""
    with torch.device("meta"):
        encoder, _ = build_networks(network.model_dump(), num_channels=1, code_dim=1)
    return hasattr(encoder, "gradient_checkpointing")


class StartOptions(LoopConfig):
    """What the training of a tokenizer starts from, and what of it stays."""

    init_from: str | None = Field(
        None,
        description="tokenizer to start from, whose network, quantizer and form of images are kept: its folder, a run "
        "folder or a Hub id (owner/name, or owner/name@revision)",
    )
    freeze: Annotated[
        list[Literal["encoder", "quantizer", "decoder"]], BeforeValidator(one_as_list), AfterValidator(in_order)
    ] = Field(
        [],
        description="part of that tokenizer that stays as it is; with encoder and quantizer so do all codes",
    )


class TokenizerTrainingConfig(ImageTrainingConfig, TokenizerOptions, StartOptions):
    """What decides the training of a tokenizer."""

    usage_window: int = Field(
        8192, ge=1, description="number of training images over which the use of codes is counted"
    )
    usage_warning: float = Field(
        0.5, ge=0, le=1, description="warn when the share of codes in use falls below this; 0 never warns"
    )

    @field_validator("quantizer")
    @classmethod
    def _temperature_of_the_run(cls, quantizer: QuantizerOptions, info: ValidationInfo) -> QuantizerOptions:
        """A temperature that falls in training has fallen by the middle of the run, unless it fell in one before."""
        if info.data.get("init_from"):
            return quantizer
        if each := getattr(quantizer, "each", None):
            quantizer = quantizer.model_copy(update={"each": cls._temperature_of_the_run(each, info)})
        if getattr(quantizer, "temperature_steps", 1) is None:
            steps = max(1, info.data.get("steps", 0) // 2)
            quantizer = quantizer.model_copy(update={"temperature_steps": steps})
        return quantizer

    @model_validator(mode="after")
    def _temperature_fits(self) -> Self:
        each = getattr(self.quantizer, "each", None)
        name = f"quantizer{'.each' if each else ''}.temperature_steps"
        given = getattr(each or self.quantizer, "temperature_steps", 1) or 1
        if given > self.steps and not self.init_from:
            raise ValueError(
                f"{name} {given} must be at most the {self.steps} steps of the run, or null for half of them"
            )
        return self

    @model_validator(mode="after")
    def _networks_can_be_built(self) -> Self:
        """Refuse what makes no sense before data is looked for; on the meta device it costs no memory."""
        with torch.device("meta"):
            quantizer = build_quantizer(self.quantizer.model_dump())
            encoder, decoder = build_networks(self.network.model_dump(), num_channels=1, code_dim=quantizer.code_dim)
        self._check_frozen({"encoder": encoder, "quantizer": quantizer, "decoder": decoder})
        return self

    def _check_frozen(self, parts: Mapping[str, nn.Module]) -> None:
        """Refuse to freeze what has not learned anything, or so much that no weight is left to train."""
        if self.freeze and self.init_from is None:
            raise ValueError(
                f"freeze keeps {' and '.join(self.freeze)}, and nothing is learned yet: say with init_from what to "
                "start from"
            )
        left = {name: part for name, part in parts.items() if name not in self.freeze}
        if all(next(part.parameters(), None) is None for part in left.values()):
            without = f", and {' and '.join(left)} has none" if left else ""
            raise ValueError(f"freeze {', '.join(self.freeze)} leaves no weights to train{without}: leave one out")
