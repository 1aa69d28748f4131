"""Open-MAGVIT2, MaskGIT's VQGAN, Cosmos and the VQModel of diffusers."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vqtok.convert.family import Family, Parts, Published
from vqtok.convert.renaming import codebook_entries, joined, renamed, turned, with_averages
from vqtok.convert.shapes import network_of
from vqtok.errors import CheckpointError

__all__ = ["COSMOS", "DIFFUSERS", "MAGVIT2", "MASKGIT"]

COSMOS_LEVELS = [8, 8, 8, 5, 5, 5]


def magvit2_parts(tensors: dict[str, Tensor], config: Mapping[str, Any]) -> Parts:
    raw, notes = with_averages(tensors)
    found = renamed(
        raw,
        (r"\.mid_block\.(\d+)\.", lambda name: f".mid.block_{int(name[1]) + 1}."),
        (r"\.downsample\.(weight|bias)$", r".downsample.conv.\1"),
        (r"\.upsample\.conv1\.", ".upsample.conv."),
    )
    network = network_of(found, downsample="symmetric")
    quantizer = {"type": "lfq", "codebook_size": 2 ** network["z_channels"], "scale": 1.0, "entropy_weight": 0.0}
    return Parts(tensors=found, network=network, quantizer=quantizer, notes=notes)


def maskgit_parts(tensors: dict[str, Tensor], config: Mapping[str, Any]) -> Parts:
    found = renamed(
        tensors,
        (r"\.mid\.(\d+)\.", lambda name: f".mid.block_{int(name[1]) + 1}."),
        (r"\.upsample_conv\.", ".upsample.conv."),
        (r"^quantize\.embedding\.weight$", "quantizer.codebook"),
    )
    network = network_of(found, shortcut="output", downsample="average", pixel_range="unit")
    return Parts(tensors=found, network=network, quantizer=codebook_entries(found))


def cosmos_parts(tensors: dict[str, Tensor], config: Mapping[str, Any]) -> Parts:
    found = joined(tensors)
    told = [found.pop(name) for name in list(found) if name.endswith("._levels")]
    levels = told[0].flatten() if told else torch.tensor(COSMOS_LEVELS)
    inputs = found["encoder.conv_in.weight"].shape[1:2].numel() if "encoder.conv_in.weight" in found else 0
    network = network_of(found, patch=math.isqrt(inputs // 3))
    if len(found.get("encoder.quant_conv.weight", ())) != len(levels):
        raise CheckpointError(f"its codes do not have the {len(levels)} dimensions of its levels")
    quantizer = {"type": "fsq", "levels": levels.tolist(), "margin": -0.001}
    notes = (
        "its program computes in bfloat16, and this tokenizer in float32: codes may differ here and there",
        "its program resizes no image, but pads it to a multiple of 16 pixels: for the same codes set the image size "
        "to that of your images",
    )
    return Parts(tensors=found, network=network, quantizer=quantizer, notes=notes)


def diffusers_parts(tensors: dict[str, Tensor], config: Mapping[str, Any]) -> Parts:
    found = turned(tensors, "up_blocks")
    found = renamed(
        found,
        (r"\.down_blocks\.(\d+)\.resnets\.", r".down.\1.block."),
        (r"\.down_blocks\.(\d+)\.attentions\.", r".down.\1.attn."),
        (r"\.down_blocks\.(\d+)\.downsamplers\.0\.", r".down.\1.downsample."),
        (r"\.up\.(\d+)\.resnets\.", r".up.\1.block."),
        (r"\.up\.(\d+)\.attentions\.", r".up.\1.attn."),
        (r"\.up\.(\d+)\.upsamplers\.0\.", r".up.\1.upsample."),
        (r"\.mid_block\.resnets\.(\d)\.", lambda name: f".mid.block_{int(name[1]) + 1}."),
        (r"\.mid_block\.attentions\.0\.", ".mid.attn_1."),
        (r"\.conv_shortcut\.", ".nin_shortcut."),
        (r"\.conv_norm_out\.", ".norm_out."),
        (r"\.(group_norm|spatial_norm)\.", ".norm."),
        (r"\.(to_q|query)\.", ".q."),
        (r"\.(to_k|key)\.", ".k."),
        (r"\.(to_v|value)\.", ".v."),
        (r"\.(to_out\.0|proj_attn)\.", ".proj_out."),
    )
    attention = re.compile(r"\.attn(_1|\.\d+)\.(q|k|v|proj_out)\.weight$")
    found = {
        name: tensor[:, :, None, None] if tensor.ndim == 2 and attention.search(name) else tensor
        for name, tensor in found.items()
    }
    found = joined(found)
    groups = config.get("norm_num_groups", 32)
    network = network_of(found, norm_groups=groups)
    if (activation := config.get("act_fn", "silu")) not in ("silu", "swish"):
        raise CheckpointError(f"act_fn in its config.json is {activation!r}, and only silu can be converted")
    if network.get("decoder_norm") == "spatial" and groups != 32:  # which diffusers then has in the encoder alone
        raise CheckpointError(f"norm_num_groups in its config.json is {groups!r}, and of a spatial norm it must be 32")
    notes: tuple[str, ...] = ()
    if not network["mid_attention"]:  # what tells it; no setting of a VQModel says the range of its pixels
        network["pixel_range"] = "unit"
        notes = ("taken for amused's, whose pixels lie in [0, 1], as it has no attention in the middle",)
    return Parts(tensors=found, network=network, quantizer=codebook_entries(found), notes=notes)


MAGVIT2 = Family(
    title="Open-MAGVIT2",
    source="https://github.com/TencentARC/SEED-Voken",
    paper="Luo et al. 2024, arXiv:2409.04410",
    code_license="Apache-2.0",
    weights_license="Apache-2.0",
    may_share=True,
    resample="shorter-side-bilinear",
    recognise=lambda tensors: {"encoder.mid_block.0.norm1.weight", "decoder.adaptive.0.gamma.weight"} <= tensors.keys(),
    parts=magvit2_parts,
    dropped=r"loss\..*|quantize\..*|model_ema\.(decay|num_updates|loss.*|quantize.*)",
    published={
        (2**18, 18, 16): Published(
            name="Open-MAGVIT2-Tokenizer-256", rfid="1.17 (pytorch-fid, ImageNet 256 validation)"
        ),
        (2**18, 18, 8): Published(name="Open-MAGVIT2-Tokenizer-128", rfid="1.18 (ImageNet 128)", image_size=128),
    },
)
MASKGIT = Family(
    title="MaskGIT's VQGAN",
    source="https://github.com/huggingface/open-muse",
    paper="Chang et al. 2022, arXiv:2202.04200",
    code_license="Apache-2.0",
    weights_license="Apache-2.0",
    may_share=True,
    resample="shorter-side-bilinear",
    recognise=lambda tensors: {"encoder.mid.0.norm1.weight", "decoder.up.1.upsample_conv.weight"} <= tensors.keys(),
    parts=maskgit_parts,
    published={(1024, 256, 16): Published(name="maskgit-vqgan-imagenet-f16-256", rfid="2.28 (MaskGIT's README)")},
)
COSMOS = Family(
    title="Cosmos",
    source="https://github.com/NVIDIA/Cosmos-Tokenizer",
    paper="NVIDIA 2024, Cosmos Tokenizer",
    code_license="Apache-2.0",
    weights_license="NVIDIA Open Model License",
    may_share=True,
    resample="bicubic",
    recognise=lambda tensors: (
        {"encoder.down.0.block.0.norm1.weight", "quant_conv.weight"} <= tensors.keys()
        and not any(name.startswith("quantize.") for name in tensors)
    ),
    parts=cosmos_parts,
    dropped=r".*\.(wavelets|_arange|patch_size_buffer|_basis|implicit_codebook)",
)
DIFFUSERS = Family(
    title="the VQModel of diffusers",
    source="https://github.com/huggingface/diffusers",
    paper="none of its own",
    code_license="Apache-2.0",
    weights_license="that of its model card",
    may_share=True,
    resample="shorter-side-bilinear",
    recognise=lambda tensors: "encoder.down_blocks.0.resnets.0.norm1.weight" in tensors,
    parts=diffusers_parts,
)
