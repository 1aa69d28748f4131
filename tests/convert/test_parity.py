"""Published tokenizers at full size, with random weights: the codes and pixels of their equations, to the last code."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tests.convert import equations
from tests.convert.equations import Found, Weights, taming_decoder, taming_encoder
from tests.convert.parity import Known, agree, image
from vqtok.convert import convert

F16 = (128, 128, 256, 256, 512)
F8 = (128, 256, 256, 512)
SHOWN = 4  # positions a side that are decoded

Written = tuple[Mapping[str, Tensor], Known]
"""The tensors of a checkpoint, and what its program gives."""


def shown(table: Tensor, found: Found) -> Tensor:
    return table[found[0][:, :SHOWN, :SHOWN]].movedim(-1, 1)


@torch.no_grad()
def taming(
    widths: tuple[int, ...],
    codes: int,
    dimension: int,
    *,
    side: int,
    lookup: Callable[[Tensor, Tensor], Found] = equations.nearest,
    unit: bool = False,
    **options: Any,
) -> Written:
    """taming-transformers, latent-diffusion, IBQ and LlamaGen; rows may be of any length where only the unit counts."""
    w, pixels = Weights(), image(side)
    h = taming_encoder(w, pixels, widths, **options)
    z = w.scaled("quant_conv", h, dimension, 1)
    table = w.drawn("quantize.embedding.weight", codes, dimension)
    table *= torch.rand(codes, 1) * 3 + 0.1 if unit else 1
    found = lookup(z, table)
    quantized = w.conv("post_quant_conv", shown(normalize(table, dim=1) if unit else table, found), h.shape[1], 1)
    decoded = taming_decoder(w, quantized, widths, **{name: options[name] for name in options if name != "z"})
    return w, Known(pixels=pixels, codes=found[0], unsure=found[1], decoded=decoded)


@torch.no_grad()
def gumbel() -> Written:
    w, pixels = Weights(), image(64)
    z = w.scaled("quant_conv", taming_encoder(w, pixels, F8, attends=[3]), 256, 1)
    logits = w.conv("quantize.proj", z, 8192, 1)
    table = w.drawn("quantize.embed.weight", 8192, 256)
    found = equations.best(-logits.movedim(1, -1))
    decoded = taming_decoder(w, w.conv("post_quant_conv", shown(table, found), 256, 1), F8, attends=[3])
    return w, Known(pixels=pixels, codes=found[0], unsure=found[1], decoded=decoded)


@torch.no_grad()
def magvit2(widths: tuple[int, ...], side: int) -> Written:
    w, pixels = Weights(), image(side)
    found, bits = equations.signs(equations.magvit2_encoder(w, pixels, widths, 18))
    decoded = equations.magvit2_decoder(w, bits[:, :, :SHOWN, :SHOWN], widths)
    return w, Known(pixels=pixels, codes=found[0], unsure=found[1], decoded=decoded)


@torch.no_grad()
def maskgit() -> Written:
    w, pixels = Weights(), image(128)
    z = equations.maskgit_encoder(w, (pixels + 1) / 2, F16)
    table = w.drawn("quantize.embedding.weight", 1024, 256)
    found = equations.nearest(z, table)
    decoded = equations.maskgit_decoder(w, shown(table, found), F16) * 2 - 1
    return w, Known(pixels=pixels, codes=found[0], unsure=found[1], decoded=decoded)


@torch.no_grad()
def cosmos(halves: Collection[int], doubles: Collection[int], side: int) -> Written:
    w, pixels, widths = Weights(), image(side), (256, 512, 512)
    h = taming_encoder(w, equations.haar(equations.haar(pixels)), widths, halves=halves)
    found, values = equations.cosmos_levels(w.scaled("quant_conv", h, 6, 1), (8, 8, 8, 5, 5, 5))
    quantized = w.conv("post_quant_conv", values[:, :, :SHOWN, :SHOWN], 256, 1)
    decoded = equations.from_haar(equations.from_haar(taming_decoder(w, quantized, widths, doubles=doubles, out=48)))
    return w, Known(pixels=pixels, codes=found[0], unsure=found[1], decoded=decoded)


def averaged(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A checkpoint of IBQ or Open-MAGVIT2: zeros, which share their data, and their exponential averages."""
    zeros = torch.zeros(max(tensor.numel() for tensor in tensors.values()))
    raw = {name: zeros[: tensor.numel()].view(tensor.shape) for name, tensor in tensors.items()}
    notes = {"model_ema.decay": torch.tensor(0.999), "model_ema.num_updates": torch.tensor(5)}
    return {**raw, **notes, **{f"model_ema.{name.replace('.', '')}": tensor for name, tensor in tensors.items()}}


llamagen = partial(taming, lookup=equations.most_alike, unit=True, names=equations.LLAMAGEN)
PROGRAMS: Mapping[str, Callable[[], Written]] = {
    "taming: vqgan_imagenet_f16_16384": partial(taming, F16, 16384, 256, side=128, attends=[4]),
    "taming: vqgan_gumbel_f8": gumbel,
    "taming: vq-f4": partial(taming, (128, 256, 512), 8192, 3, side=64, z=3),
    "taming: vq-f4-noattn": partial(taming, (128, 256, 512), 8192, 3, side=64, z=3, mid=False),
    "taming: vq-f8": partial(taming, F8, 16384, 4, side=64, z=4, attends=[3]),
    "llamagen: vq_ds16_c2i": partial(llamagen, F16, 16384, 8, side=128, attends=[4]),
    "llamagen: vq_ds8_c2i": partial(llamagen, F8, 16384, 8, side=64, attends=[3]),
    "janus: Janus-Pro-1B": partial(llamagen, F16, 16384, 8, side=128, attends=[4]),
    "ibq: IBQ-Tokenizer-16384": partial(
        taming, F16, 16384, 256, side=128, attends=[4], blocks=4, lookup=equations.largest_product
    ),
    "magvit2: Open-MAGVIT2-Tokenizer-256": partial(magvit2, F16, 128),
    "magvit2: Open-MAGVIT2-Tokenizer-128": partial(magvit2, F8, 64),
    "maskgit: maskgit-vqgan-imagenet-f16-256": maskgit,
    "cosmos: Cosmos-Tokenizer-DI16x16": partial(cosmos, [0, 1], [1, 2], 128),
    "cosmos: Cosmos-Tokenizer-DI8x8": partial(cosmos, [0], [2], 128),
}


def written(family: str, tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the program would write."""
    if family == "taming":
        return {"state_dict": {**tensors, "loss.discriminator.main.0.weight": torch.ones(2)}, "epoch": 3}
    if family == "llamagen":
        return {"model": {**tensors, "quantize.codebook_used": torch.zeros(65536)}}
    if family == "janus":
        named = {f"gen_vision_model.{name}": tensor for name, tensor in tensors.items()}
        return {**named, "language_model.x": torch.ones(2)}
    return {"state_dict": averaged(tensors)} if family in ("ibq", "magvit2") else dict(tensors)


@torch.no_grad()
@pytest.mark.parametrize("program", PROGRAMS)
def test_the_codes_and_pixels_of_the_program(program: str, large_folder: Path) -> None:
    (tensors, known), family = PROGRAMS[program](), program.partition(":")[0]
    torch.save(written(family, tensors), large_folder / "a.ckpt")
    found = convert(large_folder / "a.ckpt", image_size=128)
    assert found.family == family
    agree(found.tokenizer, known)
