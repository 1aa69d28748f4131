from __future__ import annotations

from typing import Any

import pytest

from tests.priors.conftest import make_binding
from vqtok.errors import ConfigurationError
from vqtok.hub import PRIORS
from vqtok.priors import ARCHITECTURES, PixelCNNConfig, build_prior
from vqtok.priors.transformer import TransformerOptions


def test_what_is_left_out_is_filled_in() -> None:
    config = PixelCNNConfig(arch={"num_layers": 3, "dropout": 0}, vqtok=make_binding().to_dict())
    assert config.arch == {
        "type": "pixelcnn",
        "hidden_size": 128,
        "num_layers": 3,
        "kernel_size": 5,
        "num_depth_layers": 3,
        "dropout": 0.0,
    }
    assert type(config.arch["dropout"]) is float
    prior = build_prior(make_binding(), {"num_layers": 1})
    assert prior.config.model_type == "llama"
    assert prior.config.hidden_size == TransformerOptions().hidden_size == 256


def test_the_registry_is_the_architectures_by_name() -> None:
    assert list(ARCHITECTURES) == ["pixelcnn", "transformer"]
    for name, architecture in ARCHITECTURES.items():
        assert architecture.options().type == name
    assert set(PRIORS) == {architecture.model_type for architecture in ARCHITECTURES.values()}


def test_options_reach_the_network() -> None:
    prior = build_prior(make_binding(), {"type": "transformer", "hidden_size": 24, "num_layers": 1, "num_heads": 3})
    assert (prior.config.hidden_size, prior.config.num_hidden_layers, prior.config.num_attention_heads) == (24, 1, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"type": "pixelcn"},
            r"^arch.type must be one of pixelcnn, transformer, got 'pixelcn'. Did you mean 'pixelcnn'",
        ),
        ({"type": ["pixelcnn"]}, r"^arch.type must be one of pixelcnn, transformer, got \['pixelcnn'\]. Did you"),
        ({"type": "pixelcnn", "num_heads": 4}, "^arch.num_heads is not an option of arch.type 'pixelcnn', which has"),
        ({"hiden_size": 4}, "^arch.hiden_size is not an option of .* Did you mean 'hidden_size'"),
        ({"hidden_size": "wide"}, "^arch.hidden_size must be a whole number from 1 to 65536, got 'wide'$"),
        ({"num_layers": 2.5}, "^arch.num_layers must be a whole number from 1 to 1024, got 2.5$"),
        ({"type": "pixelcnn", "num_layers": 2.5}, "^arch.num_layers must be a whole number from 1 to 1024, got 2.5$"),
        ({"type": "pixelcnn", "kernel_size": 4}, "^arch.kernel_size must be odd and at least 3, got 4$"),
        ({"hidden_size": 12, "num_heads": 4}, r"^arch: hidden_size must be a multiple of 2 \* num_heads = 8, got 12$"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        build_prior(make_binding(), options)
