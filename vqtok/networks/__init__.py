"""Pixels <-> latents: plain modules that know no configuration object.

To add a pair of networks: one file here with its options and its code, one line in `NETWORKS`, one test file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from vqtok.networks.base import Network, NetworkOptions
from vqtok.networks.conv import CONV, ConvDecoder, ConvEncoder
from vqtok.networks.vqgan import PRESETS, VQGAN, VQGANDecoder, VQGANEncoder
from vqtok.options import Types

__all__ = [
    "NETWORKS",
    "NETWORK_TYPES",
    "ConvDecoder",
    "ConvEncoder",
    "NetworkOptions",
    "VQGANDecoder",
    "VQGANEncoder",
    "build_networks",
]

NETWORKS: dict[str, Network] = {
    "conv": CONV,
    "vqgan": VQGAN,
}

NETWORK_TYPES = Types({name: network.options for name, network in NETWORKS.items()}, default="conv", presets=PRESETS)
"""Annotation of a field that holds the options of any pair of networks."""


def build_networks(
    options: Mapping[str, Any],
    *,
    num_channels: int,
    code_dim: int,
    encoder_dim: int | None = None,
    decoder_channels: int | None = None,
) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder from their configuration: `{"type": "conv", "hidden_size": 128, ...}`.

    Args:
        num_channels: of the images.
        code_dim: channels of what the encoder gives and the decoder takes.
        encoder_dim: of what the encoder gives, where that is something else.
        decoder_channels: of what the decoder gives, where that is no image.

    Raises:
        ConfigurationError: an unknown type, an option that it does not have, or a value that makes no sense.
    """
    entries = NETWORK_TYPES.entries(options)
    network = NETWORKS[entries["type"]]
    return (
        network.encoder(num_channels=num_channels, code_dim=encoder_dim or code_dim, **entries),
        network.decoder(num_channels=decoder_channels or num_channels, code_dim=code_dim, **entries),
    )
