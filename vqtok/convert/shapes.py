"""The options of a VQGAN, read off the shapes of its tensors."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vqtok.errors import CheckpointError

__all__ = ["network_of"]

MOST_LEVELS = 16  # that a network may have, each looked up among all names

Tensors = Mapping[str, Tensor]


def network_of(tensors: Tensors, **fixed: Any) -> dict[str, Any]:
    """The entries of `network` for tensors that are named as `vqtok.networks.vqgan` names them.

    Args:
        fixed: what no shape tells, such as `downsample`; these come last.

    Raises:
        CheckpointError: a tensor is missing that tells one of them.
    """
    levels = _numbers(tensors, "down")
    if len(levels) > MOST_LEVELS:
        raise CheckpointError(f"there are {len(levels):,} levels, and a network has at most {MOST_LEVELS}")
    widths = [len(_named(tensors, f"encoder.down.{level}.block.0.conv2.weight")) for level in levels]
    base = len(_named(tensors, "encoder.conv_in.weight"))
    if base == 0 or any(width % base for width in widths):
        raise CheckpointError(f"channels of {', '.join(map(str, widths))} are no multiples of the first {base}")
    blocks = len(_numbers(tensors, "down.0.block"))
    downsampling = [level for level in range(len(widths)) if _has(tensors, f"encoder.down.{level}.downsample")]
    found = {
        "type": "vqgan",
        "base_channels": base,
        "channel_multipliers": [width // base for width in widths],
        "num_res_blocks": blocks,
        "z_channels": len(_named(tensors, "encoder.conv_out.weight")),
        "attention_levels": [level for level in range(len(widths)) if _has(tensors, f"encoder.down.{level}.attn.0")],
        "mid_attention": _has(tensors, "encoder.mid.attn_1"),
        "mid_blocks": sum(_has(tensors, f"encoder.mid.block_{number}") for number in range(1, 65)),
        "conv_bias": "encoder.conv_in.bias" in tensors,
        "encoder_out_kernel": _named(tensors, "encoder.conv_out.weight").shape[-1],
        "quant_conv_kernel": _kernel(tensors, "encoder.quant_conv.weight"),
    }
    if downsampling:
        found["down_levels"] = downsampling
    if _has(tensors, "decoder.up"):
        upsampling = [level for level in range(len(widths)) if _has(tensors, f"decoder.up.{level}.upsample")]
        wide = [_named(tensors, f"decoder.up.{level}.upsample.conv.weight").shape for level in upsampling]
        found |= {
            "up_levels": upsampling,
            "decoder_extra_block": len(_numbers(tensors, "up.0.block", "decoder")) == blocks + 1,
            "upsample": "depth-to-space" if any(shape[0] == 4 * shape[1] for shape in wide) else "nearest",
            "decoder_norm": "spatial"
            if _has(tensors, "decoder.norm_out.norm_layer")
            else "adaptive"
            if _has(tensors, "decoder.adaptive")
            else "group",
        }
    return found | fixed


def _has(tensors: Tensors, name: str) -> bool:
    """Whether there is a tensor of a module."""
    return any(key.startswith(f"{name}.") for key in tensors)


def _named(tensors: Tensors, name: str) -> Tensor:
    """The weights of a convolution."""
    if name not in tensors:
        raise CheckpointError(f"there is no tensor {name}")
    if tensors[name].ndim != 4:
        raise CheckpointError(f"{name} is of {tensors[name].ndim} dimensions, not 4 as those of a convolution")
    return tensors[name]


def _numbers(tensors: Tensors, name: str, network: str = "encoder") -> range:
    """The numbers of the modules in a list."""
    pattern = re.compile(rf"{network}\.{re.escape(name)}\.(\d+)\.")
    found = {int(match[1]) for key in tensors if (match := pattern.match(key))}
    if found != set(range(len(found))) or not found:
        raise CheckpointError(f"there is no tensor {network}.{name}.{len(found)}")
    return range(len(found))


def _kernel(tensors: Tensors, name: str) -> int:
    return _named(tensors, name).shape[-1] if name in tensors else 0
