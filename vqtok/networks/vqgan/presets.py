"""Networks of published tokenizers, by name: options that differ from the defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["PRESETS"]

Preset = Mapping[str, Any]

MAGVIT2: Preset = {
    "num_res_blocks": 4,
    "decoder_extra_block": False,
    "attention_levels": [],
    "mid_attention": False,
    "mid_blocks": 4,
    "conv_bias": False,
    "downsample": "symmetric",
    "upsample": "depth-to-space",
    "encoder_out_kernel": 1,
    "quant_conv_kernel": 0,
    "decoder_norm": "adaptive",
}
MASKGIT: Preset = {
    "decoder_extra_block": False,
    "attention_levels": [],
    "mid_attention": False,
    "conv_bias": False,
    "shortcut": "output",
    "downsample": "average",
    "encoder_out_kernel": 1,
    "quant_conv_kernel": 0,
    "pixel_range": "unit",
}
COSMOS: Preset = {
    "channel_multipliers": [2, 4, 4],
    "attention_levels": [],
    "patch": 4,
}

PUBLISHED: Mapping[str, Preset] = {
    "vqgan-f16": {},
    "vqgan-f8": {"channel_multipliers": [1, 1, 2, 4]},
    "llamagen-f16": {},
    "llamagen-f8": {"channel_multipliers": [1, 2, 2, 4]},
    "ibq-f16": {"num_res_blocks": 4},
    "magvit2-f16": {**MAGVIT2, "z_channels": 18},
    "maskgit-f16": MASKGIT,
    "cosmos-f16": COSMOS,
}
"""Esser et al. 2021 (arXiv:2012.09841), Sun et al. 2024 (2406.06525), Shi et al. 2024 (2412.02692), Luo et al. 2024
(2409.04410), Chang et al. 2022 (2202.04200), NVIDIA 2024."""

PRESETS: Mapping[str, Preset] = {name: {"type": "vqgan", **options} for name, options in PUBLISHED.items()}
