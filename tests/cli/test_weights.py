"""Weights that nothing can be computed with are one line, at every command that uses them."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from vqtok.priors import PriorBinding, build_prior
from vqtok.tokenizer import VQTokenizer

Command = Callable[..., tuple[int, str, str]]

TOKENIZER_COMMANDS = [
    ["evaluate", "--tokenizer", "tok", "--dataset", "images", "--split", "train", "--json"],
    ["inspect", "tok"],
    ["inspect", "tok", "--dataset", "images", "--split", "train", "--json"],
    ["tokenize", "images", "--tokenizer", "tok", "--out", "new"],
    ["detokenize", "codes", "--tokenizer", "tok"],
    ["push", "tok", "org/name"],
]


def save_prior(folder: str, kind: str, tokenizer: VQTokenizer, value: float) -> None:
    binding = PriorBinding(fingerprint=tokenizer.fingerprint, grid=(4, 4), codebook_size=16, tokenizer="tok")
    sizes = {"num_heads": 2} if kind == "transformer" else {}
    prior = build_prior(binding, {"type": kind, "hidden_size": 8, "num_layers": 1, **sizes})
    with torch.no_grad():
        next(prior.parameters()).view(-1)[-1] = value
    prior.save_pretrained(folder)


@pytest.mark.parametrize("value", [math.nan, -math.inf])
@pytest.mark.parametrize("command", TOKENIZER_COMMANDS, ids=" ".join)
def test_a_tokenizer_whose_weights_are_not_finite(
    vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer, command: list[str], value: float
) -> None:
    tiny_tokenizer.save_pretrained("tok")
    assert vqtok("tokenize", "images", "--tokenizer", "tok", "--out", "codes")[0] == 0
    with torch.no_grad():
        name, weights = list(tiny_tokenizer.decoder.named_parameters())[-1]
        weights.view(-1)[-1] = value
    tiny_tokenizer.save_pretrained("tok")
    code, said, complained = vqtok(*command)
    assert (code, said) == (2, "")
    assert complained == (
        f"vqtok: error: the weights in tok are not finite: decoder.{name}; train the model again, or take another\n"
    )
    assert not Path("new").exists()


@pytest.mark.parametrize("kind", ["pixelcnn", "transformer"])
@pytest.mark.parametrize("command", ["inspect prior", "sample --prior prior", "push prior org/name"])
def test_a_prior_whose_weights_are_not_finite(
    vqtok: Command, tiny_tokenizer: VQTokenizer, command: str, kind: str
) -> None:
    tiny_tokenizer.save_pretrained("tok")
    save_prior("prior", kind, tiny_tokenizer, math.nan)
    code, said, complained = vqtok(*command.split())
    assert (code, said) == (2, "")
    assert complained.startswith("vqtok: error: the weights in prior are not finite: ")
    assert complained.count("\n") == 1


@pytest.mark.parametrize(("command", "part"), [("evaluate --tokenizer tok", "decoder"), ("inspect tok", "quantizer")])
def test_weights_whose_products_are_not_finite(
    vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer, command: str, part: str
) -> None:
    with torch.no_grad():
        for weights in tiny_tokenizer.get_submodule(part).state_dict().values():
            if weights.is_floating_point():
                weights.copy_(torch.randn(weights.shape) * 1e30)
    tiny_tokenizer.save_pretrained("tok")
    before = sorted(Path().rglob("*"))
    code, said, complained = vqtok(*command.split(), "--dataset=images", "--split=train", "--json")
    assert (code, said) == (2, "")
    assert complained.splitlines()[-1].startswith("vqtok: error: what tok computes is not finite: ")
    assert sorted(Path().rglob("*")) == before
