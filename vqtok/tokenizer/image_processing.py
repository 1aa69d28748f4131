"""The Hugging Face image processor of a tokenizer: images to pixels in [-1, 1], and back.

It reads and resizes with `vqtok.data.images`, as everything else in this project does, so that its pixels equal those
of training and tokenizing bit for bit. Images stay uint8 until they are stacked and are normalised once for all; the
loop of transformers' `PilBackend` works on each one as an array of floats, which takes seven times as long.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers.image_processing_base import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor

from vqtok.data.fitting import check_resizing
from vqtok.data.images import image_array
from vqtok.data.loading import to_pixels
from vqtok.errors import ConfigurationError, DataError, did_you_mean

__all__ = ["VQImageProcessor"]

# What preprocessor_config.json says beside the three fields that may differ: the steps, for whoever reads the file.
FIXED: dict[str, Any] = {
    "do_resize": True,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": 0.5,
    "image_std": 0.5,
}
SERVICE = ("image_processor_type", "processor_class", "feature_extractor_type", "_processor_class")


class VQImageProcessor(BaseImageProcessor):
    """Images to pixels, as one tokenizer was trained on them.

    Args:
        size: {"height": H, "width": W}, or (H, W), or one number for both.
        num_channels: 1 (grey) or 3 (RGB).
        resample: how they are resized, one of `vqtok.data.fitting.RESIZING`.

    Raises:
        ConfigurationError: an argument that does not exist or makes no sense.
    """

    model_input_names = ["pixel_values"]

    size: dict[str, int]
    num_channels: int
    resample: str

    def __init__(
        self,
        size: Mapping[str, int] | tuple[int, int] | list[int] | int = (32, 32),
        num_channels: int = 3,
        resample: str = "bicubic",
        **kwargs: Any,
    ) -> None:
        _check_fixed({key: value for key, value in kwargs.items() if key not in SERVICE})
        height, width = _height_and_width(size)
        super().__init__()
        self.size = {"height": height, "width": width}
        self.num_channels = num_channels
        check_resizing(resample, (height, width))
        self.resample = resample

    def preprocess(self, images: Any, *args: Any, **kwargs: Any) -> BatchFeature:
        """Pixels of one or several images.

        Args:
            images: a path, bytes, PIL image, uint8 or [0, 1] float array (H, W) or (H, W, C), the same as a tensor
                (C, H, W), a batch of either with four dimensions, or a list or a dataset's column of any of these.
            size, num_channels, resample: instead of the processor's own, for this call.
            return_tensors: "pt" (the default) or "np".

        Returns:
            `pixel_values`: float32 (B, C, H, W) in [-1, 1].

        Raises:
            DataError: an image that is missing, broken or out of range, or no image at all.
            ConfigurationError: an argument that does not exist or makes no sense.
        """
        if args:
            raise ConfigurationError("only the images are given by position; name every other argument")
        tensor_type = kwargs.pop("return_tensors", None) or "pt"
        size = _height_and_width(kwargs.pop("size", self.size))
        num_channels = kwargs.pop("num_channels", self.num_channels)
        resample = kwargs.pop("resample", self.resample)
        check_resizing(resample, size)
        _check_fixed(kwargs)
        if str(getattr(tensor_type, "value", tensor_type)) not in ("pt", "np"):
            raise ConfigurationError(f"return_tensors must be 'pt' or 'np', got {tensor_type!r}")
        flat = list(_flatten(images))
        if not flat:
            raise DataError("there are no images in the list; give at least one")
        pixels = np.stack(
            [image_array(image, num_channels=num_channels, size=size, resample=resample) for image in flat]
        )
        return BatchFeature({"pixel_values": to_pixels(torch.from_numpy(pixels))}, tensor_type=tensor_type)

    def post_process(self, pixels: Tensor) -> list[Image.Image]:
        """Turn pixels (B, C, H, W) in [-1, 1], C 1 or 3 into PIL images (L or RGB); values outside are clamped."""
        if pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
            raise DataError(f"pixels must be (B, C, H, W) with C 1 or 3 to be decoded, got {tuple(pixels.shape)}")
        levels = pixels.detach().to("cpu", torch.float32).add(1.0).mul(127.5).round().clamp(0, 255).to(torch.uint8)
        arrays = levels.permute(0, 2, 3, 1).contiguous().numpy()
        return [Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array) for array in arrays]

    def to_dict(self) -> dict[str, Any]:
        """What preprocessor_config.json holds."""
        return {
            "image_processor_type": type(self).__name__,
            "size": dict(self.size),
            "num_channels": self.num_channels,
            "resample": self.resample,
            **FIXED,
        }


def _flatten(images: Any) -> Iterable[Any]:
    if isinstance(images, Tensor):
        yield from _arrays(images)
    elif isinstance(images, np.ndarray) and images.ndim == 4:
        yield from images
    elif isinstance(images, str | Path | bytes | Image.Image | np.ndarray):
        yield images
    elif isinstance(images, Sequence):  # also a column of `datasets`
        for image in images:
            yield from _flatten(image)
    else:
        raise DataError(
            f"cannot read images from {type(images).__name__}; give paths, PIL images, arrays or tensors, or a list"
        )


def _arrays(images: Tensor) -> Iterable[np.ndarray[Any, Any]]:
    """Tensors are channels first: (H, W), (C, H, W) or (B, C, H, W)."""
    if images.is_floating_point():
        images = images.float()
        if images.numel() and images.min() < 0:
            raise DataError(
                f"a tensor of floats must lie in [0, 1], got values down to {images.min().item():g}; "
                "pixels that are already in [-1, 1] go to the model's encode()"
            )
    if images.ndim not in (2, 3, 4):
        raise DataError(f"a tensor of images must be (H, W), (C, H, W) or (B, C, H, W), got {tuple(images.shape)}")
    batch = images if images.ndim == 4 else images[None]
    for image in batch.detach().cpu():
        yield (image if image.ndim == 2 or image.shape[0] not in (1, 3, 4) else image.permute(1, 2, 0)).numpy()


def _check_fixed(given: Mapping[str, Any]) -> None:
    allowed = ["size", "num_channels", "resample", "return_tensors", *FIXED]
    for key, value in given.items():
        if key not in FIXED:
            raise ConfigurationError(
                f"{key} is no argument of VQImageProcessor; it takes {', '.join(allowed[:4])}."
                f"{did_you_mean(key, allowed)}"
            )
        values = value if isinstance(value, list | tuple) else [value]
        if value is not None and any(item != FIXED[key] for item in values):
            raise ConfigurationError(f"{key} is always {FIXED[key]} here, so that pixels lie in [-1, 1]; got {value}")


def _height_and_width(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        size = (size, size)
    elif isinstance(size, Mapping):
        size = (size["height"], size["width"]) if set(size) == {"height", "width"} else ()
    if not isinstance(size, list | tuple) or len(size) != 2 or not all(isinstance(n, int) and n > 0 for n in size):
        raise ConfigurationError(f'size must be {{"height": H, "width": W}} with H and W at least 1, got {size!r}')
    return size[0], size[1]
