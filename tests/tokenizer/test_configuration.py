from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from transformers import AutoConfig

from tests.quantizers.methods import VARIANTS, defaults
from vqtok.data.fitting import RESIZING
from vqtok.errors import CheckpointError, ConfigurationError
from vqtok.pretrained import check_divisible
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig


def test_what_is_left_out_is_filled_in() -> None:
    config = VQTokenizerConfig(network={"hidden_size": 64}, quantizer={"type": "vq", "beta": 1})
    assert config.image_size == [32, 32]
    assert (config.num_channels, config.resample, config.downsample_factor) == (3, "bicubic", 4)
    assert config.network == {
        "type": "conv",
        "hidden_size": 64,
        "residual_size": 32,
        "num_residual_blocks": 2,
        "downsample_factor": 4,
    }
    assert config.quantizer == {
        "type": "vq",
        "codebook_size": 512,
        "code_dim": 64,
        "projection_dim": 0,
        "metric": "euclidean",
        "init": "data",
        "entropy_weight": 0.0,
        "entropy_temperature": 1.0,
        "restart_threshold": 0.05,
        "decay": 0.99,
        "beta": 1.0,
        "gradient": "straight-through",
    }


def test_a_section_in_a_section_is_filled_in_alike() -> None:
    """A word stands for its type, what is left out gets the defaults of that type."""
    config = VQTokenizerConfig(quantizer={"type": "product", "num_codebooks": 3, "each": "fsq"})
    assert config.quantizer == {"type": "product", "num_codebooks": 3, "each": {"type": "fsq", **defaults("fsq")}}
    config = VQTokenizerConfig(quantizer={"type": "residual", "each": {"beta": 1, "type": "vq"}})
    assert config.quantizer is not None
    assert config.quantizer["each"] == {"type": "vq", **defaults("vq"), "beta": 1.0}
    assert type(config.quantizer["each"]["beta"]) is float
    config = VQTokenizerConfig(quantizer={"type": "product", "each": {"code_dim": 8}})
    assert config.quantizer is not None
    assert config.quantizer["each"] == {"type": "ema", **defaults("ema"), "code_dim": 8}


def test_no_two_configurations_share_their_defaults() -> None:
    one, other = VQTokenizerConfig(), VQTokenizerConfig()
    assert one.network is not None and one.quantizer is not None
    one.network["hidden_size"] = 1
    one.quantizer["codebook_size"] = 2
    assert other.network is not None and other.network["hidden_size"] == 128
    assert other.quantizer is not None and other.quantizer["codebook_size"] == 512


@pytest.mark.parametrize(("given", "size"), [(64, (64, 64)), ([32, 48], (32, 48)), (None, (32, 32))])
def test_one_number_stands_for_height_and_width(given: Any, size: tuple[int, int]) -> None:
    assert VQTokenizerConfig(image_size=given).size == size


def test_preprocessing_says_what_is_done_to_a_image() -> None:
    assert VQTokenizerConfig(image_size=[16, 24], num_channels=1, resample="nearest").preprocessing == {
        "image_size": [16, 24],
        "num_channels": 1,
        "resample": "nearest",
        "resize": "shorter side, then centre crop, only when needed",
        "range": [-1, 1],
    }


def test_saved_and_loaded_it_is_the_same(tmp_path: Path) -> None:
    config = VQTokenizerConfig(image_size=[16, 24], network={"downsample_factor": 8}, quantizer={"type": "gumbel"})
    config.save_pretrained(tmp_path)
    for loaded in (VQTokenizerConfig.from_pretrained(tmp_path), AutoConfig.from_pretrained(tmp_path)):
        assert type(loaded) is VQTokenizerConfig
        for name in ("image_size", "num_channels", "resample", "network", "quantizer"):
            assert getattr(loaded, name) == getattr(config, name)
    assert loaded.preprocessing == config.preprocessing
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == "vqtok"
    assert saved["quantizer"] == config.quantizer


@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: options["type"])
def test_every_method_is_saved_and_loaded_the_same(options: dict[str, Any], tmp_path: Path) -> None:
    config = VQTokenizerConfig(quantizer=options)
    config.save_pretrained(tmp_path)
    assert VQTokenizerConfig.from_pretrained(tmp_path).quantizer == config.quantizer
    assert VQTokenizerConfig(quantizer=config.quantizer).quantizer == config.quantizer


