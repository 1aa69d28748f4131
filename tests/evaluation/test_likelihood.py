"""Bits per dimension against loops over images, one at a time, over what the networks give."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image

from tests.lossless.models import make_prior, make_tokenizer
from vqtok.data import ImageDataset, ImageSource, open_all
from vqtok.errors import CheckpointError, ConfigurationError, DataError, MismatchError
from vqtok.evaluation import BitsPerDim, evaluate_tokenizer, write_metrics
from vqtok.losses import Likelihood
from vqtok.lossless import LosslessCodec
from vqtok.priors import Prior, PriorBinding, code_logits
from vqtok.tokenizer import VQTokenizer

ALL: list[dict[str, Any]] = [
    {"type": "categorical"},
    {"type": "logistic"},
    {"type": "mixture", "num_components": 3},
    {"type": "gaussian", "std": 0.2},
]


@pytest.fixture
def source(images_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ImageSource:
    """The twelve images of the classes cat and dog."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (found,) = open_all(str(images_folder)).values()
    return found


def by_hand(tokenizer: VQTokenizer, source: ImageSource, prior: Prior | None, labels: bool) -> tuple[float, float]:
    """Distortion and rate, summed pixel by pixel and code by code in float64."""
    config = tokenizer.config
    images = ImageDataset(source, image_size=config.size, num_channels=config.num_channels, resample=config.resample)
    assert isinstance(tokenizer.likelihood, Likelihood)
    distortion, rate, numbers = 0.0, 0.0, 0
    for index in range(len(images)):
        row = images[index]
        pixels = (row["pixels"].float() / 127.5 - 1)[None]
        codes = tokenizer.encode(pixels)
        with torch.no_grad():
            parameters = tokenizer.decoder(tokenizer.quantizer.decode(codes))
            log_prob = tokenizer.likelihood.log_prob(parameters.double(), row["pixels"].long()[None])
        distortion -= sum(log_prob.flatten().tolist())
        numbers += log_prob.numel()
        if prior is None:
            rate += codes.numel() * math.log(tokenizer.codebook_size)
            continue
        flat = codes.flatten(1)
        label = row["labels"] if labels else torch.tensor(2)  # the null class comes after the two
        with torch.no_grad():
            logits = code_logits(prior, flat, label[None]).double().log_softmax(-1)[0]
        rate -= sum(float(logits[position, code]) for position, code in enumerate(flat[0]))
    return distortion / numbers / math.log(2), rate / numbers / math.log(2)


@pytest.mark.parametrize("kind", ["pixelcnn", "transformer"])
@pytest.mark.parametrize("labels", [False, True])
@pytest.mark.parametrize("options", ALL, ids=lambda options: options["type"])
def test_bits_are_those_of_loops_over_images(
    source: ImageSource, options: dict[str, Any], labels: bool, kind: str
) -> None:
    tokenizer = make_tokenizer(options)
    prior = make_prior(tokenizer, kind)
    found = evaluate_tokenizer(tokenizer, source, batch_size=5, bits=BitsPerDim(tokenizer, prior, with_labels=labels))
    distortion, uniform = by_hand(tokenizer, source, None, labels)
    _, learned = by_hand(tokenizer, source, prior, labels)
    bits = found["bits_per_dim"]
    assert (bits["likelihood"], bits["density"]) == (options["type"], options["type"] == "gaussian")
    assert bits["distortion"] == pytest.approx(distortion, rel=1e-5)
    assert bits["uniform"] == pytest.approx({"rate": uniform, "total": distortion + uniform}, rel=1e-5)
    assert uniform == 4 * math.log2(16) / (3 * 8 * 8)
    assert bits["learned"]["rate"] == pytest.approx(learned, rel=1e-5) and abs(learned - uniform) > 1e-3
    assert bits["learned"]["total"] == bits["learned"]["rate"] + bits["distortion"]
    assert bits["learned"]["labels"] is labels


def test_no_bit_depends_on_the_batch_size(source: ImageSource) -> None:
    tokenizer = make_tokenizer({"type": "mixture", "num_components": 3})
    prior = make_prior(tokenizer, "transformer")
    one, other = (
        evaluate_tokenizer(tokenizer, source, batch_size=size, bits=BitsPerDim(tokenizer, prior))["bits_per_dim"]
        for size in (1, 12)
    )
    for found in (one, other):
        del found["learned"]["prior"]
    assert one["distortion"] == pytest.approx(other["distortion"], rel=1e-6)
    assert one["learned"] == pytest.approx(other["learned"], rel=1e-6)
    assert one["uniform"]["rate"] == other["uniform"]["rate"]


def test_a_uniform_decoder_has_exactly_8_bits_of_distortion(source: ImageSource) -> None:
    tokenizer = make_tokenizer({"type": "categorical"})
    with torch.no_grad():
        for parameter in tokenizer.decoder.parameters():
            parameter.zero_()
    bits = evaluate_tokenizer(tokenizer, source, bits=BitsPerDim(tokenizer))["bits_per_dim"]
    assert bits["distortion"] == pytest.approx(8, abs=1e-7) and "learned" not in bits
    assert bits["uniform"]["total"] == pytest.approx(8 + 16 / 192, abs=1e-7)


