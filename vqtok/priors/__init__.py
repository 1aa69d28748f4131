"""Priors: how probable codes are, and new ones sampled from them.

To add an architecture: one file here with a function that builds it and a decoder, one line in `ARCHITECTURES`, and its
case in `likelihood.py` and `sampling.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import AutoConfig, AutoModel

from vqtok.options import Types
from vqtok.priors.base import PriorOptions
from vqtok.priors.binding import PriorBinding
from vqtok.priors.likelihood import Prior, code_logits, negative_log_likelihood, training_loss
from vqtok.priors.loading import load_prior
from vqtok.priors.pixelcnn import PixelCNN, PixelCNNConfig, PixelCNNOptions, pixelcnn_prior
from vqtok.priors.sampling import Detokenizer, generate, sample_codes
from vqtok.priors.transformer import TransformerOptions, transformer_prior

__all__ = [
    "ARCHITECTURES",
    "ARCHITECTURE_TYPES",
    "Architecture",
    "Detokenizer",
    "PixelCNN",
    "PixelCNNConfig",
    "Prior",
    "PriorBinding",
    "PriorOptions",
    "build_prior",
    "code_logits",
    "generate",
    "load_prior",
    "negative_log_likelihood",
    "sample_codes",
    "training_loss",
]


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One architecture: what can be chosen, and what builds an untrained prior from a binding and options by name."""

    options: type[PriorOptions]
    build: Callable[..., Prior]


ARCHITECTURES: dict[str, Architecture] = {
    "pixelcnn": Architecture(options=PixelCNNOptions, build=pixelcnn_prior),
    "transformer": Architecture(options=TransformerOptions, build=transformer_prior),
}

ARCHITECTURE_TYPES = Types({name: each.options for name, each in ARCHITECTURES.items()}, default="transformer")
"""Annotation of a field that holds the options of any architecture."""

AutoConfig.register(PixelCNNConfig.model_type, PixelCNNConfig, exist_ok=True)
AutoModel.register(PixelCNNConfig, PixelCNN, exist_ok=True)


def build_prior(binding: PriorBinding, options: Mapping[str, Any]) -> Prior:
    """An untrained prior for the codes of one tokenizer.

    Args:
        binding: the grids, classes and tokenizer it is for.
        options: `{"type": "transformer", "hidden_size": 256, ...}`, what is left out by default.

    Raises:
        ConfigurationError: an unknown architecture, an option that it does not have, a value that makes no sense, or
            numbers that make no network for these codes.
    """
    entries = ARCHITECTURE_TYPES.entries(options)
    return ARCHITECTURES[entries["type"]].build(binding, **entries)
