"""The image processor gives the pixels of training, bit for bit, from whatever people hand in."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, BaseImageProcessor

from vqtok.data import image_array, to_pixels
from vqtok.errors import ConfigurationError, DataError, VqtokError
from vqtok.tokenizer import VQImageProcessor, VQTokenizer

NOISE = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
IMAGE = Image.fromarray(NOISE)


@pytest.fixture
def processor() -> VQImageProcessor:
    return VQImageProcessor(size={"height": 16, "width": 12}, num_channels=3, resample="lanczos")


def expected(source: Any, num_channels: int = 3) -> torch.Tensor:
    pixels = image_array(source, num_channels=num_channels, size=(16, 12), resample="lanczos")
    return to_pixels(torch.from_numpy(pixels))[None]


@pytest.mark.parametrize(
    "given",
    [
        IMAGE,
        [IMAGE],
        NOISE,
        NOISE.astype(np.float32) / 255,
        NOISE.transpose(2, 0, 1),
        NOISE[None],
        torch.from_numpy(NOISE).permute(2, 0, 1),
        torch.from_numpy(NOISE).permute(2, 0, 1)[None],
        [torch.from_numpy(NOISE).permute(2, 0, 1) / 255],
        (IMAGE,),
    ],
    ids=["pil", "list", "array", "floats", "channels-first", "batch", "tensor", "tensors", "float-tensors", "tuple"],
)
def test_every_kind_of_image_gives_the_same_pixels(processor: VQImageProcessor, given: Any) -> None:
    pixel_values = processor(given)["pixel_values"]
    assert pixel_values.dtype == torch.float32 and pixel_values.shape == (1, 3, 16, 12)
    assert torch.equal(pixel_values, expected(IMAGE))


def test_files_bytes_and_mixed_lists_keep_their_order(processor: VQImageProcessor, tmp_path: Path) -> None:
    path = tmp_path / "noise.png"
    IMAGE.save(path)
    grey = Image.new("L", (5, 5), 100)
    batch = processor([path, grey, str(path), path.read_bytes(), NOISE[:, :, 0]]).pixel_values
    one, flat, channel = expected(IMAGE), expected(grey), expected(NOISE[:, :, 0])
    assert torch.equal(batch, torch.cat([one, flat, one, one, channel]))


def test_half_precision_tensors_and_numpy_results(processor: VQImageProcessor) -> None:
    levels = torch.tensor([0.0, 0.5, 1.0], dtype=torch.bfloat16)[:, None, None].expand(3, 16, 12)
    assert processor(levels).pixel_values[0, :, 0, 0].tolist() == pytest.approx([-1, 1 / 255, 1], abs=1e-6)
    values = processor(IMAGE, return_tensors="np")["pixel_values"]
    assert isinstance(values, np.ndarray) and np.array_equal(values, expected(IMAGE).numpy())


def test_one_call_may_ask_for_another_size_and_channels(processor: VQImageProcessor) -> None:
    values = processor(IMAGE, size=(8, 4), num_channels=1, resample="nearest").pixel_values
    pixels = image_array(IMAGE, num_channels=1, size=(8, 4), resample="nearest")
    assert torch.equal(values[0], to_pixels(torch.from_numpy(pixels)))
    assert processor(IMAGE).pixel_values.shape == (1, 3, 16, 12)


@pytest.mark.parametrize("num_channels", [1, 3])
def test_post_process_undoes_the_processor(num_channels: int) -> None:
    processor = VQImageProcessor(size=(30, 40), num_channels=num_channels)
    image = IMAGE if num_channels == 3 else IMAGE.convert("L")
    (back,) = processor.post_process(processor(image).pixel_values)
    assert back.mode == image.mode and np.array_equal(np.asarray(back), np.asarray(image))


def test_post_process_clamps_and_takes_any_precision(processor: VQImageProcessor) -> None:
    pixels = torch.tensor([-3.0, -1.0, 0.0, 1.0, 3.0], dtype=torch.bfloat16, requires_grad=True).reshape(1, 1, 1, 5)
    (decoded,) = processor.post_process(pixels)
    assert np.asarray(decoded).tolist() == [[0, 0, 128, 255, 255]]
    for shape in ((3, 4, 4), (1, 2, 4, 4)):
        with pytest.raises(DataError, match="C 1 or 3"):
            processor.post_process(torch.zeros(shape))


def test_it_is_saved_readable_and_loads_the_same(processor: VQImageProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "preprocessor_config.json").read_text()) == {
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": 0.5,
        "image_processor_type": "VQImageProcessor",
        "image_std": 0.5,
        "num_channels": 3,
        "resample": "lanczos",
        "rescale_factor": 1 / 255,
        "size": {"height": 16, "width": 12},
    }
    loaded = VQImageProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.to_dict()
    assert torch.equal(loaded(IMAGE).pixel_values, processor(IMAGE).pixel_values)
    assert VQImageProcessor.from_pretrained(tmp_path, num_channels=1).num_channels == 1


def test_auto_image_processor_finds_it(tiny_tokenizer: VQTokenizer, tmp_path: Path) -> None:
    tiny_tokenizer.save_pretrained(tmp_path)
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert isinstance(loaded, VQImageProcessor) and isinstance(loaded, BaseImageProcessor)
    assert loaded.to_dict() == tiny_tokenizer.image_processor.to_dict()
    assert loaded.model_input_names == ["pixel_values"]
    assert torch.equal(loaded(IMAGE).pixel_values, tiny_tokenizer.image_processor(IMAGE).pixel_values)


def test_a_column_of_a_dataset_is_a_list_of_images(processor: VQImageProcessor) -> None:
    features = datasets.Features({"image": datasets.Image()})
    dataset = datasets.Dataset.from_dict({"image": [IMAGE, IMAGE.rotate(90)]}, features=features)
    assert torch.equal(processor(dataset["image"]).pixel_values, processor(dataset[:]["image"]).pixel_values)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"sise": 3}, "sise is no argument of VQImageProcessor; .* Did you mean 'size'"),
        ({"size": {"height": 3}}, "size must be"),
        ({"size": {"shortest_edge": 3}}, "size must be"),
        ({"size": 0}, "size must be"),
        ({"size": (3, 3, 3)}, "size must be"),
        ({"resample": "bicubik"}, "Did you mean 'bicubic'"),
        ({"resample": 3}, "resample must be one of"),
        ({"image_mean": [0.485, 0.456, 0.406]}, "image_mean is always 0.5"),
        ({"do_resize": False}, "do_resize is always True"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        VQImageProcessor(**arguments)
    with pytest.raises(ConfigurationError, match=complaint):
        VQImageProcessor()(IMAGE, **arguments)


@pytest.mark.parametrize(
    ("images", "complaint"),
    [
        ([], "no images in the list"),
        (None, "cannot read images from NoneType"),
        ([{"bytes": b""}], "cannot read images from dict"),
        ("nowhere.png", "there is no image nowhere.png"),
        (b"text", "not an image"),
        (torch.zeros(3), "must be .H, W."),
        (torch.full((3, 4, 4), -1.0), r"already in \[-1, 1\] go to the model's encode"),
        (torch.full((3, 4, 4), 2.0), r"floats must lie in \[0, 1\]"),
        (torch.full((3, 4, 4), 1.0000002), r"values from 1.00000024 to 1.00000024; floats must lie in \[0, 1\]"),
        (torch.zeros(3, 4, 4, dtype=torch.int64), "is int64"),
        (np.zeros((3, 5, 5, 2), np.uint8), "is no image"),
    ],
)
def test_what_is_no_image_is_refused(processor: VQImageProcessor, images: Any, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        processor(images)


def test_other_results_and_positions_are_refused(processor: VQImageProcessor) -> None:
    with pytest.raises(ConfigurationError, match="return_tensors must be 'pt' or 'np', got 'tf'"):
        processor(IMAGE, return_tensors="tf")
    with pytest.raises(ConfigurationError, match="name every other argument"):
        processor(IMAGE, IMAGE)
    with pytest.raises(VqtokError, match="num_channels must be 1 .* got 4"):
        VQImageProcessor(num_channels=4)(IMAGE)
