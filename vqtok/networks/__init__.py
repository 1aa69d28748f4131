"""Pixels <-> latents: plain modules that know no configuration object."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from vqtok.errors import ConfigurationError, did_you_mean
from vqtok.networks.conv import ConvDecoder, ConvEncoder

__all__ = ["NETWORKS", "ConvDecoder", "ConvEncoder", "build_networks", "network_options"]

NETWORKS: dict[str, tuple[type[nn.Module], type[nn.Module]]] = {
    "conv": (ConvEncoder, ConvDecoder),
}


def network_options(kind: str) -> dict[str, Any]:
    """The options of a pair of networks and their defaults, by name; channels and code dimension are not among them."""
    if not isinstance(kind, str) or kind not in NETWORKS:
        raise ConfigurationError(
            f"network.type must be one of {', '.join(sorted(NETWORKS))}, got {kind!r}."
            f"{did_you_mean(str(kind), NETWORKS)}"
        )
    parameters = inspect.signature(NETWORKS[kind][0]).parameters
    return {
        name: parameter.default for name, parameter in parameters.items() if name not in ("num_channels", "code_dim")
    }


def build_networks(options: Mapping[str, Any], *, num_channels: int, code_dim: int) -> tuple[nn.Module, nn.Module]:
    """Encoder and decoder from their configuration: `{"type": "conv", "hidden_size": 128, ...}`."""
    given = {name: value for name, value in options.items() if name != "type"}
    encoder, decoder = NETWORKS[options["type"]]
    return (
        encoder(num_channels=num_channels, code_dim=code_dim, **given),
        decoder(num_channels=num_channels, code_dim=code_dim, **given),
    )
