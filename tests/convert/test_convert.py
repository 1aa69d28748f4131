"""Checkpoints of every family, written under the names of their programs, give back the tokenizer that was written."""

from __future__ import annotations

import json
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vqtok.convert import FAMILIES, convert
from vqtok.data.fitting import RESIZING
from vqtok.errors import CheckpointError, ConfigurationError
from vqtok.networks.vqgan import PRESETS
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig

SMALL = {"base_channels": 32, "channel_multipliers": [1, 1, 2], "z_channels": 32}
Names = list[tuple[str, str]]
Tensors = dict[str, Tensor]


def tokenizer(preset: str, quantizer: dict[str, Any], **options: Any) -> VQTokenizer:
    torch.manual_seed(0)
    network = {**PRESETS[preset], **SMALL, **options}
    made = VQTokenizer(VQTokenizerConfig(image_size=64, network=network, quantizer=quantizer)).eval()
    for parameter in made.parameters():
        if parameter.ndim == 1:
            parameter.data.add_(torch.randn_like(parameter), alpha=0.2)
    return made


def vq(**options: Any) -> dict[str, Any]:
    return {"type": "vq", "codebook_size": 16, "code_dim": 8, "init": "normal", "restart_threshold": 0.0, **options}


def written(made: VQTokenizer, *rules: tuple[str, str | Callable[[re.Match[str]], str]]) -> Tensors:
    """The tensors of a tokenizer under other names; those that training alone keeps are left out."""
    found = {}
    for name, tensor in made.state_dict().items():
        if name.startswith("quantizer.") and name.rpartition(".")[2] in made.quantizer.training_state:
            continue
        for pattern, replacement in (*JOINED, *rules):
            name = re.sub(pattern, replacement, name)
        found[name] = tensor.clone()
    return found


JOINED: list[tuple[str, str]] = [
    (r"^encoder\.quant_conv\.", "quant_conv."),
    (r"^decoder\.post_quant_conv\.", "post_quant_conv."),
    (r"^quantizer\.codebook$", "quantize.embedding.weight"),
]


def turned(name: str) -> Callable[[re.Match[str]], str]:
    return lambda found: f"decoder.{name}.{2 - int(found[1])}."


MIDDLE = {"block_1": "0", "attn_1": "1", "block_2": "2"}


def of_llamagen(made: VQTokenizer) -> Tensors:
    names = written(
        made,
        (r"^encoder\.down\.", "encoder.conv_blocks."),
        (r"^decoder\.up\.(\d)\.", turned("conv_blocks")),
        (r"(conv_blocks\.\d)\.block\.", r"\1.res."),
        (r"\.mid\.(\w+?_[12])\.", lambda found: f".mid.{MIDDLE[found[1]]}."),
    )
    return names | {"quantize.codebook_used": torch.zeros(65536)}


def of_magvit2(made: VQTokenizer) -> Tensors:
    return written(
        made,
        (r"\.mid\.block_(\d)\.", lambda found: f".mid_block.{int(found[1]) - 1}."),
        (r"\.downsample\.conv\.", ".downsample."),
        (r"\.upsample\.conv\.", ".upsample.conv1."),
    )


def of_maskgit(made: VQTokenizer) -> Tensors:
    return written(
        made,
        (r"\.mid\.block_(\d)\.", lambda found: f".mid.{int(found[1]) - 1}."),
        (r"\.upsample\.conv\.", ".upsample_conv."),
    )


def of_diffusers(made: VQTokenizer) -> Tensors:
    found = written(
        made,
        (r"\.down\.(\d)\.block\.", r".down_blocks.\1.resnets."),
        (r"\.down\.(\d)\.attn\.", r".down_blocks.\1.attentions."),
        (r"\.down\.(\d)\.downsample\.", r".down_blocks.\1.downsamplers.0."),
        (r"^decoder\.up\.(\d)\.", turned("up_blocks")),
        (r"(up_blocks\.\d)\.block\.", r"\1.resnets."),
        (r"(up_blocks\.\d)\.attn\.", r"\1.attentions."),
        (r"(up_blocks\.\d)\.upsample\.", r"\1.upsamplers.0."),
        (r"\.mid\.block_(\d)\.", lambda name: f".mid_block.resnets.{int(name[1]) - 1}."),
        (r"\.mid\.attn_1\.", ".mid_block.attentions.0."),
        (r"\.nin_shortcut\.", ".conv_shortcut."),
        (r"\.norm_out\.", ".conv_norm_out."),
        (r"(attentions\.\d)\.norm\.", r"\1.group_norm."),
        (r"(attentions\.\d)\.([qkv])\.", r"\1.to_\2."),
        (r"(attentions\.\d)\.proj_out\.", r"\1.to_out.0."),
    )
    return {
        name: tensor.flatten(1) if re.search(r"attentions\.\d\.to_\w+(\.0)?\.weight$", name) else tensor
        for name, tensor in found.items()
    }


