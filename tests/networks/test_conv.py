from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d

from vqtok.errors import ConfigurationError
from vqtok.networks import NETWORKS, ConvDecoder, ConvEncoder, build_networks


def make(num_channels: int = 3, code_dim: int = 4, **options: Any) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    options = {"type": "conv", "hidden_size": 8, "residual_size": 4} | options
    encoder, decoder = build_networks(options, num_channels=num_channels, code_dim=code_dim)
    for network in (encoder, decoder):
        network.reset_parameters()
    return encoder, decoder


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_shapes_there_and_back(factor: int, channels: int) -> None:
    encoder, decoder = make(channels, downsample_factor=factor)
    pixels = torch.randn(2, channels, 16, 24)
    latents = encoder(pixels)
    assert latents.shape == (2, 4, 16 // factor, 24 // factor)
    assert decoder(latents).shape == pixels.shape


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_one_position_of_the_grid_sees_its_own_pixels(factor: int) -> None:
    """The last position of the grid depends on the last pixel, and the last pixel on the last position."""
    encoder, decoder = make(1, downsample_factor=factor, hidden_size=64)
    pixels = torch.randn(1, 1, 16, 16, requires_grad=True)
    encoder(pixels)[0, :, -1, -1].sum().backward()
    assert pixels.grad[0, 0, -1, -1] != 0
    latents = torch.randn(1, 4, 16 // factor, 16 // factor, requires_grad=True)
    decoder(latents)[0, 0, -1, -1].backward()
    assert latents.grad[0, :, -1, -1].abs().max() > 0


def residual_stack(features: torch.Tensor, weights: Iterator[torch.Tensor]) -> torch.Tensor:
    """Two blocks "implemented as ReLU, 3x3 conv, ReLU, 1x1 conv": van den Oord et al. 2017, section 4.1."""
    for _ in range(2):
        branch = conv2d(features.relu(), next(weights), next(weights), padding=1).relu()
        features = features + conv2d(branch, next(weights), next(weights))
    return features.relu()


def test_layers_are_those_of_the_paper() -> None:
    """Written out: two "strided convolutional layers with stride 2 and window size 4 x 4", then the residual blocks.

    Widths and the 3x3 convolution as in the example notebook of Sonnet. The weights are taken in the order of the
    layers, each of the width that the notebook gives it, so a layer more, less, elsewhere or of another kind shows.
    """
    encoder, decoder = make(downsample_factor=4, hidden_size=128, residual_size=32, code_dim=64)
    with torch.no_grad():
        for parameter in (*encoder.parameters(), *decoder.parameters()):
            parameter.copy_(torch.randn(parameter.shape) / max(1, parameter[0].numel()) ** 0.5)
        pixels, latents = torch.randn(2, 3, 16, 24), torch.randn(2, 64, 4, 6)

        weights = iter(encoder.parameters())
        features = conv2d(pixels, next(weights), next(weights), stride=2, padding=1).relu()
        assert features.shape == (2, 64, 8, 12)
        features = conv2d(features, next(weights), next(weights), stride=2, padding=1).relu()
        assert features.shape == (2, 128, 4, 6)
        features = conv2d(features, next(weights), next(weights), padding=1)
        features = residual_stack(features, weights)
        torch.testing.assert_close(encoder(pixels), conv2d(features, next(weights), next(weights)))
        assert next(weights, None) is None

        weights = iter(decoder.parameters())
        features = conv2d(latents, next(weights), next(weights), padding=1)
        features = residual_stack(features, weights)
        features = conv_transpose2d(features, next(weights), next(weights), stride=2, padding=1).relu()
        assert features.shape == (2, 64, 8, 12)
        expected = conv_transpose2d(features, next(weights), next(weights), stride=2, padding=1)
        torch.testing.assert_close(decoder(latents), expected)
        assert next(weights, None) is None
    inside = [layer.out_channels for layer in encoder.modules() if isinstance(layer, nn.Conv2d)]
    assert inside == [64, 128, 128, 32, 128, 32, 128, 64]


@pytest.mark.parametrize("factor", [1, 2, 4, 8])
def test_latents_start_near_unit_variance_and_pixels_at_half_the_range(factor: int) -> None:
    encoder, decoder = make(3, 64, downsample_factor=factor, hidden_size=64, residual_size=32)
    with torch.no_grad():
        latents = encoder(torch.randn(4, 3, 8 * factor, 8 * factor))
        pixels = decoder(torch.randn(16, 64, 8, 8))
    assert 0.4 < latents.var().item() < 1.5
    assert 0.3 < pixels.std().item() < 0.7
    assert abs(latents.mean().item()) < 0.2
    assert abs(pixels.mean().item()) < 0.2


def test_residual_blocks_start_as_the_identity() -> None:
    encoder, _ = make()
    features = torch.randn(2, 8, 5, 5)
    stack = encoder[5]
    assert torch.equal(stack(features), features.relu())


def test_a_residual_block_is_relu_3x3_relu_1x1_added() -> None:
    encoder, _ = make()
    block = encoder[5][0]
    nn.init.normal_(block.pointwise.weight)
    features = torch.randn(2, 8, 5, 5)
    inner = nn.functional.conv2d(features.relu(), block.spatial.weight, block.spatial.bias, padding=1).relu()
    expected = features + nn.functional.conv2d(inner, block.pointwise.weight, block.pointwise.bias)
    torch.testing.assert_close(block(features), expected)


def test_every_weight_has_the_spread_of_its_layer() -> None:
    encoder, decoder = make(3, 64, hidden_size=128, residual_size=32)
    he = math.sqrt(2)
    expected = {
        "encoder.0": he / math.sqrt(3 * 16),
        "encoder.2": he / math.sqrt(64 * 16),
        "encoder.4": he / math.sqrt(128 * 9),
        "encoder.6": 1 / math.sqrt(128),
        "encoder.5.0.spatial": he / math.sqrt(128 * 9),
        "encoder.5.0.pointwise": 0.0,
        "decoder.0": he / math.sqrt(64 * 9),
        "decoder.2": he / math.sqrt(128 * 4),  # kernel 4, stride 2: four positions of the kernel for each output
        "decoder.4": 0.5 / math.sqrt(64 * 4),
    }
    modules = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    for name, spread in expected.items():
        layer = modules.get_submodule(name)
        assert layer.weight.std().item() == pytest.approx(spread, rel=0.08), name
        assert layer.bias.abs().max() == 0, name


@pytest.mark.parametrize("network", ["encoder", "decoder"])
def test_torch_compile_takes_it_whole(network: str) -> None:
    encoder, decoder = make(num_residual_blocks=1)
    plain, given = (encoder, torch.randn(2, 3, 16, 16)) if network == "encoder" else (decoder, torch.randn(2, 4, 4, 4))
    compiled = torch.compile(plain, backend="eager", fullgraph=True)
    assert torch.equal(compiled(given), plain(given))


def test_no_residual_blocks_at_all_is_a_network_too() -> None:
    encoder, decoder = make(num_residual_blocks=0)
    assert decoder(encoder(torch.randn(1, 3, 16, 16))).shape == (1, 3, 16, 16)


def test_the_registry_and_its_options() -> None:
    assert list(NETWORKS) == ["conv", "vqgan"]
    assert (NETWORKS["conv"].encoder, NETWORKS["conv"].decoder) == (ConvEncoder, ConvDecoder)
    assert NETWORKS["conv"].options().model_dump() == {
        "type": "conv",
        "hidden_size": 128,
        "residual_size": 32,
        "num_residual_blocks": 2,
        "downsample_factor": 4,
    }
    with pytest.raises(ConfigurationError, match="network.type must be one of conv, .*, got 'unet'"):
        build_networks({"type": "unet"}, num_channels=3, code_dim=4)


@pytest.mark.parametrize(
    ("network", "options", "message"),
    [
        (kind, *case)
        for kind, case in itertools.product(
            [ConvEncoder, ConvDecoder],
            [
                ({"hidden_size": 1}, "hidden_size must be a whole number from 2 to 65536, got 1"),
                ({"residual_size": 0}, "residual_size must be a whole number from 1 to 65536, got 0"),
                ({"num_residual_blocks": -1}, "num_residual_blocks must be a whole number from 0 to 1024, got -1"),
                ({"downsample_factor": 0}, "downsample_factor must be a power of two up to 1024, got 0"),
                ({"downsample_factor": 6}, "downsample_factor must be a power of two up to 1024, got 6"),
                ({"downsample_factor": -4}, "downsample_factor must be a power of two up to 1024, got -4"),
            ],
        )
    ],
)
def test_options_that_make_no_sense_are_refused(network: Any, options: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        network(num_channels=3, code_dim=4, **options)


@pytest.mark.parametrize("blocks", [0, 2])
def test_memory_that_is_taken_over_is_nobody_elses(blocks: int) -> None:
    """Layers that write into what a convolution gave leave the input as it was, and gradients as they are written."""
    encoder, decoder = make(num_residual_blocks=blocks)
    for parameter in itertools.chain(encoder.parameters(), decoder.parameters()):
        nn.init.normal_(parameter, std=0.3)
    for network, images in ((encoder, torch.randn(2, 3, 8, 8)), (decoder, torch.randn(2, 4, 2, 2))):
        plain = without_in_place(network)
        given, again = images.clone().requires_grad_(), images.clone().requires_grad_()
        network(given).square().sum().backward()
        found = [parameter.grad for parameter in network.parameters()]
        network.zero_grad()
        plain(again).square().sum().backward()
        assert torch.equal(given, images)
        torch.testing.assert_close(given.grad, again.grad)
        torch.testing.assert_close(found, [parameter.grad for parameter in network.parameters()])


def without_in_place(network: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    """The same layers with the same weights, each of which gives something new."""

    def written_out(features: torch.Tensor) -> torch.Tensor:
        for layer in flat(network):
            if isinstance(layer, nn.ReLU):
                features = features.relu()
            elif isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                features = layer(features)
            else:
                spatial, pointwise = layer.children()
                features = features + pointwise(spatial(features.relu()).relu())
        return features

    return written_out


def flat(network: nn.Module) -> Iterator[nn.Module]:
    for layer in network.children():
        yield from flat(layer) if isinstance(layer, nn.Sequential) else (layer,)
