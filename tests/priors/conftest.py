"""Priors small enough to write out every grid they can produce, with weights large enough to have opinions."""

from __future__ import annotations

import pytest
import torch

from vqtok.priors import Prior, PriorBinding, build_prior

SMALL = {
    "pixelcnn": {"hidden_size": 8, "num_layers": 5, "kernel_size": 3, "num_depth_layers": 2},
    "transformer": {"hidden_size": 16, "num_layers": 2, "num_heads": 2},
}


def make_binding(**changes: object) -> PriorBinding:
    values = {"fingerprint": "f" * 64, "grid": (2, 2), "codebook_size": 3, "label_names": ("cat", "dog")}
    return PriorBinding(**(values | changes))  # type: ignore[arg-type]


def make_prior(kind: str, binding: PriorBinding) -> Prior:
    torch.manual_seed(0)
    prior = build_prior(binding, {"type": kind, **SMALL[kind]})
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return prior.eval()


CASES = {
    "pixelcnn": ("pixelcnn", {}),
    "pixelcnn, two codebooks": ("pixelcnn", {"grid": (1, 2), "num_codebooks": 2}),
    "transformer": ("transformer", {}),
    "transformer, two codebooks": ("transformer", {"grid": (1, 2), "num_codebooks": 2}),
}


@pytest.fixture(scope="session", params=CASES)
def prior(request: pytest.FixtureRequest) -> Prior:
    kind, changes = CASES[request.param]
    return make_prior(kind, make_binding(**changes))


@pytest.fixture(scope="session")
def binding(prior: Prior) -> PriorBinding:
    return PriorBinding.from_config(prior.config)


@pytest.fixture(scope="session")
def every_grid(binding: PriorBinding) -> torch.Tensor:
    """All K^L grids: (81, 2, 2), or (81, 1, 2, 2) where there are two codebooks."""
    one = torch.arange(binding.codebook_size)
    flat = torch.cartesian_prod(*[one] * binding.codes_per_image)
    return flat.view(binding.code_shape(len(flat)))