def averaged(tensors: Tensors) -> Tensors:
    """A checkpoint whose raw weights are zeros, with these as their exponential averages."""
    averages = {f"model_ema.{name.replace('.', '')}": tensor for name, tensor in tensors.items()}
    notes = {"model_ema.decay": torch.tensor(0.999), "loss.discriminator.0.weight": torch.ones(2)}
    return {name: torch.zeros_like(tensor) for name, tensor in tensors.items()} | averages | notes


def case(name: str) -> tuple[VQTokenizer, Tensors]:
    """A tokenizer and what its program would write of it."""
    if name == "taming":
        made = tokenizer("vqgan-f16", vq())
        return made, {f"first_stage_model.{key}": value for key, value in written(made).items()}
    if name == "taming-gumbel":
        made = tokenizer("vqgan-f16", vq(type="gumbel", logits="linear", code_dim=32))
        found = written(made, (r"^quantizer\.to_logits\.", "quantize.proj."))
        found["quantize.proj.weight"] = found["quantize.proj.weight"][:, :, None, None]
        found["quantize.embed.weight"] = found.pop("quantize.embedding.weight")
        return made, found
    if name == "ibq":
        made = tokenizer("ibq-f16", vq(type="ibq", metric="dot"))
        return made, averaged(written(made))
    if name == "llamagen":
        made = tokenizer("llamagen-f16", vq(metric="cosine"))
        return made, of_llamagen(made)
    if name == "janus":
        made = tokenizer("llamagen-f16", vq(metric="cosine"))
        found = {f"gen_vision_model.{key}": value for key, value in of_llamagen(made).items()}
        return made, found | {"language_model.x": torch.ones(2)}
    if name == "magvit2":
        lfq = {"type": "lfq", "codebook_size": 2**5, "scale": 1.0, "entropy_weight": 0.0}
        made = tokenizer("magvit2-f16", lfq, z_channels=5)
        return made, averaged(of_magvit2(made))
    if name == "maskgit":
        made = tokenizer("maskgit-f16", vq(code_dim=32))
        return made, of_maskgit(made)
    if name == "cosmos":
        fsq = {"type": "fsq", "levels": [8, 8, 8, 5, 5, 5], "margin": -0.001}
        made = tokenizer("cosmos-f16", fsq, patch=4, attention_levels=[], down_levels=[0], up_levels=[2])
        return made, {name: value.bfloat16().float() for name, value in written(made).items()}
    made = tokenizer("vqgan-f16", vq(), decoder_norm="group")
    return made, of_diffusers(made)


NAMES = ("taming", "taming-gumbel", "ibq", "llamagen", "janus", "magvit2", "maskgit", "cosmos", "diffusers")


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_gives_back_its_tokenizer(tmp_path: Path, name: str) -> None:
    made, tensors = case(name)
    if name == "cosmos":
        for key, value in made.state_dict().items():
            if value.is_floating_point() and not key.startswith("quantizer."):
                value.copy_(value.bfloat16().float())
    torch.save({"state_dict": tensors, "epoch": 3}, tmp_path / "a.ckpt")
    found = convert(tmp_path / "a.ckpt", image_size=64)
    assert found.family == name.removesuffix("-gumbel") and found.tokenizer.config.network == made.config.network
    state = made.state_dict()
    for key, value in found.tokenizer.state_dict().items():
        if key.rpartition(".")[2] not in made.quantizer.training_state:
            assert torch.equal(value, state[key]), key
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    codes = found.tokenizer.encode(pixels)
    assert torch.equal(codes, made.encode(pixels)) and torch.equal(found.tokenizer.decode(codes), made.decode(codes))
    assert found.tokenizer.config.resample == FAMILIES[found.family].resample
    found.tokenizer.save_pretrained(tmp_path / "saved")
    again = VQTokenizer.from_pretrained(tmp_path / "saved")
    assert torch.equal(again.encode(pixels), codes) and again.fingerprint == found.tokenizer.fingerprint


