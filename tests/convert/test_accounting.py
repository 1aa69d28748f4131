"""Every tensor of a checkpoint has one place here, and every place one tensor that can stand in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.convert.test_convert import case
from vqtok.convert import convert
from vqtok.convert.shapes import network_of
from vqtok.errors import CheckpointError


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("taming", "first_stage_model.", ""),
        ("llamagen", "encoder.", "module.encoder."),
        ("diffusers", ".to_q.", ".query."),
    ],
)
def test_two_tensors_of_one_place_are_refused(tmp_path: Path, name: str, old: str, new: str) -> None:
    _, tensors = case(name)
    again = {key.replace(old, new): torch.randn_like(value) for key, value in tensors.items() if old in key}
    torch.save(tensors | again, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"a\.pt is no checkpoint.*: several of its tensors are (en|de)coder\."):
        convert(tmp_path / "a.pt", image_size=64)


def test_two_files_of_one_tensor_are_refused(tmp_path: Path) -> None:
    _, tensors = case("llamagen")
    for number in (1, 2):
        torch.save(tensors, tmp_path / f"model-0000{number}-of-00002.bin")
    with pytest.raises(CheckpointError, match="is in another file of it as well"):
        convert(tmp_path, image_size=64)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.int8, torch.bool])
def test_weights_that_are_no_floating_point_numbers_are_refused(tmp_path: Path, dtype: torch.dtype) -> None:
    """Those of 8 bits are nothing without the scales of whoever made them."""
    _, tensors = case("llamagen")
    tensors["encoder.conv_in.weight"] = tensors["encoder.conv_in.weight"].to(dtype)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "a.safetensors")
    kind = str(dtype).removeprefix("torch.")
    with pytest.raises(CheckpointError, match=f"no floating point numbers: encoder.conv_in.weight is {kind}"):
        convert(tmp_path / "a.safetensors", image_size=64)


def test_more_levels_than_a_network_has_are_not_looked_up() -> None:
    tensors = {f"encoder.down.{level}.block.0.conv2.weight": torch.ones(1, 1, 1, 1) for level in range(17)}
    with pytest.raises(CheckpointError, match="there are 17 levels, and a network has at most 16"):
        network_of(tensors)


def test_a_diffusion_model_gives_its_tokenizer(tmp_path: Path) -> None:
    """With the averages of its own network, which are not those of the tokenizer."""
    made, tensors = case("taming")
    names = ["betas", "sqrt_recipm1_alphas_cumprod", "posterior_variance", "logvar", "scale_factor"]
    names += ["model.diffusion_model.a", "cond_stage_model.a", "model_ema.decay", "model_ema.diffusion_modela"]
    torch.save({"state_dict": tensors | {name: torch.ones(2) for name in names}}, tmp_path / "model.ckpt")
    found = convert(tmp_path / "model.ckpt", image_size=64)
    assert found.family == "taming" and found.dropped == tuple(sorted(names))
    assert torch.equal(found.tokenizer.quantizer.codebook, made.quantizer.codebook)
    torch.save({"state_dict": tensors | {"more": torch.ones(2)}}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match="has no place for more"):
        convert(tmp_path / "model.ckpt", image_size=64)
