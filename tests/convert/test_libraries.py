"""diffusers' VQModel and transformers' Chameleon and Janus at full size, with random weights: their codes and pixels.

Both libraries run their own code. Chameleon's image processor in transformers makes pixels in [-1, 0.989],
its original ones in [-1, 1], as here: that is before the network, which is compared on the same pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.functional import normalize
from transformers import ChameleonVQVAE, ChameleonVQVAEConfig, JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from tests.convert.equations import nearest
from tests.convert.parity import Known, agree, image
from vqtok.convert import Converted, convert

SHOWN = 4  # positions a side that are decoded


def shaken(model: nn.Module) -> nn.Module:
    """With norms and biases away from 1 and 0, where they would hide what is missing."""
    torch.manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(torch.randn_like(parameter), alpha=0.2)
    return model.eval()


def scaled(conv: nn.Conv2d, output: Tensor, *, mean: float = 0.0, spread: float = 1.0) -> None:
    """Change a convolution so that the channels of what it gave have this mean and spread."""
    there, about = torch.std_mean(output, dim=(0, 2, 3))
    conv.weight.mul_((spread / there)[:, None, None, None])
    assert conv.bias is not None
    conv.bias.sub_(about).mul_(spread / there).add_(mean)


DIFFUSERS: Mapping[str, Mapping[str, Any]] = {
    "amused": {
        "block_out_channels": (128, 256, 256, 512, 768),
        "latent_channels": 64,
        "num_vq_embeddings": 8192,
        "mid_block_add_attention": False,
        "lookup_from_codebook": True,
        "force_upcast": True,
    },
    "vq-diffusion-ithq": {
        "block_out_channels": (64, 128, 256, 512),
        "latent_channels": 256,
        "num_vq_embeddings": 4096,
        "vq_embed_dim": 128,
        "attends": True,
    },
    "kandinsky's movq": {
        "block_out_channels": (128, 256, 256, 512),
        "latent_channels": 4,
        "num_vq_embeddings": 16384,
        "vq_embed_dim": 4,
        "norm_type": "spatial",
        "attends": True,
    },
    "ldm vq-f4": {"block_out_channels": (128, 256, 512), "latent_channels": 3, "num_vq_embeddings": 8192},
    "fewer groups": {"block_out_channels": (48, 96), "latent_channels": 4, "norm_num_groups": 16, "attends": True},
}


def vq_model(*, attends: bool = False, **options: Any) -> Any:
    from diffusers import VQModel  # takes seconds

    levels = len(options["block_out_channels"])
    plain = ["DownEncoderBlock2D"] * levels, ["UpDecoderBlock2D"] * levels
    if attends:
        plain[0][-1], plain[1][0] = "AttnDownEncoderBlock2D", "AttnUpDecoderBlock2D"
    torch.manual_seed(0)
    model = VQModel(down_block_types=plain[0], up_block_types=plain[1], layers_per_block=2, **options)
    return shaken(model)


@torch.no_grad()
@pytest.mark.parametrize("name", DIFFUSERS)
def test_vq_models_of_diffusers(name: str, large_folder: Path) -> None:
    theirs, unit = vq_model(**DIFFUSERS[name]), name == "amused"
    pixels = image(128 if unit else 64)
    inputs = (pixels + 1) / 2 if unit else pixels
    scaled(theirs.quant_conv, theirs.encode(inputs).latents)
    theirs.quantize.embedding.weight.normal_()
    latents = theirs.encode(inputs).latents
    codes = theirs.quantize(latents)[2][2].view(1, *latents.shape[2:])
    few = latents[:, :, :SHOWN, :SHOWN]
    scaled(theirs.decoder.conv_out, theirs.decode(few).sample, mean=0.5 * unit, spread=0.15 if unit else 0.3)
    decoded = theirs.decode(few).sample
    theirs.save_pretrained(large_folder)
    found = convert(large_folder, image_size=128)
    assert found.family == "diffusers"
    unsure = nearest(latents, theirs.quantize.embedding.weight)[1]
    decoded = decoded * 2 - 1 if unit else decoded
    agree(found.tokenizer, Known(pixels=pixels, codes=codes, unsure=unsure, decoded=decoded))


def converted(model: nn.Module, folder: Path) -> Converted:
    """Of a checkpoint of the whole model that it is a part of."""
    named = {f"model.vqmodel.{name}": tensor for name, tensor in model.state_dict().items()}
    save_file(named | {"model.language_model.layers.0.weight": torch.ones(2)}, folder / "model.safetensors")
    found = convert(folder)
    assert found.dropped == ("model.language_model.layers.0.weight",)
    return found


@torch.no_grad()
def test_chameleon_of_transformers_which_has_no_decoder(large_folder: Path) -> None:
    torch.manual_seed(0)
    theirs: Any = shaken(ChameleonVQVAE(ChameleonVQVAEConfig()))
    assert (theirs.config.base_channels, theirs.config.num_embeddings) == (128, 8192)
    theirs.quantize.embedding.weight.normal_()
    pixels = image(128)
    scaled(theirs.quant_conv, theirs.quant_conv(theirs.encoder(pixels)))
    latents = theirs.quant_conv(theirs.encoder(pixels))
    found = converted(theirs, large_folder)
    assert (found.family, found.tokenizer.config.size) == ("chameleon", (512, 512))
    assert "no decoder" in found.provenance.notes[-1]
    codes = theirs.encode(pixels).image_tokens.view(1, 8, 8)
    unsure = nearest(latents, theirs.quantize.embedding.weight)[1]
    agree(found.tokenizer, Known(pixels=pixels, codes=codes, unsure=unsure, decoded=None))


@torch.no_grad()
def test_janus_of_transformers(large_folder: Path) -> None:
    """Whose rows are of unit length; of others its `encode` gives other codes than the program that it came from."""
    torch.manual_seed(0)
    theirs: Any = shaken(JanusVQVAE(JanusVQVAEConfig(num_patches=SHOWN)))
    assert (theirs.config.base_channels, theirs.config.num_embeddings) == (128, 16384)
    theirs.quantize.embedding.weight.copy_(normalize(torch.randn(16384, 8), dim=1))
    pixels = image(128)
    scaled(theirs.quant_conv, theirs.quant_conv(theirs.encoder(pixels)))
    latents = theirs.quant_conv(theirs.encoder(pixels))
    codes = theirs.encode(pixels).image_tokens.view(1, 8, 8)
    few = codes[:, :SHOWN, :SHOWN].flatten(1)
    scaled(theirs.decoder.conv_out, theirs.decode(few), spread=0.3)
    decoded = theirs.decode(few)
    found = converted(theirs, large_folder)
    assert found.family == "janus-transformers"
    unsure = nearest(normalize(latents, dim=1), theirs.quantize.embedding.weight)[1]
    known = Known(pixels=pixels, codes=codes, unsure=unsure, decoded=decoded)
    agree(found.tokenizer, known)
