"""Open a saved prior, from a folder or from the Hub."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import torch

from vqtok.hub import check_finite, check_fit, find_model, loading, push_model
from vqtok.priors.architecture import Prior
from vqtok.priors.registry import BY_MODEL_TYPE

__all__ = ["load_prior"]


def load_prior(path_or_hub_id: str | Path, revision: str | None = None) -> Prior:
    """A prior in evaluation mode, on the CPU; `revision` is its commit, its `push_to_hub` is `vqtok.hub.push_model`.

    Args:
        path_or_hub_id: a prior folder, a run folder that holds one as `model/`, or a Hub repository.
        revision: branch, tag or commit of the repository.

    Raises:
        CheckpointError: there is no such folder, it holds no prior, its settings make no sense or could fetch or run
            code, or weights are missing, misshapen, unreadable or not finite.
        HubError: a repository or revision that cannot be read.
    """
    source = str(path_or_hub_id)
    with loading(f"a prior from {source}"):
        folder = find_model(source, kind="prior", revision=revision)
        architecture = BY_MODEL_TYPE[folder.config["model_type"]]
        config = architecture.configuration(folder)
        with torch.device("meta"):
            check_fit(folder.tensors, architecture.model(config), name=source)
        prior: Prior = architecture.model.from_pretrained(folder.path, config=config, use_safetensors=True)
    check_finite(prior, name=source)
    prior.eval()
    prior.name_or_path = prior.config.name_or_path = str(folder.path) if Path(source).is_dir() else source
    prior.revision = None if Path(source).is_dir() else folder.path.name  # type: ignore[assignment]  # the commit
    # A Llama's own method would send it with a generic card. A bound method would be pickled by its name in the Llama.
    prior.push_to_hub = partial(push_model, prior)  # type: ignore[assignment]
    return prior
