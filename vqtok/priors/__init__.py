"""How probable are these codes, and draw new ones.

To add an architecture: one file here with a function that builds it and a decoder, one line in `ARCHITECTURES`, and its
case in `likelihood.py` and `sampling.py`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from transformers import AutoConfig, AutoModel

from vqtok.errors import ConfigurationError, did_you_mean
from vqtok.priors.binding import PriorBinding
from vqtok.priors.likelihood import Prior, code_logits, negative_log_likelihood, training_loss
from vqtok.priors.loading import load_prior
from vqtok.priors.pixelcnn import PixelCNN, PixelCNNConfig, pixelcnn_prior
from vqtok.priors.sampling import Detokenizer, generate, sample_codes
from vqtok.priors.transformer import transformer_prior

__all__ = [
    "ARCHITECTURES",
    "Detokenizer",
    "PixelCNN",
    "PixelCNNConfig",
    "Prior",
    "PriorBinding",
    "build_prior",
    "code_logits",
    "fill_prior_options",
    "generate",
    "load_prior",
    "negative_log_likelihood",
    "sample_codes",
    "training_loss",
]

ARCHITECTURES: dict[str, Callable[..., Prior]] = {
    "pixelcnn": pixelcnn_prior,
    "transformer": transformer_prior,
}

AutoConfig.register(PixelCNNConfig.model_type, PixelCNNConfig, exist_ok=True)
AutoModel.register(PixelCNNConfig, PixelCNN, exist_ok=True)


def fill_prior_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """`{"type": "transformer", ...}` with what is left out by default, so that a saved configuration says everything.

    Raises:
        ConfigurationError: an unknown architecture, an option it does not have, or a value of the wrong type.
    """
    kind = options.get("type", "transformer")
    if kind not in ARCHITECTURES:
        raise ConfigurationError(
            f"arch must be one of {', '.join(sorted(ARCHITECTURES))}, got {kind!r}."
            f"{did_you_mean(str(kind), ARCHITECTURES)}"
        )
    parameters = inspect.signature(ARCHITECTURES[kind]).parameters
    filled = {"type": kind} | {name: p.default for name, p in parameters.items() if p.default is not p.empty}
    for name, value in options.items():
        if name not in filled:
            allowed = [known for known in filled if known != "type"]
            raise ConfigurationError(
                f"a prior of type {kind} has no option {name!r}, it has {', '.join(allowed)}."
                f"{did_you_mean(name, allowed)}"
            )
        filled[name] = _typed(name, value, type(filled[name]))
    return filled


def build_prior(binding: PriorBinding, options: Mapping[str, Any]) -> Prior:
    """An untrained prior for the codes of one tokenizer.

    Args:
        binding: the grids, classes and tokenizer it is for.
        options: `{"type": "transformer", "hidden_size": 256, ...}`, what is left out by default.

    Raises:
        ConfigurationError: as in `fill_prior_options`, or numbers that make no network for these codes.
    """
    filled = fill_prior_options(options)
    return ARCHITECTURES[filled.pop("type")](binding, **filled)


def _typed(name: str, value: Any, wanted: type) -> Any:
    if wanted is float and type(value) is int or wanted is int and type(value) is float and value.is_integer():
        value = wanted(value)
    if type(value) is not wanted:
        raise ConfigurationError(f"{name} must be {wanted.__name__}, got {value!r}")
    return value
