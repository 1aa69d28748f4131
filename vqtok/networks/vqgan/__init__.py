"""VQGAN: residual blocks with group norm and attention, as encoder and decoder of most published image tokenizers.

Esser et al. 2021, arXiv:2012.09841. What later tokenizers changed in it are options, see options.py, and presets.py
says which of them a published one has.
"""

from __future__ import annotations

from vqtok.networks.base import Network
from vqtok.networks.vqgan.decoder import VQGANDecoder
from vqtok.networks.vqgan.encoder import VQGANEncoder
from vqtok.networks.vqgan.options import VQGANOptions
from vqtok.networks.vqgan.presets import PRESETS

__all__ = ["PRESETS", "VQGAN", "VQGANDecoder", "VQGANEncoder", "VQGANOptions"]

VQGAN = Network(options=VQGANOptions, encoder=VQGANEncoder, decoder=VQGANDecoder)
