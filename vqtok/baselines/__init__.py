"""What van den Oord et al. 2017 compare VQ-VAE with, on the same networks: models of images without a learned prior.

    model = VAE.from_pretrained("runs/vae/model")
    model.reconstruct(pixels), model.sample(16, seed=0), model.interpolate(a, b, steps=8)
    model.bound(pixels, num_samples=50)                       distortion, rate and total in nats per image

To add one: one file here with its options, its configuration and its model, one line in `BASELINES`, one test file, and
one line in `hub/folder.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, AutoModel

from vqtok.baselines.autoencoder import Autoencoder, AutoencoderConfig
from vqtok.baselines.base import Baseline, BaselineOutput
from vqtok.baselines.configuration import BaselineConfig, BaselineOptions, MethodOptions
from vqtok.baselines.cvae import CVAE, CVAEConfig
from vqtok.baselines.iwae import IWAE, IWAEConfig
from vqtok.baselines.latent_variable import Bound, LatentVariableModel
from vqtok.baselines.likelihood_ratio import LikelihoodRatio, LikelihoodRatioConfig
from vqtok.baselines.vae import VAE, VAEConfig
from vqtok.baselines.vimco import VIMCO, VIMCOConfig
from vqtok.hub import find_model
from vqtok.options import Types

__all__ = [
    "BASELINES",
    "BASELINE_TYPES",
    "CVAE",
    "IWAE",
    "VAE",
    "VIMCO",
    "Autoencoder",
    "Baseline",
    "BaselineConfig",
    "BaselineOptions",
    "BaselineOutput",
    "Bound",
    "LatentVariableModel",
    "LikelihoodRatio",
    "MethodOptions",
    "build_baseline",
    "load_baseline",
]

BASELINES: dict[str, tuple[type[BaselineConfig], type[Baseline]]] = {
    "autoencoder": (AutoencoderConfig, Autoencoder),
    "vae": (VAEConfig, VAE),
    "cvae": (CVAEConfig, CVAE),
    "iwae": (IWAEConfig, IWAE),
    "vimco": (VIMCOConfig, VIMCO),
    "likelihood-ratio": (LikelihoodRatioConfig, LikelihoodRatio),
}

BASELINE_TYPES = Types({name: config.method for name, (config, _) in BASELINES.items()}, default="vae")
"""Annotation of a field that holds the options of any baseline."""

for _config, _model in BASELINES.values():
    AutoConfig.register(_config.model_type, _config)
    AutoModel.register(_config, _model)


def build_baseline(options: Mapping[str, Any], **config: Any) -> Baseline:
    """An untrained baseline.

    Args:
        options: `{"type": "vae", "beta": 2.0, ...}`, what is left out by default.
        config: the rest of `BaselineConfig`, by name.

    Raises:
        ConfigurationError: an unknown method, an option that it does not have, or a value that makes no sense.
    """
    entries = BASELINE_TYPES.entries(options)
    config_class, model = BASELINES[entries["type"]]
    return model(config_class(model=entries, **config))  # type: ignore[call-arg]  # each says its dimensions itself


def load_baseline(name: str | os.PathLike[str], **kwargs: Any) -> Baseline:
    """Load any baseline from a folder, a run folder or a Hub id; arguments and errors as of `from_pretrained`."""
    asked = {key: kwargs[key] for key in ("revision", "token", "cache_dir", "local_files_only") if key in kwargs}
    model_type = find_model(name, kind="baseline", **asked).config["model_type"]
    (model,) = (each for config, each in BASELINES.values() if config.model_type == model_type)
    return model.from_pretrained(name, **kwargs)
