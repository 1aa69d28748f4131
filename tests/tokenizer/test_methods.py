"""A tokenizer of every method is saved, loaded, cast and recognised alike."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.quantizers.methods import VARIANTS
from tests.tokenizer.models import SMALL, pixels
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig

every_variant = pytest.mark.parametrize("options", VARIANTS, ids=lambda options: options["type"])


def make(options: dict[str, Any]) -> VQTokenizer:
    """A tokenizer after one step of training, so that its codes have started."""
    torch.manual_seed(0)
    config = VQTokenizerConfig(image_size=16, num_channels=1, network=SMALL, quantizer=options)
    model = VQTokenizer(config).train()
    model(pixels())
    return model.eval()


@every_variant
def test_a_loaded_one_gives_the_same_codes(options: dict[str, Any], tmp_path: Path) -> None:
    model = make(options)
    model.save_pretrained(tmp_path)
    loaded = VQTokenizer.from_pretrained(tmp_path)
    codes = model.encode(pixels())
    assert torch.equal(loaded.encode(pixels()), codes)
    assert torch.equal(loaded.decode(codes), model.decode(codes))
    assert loaded.fingerprint == model.fingerprint
    assert codes.shape == ((3, 4, 4) if model.num_codebooks == 1 else (3, 4, 4, model.num_codebooks))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name]), name


@every_variant
def test_bfloat16_leaves_the_quantizer_in_float32(options: dict[str, Any], tmp_path: Path) -> None:
    model = make(options)
    model.save_pretrained(tmp_path)
    loaded = VQTokenizer.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.dtype == torch.bfloat16
    for name, tensor in model.quantizer.state_dict().items():
        found = loaded.quantizer.state_dict()[name]
        assert found.dtype == tensor.dtype and torch.equal(found, tensor), name
    output = loaded(pixels())
    assert output.quantized.dtype == output.loss.dtype == torch.float32
    assert torch.equal(loaded.encode(pixels()), output.codes)


@every_variant
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_cast_model_keeps_its_fingerprint(options: dict[str, Any], dtype: torch.dtype, tmp_path: Path) -> None:
    model = make(options).to(dtype)
    model.save_pretrained(tmp_path)
    loaded = VQTokenizer.from_pretrained(tmp_path, dtype="auto")
    assert loaded.fingerprint == model.fingerprint and torch.equal(loaded.encode(pixels()), model.encode(pixels()))


@every_variant
def test_the_fingerprint_is_of_all_but_what_training_keeps(options: dict[str, Any]) -> None:
    model = make(options)
    kept = 0
    for name in model.quantizer.state_dict():
        other = copy.deepcopy(model)
        tensor = other.quantizer.state_dict()[name]
        tensor.copy_(~tensor if tensor.dtype == torch.bool else tensor + 1)
        of_training = name.rsplit(".", 1)[-1] in model.quantizer.training_state
        assert (other.fingerprint == model.fingerprint) is of_training, name
        kept += of_training
    assert kept >= len(model.quantizer.training_state)
