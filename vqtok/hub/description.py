"""What a tokenizer, a prior or a baseline is, told from its settings and the headers of its weights: the facts of a
card and of `vqtok inspect`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, PositiveInt

from vqtok.errors import CheckpointError, VqtokError
from vqtok.hub.folder import BASELINES, PRIORS, ModelFolder
from vqtok.hub.provenance import provenance_of
from vqtok.hub.run_metadata import portable
from vqtok.quantizers import Quantizer, build_quantizer
from vqtok.schema import checked
from vqtok.text import counted, tokenizer_text

__all__ = ["Binding", "Description", "describe_baseline", "describe_prior", "describe_tokenizer", "grid_text"]

CHANNELS = {1: "grey", 3: "RGB"}
SIZES = ("hidden_size", "num_hidden_layers", "num_layers", "num_attention_heads", "kernel_size")
TYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32", "F64": "float64"}
NAMES_SHOWN = 20


class Network(BaseModel):
    """What is described of the section `network`."""

    model_config = ConfigDict(extra="allow")
    type: str
    downsample_factor: PositiveInt


class TokenizerSettings(BaseModel):
    """What is described of a tokenizer's config.json."""

    image_size: PositiveInt | tuple[PositiveInt, PositiveInt]
    num_channels: PositiveInt
    resample: str
    network: Network
    quantizer: dict[str, Any]
    likelihood: dict[str, Any] = {"type": "mse"}  # of a tokenizer from before there were others


class BaselineSettings(BaseModel):
    """What is described of a baseline's config.json."""

    image_size: PositiveInt | tuple[PositiveInt, PositiveInt]
    num_channels: PositiveInt
    network: Network
    likelihood: dict[str, Any]
    model: dict[str, Any]
    label_names: list[str] | None = None


class Binding(BaseModel):
    """What is described of the entry `vqtok` in a prior's config.json."""

    fingerprint: str
    grid: tuple[PositiveInt, PositiveInt]
    codebook_size: PositiveInt
    num_codebooks: PositiveInt = 1
    label_names: list[str] | None = None
    tokenizer: str | None = None
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class Description:
    """Facts about a model.

    Attributes:
        summary: one sentence.
        rows: names and values, to be read by people; as text, without markup.
        shape: of the codes of one image: (h, w), or (h, w, Q) where Q > 1.
        paper: of a tokenizer, where its quantizer was published.
        binding: of a prior, what its codes are.
    """

    summary: str
    rows: tuple[tuple[str, str], ...]
    shape: tuple[int, ...]
    paper: str = ""
    binding: Binding | None = None


