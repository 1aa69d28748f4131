"""A baseline saved and loaded is the same, and a folder that could do harm is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel

from tests.baselines.models import LABELS, METHODS, make, make_labels, pixels
from vqtok.baselines import BASELINES, VAE, build_baseline, load_baseline
from vqtok.baselines.vae import VAEConfig
from vqtok.errors import CheckpointError, ConfigurationError
from vqtok.tokenizer import VQTokenizer


@pytest.mark.parametrize("method", METHODS)
def test_saved_and_loaded_it_is_the_same_bit_for_bit(method: str, tmp_path: Path) -> None:
    model, labels = make(method), make_labels(method)
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    for load in (type(model).from_pretrained, load_baseline, AutoModel.from_pretrained):
        loaded: Any = load(tmp_path)
        assert type(loaded) is type(model) and not loaded.training
        for name in ("image_size", "num_channels", "network", "likelihood", "model", "label_names"):
            assert getattr(loaded.config, name) == getattr(model.config, name)
        assert all(torch.equal(loaded.state_dict()[name], each) for name, each in model.state_dict().items())
        assert torch.equal(loaded.reconstruct(pixels(), labels), model.reconstruct(pixels(), labels))
    assert loaded.label_names == (tuple(LABELS) if method == "cvae" else ())
    assert type(AutoConfig.from_pretrained(tmp_path)) is type(model.config)


def test_of_another_kind_it_is_refused(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> None:
    make("vae").save_pretrained(tmp_path / "vae")
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    with pytest.raises(CheckpointError, match="holds no tokenizer: its config.json is of a vqtok baseline"):
        VQTokenizer.from_pretrained(tmp_path / "vae")
    with pytest.raises(CheckpointError, match="holds no baseline: its config.json is of a vqtok tokenizer"):
        load_baseline(tmp_path / "tokenizer")
    with pytest.raises(CheckpointError, match="holds no baseline: its config.json is of a 'vqtok-vae' model"):
        BASELINES["iwae"][1].from_pretrained(tmp_path / "vae")


def changed(folder: Path, **entries: Any) -> Path:
    make("vae").save_pretrained(folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))
    return folder


@pytest.mark.parametrize(
    ("entries", "error", "message"),
    [
        ({"auto_map": {"AutoModel": "x.Y"}}, CheckpointError, "sets 'auto_map', which no model of vqtok needs"),
        ({"attn_implementation": "a/b"}, CheckpointError, "sets 'attn_implementation'"),
        ({"quantization_config": {}}, CheckpointError, "sets 'quantization_config'"),
        ({"surprise": 1}, ConfigurationError, "'surprise' is not a key of a vqtok-vae configuration, which has "),
        ({"model": {"type": "vimco"}}, ConfigurationError, "model.type must be one of vae, got 'vimco'"),
        ({"model": {"betta": 1}}, ConfigurationError, "model.betta is not an option of model.type 'vae'"),
        ({"model": {"latent_dim": 11}}, CheckpointError, r"do not fit its configuration: decoder.0.weight is \[8, 10,"),
        ({"network": {"num_residual_blocks": 10**6}}, CheckpointError, "num_residual_blocks must be at most 10,000"),
        ({"likelihood": {"type": "mse"}}, ConfigurationError, "likelihood mse gives no probabilities, and vae is"),
        ({"label_names": ["a"]}, ConfigurationError, "a model of type vae takes no label_names, got"),
        ({"label_names": ["a"] * 10**5}, ConfigurationError, "^.{1,200}$"),
        ({"image_size": 18}, ConfigurationError, "18x18 pixels does not divide by the downsample factor 4"),
    ],
)
def test_a_configuration_that_could_do_harm_is_refused(
    entries: dict[str, Any], error: type[Exception], message: str, tmp_path: Path
) -> None:
    folder = changed(tmp_path / "vae", **entries)
    with pytest.raises(error, match=message) as caught:
        VAE.from_pretrained(folder)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_finite_or_no_safetensors_are_refused(tmp_path: Path) -> None:
    make("vae").save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["decoder.0.weight"][0, 0, 0, 0] = torch.nan
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="are not finite: decoder.0.weight"):
        load_baseline(tmp_path)
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds no weights: model.safetensors is missing"):
        load_baseline(tmp_path)


def test_what_is_left_out_is_filled_in() -> None:
    config = VAEConfig()
    assert config.model == {"type": "vae", "latent_dim": 10, "beta": 1.0}
    assert config.likelihood == {"type": "logistic"} and config.size == (32, 32)
    with pytest.raises(ConfigurationError, match="a model of type cvae needs label_names, the names of its classes"):
        build_baseline({"type": "cvae"})
    with pytest.raises(ConfigurationError, match=r"model.type must be one of autoencoder, .* Did you mean 'vae'\?"):
        build_baseline({"type": "vea"})
