"""Open a saved prior of either kind, from a folder or from the Hub."""

from __future__ import annotations

from pathlib import Path
from types import MethodType
from typing import Any

from safetensors import SafetensorError
from transformers import LlamaForCausalLM, PreTrainedConfig

from vqtok.errors import CheckpointError, HubError, VqtokError
from vqtok.hub import fetch, push_model, quiet_transformers
from vqtok.priors.binding import PriorBinding
from vqtok.priors.likelihood import Prior
from vqtok.priors.pixelcnn import PixelCNN, PixelCNNConfig

__all__ = ["load_prior"]

ARCHITECTURES: dict[str, type[PixelCNN] | type[LlamaForCausalLM]] = {
    PixelCNNConfig.model_type: PixelCNN,
    "llama": LlamaForCausalLM,
}


def load_prior(path_or_hub_id: str | Path, revision: str | None = None) -> Prior:
    """A prior in evaluation mode, on the CPU; its `push_to_hub` is `vqtok.hub.push_model`.

    Args:
        path_or_hub_id: a prior folder, a run folder that holds one as `model/`, or a Hub repository.
        revision: branch, tag or commit of the repository.

    Raises:
        CheckpointError: nothing is there, it is no prior, or weights are missing, misshapen or unreadable.
    """
    source = _source(path_or_hub_id)
    try:
        folder = Path(source) if Path(source).is_dir() else fetch(source, revision=revision)
        values, _ = PreTrainedConfig.get_config_dict(folder)
    except (OSError, ValueError, HubError) as error:
        raise CheckpointError(
            f"{source} is neither a prior folder nor a Hub repository that can be read: {_first_line(error)}"
        ) from error
    model_type = values.get("model_type")
    if model_type not in ARCHITECTURES or "vqtok" not in values:
        raise CheckpointError(
            f"{source} holds a model of type {model_type!r} that is no prior of this package: "
            "`vqtok train-prior` makes one"
        )
    try:
        with quiet_transformers():
            loaded: Any = ARCHITECTURES[model_type].from_pretrained(
                folder, use_safetensors=True, output_loading_info=True
            )
    except VqtokError:
        raise
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise CheckpointError(f"the prior {source} cannot be loaded: {_first_line(error)}") from error
    prior: Prior
    prior, info = loaded
    lacking = sorted(info["missing_keys"])
    if lacking:
        raise CheckpointError(f"the weights of the prior {source} lack {len(lacking)} tensors, such as {lacking[0]!r}")
    PriorBinding.from_config(prior.config)
    prior.eval()
    prior.name_or_path = prior.config.name_or_path = source
    # A Llama's own method would send it with a generic card.
    prior.push_to_hub = MethodType(push_model, prior)  # type: ignore[assignment]
    return prior


def _source(path_or_hub_id: str | Path) -> str:
    folder = Path(path_or_hub_id)
    if (folder / "model" / "config.json").is_file():
        folder = folder / "model"
    if not folder.is_dir():
        return str(path_or_hub_id)
    for name in ("config.json", "model.safetensors"):
        sharded = name == "model.safetensors" and (folder / "model.safetensors.index.json").is_file()
        if not (folder / name).is_file() and not sharded:
            raise CheckpointError(f"the folder {folder} holds no {name}: it is no prior, or one that was not finished")
    return str(folder)


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
