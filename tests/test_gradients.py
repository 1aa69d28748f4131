"""scripts/gradients.py, with few draws."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

SCRIPT = Path(__file__).parents[1] / "scripts" / "gradients.py"


@pytest.fixture(scope="module")
def script() -> Any:
    spec = importlib.util.spec_from_file_location("gradients", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gradients"] = module
    spec.loader.exec_module(module)
    return module


def test_unbiased_estimates_are_within_their_noise_and_the_others_are_not(script: Any) -> None:
    exact = {samples: script.exact_gradient(script.make("vimco", 0), samples)[0] for samples in (1, script.SAMPLES)}
    found = {}
    for name, samples, _, toy, loss in script.methods(0):
        torch.manual_seed(1)
        found[name, samples] = script.measured(toy, loss, exact[samples], 10_000)
    for (name, _), (bias, noise, _) in found.items():
        if name == "VIMCO" or name.startswith("likelihood"):
            assert bias < 3 * noise, name
        elif not name.endswith("0.1"):
            assert bias > 10 * noise, name
    off = "likelihood ratio, {} off the signal"
    for samples in (1, script.SAMPLES):
        best = found[off.format("the best constant"), samples][2]
        assert best < 1.05 * found[off.format("a learned baseline"), samples][2]
        assert 100 * best < found[off.format("nothing"), samples][2]
    assert found["VIMCO", 4][2] < 0.5 * found[off.format("the best constant"), 4][2]


def test_the_exact_gradient_is_that_of_finite_differences(script: Any) -> None:
    toy = script.make("vimco", 3, copies=1)
    exact, _ = script.exact_gradient(toy, 1)
    codes = torch.cartesian_prod(torch.arange(4), torch.arange(4)).view(16, 1, 1, 1, 2)

    def loss() -> float:
        with torch.no_grad():
            q = toy.model.posterior(toy.pixels)
            log_p_x = toy.model.log_likelihood(toy.model.decode(toy.model.embed(codes.flatten(0, 1))), toy.pixels)
            return float(q.kl()[0] - (q.log_prob(codes).exp() * log_p_x).sum())

    for index in range(8):
        change = torch.zeros(8, dtype=torch.float64)
        change[index] = 1e-5
        ends = []
        for sign in (1, -1):
            toy.logits.data += sign * change.view(1, 8, 1, 1)
            ends.append(loss())
            toy.logits.data -= sign * change.view(1, 8, 1, 1)
        assert (ends[0] - ends[1]) / 2e-5 == pytest.approx(float(exact[index]), rel=1e-4, abs=1e-7)
