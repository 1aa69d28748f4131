"""Architectures of priors, by name; `hub/folder.py` knows them by `model_type`."""

from __future__ import annotations

from vqtok.options import Types
from vqtok.priors.architecture import Architecture, Prior
from vqtok.priors.pixelcnn import PIXELCNN
from vqtok.priors.transformer import TRANSFORMER

__all__ = ["ARCHITECTURES", "ARCHITECTURE_TYPES", "BY_MODEL_TYPE", "architecture_of"]

ARCHITECTURES = {"pixelcnn": PIXELCNN, "transformer": TRANSFORMER}

ARCHITECTURE_TYPES = Types({name: each.options for name, each in ARCHITECTURES.items()}, default="transformer")
"""Annotation of a field that holds the options of any architecture."""


BY_MODEL_TYPE = {each.model_type: each for each in ARCHITECTURES.values()}


def architecture_of(prior: Prior) -> Architecture:
    """What a prior is, by its configuration."""
    return BY_MODEL_TYPE[prior.config.model_type]