@pytest.mark.parametrize("kind", [None, "transformer"])
def test_compressed_files_are_as_long_as_the_bits_say(source: ImageSource, kind: str | None) -> None:
    tokenizer = make_tokenizer({"type": "mixture", "num_components": 3})
    prior = make_prior(tokenizer, kind) if kind else None
    bits = evaluate_tokenizer(tokenizer, source, bits=BitsPerDim(tokenizer, prior))["bits_per_dim"]
    images = ImageDataset(source, image_size=(8, 8), num_channels=3)
    codec = LosslessCodec(tokenizer, prior)
    header = 21 + (4 if prior else 0)
    found = sum(
        8 * (len(codec.compress(images[row]["pixels"].permute(1, 2, 0).numpy())) - header) for row in range(len(images))
    )
    wanted = bits["learned" if prior else "uniform"]["total"] * 192 * len(images)
    assert wanted <= found <= 1.001 * wanted + 33 * len(images)


def test_what_is_said_beside_the_numbers() -> None:
    plain, density = make_tokenizer({"type": "logistic"}), make_tokenizer({"type": "gaussian"})
    prior, without = make_prior(plain, "pixelcnn"), make_prior(plain, "pixelcnn", label_names=None)
    assert BitsPerDim(plain).notes == BitsPerDim(plain, without).notes == []
    assert "is a density" in BitsPerDim(density).notes[0]
    assert BitsPerDim(plain, prior).notes == ["the learned prior was given no class, so that bits bound -log2 p(x)"]
    assert "true class of each image" in BitsPerDim(plain, prior, with_labels=True).notes[0]


def test_images_that_are_not_as_the_tokenizer_reads_them_are_said_to_be_others(
    source: ImageSource, images_folder: Path
) -> None:
    """Bits of pixels that were resized or coloured are no bits of the images, and no compressed file has so many."""
    tokenizer = make_tokenizer({"type": "logistic"})
    bits = BitsPerDim(tokenizer)
    evaluate_tokenizer(tokenizer, source, bits=bits)
    assert bits.notes == [
        "these images have 16 x 16 pixels (height x width) and 1 channel, and the bits are those of what the tokenizer "
        "reads of them: 8 x 8 pixels (height x width) and 3 channels"
    ]
    for path in images_folder.glob("*/*.png"):
        with Image.open(path) as image:
            same = image.convert("RGB").resize((8, 8))
        same.save(path)
    bits = BitsPerDim(tokenizer)
    evaluate_tokenizer(tokenizer, source, bits=bits)
    assert bits.notes == []


def test_which_prior_it_was_stands_beside_the_numbers(source: ImageSource, tmp_path: Path) -> None:
    from vqtok.priors import load_prior

    tokenizer = make_tokenizer({"type": "logistic"})
    make_prior(tokenizer, "pixelcnn").save_pretrained(tmp_path / "runs" / "prior")
    prior = load_prior(tmp_path / "runs" / "prior")
    found = evaluate_tokenizer(tokenizer, source, bits=BitsPerDim(tokenizer, prior))
    learned = json.loads(write_metrics(found, tmp_path / "m.json").read_text())["bits_per_dim"]["learned"]
    assert learned["prior"] == {"repository": "runs/prior", "revision": None}


def test_what_cannot_be_measured_is_refused(source: ImageSource, images_folder: Path) -> None:
    tokenizer = make_tokenizer({"type": "logistic"})
    with pytest.raises(ConfigurationError, match="was trained with mse, so its decoder gives pixels"):
        BitsPerDim(make_tokenizer({"type": "mse"}))
    with pytest.raises(MismatchError, match="models codes of tokenizer ffffffffffff"):
        BitsPerDim(tokenizer, make_prior(tokenizer, "pixelcnn", fingerprint="f" * 64))
    for prior in (None, make_prior(tokenizer, "pixelcnn", label_names=None)):
        with pytest.raises(ConfigurationError, match="labels are for a prior"):
            BitsPerDim(tokenizer, prior, with_labels=True)
    other = make_prior(tokenizer, "pixelcnn", label_names=("dog", "cat"))
    with pytest.raises(
        MismatchError, match="classes of these images are not those of the prior: cat, dog and dog, cat"
    ):
        evaluate_tokenizer(tokenizer, source, bits=BitsPerDim(tokenizer, other, with_labels=True))
    assert PriorBinding.from_config(other.config).label_names == ("dog", "cat")
    with torch.no_grad():
        next(tokenizer.decoder.parameters()).fill_(float("nan"))
    with pytest.raises(CheckpointError, match="is not finite"):
        evaluate_tokenizer(tokenizer, source, bits=BitsPerDim(tokenizer))


def test_images_of_more_bits_are_refused(source: ImageSource, images_folder: Path) -> None:
    """They are scaled to 8 bits when they are read, and the bits would be of other pixels."""
    Image.fromarray(np.full((16, 16), 40_000, dtype=np.uint16)).save(images_folder / "dog" / "03.png")
    tokenizer = make_tokenizer({"type": "logistic"})
    assert evaluate_tokenizer(tokenizer, source)["num_images"] == 12
    with pytest.raises(
        DataError, match=r"03.png has 16 bits a channel, and bits per dimension are of pixels of 8: conv"
    ):
        evaluate_tokenizer(tokenizer, source, bits=BitsPerDim(tokenizer))
    (images_folder / "dog" / "03.png").write_text("no image")  # is left out as ever
    assert evaluate_tokenizer(tokenizer, source, bits=BitsPerDim(tokenizer))["num_images"] == 11
