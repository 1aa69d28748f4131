from __future__ import annotations

import pytest

from tests.priors.conftest import make_binding
from vqtok.errors import ConfigurationError
from vqtok.priors import build_prior, fill_prior_options


def test_what_is_left_out_is_filled_in() -> None:
    filled = fill_prior_options({"type": "pixelcnn", "num_layers": 3.0, "dropout": 0})
    assert filled == {"type": "pixelcnn", "hidden_size": 128, "num_layers": 3, "kernel_size": 5, "dropout": 0.0}
    assert type(filled["num_layers"]) is int
    assert fill_prior_options({})["type"] == "transformer"


def test_options_reach_the_network() -> None:
    prior = build_prior(make_binding(), {"type": "transformer", "hidden_size": 24, "num_layers": 1, "num_heads": 3})
    assert (prior.config.hidden_size, prior.config.num_hidden_layers, prior.config.num_attention_heads) == (24, 1, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"type": "pixelcn"}, "Did you mean 'pixelcnn'"),
        ({"type": "pixelcnn", "num_heads": 4}, "no option 'num_heads'"),
        ({"hiden_size": 4}, "Did you mean 'hidden_size'"),
        ({"hidden_size": "wide"}, "hidden_size must be int, got 'wide'"),
        ({"num_layers": 2.5}, "num_layers must be int, got 2.5"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        fill_prior_options(options)
