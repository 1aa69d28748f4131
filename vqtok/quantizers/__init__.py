"""Latents -> codes -> vectors: one file per method, one contract for all.

To add a method: one file here with its options and its code, one line in `registry.py`, one test file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vqtok.options import Types
from vqtok.quantizers.base import Quantizer, QuantizerOptions, QuantizerOutput, perplexity
from vqtok.quantizers.bsq import BinarySphericalQuantizer
from vqtok.quantizers.counting import CodeCounting, CodeUse, DimensionUse, even_use, too_few_in_use
from vqtok.quantizers.ema import EMAQuantizer
from vqtok.quantizers.fsq import FiniteScalarQuantizer
from vqtok.quantizers.gumbel import GumbelQuantizer
from vqtok.quantizers.ibq import IndexBackpropagationQuantizer
from vqtok.quantizers.learned import load_learned
from vqtok.quantizers.lfq import LookupFreeQuantizer
from vqtok.quantizers.lookup import nearest_codes
from vqtok.quantizers.product import ProductQuantizer
from vqtok.quantizers.registry import SINGLE_CODEBOOK
from vqtok.quantizers.residual import ResidualQuantizer
from vqtok.quantizers.simvq import SimVQuantizer
from vqtok.quantizers.vq import VectorQuantizer

__all__ = [
    "QUANTIZERS",
    "QUANTIZER_TYPES",
    "BinarySphericalQuantizer",
    "CodeCounting",
    "CodeUse",
    "DimensionUse",
    "EMAQuantizer",
    "FiniteScalarQuantizer",
    "GumbelQuantizer",
    "IndexBackpropagationQuantizer",
    "LookupFreeQuantizer",
    "ProductQuantizer",
    "Quantizer",
    "QuantizerOptions",
    "QuantizerOutput",
    "ResidualQuantizer",
    "SimVQuantizer",
    "VectorQuantizer",
    "build_quantizer",
    "even_use",
    "load_learned",
    "nearest_codes",
    "perplexity",
    "too_few_in_use",
]

QUANTIZERS: dict[str, type[Quantizer]] = dict(
    sorted((SINGLE_CODEBOOK | {"product": ProductQuantizer, "residual": ResidualQuantizer}).items())
)

QUANTIZER_TYPES = Types({name: method.Options for name, method in QUANTIZERS.items()}, default="ema")
"""Annotation of a field that holds the options of any quantizer."""


def build_quantizer(options: Mapping[str, Any]) -> Quantizer:
    """A quantizer from its configuration: `{"type": "ema", "codebook_size": 512, ...}`, what is left out by default.

    It is float32 also where torch's default type is another one, as while transformers loads a model.

    Raises:
        ConfigurationError: an unknown type, an option that it does not have, or a value that makes no sense.
    """
    entries = QUANTIZER_TYPES.entries(options)
    return QUANTIZERS[entries["type"]](**entries).float()
