from __future__ import annotations

import pytest
import torch

from tests.priors.conftest import make_binding, make_prior
from vqtok.errors import CheckpointError, ConfigurationError
from vqtok.priors import PixelCNN, PixelCNNConfig
from vqtok.priors.gated import gate
from vqtok.priors.pixelcnn import pixelcnn_prior
from vqtok.training.optimization import is_weight


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


def test_weights_of_one_code_a_position_keep_their_names() -> None:
    """Priors that were saved before there could be several load as ever."""
    prior = pixelcnn_prior(make_binding(codebook_size=7), hidden_size=4, num_layers=1, kernel_size=3)
    layer = {
        "vertical.weight": (8, 4, 2, 3),
        "vertical.bias": (8,),
        "horizontal.weight": (8, 4, 1, 2),
        "horizontal.bias": (8,),
        "vertical_to_horizontal.weight": (8, 8, 1, 1),
        "vertical_to_horizontal.bias": (8,),
        "residual.weight": (4, 4, 1, 1),
        "residual.bias": (4,),
        "vertical_bias.weight": (3, 8),
        "horizontal_bias.weight": (3, 8),
    }
    assert {name: tuple(weight.shape) for name, weight in prior.state_dict().items()} == {
        "position": (1, 4, 2, 2),
        "embedding.weight": (7, 4),
        **{f"layers.0.{name}": shape for name, shape in layer.items()},
        "head.1.weight": (4, 4, 1, 1),
        "head.1.bias": (4,),
        "head.3.weight": (7, 4, 1, 1),
        "head.3.bias": (7,),
    }


def test_several_codes_a_position_have_the_shape_of_the_codes() -> None:
    prior = make_prior("pixelcnn", make_binding(grid=(3, 5), codebook_size=7, num_codebooks=2))
    codes = torch.randint(7, (2, 3, 5, 2))
    assert prior(codes).shape == (2, 3, 5, 2, 7)
    assert torch.equal(prior(codes), prior(codes, torch.tensor([2, 2])))


@torch.no_grad()
def test_stacks_see_the_codebooks_of_a_position_apart() -> None:
    """Each codebook has embeddings of its own, so that codes which change places are another input."""
    prior = make_prior("pixelcnn", make_binding(codebook_size=7, num_codebooks=2))
    seen = prior.embed(torch.tensor([3, 5]))
    torch.testing.assert_close(seen, (prior.embedding.weight[3] + prior.embedding.weight[7 + 5]) / 2**0.5)
    assert not torch.allclose(seen, prior.embed(torch.tensor([5, 3])))


def test_vectors_of_the_head_that_are_added_do_not_decay() -> None:
    prior = make_prior("pixelcnn", make_binding(num_codebooks=2))
    added = {name for name, weight in prior.head.named_parameters() if not is_weight(f"head.{name}", weight)}
    assert added == {name for name, weight in prior.head.named_parameters() if weight.ndim == 1} | {"position"}


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
