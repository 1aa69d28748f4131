from __future__ import annotations

import pytest
import torch

from tests.priors.conftest import make_binding
from vqtok.errors import ConfigurationError
from vqtok.priors.transformer import token_ids, transformer_prior


def test_the_sequence_is_the_class_and_then_the_codes() -> None:
    binding = make_binding(codebook_size=5)
    tokens = token_ids(binding, torch.tensor([[4, 0, 1, 2], [0, 0, 0, 3]]), torch.tensor([1, 2]))
    assert tokens.tolist() == [[6, 4, 0, 1, 2], [7, 0, 0, 0, 3]]


def test_each_codebook_has_its_own_tokens() -> None:
    binding = make_binding(codebook_size=5, num_codebooks=2, grid=(1, 2))
    tokens = token_ids(binding, torch.tensor([[4, 0, 1, 2]]), torch.tensor([0]))
    assert tokens.tolist() == [[10, 4, 5, 1, 7]]


def test_the_vocabulary_holds_codes_classes_and_the_null_class() -> None:
    binding = make_binding(codebook_size=5, num_codebooks=2)
    config = transformer_prior(binding, hidden_size=16, num_layers=1, num_heads=2).config
    assert config.vocab_size == 2 * 5 + 2 + 1
    assert config.max_position_embeddings == 2 * 2 * 2 + 1
    assert config.vqtok == binding.to_dict()


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="multiple of 2 \\* num_heads = 8, got 20"):
        transformer_prior(make_binding(), hidden_size=20, num_heads=4)


@pytest.mark.parametrize(("name", "value"), [("hidden_size", 0), ("num_layers", 0), ("num_heads", 0), ("dropout", 1.0)])
def test_numbers_that_make_no_network_are_refused(name: str, value: float) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must .* got {value}"):
        transformer_prior(make_binding(), **{name: value})  # type: ignore[arg-type]
