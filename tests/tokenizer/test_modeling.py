from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import AutoImageProcessor, AutoModel

from vqtok.errors import CheckpointError, ConfigurationError
from vqtok.tokenizer import VQImageProcessor, VQTokenizer, VQTokenizerConfig

SMALL = {"type": "conv", "hidden_size": 8, "residual_size": 4, "num_residual_blocks": 1}
METHODS = ["ema", "vq", "gumbel"]


def make(method: str = "ema", num_channels: int = 1, **options: Any) -> VQTokenizer:
    torch.manual_seed(0)
    quantizer = {"type": method, "codebook_size": 16, "code_dim": 4, **options}
    return VQTokenizer(
        VQTokenizerConfig(image_size=16, num_channels=num_channels, network=SMALL, quantizer=quantizer)
    ).eval()


def pixels(count: int = 3, channels: int = 1) -> torch.Tensor:
    return torch.rand(count, channels, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


def same_state(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return list(first) == list(second) and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name]) for name in first
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_forward_pass_gives_all_that_the_output_names(method: str) -> None:
    model = make(method)
    output = model(pixels())
    assert output.reconstruction.shape == (3, 1, 16, 16)
    assert output.latents.shape == output.quantized.shape == (3, 4, 4, 4)
    assert output.codes.shape == (3, 4, 4)
    reconstruction = (output.reconstruction - pixels()).square().mean()
    torch.testing.assert_close(output.losses["reconstruction"], reconstruction.detach())
    weighted = {
        "ema": lambda parts: 0.25 * parts["commitment"],
        "vq": lambda parts: parts["codebook"] + 0.25 * parts["commitment"],
        "gumbel": lambda parts: 5e-4 * parts["kl"],
    }[method](output.losses)
    torch.testing.assert_close(output.loss.detach(), output.losses["reconstruction"] + weighted)
    assert not any(part.requires_grad for part in output.losses.values())
    assert torch.equal(model.encode(pixels()), output.codes)
    assert torch.equal(model.decode(output.codes), output.reconstruction.clamp(-1, 1))


@pytest.mark.parametrize("method", METHODS)
def test_every_weight_learns(method: str) -> None:
    model = make(method).train()
    model(pixels()).loss.backward()
    with torch.no_grad():  # residual blocks start as the identity: their first layer learns from the second step on
        for parameter in model.parameters():
            parameter -= 0.1 * parameter.grad
    model.zero_grad()
    model(pixels()).loss.backward()
    still = [name for name, parameter in model.named_parameters() if not bool(parameter.grad.abs().sum() > 0)]
    assert still == []


def test_numbers_that_describe_it(tiny_tokenizer: VQTokenizer) -> None:
    assert tiny_tokenizer.grid == (4, 4)
    assert tiny_tokenizer.codebook_size == 16
    assert tiny_tokenizer.num_codebooks == 1
    assert tiny_tokenizer.codes_per_image == 16
    wide = VQTokenizer(VQTokenizerConfig(image_size=[16, 32], network=SMALL | {"downsample_factor": 8}))
    assert wide.grid == (2, 4)


def test_weights_start_as_the_networks_say_and_not_as_transformers_does() -> None:
    model = VQTokenizer(VQTokenizerConfig(num_channels=3))
    assert model.encoder[0].weight.std().item() == pytest.approx((2 / (3 * 16)) ** 0.5, rel=0.05)
    assert model.encoder[5][0].pointwise.weight.abs().max() == 0
    assert model.decoder[1][0].pointwise.weight.abs().max() == 0
    assert model.quantizer.codebook.std().item() == pytest.approx(1 / 8, rel=0.05)
    assert not bool(model.quantizer.initialized)


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


def test_the_fingerprint_is_of_what_decides_the_codes(tiny_tokenizer: VQTokenizer) -> None:
    def changed(change: Any) -> bool:
        other = copy.deepcopy(tiny_tokenizer)
        with torch.no_grad():
            change(other)
        return bool(other.fingerprint != tiny_tokenizer.fingerprint)

    assert len(tiny_tokenizer.fingerprint) == 64
    assert not changed(lambda model: None)
    assert not changed(lambda model: model.to(memory_format=torch.channels_last))
    assert not changed(lambda model: model.train())
    assert not changed(lambda model: model.decoder[0].weight.add_(1))
    assert not changed(lambda model: model.quantizer.usage.cluster_size.add_(1))
    assert not changed(lambda model: model.quantizer.code_sums.add_(1))
    assert not changed(lambda model: model.quantizer.initialized.fill_(True))
    assert changed(lambda model: model.encoder[0].weight[0, 0, 0, 0].add_(1e-6))
    assert changed(lambda model: model.encoder[0].bias[0].add_(1e-6))
    assert changed(lambda model: model.quantizer.codebook[3, 1].add_(1e-6))
    assert changed(lambda model: setattr(model.config, "resample", "nearest"))
    assert changed(lambda model: setattr(model.config, "image_size", [16, 20]))
    assert changed(lambda model: model.to(torch.bfloat16))


