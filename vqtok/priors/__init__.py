"""Priors: how probable codes are, and new ones sampled from them.

To add an architecture: one file here that ends in its `Architecture`, one line in `registry.py`, and one in
`hub/folder.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vqtok.priors.architecture import Architecture, Prior
from vqtok.priors.base import PriorOptions
from vqtok.priors.binding import PriorBinding
from vqtok.priors.completion import Completer, complete, complete_codes
from vqtok.priors.likelihood import code_logits, negative_log_likelihood, training_loss
from vqtok.priors.loading import load_prior
from vqtok.priors.pixelcnn import PixelCNN, PixelCNNConfig
from vqtok.priors.registry import ARCHITECTURE_TYPES, ARCHITECTURES
from vqtok.priors.sampling import Detokenizer, generate, sample_codes

__all__ = [
    "ARCHITECTURES",
    "ARCHITECTURE_TYPES",
    "Architecture",
    "Completer",
    "Detokenizer",
    "PixelCNN",
    "PixelCNNConfig",
    "Prior",
    "PriorBinding",
    "PriorOptions",
    "build_prior",
    "code_logits",
    "complete",
    "complete_codes",
    "generate",
    "load_prior",
    "negative_log_likelihood",
    "sample_codes",
    "training_loss",
]


def build_prior(binding: PriorBinding, options: Mapping[str, Any]) -> Prior:
    """An untrained prior for the codes of one tokenizer.

    Args:
        binding: the grids, classes and tokenizer it is for.
        options: `{"type": "transformer", "hidden_size": 256, ...}`, what is left out by default.

    Raises:
        ConfigurationError: an unknown architecture, an option that it does not have, a value that makes no sense, or
            numbers that make no network for these codes.
        RuntimeError: of torch, for a network that does not fit into memory.
    """
    entries = ARCHITECTURE_TYPES.entries(options)
    return ARCHITECTURES[entries["type"]].build(binding, **entries)
