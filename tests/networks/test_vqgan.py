"""The VQGAN family against transformers, diffusers and equations written out, and what its options promise."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import ChameleonVQVAE, ChameleonVQVAEConfig, JanusVQVAEConfig
from transformers.models.janus.modeling_janus import JanusVQVAE

from tests.networks import reference_vqgan as reference
from vqtok.errors import ConfigurationError
from vqtok.networks import build_networks
from vqtok.networks.vqgan import PRESETS
from vqtok.networks.vqgan.blocks import from_haar, to_haar
from vqtok.networks.vqgan.norms import GroupNorm
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig

SMALL = {"base_channels": 32, "channel_multipliers": [1, 1, 2], "z_channels": 32}
CODE_DIMS = {"magvit2-f16": 18, "maskgit-f16": 256, "cosmos-f16": 6}


def shaken(module: nn.Module) -> nn.Module:
    """With every norm and bias away from 1 and 0, where they would hide what is missing."""
    torch.manual_seed(1)
    for parameter in module.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(torch.randn_like(parameter), alpha=0.2)
    return module.eval()


def make(preset: str = "vqgan-f16", code_dim: int = 8, **options: Any) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    networks = build_networks({"type": preset, **SMALL, **options}, num_channels=3, code_dim=code_dim)
    encoder, decoder = map(shaken, networks)
    return encoder, decoder


def close(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("preset", "millions"),
    [("llamagen-f16", 71.8), ("llamagen-f8", 70.0), ("ibq-f16", 106.7), ("magvit2-f16", 115.1), ("maskgit-f16", 54.3)],
)
def test_presets_have_the_parameters_of_what_was_published(preset: str, millions: float) -> None:
    """72 and 70 million are what LlamaGen says; the others were counted in the published code."""
    with torch.device("meta"):
        networks = build_networks(preset, num_channels=3, code_dim=CODE_DIMS.get(preset, 8))
    number = sum(parameter.numel() for network in networks for parameter in network.parameters())
    assert round(number / 1e6, 1) == pytest.approx(millions, abs=0.15)


@pytest.mark.parametrize("preset", PRESETS)
def test_shapes_there_and_back_of_every_preset(preset: str) -> None:
    code_dim = CODE_DIMS.get(preset, 8)
    with torch.device("meta"):
        encoder, decoder = build_networks(preset, num_channels=3, code_dim=code_dim)
        latents = encoder(torch.empty(2, 3, 64, 96))
        factor = 8 if preset.endswith("f8") else 16
        assert latents.shape == (2, code_dim, 64 // factor, 96 // factor)
        assert decoder(latents).shape == (2, 3, 64, 96)


@torch.no_grad()
def test_chameleon_of_transformers() -> None:
    config = ChameleonVQVAEConfig(
        base_channels=32, channel_multiplier=[1, 1, 2], latent_channels=32, embed_dim=8, num_embeddings=16
    )
    theirs = shaken(ChameleonVQVAE(config))
    encoder, _ = make(attention_levels=[])
    state = theirs.state_dict()
    encoder.load_state_dict(
        {name.removeprefix("encoder."): value for name, value in state.items() if name.startswith("encoder.")}
        | {name: state[name] for name in ("quant_conv.weight", "quant_conv.bias")}
    )
    pixels = torch.rand(2, 3, 32, 24) * 2 - 1
    close(encoder(pixels), theirs.quant_conv(theirs.encoder(pixels)))


@torch.no_grad()
def test_janus_of_transformers() -> None:
    config = JanusVQVAEConfig(
        base_channels=32, channel_multiplier=[1, 1, 2], latent_channels=32, embed_dim=8, num_embeddings=16
    )
    theirs = shaken(JanusVQVAE(config))
    encoder, decoder = make()
    state = {
        re.sub(r"decoder\.up\.(\d)", lambda found: f"decoder.up.{2 - int(found[1])}", name): value
        for name, value in theirs.state_dict().items()
    }
    for network, part, conv in ((encoder, "encoder.", "quant_conv"), (decoder, "decoder.", "post_quant_conv")):
        network.load_state_dict(
            {name.removeprefix(part): value for name, value in state.items() if name.startswith(part)}
            | {f"{conv}.{kind}": state[f"{conv}.{kind}"] for kind in ("weight", "bias")}
        )
    pixels, codes = torch.rand(2, 3, 32, 24) * 2 - 1, torch.randn(2, 8, 8, 6)
    close(encoder(pixels), theirs.quant_conv(theirs.encoder(pixels)))
    close(decoder(codes), theirs.decoder(theirs.post_quant_conv(codes)))


Reference = Callable[[reference.Weights, Tensor, int, int], Tensor]


@torch.no_grad()
@pytest.mark.parametrize(
    ("preset", "code_dim", "options", "encode", "decode"),
    [
        ("vqgan-f16", 8, {}, reference.taming_encoder, reference.taming_decoder),
        ("ibq-f16", 8, {}, reference.taming_encoder, reference.taming_decoder),
        ("magvit2-f16", 18, {"z_channels": 18}, reference.magvit2_encoder, reference.magvit2_decoder),
        ("maskgit-f16", 32, {}, reference.maskgit_encoder, reference.maskgit_decoder),
    ],
)
def test_the_equations_of_the_source(
    preset: str, code_dim: int, options: dict[str, Any], encode: Reference, decode: Reference
) -> None:
    encoder, decoder = make(preset, code_dim, **options)
    blocks = 4 if preset in ("ibq-f16", "magvit2-f16") else 2
    pixels, codes = torch.rand(2, 3, 16, 24), torch.randn(2, code_dim, 4, 6)
    unit = preset == "maskgit-f16"
    close(encoder(pixels * 2 - 1), encode(encoder.state_dict(), pixels if unit else pixels * 2 - 1, 3, blocks))
    decoded = decode(decoder.state_dict(), codes, 3, blocks)
    close(decoder(codes), decoded * 2 - 1 if unit else decoded)


@torch.no_grad()
def test_cosmos_is_the_same_network_over_wavelets() -> None:
    levels: dict[str, Any] = {"attention_levels": [], "down_levels": [0], "up_levels": [2]}
    encoder, decoder = make("cosmos-f16", patch=4, **levels)
    within, without = make("cosmos-f16", patch=1, **levels)
    assert encoder.options.downsample_factor == 8
    wide = build_networks({"type": "vqgan", **SMALL, **levels}, num_channels=48, code_dim=8)
    for ours, other in zip((encoder, decoder), wide, strict=True):
        other.load_state_dict(ours.state_dict())
    pixels, codes = torch.randn(2, 3, 16, 24), torch.randn(2, 8, 2, 3)
    twice = reference.haar(reference.haar(pixels))
    close(encoder(pixels), wide[0](twice))
    close(reference.haar(reference.haar(decoder(codes))), wide[1](codes))
    assert within.conv_in.in_channels == without.conv_out.out_channels == 3


@pytest.mark.parametrize("patch", [1, 2, 4, 8])
def test_wavelets_go_back_to_the_image(patch: int) -> None:
    images = torch.randn(2, 3, 16, 24)
    assert to_haar(images, patch).shape == (2, 3 * patch**2, 16 // patch, 24 // patch)
    close(from_haar(to_haar(images, patch), patch), images)


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"type": "vqgan", "attention_levels": [5]}, "attention_levels must be from 0 to 4"),
        ({"type": "vqgan", "down_levels": [1, 0]}, "each level at most once, in ascending order"),
        ({"type": "vqgan", "down_levels": [0]}, "down_levels and up_levels must be as many"),
        ({"type": "vqgan", "downsample_factor": 8}, "downsample_factor must be 16, as down_levels and patch make it"),
        ({"type": "vqgan", "mid_blocks": 3}, "mid_attention stands between two middle blocks"),
        (
            {"type": "vqgan", "base_channels": 48},
            r"norm_groups must divide the channels of every level \(48, 96, 192\)",
        ),
        ({"type": "vqgan", "channel_multipliers": []}, "channel_multipliers must be a list"),
        ({"type": "vqgan", "channel_multipliers": "1"}, "channel_multipliers must be a list"),
        ({"type": "vqgan", "patch": 3}, "patch must be 1, 2, 4 or 8, got 3"),
        ({"type": "vqgan", "hidden_size": 3}, "hidden_size is not an option of network.type 'vqgan'"),
        ({"type": "vqgan-f32"}, "Did you mean 'vqgan"),
        ({"type": "magvit2-f16"}, "z_channels 18 must be the code dimension 8 where network.quant_conv_kernel is 0"),
    ],
)
def test_what_does_not_go_together_is_one_line(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^[^\n]*{complaint}[^\n]*$"):
        build_networks(options, num_channels=3, code_dim=8)


def test_a_preset_is_saved_as_what_it_means() -> None:
    config = VQTokenizerConfig(image_size=64, network={"type": "vqgan-f8", "base_channels": 32})
    assert config.network["type"] == "vqgan" and config.network["channel_multipliers"] == [1, 1, 2, 4]
    assert config.downsample_factor == 8 and config.network["up_levels"] == [1, 2, 3]
    assert VQTokenizerConfig.from_dict(config.to_dict()).network == config.network
    assert VQTokenizerConfig(image_size=64, network="vqgan-f16").downsample_factor == 16


def tokenizer(**options: Any) -> VQTokenizer:
    torch.manual_seed(0)
    network = {"type": "vqgan", **SMALL, **options}
    quantizer = {"type": "vq", "codebook_size": 16, "code_dim": 8, "init": "normal"}
    return VQTokenizer(VQTokenizerConfig(image_size=32, network=network, quantizer=quantizer))


def test_norms_are_float32_in_a_model_of_another_type() -> None:
    norm = GroupNorm(32, 4)
    features = torch.randn(2, 32, 4, 4) * 100 + 1000  # whose mean bfloat16 does not hold to the unit
    there = norm(features.to(torch.bfloat16).float())
    assert torch.equal(norm.to(torch.bfloat16)(features.to(torch.bfloat16)), there.to(torch.bfloat16))
    half = tokenizer().eval().to(torch.bfloat16)
    assert half(torch.rand(1, 3, 32, 32)).reconstruction.dtype == torch.bfloat16
    assert half.quantizer.codebook.dtype == torch.float32


def test_a_saved_tokenizer_gives_the_same_codes(tmp_path: Any) -> None:
    model, pixels = shaken(tokenizer(decoder_norm="spatial")), torch.rand(2, 3, 64, 32) * 2 - 1
    model.save_pretrained(tmp_path)
    again = VQTokenizer.from_pretrained(tmp_path)
    assert torch.equal(again.encode(pixels), model.encode(pixels)) and again.fingerprint == model.fingerprint
    assert torch.equal(again(pixels).reconstruction, model(pixels).reconstruction)


@pytest.mark.parametrize("norm", ["group", "spatial", "adaptive"])
def test_gradient_checkpointing_gives_the_same_gradients(norm: str) -> None:
    pixels, found = torch.rand(2, 3, 32, 32) * 2 - 1, []
    for checkpointed in (False, True):
        model = tokenizer(decoder_norm=norm).train()
        if checkpointed:
            with pytest.warns(FutureWarning, match="activation_checkpointing_enable"):  # its newer name
                model.gradient_checkpointing_enable()
        model(pixels).loss.backward()
        found.append({name: each.grad for name, each in model.named_parameters()})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        assert torch.equal(gradient, found[1][name]), name


def test_other_networks_say_that_they_cannot_checkpoint() -> None:
    with pytest.raises(ValueError, match="gradient checkpointing"):
        VQTokenizer(VQTokenizerConfig()).activation_checkpointing_enable()


@pytest.mark.parametrize("norm", ["group", "spatial", "adaptive"])
def test_it_compiles_without_a_break(norm: str) -> None:
    for network, given in zip(
        make(decoder_norm=norm, channel_multipliers=[1, 2]),
        (torch.rand(1, 3, 8, 8), torch.rand(1, 8, 4, 4)),
        strict=True,
    ):
        torch._dynamo.reset()
        compiled = torch.compile(network, fullgraph=True, backend="eager")
        close(compiled(given), network(given))


def test_channels_last_stays() -> None:
    encoder, decoder = (network.to(memory_format=torch.channels_last) for network in make())
    latents = encoder(torch.rand(2, 3, 32, 32).contiguous(memory_format=torch.channels_last))
    assert latents.is_contiguous(memory_format=torch.channels_last)
    assert decoder(latents).is_contiguous(memory_format=torch.channels_last)
