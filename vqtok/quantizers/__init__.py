"""Latents -> codes -> vectors: one file per method, one contract for all.

To add a method: one file here, one line in `QUANTIZERS`, one test file.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from vqtok.errors import ConfigurationError, nearest
from vqtok.quantizers.base import Quantizer, QuantizerOutput, perplexity
from vqtok.quantizers.ema import EMAQuantizer
from vqtok.quantizers.gumbel import GumbelQuantizer
from vqtok.quantizers.lookup import nearest_codes
from vqtok.quantizers.vq import VectorQuantizer

__all__ = [
    "QUANTIZERS",
    "EMAQuantizer",
    "GumbelQuantizer",
    "Quantizer",
    "QuantizerOutput",
    "VectorQuantizer",
    "build_quantizer",
    "nearest_codes",
    "perplexity",
    "quantizer_options",
]

QUANTIZERS: dict[str, type[Quantizer]] = {
    "ema": EMAQuantizer,
    "gumbel": GumbelQuantizer,
    "vq": VectorQuantizer,
}


def quantizer_options(method: str) -> dict[str, Any]:
    """The options of a method and their defaults, by name."""
    if not isinstance(method, str) or method not in QUANTIZERS:
        allowed = ", ".join(sorted(QUANTIZERS))
        raise ConfigurationError(
            f"quantizer.type must be one of {allowed}, got {method!r}.{nearest(str(method), QUANTIZERS)}"
        )
    parameters = inspect.signature(QUANTIZERS[method]).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


def build_quantizer(options: Mapping[str, Any]) -> Quantizer:
    """A quantizer from its configuration: `{"type": "ema", "codebook_size": 512, ...}`, what is left out by default."""
    given = {name: value for name, value in options.items() if name != "type"}
    return QUANTIZERS[options["type"]](**given)
