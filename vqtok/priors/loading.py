"""Open a saved prior of either kind, from a folder or from the Hub."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt
from transformers import LlamaConfig, LlamaForCausalLM

from vqtok.errors import CheckpointError
from vqtok.hub import DTYPES, ModelFolder, check_finite, check_fit, find_model, loading, push_model
from vqtok.priors.binding import PriorBinding
from vqtok.priors.likelihood import Prior
from vqtok.priors.pixelcnn import PixelCNN, PixelCNNConfig
from vqtok.schema import checked

__all__ = ["load_prior"]

Share = Annotated[float, Field(ge=0, lt=1)]


class RotaryParameters(BaseModel):
    """Positions of a Llama; only the plain kind."""

    rope_theta: PositiveFloat = 10_000.0
    rope_type: Literal["default"] = "default"


class LlamaSettings(BaseModel):
    """What is read of a Llama's config.json, which is what decides the network; any other key has no effect."""

    vocab_size: PositiveInt
    hidden_size: PositiveInt
    intermediate_size: PositiveInt
    num_hidden_layers: PositiveInt
    num_attention_heads: PositiveInt
    num_key_value_heads: PositiveInt | None = None
    head_dim: PositiveInt | None = None
    max_position_embeddings: PositiveInt
    hidden_act: Literal["silu"] = "silu"
    rms_norm_eps: PositiveFloat = 1e-6
    rope_parameters: RotaryParameters = RotaryParameters()
    attention_bias: bool = False
    attention_dropout: Share = 0.0
    mlp_bias: bool = False
    tie_word_embeddings: Literal[False] = False
    dtype: DTYPES | None = None


def load_prior(path_or_hub_id: str | Path, revision: str | None = None) -> Prior:
    """A prior in evaluation mode, on the CPU; its `push_to_hub` is `vqtok.hub.push_model`.

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
        kind, config = configuration(folder)
        with torch.device("meta"):
            check_fit(folder.tensors, kind(config), name=source)
        prior: Prior = kind.from_pretrained(folder.path, config=config, use_safetensors=True)
    check_finite(prior, name=source)
    prior.eval()
    prior.name_or_path = prior.config.name_or_path = str(folder.path) if Path(source).is_dir() else source
    # A Llama's own method would send it with a generic card. A bound method would be pickled by its name in the Llama.
    prior.push_to_hub = partial(push_model, prior)  # type: ignore[assignment]
    return prior


def configuration(folder: ModelFolder) -> tuple[type[PixelCNN] | type[LlamaForCausalLM], Any]:
    """The architecture and its configuration, made of nothing but what is known of it; attention is always torch's."""
    if folder.config["model_type"] == PixelCNNConfig.model_type:
        return PixelCNN, PixelCNNConfig.from_dict(dict(folder.config))
    settings = checked(LlamaSettings, folder.config, name=str(folder.path / "config.json"))
    fixed: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
    fixed |= {"attn_implementation": "sdpa", "vqtok": folder.config["vqtok"]}
    config = LlamaConfig(**settings.model_dump(), **fixed)
    binding = PriorBinding.from_config(config)
    tokens = binding.num_codebooks * binding.codebook_size + binding.num_classes + 1
    if config.vocab_size != tokens or config.max_position_embeddings <= binding.codes_per_image:
        raise CheckpointError(
            f"{folder.path / 'config.json'} is damaged: its codes and classes need a vocabulary of {tokens:,} and "
            f"{binding.codes_per_image + 1:,} positions, the network has {config.vocab_size:,} and "
            f"{config.max_position_embeddings:,}"
        )
    return LlamaForCausalLM, config
