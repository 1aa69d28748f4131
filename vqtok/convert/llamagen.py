"""LlamaGen's tokenizers and the one of Janus, which is LlamaGen's: unit-length latents and codes of 8 dimensions.

encoder.conv_blocks.i.res.j   down.i.block.j
decoder.conv_blocks.i.res.j   up, counted from the other end: the first is that of the code grid
mid.0, mid.1, mid.2           block_1, attn_1, block_2
gen_vision_model.             what Janus puts before all names
model.vqmodel.                what transformers puts there; its names are otherwise ours, with `up` turned around
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vqtok.convert.family import Family, Parts, Published
from vqtok.convert.renaming import codebook_entries, joined, renamed, turned
from vqtok.convert.shapes import network_of

__all__ = ["JANUS", "JANUS_OF_TRANSFORMERS", "LLAMAGEN"]

MIDDLE = {"0": "block_1", "1": "attn_1", "2": "block_2"}


def llamagen_parts(tensors: dict[str, Tensor], config: Mapping[str, Any]) -> Parts:
    found = turned(renamed(tensors, (r"^gen_vision_model\.", "")), "conv_blocks")
    found = renamed(
        found,
        (r"^encoder\.conv_blocks\.", "encoder.down."),
        (r"^((?:encoder\.down|decoder\.up)\.\d+)\.res\.", r"\1.block."),
        (r"^((?:encoder|decoder)\.mid)\.([012])\.", lambda name: f"{name[1]}.{MIDDLE[name[2]]}."),
    )
    return _parts(found)


def janus_parts(tensors: dict[str, Tensor], config: Mapping[str, Any]) -> Parts:
    return _parts(turned(renamed(tensors, (r"^model\.vqmodel\.", "")), "up"))


def _parts(tensors: dict[str, Tensor]) -> Parts:
    found = joined(tensors)
    return Parts(tensors=found, network=network_of(found), quantizer=codebook_entries(found, metric="cosine"))


UNUSED = r"(gen_vision_model\.)?quantize\.codebook_used"
LLAMAGEN = Family(
    title="LlamaGen",
    source="https://github.com/FoundationVision/LlamaGen",
    paper="Sun et al. 2024, arXiv:2406.06525",
    code_license="MIT",
    weights_license="MIT",
    may_share=True,
    resample="center-crop-adm",
    recognise=lambda tensors: "encoder.conv_blocks.0.res.0.norm1.weight" in tensors,
    parts=llamagen_parts,
    dropped=UNUSED,
    published={
        (16384, 8, 16): Published(name="vq_ds16_c2i", rfid="2.19 (ADM evaluator, ImageNet 256 validation)"),
        (16384, 8, 8): Published(name="vq_ds8_c2i", rfid="0.59 (ADM evaluator, ImageNet 256 validation)"),
    },
)
JANUS = Family(
    title="Janus",
    source="https://github.com/deepseek-ai/Janus",
    paper="Wu et al. 2024, arXiv:2410.13848",
    code_license="MIT",
    weights_license="DeepSeek Model License",
    may_share=True,
    resample="center-crop-adm",
    image_size=384,
    recognise=lambda tensors: "gen_vision_model.encoder.conv_blocks.0.res.0.norm1.weight" in tensors,
    parts=llamagen_parts,
    dropped=rf"(?!gen_vision_model\.).*|{UNUSED}",
)
JANUS_OF_TRANSFORMERS = Family(
    title="Janus in transformers",
    source="https://github.com/huggingface/transformers",
    paper="Wu et al. 2024, arXiv:2410.13848",
    code_license="Apache-2.0",
    weights_license="DeepSeek Model License",
    may_share=True,
    resample="center-crop-adm",
    image_size=384,
    recognise=lambda tensors: "model.vqmodel.decoder.up.0.block.0.norm1.weight" in tensors,
    parts=janus_parts,
    dropped=r"(?!model\.vqmodel\.).*",
)
