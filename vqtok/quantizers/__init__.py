"""Latents -> codes -> vectors: one file per method, one contract for all.

To add a method: one file here, one line in `QUANTIZERS`, one test file.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping
from typing import Any

from vqtok.errors import ConfigurationError, did_you_mean
from vqtok.quantizers.base import Quantizer, QuantizerOutput, perplexity
from vqtok.quantizers.bsq import BinarySphericalQuantizer
from vqtok.quantizers.ema import EMAQuantizer
from vqtok.quantizers.fsq import FiniteScalarQuantizer
from vqtok.quantizers.gumbel import GumbelQuantizer
from vqtok.quantizers.ibq import IndexBackpropagationQuantizer
from vqtok.quantizers.lfq import LookupFreeQuantizer
from vqtok.quantizers.lookup import nearest_codes
from vqtok.quantizers.product import ProductQuantizer
from vqtok.quantizers.residual import ResidualQuantizer
from vqtok.quantizers.simvq import SimVQuantizer
from vqtok.quantizers.vq import VectorQuantizer

__all__ = [
    "QUANTIZERS",
    "BinarySphericalQuantizer",
    "EMAQuantizer",
    "FiniteScalarQuantizer",
    "GumbelQuantizer",
    "IndexBackpropagationQuantizer",
    "LookupFreeQuantizer",
    "ProductQuantizer",
    "Quantizer",
    "QuantizerOutput",
    "ResidualQuantizer",
    "SimVQuantizer",
    "VectorQuantizer",
    "build_quantizer",
    "nearest_codes",
    "perplexity",
    "quantizer_options",
]

QUANTIZERS: dict[str, type[Quantizer]] = {
    "bsq": BinarySphericalQuantizer,
    "ema": EMAQuantizer,
    "fsq": FiniteScalarQuantizer,
    "gumbel": GumbelQuantizer,
    "ibq": IndexBackpropagationQuantizer,
    "lfq": LookupFreeQuantizer,
    "product": ProductQuantizer,
    "residual": ResidualQuantizer,
    "simvq": SimVQuantizer,
    "vq": VectorQuantizer,
}


def quantizer_options(method: str) -> dict[str, Any]:
    """The options of a method and their defaults, by name."""
    if not isinstance(method, str) or method not in QUANTIZERS:
        allowed = ", ".join(sorted(QUANTIZERS))
        raise ConfigurationError(
            f"quantizer.type must be one of {allowed}, got {method!r}.{did_you_mean(str(method), QUANTIZERS)}"
        )
    options: dict[str, Any] = {}
    # A method takes the options of its parents; where it names one itself, its own default holds.
    for kind in reversed(QUANTIZERS[method].__mro__):
        if "__init__" in vars(kind):
            parameters = inspect.signature(vars(kind)["__init__"]).parameters.values()
            options |= {p.name: copy.copy(p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}
    return options


def build_quantizer(options: Mapping[str, Any]) -> Quantizer:
    """A quantizer from its configuration: `{"type": "ema", "codebook_size": 512, ...}`, what is left out by default."""
    given = {name: value for name, value in options.items() if name != "type"}
    return QUANTIZERS[options["type"]](**given)


def build_each(options: Mapping[str, Any]) -> Quantizer:
    """A quantizer that is a part of another, from the section `each`; what is refused is named as it was given."""
    try:
        return build_quantizer(options)
    except ConfigurationError as error:
        raise ConfigurationError(str(error).replace("quantizer.", "quantizer.each.")) from None