def test_what_is_given_when_loading_is_checked_and_merged(tmp_path: Path) -> None:
    VQTokenizerConfig(image_size=16, quantizer={"type": "vq", "beta": 0.5}).save_pretrained(tmp_path)
    for load in (VQTokenizerConfig.from_pretrained, AutoConfig.from_pretrained):
        config = load(tmp_path, image_size=32, quantizer={"codebook_size": 8}, dtype="float16")
        assert config.size == (32, 32)
        assert (config.quantizer["type"], config.quantizer["beta"], config.quantizer["codebook_size"]) == ("vq", 0.5, 8)
        for given, message in (
            ({"image_size": "x"}, "image_size must be .* got 'x'"),
            ({"num_channels": -3}, "num_channels must be a whole number of at least 1, got -3"),
            ({"resample": "foo"}, "resample must be one of .* got 'foo'"),
            ({"imge_size": 3}, "'imge_size' is not a key .* Did you mean 'image_size'"),
        ):
            with pytest.raises(ConfigurationError, match=message):
                load(tmp_path, **given)
    config, unused = VQTokenizerConfig.from_pretrained(tmp_path, resample="nearest", more=1, return_unused_kwargs=True)
    assert config.resample == "nearest" and unused == {"more": 1}


def test_a_tokenizer_takes_other_settings_when_it_is_loaded(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> None:
    tiny_tokenizer.save_pretrained(tmp_path)
    loaded = VQTokenizer.from_pretrained(tmp_path, image_size=32)
    assert loaded.tokenize(Image.new("L", (9, 9))).shape == (1, 8, 8)
    with pytest.raises(ConfigurationError, match="resample must be one of"):
        VQTokenizer.from_pretrained(tmp_path, resample="foo")
    with pytest.raises(CheckpointError, match="imge_size"):
        VQTokenizer.from_pretrained(tmp_path, imge_size=32)


def each(**options: Any) -> dict[str, Any]:
    return {"quantizer": {"type": "product", "each": options}}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"imagesize": 3}, r"'imagesize' is not a key .* image_size, num_channels, .* Did you mean 'image_size'\?"),
        ({"codebook_size": 3}, "'codebook_size' is not a key of a vqtok configuration"),
        ({"num_channels": 0}, "num_channels must be a whole number of at least 1, got 0"),
        ({"resample": "bicubix"}, r"one of bicubic, .* got 'bicubix'. Did you mean 'bicubic'\?"),
        (
            {"image_size": [32, 32, 3]},
            r"image_size must be \[height, width\] or one number of 1 to 65536 pixels, got \[32, 32, 3\]",
        ),
        ({"image_size": 0}, r"image_size must be \[height, width\] or one number of 1 to 65536 pixels, got 0"),
        ({"image_size": -32}, "image_size must be .* got -32$"),
        (
            {"image_size": 30},
            "30x30 pixels does not divide by the downsample factor 4; the nearest sizes that do: 28x28",
        ),
        ({"image_size": (32, 32)}, r"image_size must be .* got \(32, 32\)"),
        ({"network": {"type": "unet"}}, "network.type must be one of conv, vqgan, .*, got 'unet'"),
        ({"network": {"type": ["conv"]}}, r"network.type must be one of conv, .*, got \['conv'\]"),
        ({"network": {"hiden_size": 8}}, r"network.hiden_size is not an option .* Did you mean 'hidden_size'\?"),
        ({"network": {"hidden_size": "8"}}, "network.hidden_size must be a whole number from 2 to 65536, got '8'"),
        (
            {"network": {"downsample_factor": 4.0}},
            "network.downsample_factor must be a power of two up to 1024, got 4.0",
        ),
        ({"network": {"downsample_factor": 0}}, "network.downsample_factor must be a power of two up to 1024, got 0"),
        ({"quantizer": {"type": "emma"}}, r"quantizer.type must be one of bsq, ema, .* Did you mean 'ema'\?"),
        ({"quantizer": {"type": {}}}, "quantizer.type must be one of .*, vq, got {}"),
        ({"quantizer": {"temperature": 1.0}}, "quantizer.temperature is not an option of quantizer.type 'ema'"),
        (
            {"quantizer": {"codebook_size": True}},
            "quantizer.codebook_size must be a whole number from 2 to 4294967296, got True",
        ),
        ({"quantizer": {"beta": "high"}}, "quantizer.beta must be a number of at least 0, got 'high'"),
        (
            {"quantizer": {"type": "simvq", "restart_threshold": 0.1}},
            "restart_threshold is not an option of quantizer.type 'simvq'",
        ),
        ({"quantizer": {"type": "gumbel", "gradient": "rotation"}}, "quantizer.gradient is not an option"),
        ({"quantizer": {"type": "fsq", "codebook_size": 8}}, "quantizer.codebook_size is not an option .* levels"),
        (
            {"quantizer": {"type": "fsq", "levels": 8}},
            r"quantizer.levels must be a list of whole numbers from 2 to 1000, .* such as .* got 8$",
        ),
        (
            {"quantizer": {"type": "fsq", "levels": [8, "5"]}},
            r"quantizer.levels must be a list of whole numbers .* got \[8, '5'\]",
        ),
        (
            {"quantizer": {"type": "fsq", "levels": [8, 5.0]}},
            r"quantizer.levels must be a list of whole numbers .* got \[8, 5.0\]",
        ),
        (
            {"quantizer": {"type": "fsq", "levels": [True, 5]}},
            r"quantizer.levels must be a list of whole numbers .* got \[True, 5\]",
        ),
        (
            {"quantizer": {"type": "product", "codebook_size": 8}},
            r"quantizer.codebook_size is not an option .* Did you mean 'quantizer.each.codebook_size'\?",
        ),
        (
            {"quantizer": {"type": "residual", "each": "simvq", "codebook_size": 8}},
            r"Did you mean 'quantizer.each.codebook_size'\?",
        ),
        (
            {"quantizer": {"type": "product", "each": "fsq", "levels": [5, 5]}},
            r"quantizer.levels is not an option .* Did you mean 'quantizer.each.levels'\?",
        ),
        (
            {"quantizer": {"type": "product", "num_codebook": 2}},
            r"quantizer.num_codebook is not .* Did you mean 'num_codebooks'\?",
        ),
        (
            {"quantizer": {"type": "product", "each": 3}},
            "quantizer.each must be the name of a type or key: value entries, got 3",
        ),
        (each(type="emma"), r"^quantizer.each.type must be one of bsq, .* got 'emma'. Did you mean 'ema'\?"),
        (
            each(type="vq", codebok_size=3),
            r"each.codebok_size is not an option of quantizer.each.type 'vq', .* Did you mean 'codebook_size'\?",
        ),
        (each(codebook_size="3"), "quantizer.each.codebook_size must be a whole number from 2 to 4294967296, got '3'"),
        (
            each(type="fsq", levels=[8, None]),
            r"quantizer.each.levels must be a list of whole numbers .* got \[8, None\]",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        VQTokenizerConfig(**given)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"num_channels": "3"}, "num_channels must be a whole number of at least 1, got '3'"),
        ({"num_channels": True}, "num_channels must be a whole number of at least 1, got True"),
        ({"image_size": "32"}, "image_size must be [height, width] or one number of 1 to 65536 pixels, got '32'"),
        ({"resample": 3}, f"resample must be one of {', '.join(RESIZING)}, got 3"),
        ({"network": 3}, "network must be the name of a type or key: value entries, got 3"),
        ({"quantizer": ["ema"]}, "quantizer must be the name of a type or key: value entries, got ['ema']"),
        ({"quantizer": {"beta": float("nan")}}, "quantizer.beta must be a number of at least 0 and finite, got nan"),
    ],
)
def test_a_field_of_the_wrong_type_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        VQTokenizerConfig(**given)
    assert str(caught.value) == message


def test_a_word_stands_for_a_type_with_its_defaults() -> None:
    config = VQTokenizerConfig(network="conv", quantizer="vq")
    assert config.network == VQTokenizerConfig().network
    assert config.quantizer == {"type": "vq", **defaults("vq")}


@pytest.mark.parametrize(
    ("size", "factor", "near"),
    [
        ((30, 30), 4, "28x28 or 32x32"),
        ((33, 64), 4, "32x64 or 36x64"),
        ((3, 3), 8, "8x8"),
        ((100, 101), 16, "96x96 or 112x112"),
        ((0, 8), 4, "4x8"),
    ],
)
def test_a_size_that_does_not_divide_names_the_two_nearest(size: tuple[int, int], factor: int, near: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        check_divisible(*size, factor)
    assert str(caught.value) == (
        f"an image of {size[0]}x{size[1]} pixels does not divide by the downsample factor {factor}; "
        f"the nearest sizes that do: {near}"
    )
    check_divisible(16, 32, 16)