def describe_tokenizer(folder: ModelFolder) -> Description:
    """Sizes, options and parameters of a tokenizer.

    Raises:
        CheckpointError: settings that are missing or make no sense.
    """
    settings = checked(TokenizerSettings, folder.config, name=f"{folder.path / 'config.json'}")
    quantizer = quantizer_of(folder, settings)
    size = settings.image_size
    height, width = (size, size) if isinstance(size, int) else size
    factor, books = settings.network.downsample_factor, quantizer.num_codebooks
    if height % factor or width % factor:
        raise CheckpointError(
            f"{folder.path / 'config.json'} is damaged: {height} x {width} does not divide by {factor}"
        )
    origin = provenance_of(folder.config, name=str(folder.path / "config.json"))
    shape = code_shape((height // factor, width // factor), books)
    bits = math.prod(shape) * math.log2(quantizer.codebook_size)
    raw = height * width * settings.num_channels * 8
    colours = CHANNELS.get(settings.num_channels, f"{settings.num_channels} channels")
    times = f"{books} times " if books > 1 else ""
    rows = (
        ("images", f"{height} x {width} pixels, {colours}; others are resized ({settings.resample}) and cropped"),
        ("grid", grid_text(shape)),
        ("codebook", f"{times}{quantizer.codebook_size:,} codes of {quantizer.code_dim} dimensions"),
        (
            "size",
            f"{bits:,.5g} bits per image, {bits / (height * width):.3g} per pixel, 1/{raw / bits:.3g} of 8-bit pixels",
        ),
        ("network", options_text(settings.network.model_dump())),
        ("quantizer", options_text(settings.quantizer, without=("codebook_size", "code_dim"))),
        *((("likelihood", options_text(settings.likelihood)),) if settings.likelihood.get("type") != "mse" else ()),
        ("encoder", f"{parameters(folder, 'encoder.'):,} parameters"),
        ("decoder", f"{parameters(folder, 'decoder.'):,} parameters"),
        ("dtype", dtype_text(folder)),
        *(origin.rows if origin else ()),
    )
    summary = (
        f"An image tokenizer: it turns an image of {height} x {width} pixels into a grid of "
        f"{' x '.join(map(str, shape))} codes, whole numbers below {quantizer.codebook_size:,}, and such a grid back "
        "into an image."
    )
    return Description(summary=summary, rows=rows, shape=shape, paper=quantizer.paper)


def describe_baseline(folder: ModelFolder) -> tuple[tuple[str, str], ...]:
    """Method, sizes, options and parameters of a baseline: names and values.

    Raises:
        CheckpointError: settings that are missing or make no sense.
    """
    settings = checked(BaselineSettings, folder.config, name=f"{folder.path / 'config.json'}")
    size = settings.image_size
    height, width = (size, size) if isinstance(size, int) else size
    factor = settings.network.downsample_factor
    colours = CHANNELS.get(settings.num_channels, f"{settings.num_channels} channels")
    return (
        ("method", f"{BASELINES[folder.config['model_type']]}: {options_text(settings.model)}"),
        ("images", f"{height} x {width} pixels, {colours}"),
        ("grid", f"{height // factor} x {width // factor} positions"),
        ("network", options_text(settings.network.model_dump())),
        ("likelihood", options_text(settings.likelihood)),
        *((("classes", names_text(settings.label_names)),) if settings.label_names else ()),
        ("encoder", f"{parameters(folder, 'encoder.'):,} parameters"),
        ("decoder", f"{parameters(folder, 'decoder.'):,} parameters"),
        ("dtype", dtype_text(folder)),
    )


def describe_prior(folder: ModelFolder) -> Description:
    """Architecture, parameters, tokenizer and classes of a prior.

    Raises:
        CheckpointError: settings that are missing or make no sense.
    """
    binding = checked(Binding, folder.config["vqtok"], name=f"the entry 'vqtok' of {folder.path / 'config.json'}")
    shape = code_shape(binding.grid, binding.num_codebooks)
    kind = PRIORS[folder.config["model_type"]]
    sizes = ", ".join(f"{key} {folder.config[key]}" for key in SIZES if key in folder.config)
    rows = (
        ("architecture", f"{kind}: {sizes}" if sizes else kind),
        ("parameters", f"{parameters(folder):,}"),
        ("grid", grid_text(shape)),
        ("codebook", f"{binding.codebook_size:,} codes"),
        ("classes", names_text(binding.label_names or ())),
        ("tokenizer", tokenizer_text(binding.fingerprint, portable(binding.tokenizer, parts=2), binding.revision)),
        ("dtype", dtype_text(folder)),
    )
    article = "An" if kind[:1].lower() in "aeiou" else "A"
    summary = (
        f"{article} {kind} over grids of {' x '.join(map(str, shape))} codes: it samples new grids"
        f"{' of a class' if binding.label_names else ''}, and the tokenizer that made the codes decodes them."
    )
    return Description(summary=summary, rows=rows, shape=shape, binding=binding)


def quantizer_of(folder: ModelFolder, settings: TokenizerSettings) -> Quantizer:
    """The quantizer without its weights, for its sizes."""
    try:
        with torch.device("meta"):
            return build_quantizer(settings.quantizer)
    except VqtokError:
        raise
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder.path / 'config.json'} describes no quantizer: {error}") from error


def code_shape(grid: tuple[int, int], num_codebooks: int) -> tuple[int, ...]:
    return (*grid, num_codebooks) if num_codebooks > 1 else grid


def grid_text(shape: tuple[int, ...]) -> str:
    return f"{' x '.join(map(str, shape))}, {counted(math.prod(shape), 'code')} per image"


def options_text(section: Mapping[str, Any], without: tuple[str, ...] = ()) -> str:
    """conv: hidden_size 128, residual_size 32, ...; a section in it in parentheses."""
    given = [
        f"{name} ({options_text(value)})" if isinstance(value, Mapping) else f"{name} {value}"
        for name, value in section.items()
        if name not in ("type", *without)
    ]
    return f"{section.get('type')}: {', '.join(given)}" if given else str(section.get("type"))


def parameters(folder: ModelFolder, prefix: str = "") -> int:
    return sum(math.prod(shape) for name, (_, shape) in folder.tensors.items() if name.startswith(prefix))


def dtype_text(folder: ModelFolder) -> str:
    return ", ".join(sorted({TYPES[dtype] for dtype, _ in folder.tensors.values() if dtype in TYPES}))


def names_text(names: Iterable[str]) -> str:
    """How many names there are, and the first of them."""
    names = list(names)
    more = ", ..." if len(names) > NAMES_SHOWN else ""
    return f"{len(names)}: {', '.join(names[:NAMES_SHOWN])}{more}" if names else "none"