def test_gumbel_counts_of_batches_are_no_part_of_the_fingerprint() -> None:
    model = make("gumbel")
    before = model.fingerprint
    model.quantizer.noise.batches_seen += 1
    assert model.fingerprint == before


def test_all_kinds_of_images_give_the_same_codes(tiny_tokenizer: VQTokenizer, images_folder: Path) -> None:
    path = sorted(images_folder.rglob("*.png"))[0]
    with Image.open(path) as opened:
        image = opened.copy()
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy())
    expected = tiny_tokenizer.encode(tensor[None, None].float() / 127.5 - 1)
    for given in (path, str(path), path.read_bytes(), image, array, array[:, :, None], tensor, tensor[None]):
        assert torch.equal(tiny_tokenizer.tokenize(given), expected)
        assert torch.equal(tiny_tokenizer.tokenize([given, given]), expected.expand(2, 4, 4))
    assert torch.equal(tiny_tokenizer.tokenize(tensor[None, None].expand(3, 1, 16, 16)), expected.expand(3, 4, 4))
    assert expected.dtype == torch.int64


def test_images_of_any_size_and_mode_are_brought_to_the_configured_one(tiny_tokenizer: VQTokenizer) -> None:
    noise = np.random.default_rng(0)
    images = [
        Image.fromarray(noise.integers(0, 256, (40, 23, 3), dtype=np.uint8)),
        Image.fromarray(noise.integers(0, 256, (9, 11), dtype=np.uint8)),
    ]
    assert tiny_tokenizer.tokenize(images).shape == (2, 4, 4)


@pytest.mark.parametrize(("channels", "mode"), [(1, "L"), (3, "RGB")])
def test_codes_are_painted(channels: int, mode: str) -> None:
    model = make(num_channels=channels)
    codes = model.encode(pixels(channels=channels))
    decoded = model.detokenize(codes)
    assert [(image.size, image.mode) for image in decoded] == [((16, 16), mode)] * 3
    levels = ((model.decode(codes) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    for image, expected in zip(decoded, levels, strict=True):
        np.testing.assert_array_equal(np.asarray(image).reshape(expected.shape), expected)


@pytest.mark.parametrize("low_high", [(-1, 0), (0, 16)])
def test_codes_outside_the_codebook_are_refused(tiny_tokenizer: VQTokenizer, low_high: tuple[int, int]) -> None:
    codes = torch.tensor(low_high).view(1, 1, 2)
    with pytest.raises(ConfigurationError, match=rf"codes must be in \[0, 16\), got {low_high[0]} to {low_high[1]}"):
        tiny_tokenizer.decode(codes)


def test_other_grids_than_the_configured_one_are_fine(tiny_tokenizer: VQTokenizer) -> None:
    codes = tiny_tokenizer.encode(torch.zeros(1, 1, 8, 32))
    assert codes.shape == (1, 2, 8)
    assert tiny_tokenizer.decode(codes).shape == (1, 1, 8, 32)


@pytest.mark.parametrize("call", ["encode", "forward"])
@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((1, 3, 16, 16), r"pixel values must be \(B, 1, H, W\), got \(1, 3, 16, 16\)"),
        ((16, 16), r"pixel values must be \(B, 1, H, W\), got \(16, 16\)"),
        ((1, 1, 18, 16), "18x16 pixels .* the nearest sizes that do: 16x16 or 20x16"),
    ],
)
def test_pixels_that_do_not_fit_are_refused(
    call: str, shape: tuple[int, ...], message: str, tiny_tokenizer: VQTokenizer
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        getattr(tiny_tokenizer, call)(torch.zeros(shape))


def test_encoding_in_training_mode_moves_nothing(tiny_tokenizer: VQTokenizer) -> None:
    before = copy.deepcopy(tiny_tokenizer.train())
    tiny_tokenizer.decode(tiny_tokenizer.encode(pixels()))
    assert same_state(before, tiny_tokenizer)


def test_saving_over_an_older_one_replaces_it(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> None:
    make("vq").save_pretrained(tmp_path / "model")
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    assert same_state(VQTokenizer.from_pretrained(tmp_path / "model"), tiny_tokenizer)
