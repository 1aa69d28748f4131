from __future__ import annotations

import pytest
import torch

from tests.priors.conftest import make_binding, make_prior
from vqtok.errors import CheckpointError, ConfigurationError
from vqtok.priors import PixelCNN, PixelCNNConfig
from vqtok.priors.pixelcnn import gate, pixelcnn_prior


def test_gate_is_equation_4() -> None:
    features = torch.randn(2, 6, 3, 3)
    content, door = features[:, :3], features[:, 3:]
    torch.testing.assert_close(gate(features), torch.tanh(content) / (1 + torch.exp(-door)))


def test_logits_have_the_grid_of_the_codes() -> None:
    prior = make_prior("pixelcnn", make_binding(grid=(3, 5), codebook_size=7))
    codes = torch.randint(7, (2, 3, 5))
    assert prior(codes).shape == (2, 3, 5, 7)
    assert torch.equal(prior(codes), prior(codes, torch.tensor([2, 2])))


def test_weights_start_as_meant() -> None:
    """Convolutions of variance 1 / fan-in, codes of variance 1, and no bias, so that all classes start alike."""
    torch.manual_seed(0)
    prior = pixelcnn_prior(make_binding(codebook_size=64), hidden_size=32, num_layers=1)
    for name, weight in prior.named_parameters():
        if weight.ndim == 4 and name != "position":
            assert weight.std().item() * weight[0].numel() ** 0.5 == pytest.approx(1, abs=0.1), name
        elif name == "embedding.weight":
            assert weight.std().item() == pytest.approx(1, abs=0.1)
        else:
            assert not weight.any(), name


def test_several_codebooks_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="use the transformer"):
        PixelCNN(PixelCNNConfig(vqtok=make_binding(num_codebooks=2).to_dict()))


def test_a_prior_of_no_tokenizer_is_refused() -> None:
    with pytest.raises(CheckpointError, match="vqtok"):
        PixelCNN(PixelCNNConfig())


@pytest.mark.parametrize(
    ("name", "value"), [("hidden_size", 0), ("num_layers", 0), ("kernel_size", 4), ("kernel_size", 1), ("dropout", 1.0)]
)
def test_numbers_that_make_no_network_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"^arch.{name} must .* got {value}$"):
        PixelCNNConfig(arch={name: value})


@pytest.mark.parametrize(
    ("arch", "message"),
    [
        (3, "arch must be the name of a type or key: value entries, got 3"),
        ({"type": "transformer"}, "arch.type must be"),
    ],
)
def test_options_of_another_kind_are_refused(arch: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        PixelCNNConfig(arch=arch)
