"""Tensors of a checkpoint under the names that they have here, and what else several families need alike."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from vqtok.errors import CheckpointError

__all__ = ["AVERAGES_TAKEN", "codebook_entries", "joined", "renamed", "turned", "with_averages"]

AVERAGES = "model_ema."
AVERAGES_TAKEN = "the exponential averages of the weights are taken, not those of the last step"

Rule = tuple[str, str | Callable[[re.Match[str]], str]]
"""A regular expression, and what takes the place of what it finds."""


def renamed(tensors: Mapping[str, Tensor], *rules: Rule) -> dict[str, Tensor]:
    """Tensors with every rule applied to their names, in turn.

    Raises:
        CheckpointError: two of them have one name then.
    """
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        if name in found:
            raise CheckpointError(f"several of its tensors are {name}")
        found[name] = tensor
    return found


def joined(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with the convolutions around the codes as parts of encoder and decoder, and the rows as the codebook."""
    return renamed(
        tensors,
        (r"^quant_conv\.", "encoder.quant_conv."),
        (r"^post_quant_conv\.", "decoder.post_quant_conv."),
        (r"^quantize\.(embedding|embed)\.weight$", "quantizer.codebook"),
        (r"^quantize\.proj\.", "quantizer.to_logits."),
    )


def codebook_entries(tensors: Mapping[str, Tensor], kind: str = "vq", **options: Any) -> dict[str, Any]:
    """The entries of `quantizer` for a codebook (K, D); codes that are all learned already never restart."""
    if "quantizer.codebook" not in tensors or tensors["quantizer.codebook"].ndim != 2:
        raise CheckpointError("there is no codebook of two dimensions")
    codes, dimension = tensors["quantizer.codebook"].shape
    return {
        "type": kind,
        "codebook_size": codes,
        "code_dim": dimension,
        "init": "normal",
        "restart_threshold": 0.0,
        **options,
    }


def turned(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Tensors of `decoder.<name>.i` as those of `decoder.up`, which counts from the other end."""
    pattern = re.compile(rf"^decoder\.{name}\.(\d+)\.")
    last = max((int(found[1]) for key in tensors if (found := pattern.match(key))), default=0)
    return renamed(tensors, (pattern.pattern, lambda found: f"decoder.up.{last - int(found[1])}."))


def with_averages(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """Tensors with their exponential averages in their places, and what to tell the user; as they are without.

    The name of an average has lost its dots, so that each is looked up from the name of its tensor.

    Raises:
        CheckpointError: an average is of no tensor that is there.
    """
    averages = {name: value for name, value in tensors.items() if name.startswith(AVERAGES)}
    raw = {name: value for name, value in tensors.items() if name not in averages}
    if not averages:
        return raw, ()
    found = {name: averages.pop(AVERAGES + name.replace(".", ""), value) for name, value in raw.items()}
    if averages:
        raise CheckpointError(f"{next(iter(averages))} is the average of no tensor that is there")
    return found, (AVERAGES_TAKEN,)
