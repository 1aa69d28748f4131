"""A tokenizer saved and loaded is the same, and a folder that holds none is one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoImageProcessor, AutoModel

from tests.tokenizer.models import METHODS, make, pixels, same_state
from vqtok.errors import CheckpointError, ConfigurationError
from vqtok.tokenizer import VQImageProcessor, VQTokenizer


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("method", METHODS)
def test_saved_and_loaded_it_is_the_same_bit_for_bit(method: str, layout: torch.memory_format, tmp_path: Path) -> None:
    model = make(method).to(memory_format=layout).train()
    model(pixels())
    model.eval().save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    ]
    loaded = VQTokenizer.from_pretrained(tmp_path)
    assert not loaded.training
    assert same_state(model, loaded)
    assert torch.equal(loaded.encode(pixels()), model.encode(pixels()))
    assert loaded.fingerprint == model.fingerprint
    assert (loaded.repository, loaded.revision) == (str(tmp_path), None)


def test_a_loaded_one_goes_on_training_from_where_it_was(tmp_path: Path) -> None:
    model = make("ema").train()
    model(pixels())
    model.save_pretrained(tmp_path)
    loaded = VQTokenizer.from_pretrained(tmp_path).train()
    for each in (model, loaded):
        torch.manual_seed(3)
        each(pixels(8))
    assert same_state(model, loaded)


def test_auto_classes_find_it(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> None:
    tiny_tokenizer.save_pretrained(tmp_path)
    model = AutoModel.from_pretrained(tmp_path)
    assert type(model) is VQTokenizer
    assert same_state(model, tiny_tokenizer)
    processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(processor) is VQImageProcessor
    assert (processor.size, processor.num_channels) == ({"height": 16, "width": 16}, 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@pytest.mark.parametrize("method", METHODS)
def test_another_type_leaves_the_quantizer_as_it_is(method: str, dtype: torch.dtype, tmp_path: Path) -> None:
    model = make(method)
    model.save_pretrained(tmp_path)
    loaded = VQTokenizer.from_pretrained(tmp_path, dtype=dtype)
    assert loaded.dtype == dtype
    assert same_state(loaded.quantizer, model.quantizer)
    output = loaded(pixels())
    assert output.quantized.dtype == output.loss.dtype == torch.float32
    assert output.reconstruction.dtype == dtype
    assert torch.equal(loaded.encode(pixels()), output.codes)
    assert loaded.decode(output.codes).dtype == torch.float32
    assert loaded.fingerprint != model.fingerprint
    loaded.train()(pixels()).loss.backward()
    loaded.save_pretrained(tmp_path / "again")
    assert VQTokenizer.from_pretrained(tmp_path / "again").fingerprint == loaded.fingerprint


def test_only_safetensors_are_read(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> None:
    tiny_tokenizer.save_pretrained(tmp_path)
    torch.save(load_file(tmp_path / "model.safetensors"), tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="model.safetensors") as caught:
        VQTokenizer.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)


def drop(name: str) -> Any:
    def change(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        del tensors[name]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    return change


def misshape(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["quantizer.codebook"] = torch.zeros(8, 4)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def extra(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file(tensors | {"encoder.99.weight": torch.zeros(1)}, folder / "model.safetensors", metadata={"format": "pt"})


def configure(**changes: Any) -> Any:
    def change(folder: Path) -> None:
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | changes))

    return change


def truncate(folder: Path) -> None:
    data = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop("quantizer.codebook"), "do not fit its configuration: quantizer.codebook is missing; save"),
        (drop("encoder.0.weight"), "encoder.0.weight is missing"),
        (extra, "encoder.99.weight is unknown"),
        (misshape, r"quantizer.codebook is \[8, 4\] and not \[16, 4\]"),
        (truncate, "model.safetensors is no whole safetensors file"),
        (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors"),
        (lambda folder: (folder / "config.json").unlink(), "holds no tokenizer: its config.json is missing"),
        (lambda folder: (folder / "config.json").write_text("{"), "config.json"),
        (configure(model_type="llama"), "holds no tokenizer: its config.json is of a 'llama' model"),
    ],
)
def test_a_folder_that_is_not_whole_is_refused_in_one_line(
    change: Any, message: str, tmp_path: Path, tiny_tokenizer: VQTokenizer, caplog: pytest.LogCaptureFixture
) -> None:
    tiny_tokenizer.save_pretrained(tmp_path)
    change(tmp_path)
    with pytest.raises(CheckpointError, match=message) as caught:
        VQTokenizer.from_pretrained(tmp_path)
    assert "\n" not in str(caught.value)
    assert caplog.records == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": [18, 18]}, "18x18 pixels does not divide"),
        ({"codebook": 3}, "'codebook' is not a key"),
        (
            {"quantizer": {"type": "ema", "codebook_size": 1, "code_dim": 4}},
            "must be a whole number from 2 to 4294967296, got 1",
        ),
    ],
)
def test_a_configuration_that_makes_no_sense_is_not_loaded(
    changes: dict[str, Any], message: str, tmp_path: Path, tiny_tokenizer: VQTokenizer
) -> None:
    tiny_tokenizer.save_pretrained(tmp_path)
    configure(**changes)(tmp_path)
    with pytest.raises(ConfigurationError, match=message):
        VQTokenizer.from_pretrained(tmp_path)


def test_saving_and_loading_say_nothing(
    tmp_path: Path, tiny_tokenizer: VQTokenizer, capfd: pytest.CaptureFixture[str]
) -> None:
    tiny_tokenizer.save_pretrained(tmp_path)
    VQTokenizer.from_pretrained(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no folder .*/none to load a tokenizer from"):
        VQTokenizer.from_pretrained(tmp_path / "none")


def test_a_run_folder_stands_for_the_tokenizer_in_it(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> None:
    tiny_tokenizer.save_pretrained(tmp_path / "run" / "model")
    loaded = VQTokenizer.from_pretrained(tmp_path / "run")
    assert loaded.repository == loaded.name_or_path == str(tmp_path / "run" / "model")


def test_loading_information_is_given_on_request(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> None:
    tiny_tokenizer.save_pretrained(tmp_path)
    model, info = VQTokenizer.from_pretrained(tmp_path, output_loading_info=True)
    assert type(model) is VQTokenizer
    assert not info["missing_keys"]


def test_saving_over_an_older_one_replaces_it(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> None:
    make("vq").save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    assert same_state(VQTokenizer.from_pretrained(tmp_path / "model"), tiny_tokenizer)
