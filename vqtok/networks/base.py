"""What a pair of networks is: options, an encoder and a decoder."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field
from torch import nn

from vqtok.options import Options

__all__ = ["Network", "NetworkOptions"]


class NetworkOptions(Options):
    """What the options of every pair of networks have: its name, as `type`, and how far it reduces an image."""

    section = "network"

    type: str
    downsample_factor: int = Field(4, ge=1, description="pixels a side for one code")


@dataclass(frozen=True, kw_only=True)
class Network:
    """A pair of networks.

    Attributes:
        options: what can be chosen.
        encoder, decoder: modules that take `num_channels` (C), `code_dim` (D) and the options by name.
    """

    options: type[NetworkOptions]
    encoder: type[nn.Module]
    decoder: type[nn.Module]
