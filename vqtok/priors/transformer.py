"""A causal transformer over code grids, as a plain Llama: any engine that serves Llama serves it.

An image is the sequence [class] + codes in raster order, the codes of one position next to each other:

    token             q * K + c             Q * K + y         Q * K + num_classes
    stands for        code c of codebook q  class y           no class

p(codes | class) is the product over positions of a softmax over the K codes that may stand there (Esser et al. 2021,
arXiv:2012.09841, section 3.2; class token in front as in their section 4.3).
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal, Self

import torch
from pydantic import BaseModel, Field, PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, StaticCache

from vqtok.errors import CheckpointError
from vqtok.hub import DTYPES, ModelFolder
from vqtok.priors.architecture import Architecture
from vqtok.priors.base import PriorOptions
from vqtok.priors.binding import PriorBinding
from vqtok.schema import checked

__all__ = ["TRANSFORMER", "TransformerDecoder", "TransformerOptions", "token_ids", "transformer_prior"]

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


class TransformerOptions(PriorOptions):
    """Options of `transformer`."""

    type: Literal["transformer"] = "transformer"
    hidden_size: int = Field(256, ge=1, le=2**16, description="width, a multiple of 2 * num_heads")
    num_layers: int = Field(6, ge=1, le=2**10, description="number of layers")
    num_heads: int = Field(4, ge=1, le=2**10, description="attention heads of each layer")
    dropout: float = Field(0.0, ge=0, lt=1, description="share of attention weights dropped in training")

    @model_validator(mode="after")
    def _heads_divide_the_width(self) -> Self:
        if self.hidden_size % (2 * self.num_heads):
            raise ValueError(
                f"hidden_size must be a multiple of 2 * num_heads = {2 * self.num_heads}, got {self.hidden_size}"
            )
        return self


def transformer_prior(binding: PriorBinding, **options: Any) -> LlamaForCausalLM:
    """Build an untrained prior; what is served with it stands in its `generation_config`.

    Args:
        binding: the grids, classes and tokenizer it is for.
        options: of `TransformerOptions`, by name.
    """
    chosen = TransformerOptions(**options)
    codes = binding.num_codebooks * binding.codebook_size
    config = LlamaConfig(
        vocab_size=codes + binding.num_classes + 1,
        hidden_size=chosen.hidden_size,
        intermediate_size=32 * math.ceil(chosen.hidden_size / 12),  # SwiGLU at the cost of a 4x MLP, arXiv:2002.05202
        num_hidden_layers=chosen.num_layers,
        num_attention_heads=chosen.num_heads,
        max_position_embeddings=binding.codes_per_image + 1,
        attention_dropout=chosen.dropout,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        tie_word_embeddings=False,
        vqtok=binding.to_dict(),  # type: ignore[call-arg]  # any further key is kept and saved
    )
    model = LlamaForCausalLM(config)
    _initialise(model)
    model.generation_config = GenerationConfig(
        do_sample=True,
        top_k=0,
        top_p=1.0,
        max_new_tokens=binding.codes_per_image,
        suppress_tokens=list(range(codes, config.vocab_size)),
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    return model


@torch.no_grad()
def _initialise(model: LlamaForCausalLM) -> None:
    """Weights of variance 1 / width, for 0.02 is meant for widths in the thousands; the output starts near uniform."""
    for module in model.model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=module.in_features**-0.5)
    for layer in model.model.layers:  # the sum over 2 * layers branches keeps variance 1: GPT-2, section 2.3
        for branch in (layer.self_attn.o_proj, layer.mlp.down_proj):
            branch.weight.mul_((2 * len(model.model.layers)) ** -0.5)


def configuration(folder: ModelFolder) -> LlamaConfig:
    """The configuration of the transformer in a folder; attention is always torch's.

    Raises:
        CheckpointError: settings that make no sense, or a network that does not fit its codes and classes.
    """
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
    return config


def token_ids(binding: PriorBinding, codes: Tensor, classes: Tensor) -> Tensor:
    """The sequence that stands for an image.

    Args:
        codes: (B, L) in the order in which a prior reads them, each in [0, K).
        classes: (B,), the null class where there is none.

    Returns:
        int64 (B, 1 + L).
    """
    codebook = torch.arange(codes.shape[1], device=codes.device) % binding.num_codebooks
    offset = binding.num_codebooks * binding.codebook_size
    return torch.cat([classes[:, None] + offset, codes + codebook * binding.codebook_size], dim=1)


def code_logits(prior: LlamaForCausalLM, codes: Tensor, classes: Tensor) -> Tensor:
    """Logits of every code given those before it, over the K codes that may stand there.

    Args:
        codes: (B, L).
        classes: (B,).

    Returns:
        float (B, L, K).
    """
    binding = PriorBinding.from_config(prior.config)
    logits = prior(input_ids=token_ids(binding, codes, classes)[:, :-1], use_cache=False).logits
    size, books = binding.codebook_size, binding.num_codebooks
    by_position = logits.unflatten(1, (-1, books))
    return torch.stack([by_position[:, :, q, q * size : (q + 1) * size] for q in range(books)], dim=2).flatten(1, 2)


def training_loss(prior: LlamaForCausalLM, codes: Tensor, classes: Tensor) -> Tensor:
    """Mean nats per code, of a softmax over the whole vocabulary.

    Class tokens and other codebooks' codes thus become improbable by themselves, so that an engine which samples from
    the whole vocabulary samples codes too. The likelihood over the allowed codes alone is never worse than this.
    """
    tokens = token_ids(PriorBinding.from_config(prior.config), codes, classes)
    logits = prior(input_ids=tokens[:, :-1], use_cache=False).logits
    return F.cross_entropy(logits.flatten(0, 1).float(), tokens[:, 1:].flatten())


class TransformerDecoder:
    """One code after another: keys and values of the codes so far are kept, so that a step costs one position."""

    def __init__(self, prior: LlamaForCausalLM, classes: Tensor) -> None:
        self.prior = prior
        self.binding = PriorBinding.from_config(prior.config)
        self.cache = StaticCache(config=prior.config, max_cache_len=self.binding.codes_per_image)
        self.tokens = classes + self.binding.num_codebooks * self.binding.codebook_size
        self.position = 0

    def step(self, previous: Tensor | None) -> Tensor:
        """Logits (B, K) of the next code, given the codes (B,) at the position before; None at the first position."""
        size, books = self.binding.codebook_size, self.binding.num_codebooks
        if previous is not None:
            self.tokens = previous + (self.position - 1) % books * size
        logits: Tensor = self.prior(input_ids=self.tokens[:, None], past_key_values=self.cache, use_cache=True).logits
        start = self.position % books * size
        self.position += 1
        return logits[:, -1, start : start + size]

    def select(self, rows: Tensor) -> None:
        """Go on with some of the B, in the order of `rows`, int64 (B',), in which one may come several times."""
        self.cache.reorder_cache(rows)  # type: ignore[arg-type]  # its LongTensor is what rows are
        self.tokens = self.tokens[rows]


TRANSFORMER = Architecture(
    options=TransformerOptions,
    optimizer="muon",
    model=LlamaForCausalLM,
    model_type=LlamaConfig.model_type,
    build=transformer_prior,
    configuration=configuration,
    code_logits=code_logits,
    training_loss=training_loss,
    decoder=TransformerDecoder,
)
