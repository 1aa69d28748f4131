"""Checkpoints that look like others by their tensors, and would give other codes or images without a word."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.convert.test_convert import averaged, case, of_diffusers, refusal, tokenizer, vq, written
from vqtok.convert import convert
from vqtok.tokenizer import VQTokenizer


def same_parts(found: VQTokenizer, made: VQTokenizer) -> bool:
    """Whether what decides codes and pixels has the same numbers, whatever images are resized by."""
    ours, theirs = found.state_dict(), made.state_dict()
    names = [name for name in theirs if name.rpartition(".")[2] not in made.quantizer.training_state]
    alike = found.config.quantizer == made.config.quantizer and found.config.network == made.config.network
    return alike and all(torch.equal(ours[name], theirs[name]) for name in names)


def test_what_a_configuration_of_diffusers_asks_for_and_no_tensor_shows_is_refused(tmp_path: Path) -> None:
    _, tensors = case("diffusers")
    spatial = tokenizer("vqgan-f16", vq(), decoder_norm="spatial")
    for config, of, complaint in (
        ({"act_fn": "gelu"}, tensors, "act_fn in its config.json is 'gelu', and only silu can be converted"),
        ({"norm_num_groups": 16}, of_diffusers(spatial), "norm_num_groups in its config.json is 16, and of a spatial"),
    ):
        save_file({name: value.contiguous() for name, value in of.items()}, tmp_path / "a.safetensors")
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert complaint in refusal(tmp_path)


@pytest.mark.parametrize("name", ["diffusers", "taming"])
def test_only_cosmos_has_wavelets(tmp_path: Path, name: str) -> None:
    """Twelve channels of another network are no patches of 2 x 2 pixels."""
    _, tensors = case(name)
    first = next(key for key in tensors if key.endswith("encoder.conv_in.weight"))
    torch.save(tensors | {first: torch.ones(32, 12, 3, 3)}, tmp_path / "a.pt")
    assert "does not fit: encoder.conv_in.weight is [32, 12, 3, 3], not [32, 3, 3, 3]" in refusal(tmp_path / "a.pt")


def test_the_first_stage_of_a_diffusion_model(tmp_path: Path) -> None:
    made, tensors = case("taming")  # under first_stage_model
    schedule = ("betas", "alphas_cumprod_prev", "sqrt_recipm1_alphas_cumprod", "log_one_minus_alphas_cumprod")
    beside = (*schedule, "posterior_mean_coef1", "scale_factor", "model.diffusion_model.out.0.weight")
    averages = ("model_ema.decay", "model_ema.num_updates", "model_ema.diffusion_modelout0weight")
    torch.save(tensors | {name: torch.ones(2) for name in (*beside, *averages)}, tmp_path / "model.ckpt")
    found = convert(tmp_path / "model.ckpt", image_size=64)
    assert found.family == "taming" and set(found.dropped) >= {*beside, *averages}
    assert same_parts(found.tokenizer, made)


def test_averages_alone_do_not_make_a_checkpoint_one_of_ibq(tmp_path: Path) -> None:
    """latent-diffusion keeps them too where it is told to, and looks codes up by their distance."""
    made = tokenizer("vqgan-f16", vq())
    torch.save({"state_dict": averaged(written(made))}, tmp_path / "a.ckpt")
    assert "may be of ibq or taming: say which with --from" in refusal(tmp_path / "a.ckpt")
    found = convert(tmp_path / "a.ckpt", family="taming", image_size=64)
    assert same_parts(found.tokenizer, made)
    assert "the exponential averages of the weights are taken" in found.provenance.notes[0]
