"""What a decoder is trained for: the mean squared error, or the likelihood of the pixels.

To add one: one file here with its options and its code, one line in `LIKELIHOODS`, one test file.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vqtok.losses.base import (
    BITS,
    LEVELS,
    Likelihood,
    LikelihoodOptions,
    Reconstruction,
    in_bits,
    to_levels,
    to_values,
)
from vqtok.losses.categorical import Categorical, CategoricalOptions
from vqtok.losses.gaussian import Gaussian, GaussianOptions
from vqtok.losses.logistic import DiscretizedLogistic, LogisticOptions
from vqtok.losses.mixture import LogisticMixture, MixtureOptions
from vqtok.losses.mse import MeanSquaredError, MSEOptions
from vqtok.options import Types

__all__ = [
    "BITS",
    "LEVELS",
    "LIKELIHOODS",
    "LIKELIHOOD_TYPES",
    "Likelihood",
    "LikelihoodOptions",
    "MSEOptions",
    "Reconstruction",
    "build_reconstruction",
    "in_bits",
    "to_levels",
    "to_values",
]

LIKELIHOODS: dict[str, tuple[type[LikelihoodOptions], type[Reconstruction]]] = {
    "mse": (MSEOptions, MeanSquaredError),
    "categorical": (CategoricalOptions, Categorical),
    "logistic": (LogisticOptions, DiscretizedLogistic),
    "mixture": (MixtureOptions, LogisticMixture),
    "gaussian": (GaussianOptions, Gaussian),
}

LIKELIHOOD_TYPES = Types({name: options for name, (options, _) in LIKELIHOODS.items()}, default="mse")
"""Annotation of a field that holds the options of any reconstruction loss."""


def build_reconstruction(options: Mapping[str, Any], *, num_channels: int) -> Reconstruction:
    """A reconstruction loss from its configuration: `{"type": "mixture", "num_components": 10}`.

    Raises:
        ConfigurationError: an unknown type, an option that it does not have, or a value that makes no sense.
    """
    entries = LIKELIHOOD_TYPES.entries(options)
    _, reconstruction = LIKELIHOODS[entries["type"]]
    return reconstruction(num_channels=num_channels, **entries)
