from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests.tokenizer.models import METHODS, SMALL, make, pixels, same_state
from vqtok.errors import ConfigurationError
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig, modeling


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
def test_codes_are_decoded(channels: int, mode: str) -> None:
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


def test_images_encoded_and_decoded_in_parts_are_those_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU takes `PIXELS_AT_A_TIME`; of 16 x 16 pixels that is two images here, then one, or all of them."""
    model, images = make(code_dim=2), pixels(7)
    latents = model.encoder(images)
    nearest = torch.cdist(latents.permute(0, 2, 3, 1).reshape(-1, 2), model.quantizer.codebook).argmin(dim=1)
    for at_a_time in (2 * 16 * 16, 1, 2**17):
        monkeypatch.setattr(modeling, "PIXELS_AT_A_TIME", at_a_time)
        seen: list[int] = []
        hook = model.encoder.register_forward_pre_hook(lambda module, given, seen=seen: seen.append(len(given[0])))
        codes = model.encode(images)
        hook.remove()
        assert seen == {512: [2, 2, 2, 1], 1: [1] * 7, 2**17: [7]}[at_a_time]
        assert torch.equal(codes, nearest.view(7, 4, 4))
        torch.testing.assert_close(model.decode(codes), model.decoder(model.quantizer.decode(codes)).clamp(-1, 1))
    assert model.encode(images[:0]).shape == (0, 4, 4)
    assert model.decode(codes[:0]).shape == (0, 1, 16, 16)
