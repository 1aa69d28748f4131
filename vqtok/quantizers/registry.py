"""Methods with one codebook per position, by name. product and residual, which are made of several, are not here."""

from __future__ import annotations

from vqtok.quantizers.base import Quantizer, QuantizerOptions
from vqtok.quantizers.bsq import BinarySphericalQuantizer
from vqtok.quantizers.ema import EMAQuantizer
from vqtok.quantizers.fsq import FiniteScalarQuantizer
from vqtok.quantizers.gumbel import GumbelQuantizer
from vqtok.quantizers.ibq import IndexBackpropagationQuantizer
from vqtok.quantizers.lfq import LookupFreeQuantizer
from vqtok.quantizers.simvq import SimVQuantizer
from vqtok.quantizers.vq import VectorQuantizer

__all__ = ["SINGLE_CODEBOOK", "build_part"]

SINGLE_CODEBOOK: dict[str, type[Quantizer]] = {
    "bsq": BinarySphericalQuantizer,
    "ema": EMAQuantizer,
    "fsq": FiniteScalarQuantizer,
    "gumbel": GumbelQuantizer,
    "ibq": IndexBackpropagationQuantizer,
    "lfq": LookupFreeQuantizer,
    "simvq": SimVQuantizer,
    "vq": VectorQuantizer,
}


def build_part(options: QuantizerOptions) -> Quantizer:
    """A quantizer that is a part of another."""
    return SINGLE_CODEBOOK[options.type](**options.model_dump())
