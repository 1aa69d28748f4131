from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from vqtok.priors import PriorBinding, build_prior
from vqtok.quantizers import build_quantizer
from vqtok.tokenizer import VQTokenizer
from vqtok.training.config import LoopConfig
from vqtok.training.optimization import build_optimizers, learning_rate_at
from vqtok.training.prior_config import PriorTrainingConfig


def make(**values: Any) -> LoopConfig:
    return LoopConfig(**({"out": "runs/x"} | values))


def test_the_learning_rate_warms_up_and_falls_along_a_cosine_to_zero() -> None:
    config = make(learning_rate=2.0, warmup_steps=4, steps=14)
    rates = [learning_rate_at(step, config) for step in range(15)]
    assert rates[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert rates[9] == pytest.approx(1.0)
    assert rates[12] == pytest.approx(1 + math.cos(math.pi * 0.8))
    assert rates[14] == pytest.approx(0)
    assert learning_rate_at(0, make(learning_rate=2.0, warmup_steps=0, steps=1)) == 2.0
    assert learning_rate_at(1, make(learning_rate=2.0, warmup_steps=2, steps=2)) == pytest.approx(2.0)


def test_warm_up_is_a_share_of_the_steps_and_has_an_end() -> None:
    assert [make(steps=steps).warmup_steps for steps in (8, 300, 10_000, 40_000)] == [0, 6, 200, 500]
    prior = [PriorTrainingConfig(out="runs/x", codes="codes", steps=steps).warmup_steps for steps in (300, 10_000)]
    assert prior == [60, 100]
    assert make(steps=300, warmup_steps=0).warmup_steps == 0


def test_biases_and_codebooks_do_not_decay(tiny_tokenizer: VQTokenizer) -> None:
    codebook = torch.nn.Parameter(tiny_tokenizer.quantizer.codebook.clone())
    del tiny_tokenizer.quantizer.codebook
    tiny_tokenizer.quantizer.codebook = codebook
    (adamw,) = build_optimizers(tiny_tokenizer, make(weight_decay=0.1, learning_rate=0.5, optimizer="adamw"))
    decayed, plain = adamw.param_groups
    assert (decayed["weight_decay"], plain["weight_decay"], decayed["lr"], plain["lr"]) == (0.1, 0.0, 0.5, 0.5)
    assert {parameter.ndim for parameter in decayed["params"]} == {4}
    assert {parameter.ndim for parameter in plain["params"]} == {1, 2}
    assert any(parameter is codebook for parameter in plain["params"])
    assert len(decayed["params"]) + len(plain["params"]) == len(list(tiny_tokenizer.parameters()))


def test_the_map_of_a_simvq_codebook_does_not_decay() -> None:
    quantizer = build_quantizer({"type": "simvq", "codebook_size": 8, "code_dim": 4})
    (adamw,) = build_optimizers(quantizer, make(weight_decay=0.1, optimizer="adamw"))
    decays = {id(each): group["weight_decay"] for group in adamw.param_groups for each in group["params"]}
    assert decays[id(quantizer.codebook_map)] == 0


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_biases_of_classes_and_positions_are_biases(optimizer: str) -> None:
    """Though they have two dimensions and four; what is multiplied with features decays."""
    binding = PriorBinding(fingerprint="f" * 64, grid=(2, 2), codebook_size=3, label_names=("a", "b"))
    prior = build_prior(binding, {"type": "pixelcnn", "hidden_size": 8, "num_layers": 1})
    names = {id(parameter): name for name, parameter in prior.named_parameters()}
    plain, decayed = set(), set()
    for each in build_optimizers(prior, make(weight_decay=0.1, optimizer=optimizer)):
        for group in each.param_groups:
            (decayed if group["weight_decay"] else plain).update(names[id(each)] for each in group["params"])
    assert decayed == {name for name in names.values() if name.endswith("weight") and "_bias" not in name}
    assert decayed | plain == set(names.values()) and "position" in plain and "embedding.weight" in decayed
