from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModel, LlamaConfig, LlamaForCausalLM

import vqtok
from tests.priors.conftest import make_binding, make_prior
from vqtok.errors import CheckpointError, HubError
from vqtok.priors import Prior, PriorBinding, load_prior, negative_log_likelihood
from vqtok.tokenizer import VQTokenizer


@pytest.fixture()
def saved(prior: Prior, tmp_path: Path) -> Path:
    prior.save_pretrained(tmp_path / "prior")
    return tmp_path / "prior"


def test_a_saved_prior_comes_back_bitwise(
    prior: Prior, binding: PriorBinding, saved: Path, every_grid: torch.Tensor
) -> None:
    loaded = load_prior(saved)
    assert type(loaded) is type(prior)
    assert not loaded.training
    assert PriorBinding.from_config(loaded.config) == binding
    assert torch.equal(negative_log_likelihood(loaded, every_grid, 1), negative_log_likelihood(prior, every_grid, 1))
    assert sorted(file.name for file in saved.glob("*.safetensors")) == ["model.safetensors"]


def test_a_loaded_prior_can_be_pickled_and_copied(saved: Path, every_grid: torch.Tensor) -> None:
    loaded = load_prior(saved)
    for other in (pickle.loads(pickle.dumps(loaded)), copy.deepcopy(loaded)):
        assert other.push_to_hub.args == (other,)
        likelihoods = [negative_log_likelihood(each, every_grid, 1) for each in (loaded, other)]
        assert torch.equal(*likelihoods)


def test_a_run_folder_leads_to_its_model(prior: Prior, tmp_path: Path) -> None:
    prior.save_pretrained(tmp_path / "run" / "model")
    assert load_prior(tmp_path / "run").config.vqtok == prior.config.vqtok


def test_generation_settings_travel_with_a_transformer(tmp_path: Path) -> None:
    make_prior("transformer", make_binding()).save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "generation_config.json").read_text())
    assert settings["do_sample"] is True
    assert settings["top_k"] == 0
    assert settings["top_p"] == 1.0
    assert settings["max_new_tokens"] == 4
    assert settings["suppress_tokens"] == [3, 4, 5]
    assert [settings.get(f"{name}_token_id") for name in ("bos", "eos", "pad")] == [None] * 3


def test_the_auto_classes_know_a_pixelcnn(tmp_path: Path) -> None:
    prior = make_prior("pixelcnn", make_binding())
    prior.save_pretrained(tmp_path)
    assert vqtok.__version__  # importing the package is what registers
    assert AutoConfig.from_pretrained(tmp_path).vqtok == prior.config.vqtok
    assert torch.equal(AutoModel.from_pretrained(tmp_path).embedding.weight, prior.embedding.weight)


def test_nothing_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no folder .*nothing to load a prior from"):
        load_prior(tmp_path / "nothing")


def test_a_repository_that_cannot_be_read_is_an_error_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is for a tokenizer; the name may also be that of a folder, misspelt."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for load in (load_prior, VQTokenizer.from_pretrained):
        with pytest.raises(HubError, match="^there is no folder runs/mnits, and runs/mnits is not in the cache"):
            load("runs/mnits")


@pytest.mark.parametrize(
    ("name", "line"), [("config.json", "holds no prior"), ("model.safetensors", "holds no weights")]
)
def test_a_folder_that_lacks_a_file_is_refused(saved: Path, name: str, line: str) -> None:
    (saved / name).unlink()
    with pytest.raises(CheckpointError, match=f"{line}: .*{name} is missing"):
        load_prior(saved)


def test_a_model_that_is_no_prior_is_refused(tmp_path: Path) -> None:
    config = LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1)
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="holds no prior: its config.json is of a 'llama' model"):
        load_prior(tmp_path)


def test_missing_weights_are_refused(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    name = sorted(weights)[0]
    del weights[name]
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=f"do not fit its configuration: {name} is missing;"):
        load_prior(saved)


def test_misshapen_weights_are_refused(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    name = sorted(weights)[0]
    weights[name] = torch.zeros(1, 2, 3)
    save_file(weights, saved / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=rf"{name} is \[1, 2, 3\] and not \["):
        load_prior(saved)


def test_a_broken_file_is_refused(saved: Path) -> None:
    (saved / "model.safetensors").write_bytes(b"not weights")
    with pytest.raises(CheckpointError, match="model.safetensors is no whole safetensors file"):
        load_prior(saved)
