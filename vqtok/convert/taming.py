"""taming-transformers, latent-diffusion, IBQ and Chameleon: one network, whose names are ours.

quantize.embedding.weight   the nearest row is the code; of IBQ that of the greatest inner product
quantize.embed, .proj       of a Gumbel quantizer: the greatest logit
first_stage_model.          what a transformer or a diffusion model puts before all names
model_ema.                  of IBQ: exponential averages, whose names have lost their dots; its figures are theirs
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from vqtok.convert.family import Family, Parts, Published
from vqtok.convert.renaming import codebook_entries, joined, renamed, with_averages
from vqtok.convert.shapes import network_of

__all__ = ["CHAMELEON", "IBQ", "TAMING"]

PREFIX = "first_stage_model."
TRAINING = r"loss\..*|.*\.num_batches_tracked|quantize\.(embed_prob|cluster_size)"
NOISE = r"\w*(betas|alphas_cumprod)\w*|posterior_\w+|lvlb_weights|logvar|scale_factor|cond_ids"
AROUND = rf"(model|transformer|cond_stage_model)\..*|model_ema\.(decay|num_updates|diffusion_model.*)|{NOISE}"
"""What a transformer or a diffusion model has around its tokenizer."""


def taming_parts(tensors: dict[str, Tensor], config: Mapping[str, Any]) -> Parts:
    found = joined(renamed(tensors, (r"^first_stage_model\.", "")))
    if "quantizer.to_logits.weight" not in found:
        return Parts(tensors=found, network=network_of(found), quantizer=codebook_entries(found))
    if found["quantizer.to_logits.weight"].ndim == 4:  # a convolution of one pixel
        found["quantizer.to_logits.weight"] = found["quantizer.to_logits.weight"].flatten(1)
    quantizer = codebook_entries(found, "gumbel", logits="linear")
    return Parts(tensors=found, network=network_of(found), quantizer=quantizer)


def chameleon_parts(tensors: dict[str, Tensor], config: Mapping[str, Any]) -> Parts:
    found = joined(renamed(tensors, (r"^model\.vqmodel\.", "")))
    notes = (
        "pixels reach it in [-1, 1], as in Meta's program; the image processor of transformers brings them to "
        "[-1, 0.989], which changes some codes",
    )
    return Parts(tensors=found, network=network_of(found), quantizer=codebook_entries(found), notes=notes)


def ibq_parts(tensors: dict[str, Tensor], config: Mapping[str, Any]) -> Parts:
    raw, notes = with_averages(tensors)
    found = joined(raw)
    quantizer = codebook_entries(found, "ibq", metric="dot")
    return Parts(tensors=found, network=network_of(found), quantizer=quantizer, notes=notes)


def is_taming(tensors: Mapping[str, Tensor]) -> bool:
    short = {name.removeprefix(PREFIX) for name in tensors}
    return "encoder.mid.block_1.norm1.weight" in short and not short.isdisjoint(
        {"quantize.embedding.weight", "quantize.embed.weight"}
    )


def is_inside(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a tokenizer is a part of a larger model."""
    return any(name.startswith(PREFIX) for name in tensors)


def is_chameleon(tensors: Mapping[str, Tensor]) -> bool:
    """Of transformers; or Meta's own, which only its shape tells from taming's."""
    if "model.vqmodel.encoder.down.0.block.0.norm1.weight" in tensors:
        return "model.vqmodel.decoder.conv_in.weight" not in tensors  # of Janus
    return (
        is_taming(tensors)
        and "encoder.down.4.attn.0.norm.weight" not in tensors
        and "quantize.embedding.weight" in tensors
        and tensors["quantize.embedding.weight"].shape == (8192, 256)
    )


TAMING = Family(
    title="taming-transformers and latent-diffusion",
    source="https://github.com/CompVis/taming-transformers",
    paper="Esser et al. 2021, arXiv:2012.09841",
    code_license="MIT",
    weights_license="not stated",
    may_share=True,
    resample="opencv-bilinear",
    recognise=lambda tensors: is_taming(tensors) and (is_inside(tensors) or "model_ema.decay" not in tensors),
    parts=taming_parts,
    dropped=rf"{TRAINING}|first_stage_model\.loss\..*|{AROUND}",
    published={
        (1024, 256, 16): Published(
            name="vqgan_imagenet_f16_1024", rfid="7.94 (torch-fidelity, ImageNet 256 validation)"
        ),
        (16384, 256, 16): Published(
            name="vqgan_imagenet_f16_16384", rfid="4.98 (torch-fidelity, ImageNet 256 validation)"
        ),
        (8192, 256, 8): Published(name="vqgan_gumbel_f8", rfid="1.49 (torch-fidelity, ImageNet 256 validation)"),
        (8192, 3, 4): Published(
            name="vq-f4 or vq-f4-noattn", rfid="0.58 or, without attention, 1.06 (against OpenImages validation)"
        ),
        (16384, 4, 8): Published(name="vq-f8", rfid="1.14 (against OpenImages validation)"),
        (256, 4, 8): Published(name="vq-f8-n256", rfid="1.49 (against OpenImages validation)"),
        (16384, 8, 16): Published(name="vq-f16", rfid="5.15 (against OpenImages validation)"),
    },
)
IBQ = Family(
    title="IBQ",
    source="https://github.com/TencentARC/SEED-Voken",
    paper="Shi et al. 2024, arXiv:2412.02692",
    code_license="Apache-2.0",
    weights_license="Apache-2.0",
    may_share=True,
    resample="opencv-bilinear",
    recognise=lambda tensors: (
        is_taming(tensors)
        and not is_inside(tensors)
        and ("model_ema.decay" in tensors or "encoder.down.0.block.3.norm1.weight" in tensors)
    ),
    parts=ibq_parts,
    dropped=rf"{TRAINING}|model_ema\.(decay|num_updates|loss.*)",
    published={
        (codes, 256, 16): Published(
            name=f"IBQ-Tokenizer-{codes}", rfid=f"{rfid} (pytorch-fid, ImageNet 256 validation)"
        )
        for codes, rfid in ((1024, "2.24"), (8192, "1.87"), (16384, "1.37"), (262144, "1.00"))
    },
)
CHAMELEON = Family(
    title="Chameleon",
    source="https://github.com/facebookresearch/chameleon",
    paper="Chameleon Team 2024, arXiv:2405.09818",
    code_license="Chameleon Research License",
    weights_license="Chameleon Research License (not for commercial use)",
    may_share=False,
    resample="chameleon",
    image_size=512,
    recognise=is_chameleon,
    parts=chameleon_parts,
    dropped=rf"(?!(model\.vqmodel\.)?(encoder|decoder|quantize|quant_conv|post_quant_conv)\.).*|{TRAINING}",
)