def refusal(place: Path, **options: Any) -> str:
    with pytest.raises((CheckpointError, ConfigurationError)) as refused:
        convert(place, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    _, tensors = case("llamagen")
    file = tmp_path / "a.pt"
    name = "encoder.conv_blocks.0.res.0.norm1.weight"
    for change, complaint in (
        ({"encoder.mid.0.conv1.bias": None}, "lacks encoder.mid.block_1.conv1.bias"),
        ({"encoder.other.weight": torch.ones(1)}, "has no place for encoder.other.weight"),
        ({name: torch.ones(5)}, "does not fit: encoder.down.0.block.0.norm1.weight is [5], not [32]"),
        ({"encoder.conv_in.weight": None}, "is no checkpoint of LlamaGen: there is no tensor encoder.conv_in.weight"),
        ({name: None}, "is of no family that is known"),
    ):
        changed = {**tensors, **change}
        torch.save({"model": {key: value for key, value in changed.items() if value is not None}}, file)
        assert complaint in refusal(file), complaint
    torch.save({"model": tensors}, file)
    assert "is no checkpoint of MaskGIT's VQGAN" in refusal(file, family="maskgit")
    assert "--from must be one of chameleon, " in refusal(file, family="llamagenn")
    torch.save({"epoch": 3}, file)
    assert "holds no tensors" in refusal(file)
    (tmp_path / "empty").mkdir()
    assert "holds no checkpoint: none of its files ends in" in refusal(tmp_path / "empty")
    assert "there is no file or folder" in refusal(tmp_path / "none")


EMPTY = torch.zeros(0)


@pytest.mark.parametrize(
    ("name", "change", "complaint"),
    [
        ("taming", {"encoder.conv_in.weight": torch.ones(5)}, "is of 1 dimensions, not 4 as those of a convolution"),
        ("taming", {"encoder.conv_in.weight": torch.ones(0, 3, 3, 3)}, "are no multiples of the first 0"),
        ("taming", {"encoder.conv_out.weight": torch.tensor(1.0)}, "is of 0 dimensions"),
        ("taming", {"encoder.down.2.block.0.conv2.weight": EMPTY.view(65536, 0, 3, 3)}, "is no checkpoint of|not fit"),
        ("taming", {"encoder.conv_out.weight": EMPTY.view(65536, 0, 3, 3)}, "does not fit: "),
        ("taming", {"quantize.embedding.weight": torch.ones(16)}, "there is no codebook of two dimensions"),
        ("taming", {"quantize.embedding.weight": EMPTY.view(2**40, 0)}, "is no checkpoint of"),
        ("taming", {"quantize.embedding.weight": EMPTY.view(0, 8)}, "is no checkpoint of"),
        ("taming-gumbel", {"quantize.proj.weight": torch.ones(3)}, "does not fit: quantizer.to_logits.weight"),
        ("maskgit", {"quantize.embedding.weight": None}, "there is no codebook of two dimensions"),
        ("cosmos", {"quant_conv.weight": torch.ones(7, 32, 1, 1)}, "do not have the 6 dimensions"),
        ("magvit2", {"decoder.up.1.upsample.conv1.weight": None}, "there is no tensor decoder.up.1.upsample.conv"),
    ],
)
def test_shapes_that_no_network_has_are_one_line(
    tmp_path: Path, name: str, change: dict[str, Tensor | None], complaint: str
) -> None:
    """Whatever tensors without numbers claim: nothing of that size is allocated."""
    _, tensors = case(name)
    prefix = "first_stage_model." if name == "taming" else ""
    for key, value in change.items():
        assert prefix + key in tensors, "the name is to be one of the checkpoint"
        tensors |= {prefix + key: value, f"model_ema.{key.replace('.', '')}": value} if value is not None else {}
        if value is None:
            tensors = {each: tensors[each] for each in tensors if each.replace(".", "").find(key.replace(".", "")) < 0}
    if name not in ("magvit2", "ibq"):
        tensors = {each: value for each, value in tensors.items() if not each.startswith("model_ema.")}
    torch.save(tensors, tmp_path / "a.pt")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    message = refusal(tmp_path / "a.pt", family=name.removesuffix("-gumbel"))
    assert re.search(complaint, message), message
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_many_tensors_of_the_same_numbers_are_refused(tmp_path: Path) -> None:
    """Which take the place of one in a file, and of all of them in a tokenizer."""
    _, tensors = case("llamagen")
    zeros = torch.zeros(max(tensor.numel() for tensor in tensors.values()))
    torch.save({name: zeros[: each.numel()].view(each.shape) for name, each in tensors.items()}, tmp_path / "a.pt")
    assert "has several tensors of the same numbers" in refusal(tmp_path / "a.pt")


def test_what_is_no_file_is_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.pt")
    assert "there is no file" in refusal(tmp_path / "a.pt")
    for text in ("{", "[]", '{"norm_num_groups": "x"}', '{"norm_num_groups": -1}', '{"norm_num_groups": [1]}'):
        (tmp_path / "config.json").write_text(text)
        tensors = {name: value.contiguous() for name, value in case("diffusers")[1].items()}
        save_file(tensors, tmp_path / "a.safetensors")
        assert ("norm_groups must be" if "norm" in text else "config.json") in refusal(tmp_path)


def test_a_folder_of_diffusers_with_its_configuration(tmp_path: Path) -> None:
    made, tensors = case("diffusers")
    whole = {name: value.contiguous() for name, value in tensors.items()}
    save_file(whole, tmp_path / "diffusion_pytorch_model.safetensors")
    torch.save(tensors, tmp_path / "diffusion_pytorch_model.bin")
    (tmp_path / "config.json").write_text(json.dumps({"norm_num_groups": 32}))
    assert convert(tmp_path, image_size=64).tokenizer.config.network == made.config.network
    (tmp_path / "config.json").write_text(json.dumps({"norm_num_groups": 16}))
    assert convert(tmp_path, image_size=64).tokenizer.config.network["norm_groups"] == 16


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_known_of_a_family(name: str) -> None:
    family = FAMILIES[name]
    assert family.resample in RESIZING and family.source.startswith("https://github.com/")
    assert family.code_license and family.weights_license and family.paper
