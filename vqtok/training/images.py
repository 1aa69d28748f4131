"""What the training of every model of images has in common: the images, how their errors are measured and shown."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from vqtok.data import (
    Batch,
    ImageDataset,
    ImageSource,
    image_grid,
    native_format,
    open_splits,
    ordered_batches,
    to_pixels,
    training_batches,
)
from vqtok.data.loading import sampled_rows
from vqtok.files import write_text
from vqtok.hub import IMAGES_RECORD
from vqtok.losses import to_levels
from vqtok.pretrained import ImageModel, ImageModelConfig
from vqtok.training.config import ImageTrainingConfig
from vqtok.training.optimization import OptimizedModel
from vqtok.training.same_data import SameData
from vqtok.training.task import Task, sum_over_processes
from vqtok.training.unreadable import UnreadableImages

__all__ = ["HeldOut", "ImageTask", "model_settings", "open_training_images"]

EVALUATED_AT_ONCE = 128  # held-out images that a process decodes and reconstructs
SHOWN = 32  # images on an image grid of originals over reconstructions
SHOWN_A_ROW = 16
SMALLEST_VARIANCE = 1e-12  # of pixels in [0, 1]: under it images are all of one level, but for rounding

Config = TypeVar("Config", bound=ImageTrainingConfig)


def open_training_images(config: Config) -> tuple[Config, ImageSource, ImageSource]:
    """The training and test images, and the configuration with the size and channels that the images decide.

    A size that the images decide is cut to a multiple of the downsample factor. What is cropped or resized for it, or
    has more bits than are read, is among the notes of the training images.

    Raises:
        ConfigurationError: the images are larger than 256 pixels and `image_size` is not set.
    """
    train, test = open_splits(
        config.dataset,
        image_column=config.image_column,
        label_column=config.label_column,
        revision=config.revision,
        config=config.dataset_config,
        test_share=config.test_share,
        seed=config.seed,
    )
    native, notes = native_format(train), list(train.notes)
    if config.num_channels is None:
        config = config.model_copy(update={"num_channels": native.num_channels})
    if config.image_size is None:
        size, note = native.training_size(config.dataset)
        factor = config.network.downsample_factor
        fitting = [max(factor, side // factor * factor) for side in size]
        if note is None and fitting != list(size):
            how = "enlarged" if fitting > list(size) else "cropped"
            note = (
                f"the images are {size[0]} x {size[1]} pixels (height x width) and are {how} to {fitting[0]} x "
                f"{fitting[1]}, a multiple of the downsample factor {factor}"
            )
        config = config.model_copy(update={"image_size": fitting})
        notes += [note] if note else []
    if native.channel_bits > 8:
        notes.append(
            f"images have {native.channel_bits} bits a channel and are scaled to 8, which all that is measured is of"
        )
    return config, replace(train, notes=tuple(notes)), test


def model_settings(config: ImageTrainingConfig) -> dict[str, Any]:
    """The part of a run's configuration that is saved with the weights of any model of images."""
    assert config.num_channels is not None  # open_training_images has set it
    return {
        "image_size": config.image_size,
        "num_channels": config.num_channels,
        "resample": config.resample,
        "network": config.network.model_dump(),
    }


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """What was found on held-out images, over all processes.

    Attributes:
        errors: `mse` of pixels in [0, 1], and `mse_over_variance`, divided by the variance of the same pixels.
        sums: what the measure gave, added up.
        dimensions: pixels times channels of all images.
        unreadable, notes: how many images could not be read, and a line that names new ones.
    """

    errors: dict[str, float]
    sums: list[float]
    dimensions: float
    unreadable: dict[str, float]
    notes: list[str]


class ImageTask(Task):
    """A model learns from images.

    Args:
        config: with image_size and num_channels set, see `open_training_images`.
        train, test: images to learn from and held-out ones to look at.
        model: its `forward` gives the loss.

    Attributes:
        trained: the model with its optimizer.
        kept: what a subclass registers for checkpoints, beside what it has itself.
    """

    unit = "images"

    def __init__(
        self,
        config: ImageTrainingConfig,
        train: ImageSource,
        test: ImageSource,
        model: ImageModel,
        accelerator: Accelerator,
    ) -> None:
        self.accelerator, self.images_config = accelerator, config
        if config.gradient_checkpointing:
            model.activation_checkpointing_enable()
        self.train_images, self.test_images = (
            ImageDataset(
                source,
                image_size=model.config.size,
                num_channels=model.config.num_channels,
                resample=model.config.resample,
            )
            for source in (train, test)
        )
        model.to(memory_format=torch.channels_last)  # type: ignore[call-arg]
        self.trained = OptimizedModel(model, config, accelerator)
        self.models = [self.trained]
        self.units_per_step = config.batch_size
        self.unreadable, self.unreadable_test = (
            UnreadableImages(images, config.max_unreadable, accelerator)
            for images in (self.train_images, self.test_images)
        )
        self.record = train.record()
        facts = {
            "training images": len(train),
            "held-out images": len(test),
            "commit": self.record.revision,
            "a sha256 of names": self.record.names,
        }
        self.kept = (SameData(config.dataset, "images", facts), self.unreadable, self.unreadable_test)

    def write_records(self, run: Path) -> None:
        write_text(run / IMAGES_RECORD, self.record.model_dump_json(indent=2) + "\n")

    def batches(self, start: int) -> Iterator[tuple[Tensor, ...]]:
        batches = training_batches(
            self.train_images,
            batch_size=self.images_config.batch_size // self.accelerator.num_processes,
            seed=self.images_config.seed,
            start_step=start,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            num_workers=self.images_config.num_workers,
        )
        return map(self.tensors_of, batches)

    def tensors_of(self, batch: Batch) -> tuple[Tensor, ...]:
        """What a step needs of a batch; the pixels come first."""
        return (batch["pixels"],)

    def pixels(self, part: tuple[Tensor, ...]) -> Tensor:
        """The pixels of a part of a batch on the device: float32 (B, C, H, W) in [-1, 1]."""
        return to_pixels(part[0].to(self.accelerator.device, non_blocking=True))

    @torch.no_grad()
    def measure(self, step: int, look: Callable[[Tensor, Batch], tuple[Tensor, Tensor]], *, sums: int) -> HeldOut:
        """Errors on held-out images; every process takes its share of the batches.

        Args:
            look: of pixels (B, C, H, W) on the device and their batch, what the model makes of them, and any numbers
                to add up, (sums,).
            sums: how many these are.

        Raises:
            DataError: too many images cannot be read, or none can.
        """
        images, accelerator = self.test_images, self.accelerator
        # Squared error, x, x^2 and elements, added up on the host, for MPS has no float64.
        added = torch.zeros(4 + sums, dtype=torch.float64)
        for batch in ordered_batches(
            images,
            EVALUATED_AT_ONCE,
            self.images_config.num_workers,
            num_images=self.images_config.eval_images or None,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        ):
            pixels = to_pixels(batch["pixels"].to(accelerator.device))
            with accelerator.autocast():
                decoded, more = look(pixels, batch)
                error = (decoded - pixels) / 2
            unit = (pixels.cpu().double() + 1) / 2
            squares = error.cpu().double().square().sum()
            own = torch.stack([squares, unit.sum(), unit.square().sum(), added.new_tensor(unit.numel())])
            added += torch.cat([own, more.cpu().double()])
        squared, total, total_of_squares, elements, *found = sum_over_processes(added)
        unreadable, named = self.unreadable_test.look(step, "held out cannot be read, left out")
        if not elements:
            raise images.none_readable(next(iter(images.unreadable.values())))
        mse = squared / elements
        variance = total_of_squares / elements - (total / elements) ** 2
        ratio = {"mse_over_variance": mse / variance} if variance > SMALLEST_VARIANCE else {}
        return HeldOut(
            errors={"mse": mse, **ratio}, sums=found, dimensions=elements, unreadable=unreadable, notes=named
        )

    def shown_images(self) -> tuple[Tensor, Tensor | None, int]:
        """Held-out images for a grid: pixels (N, C, H, W) on the device, labels (N,) if there are, images in a row."""
        held_out = self.test_images
        known = [index for index in range(len(held_out)) if index not in held_out.unreadable]
        readable, rows, _ = held_out.read([known[place] for place in sampled_rows(len(known), SHOWN)])
        columns = min(SHOWN_A_ROW, len(readable))
        whole = len(readable) // columns * columns  # whole rows
        labels = None if held_out.labels is None else held_out.labels[torch.as_tensor(rows[:whole])]
        return to_pixels(readable[:whole].to(self.accelerator.device)), labels, columns

    def grid_of(self, originals: Tensor, decoded: Tensor, columns: int, *more: Tensor) -> Image.Image:
        """Rows of originals, each over the row of what the model made of them, and rows of more below."""
        rows = zip(originals.split(columns), decoded.split(columns), strict=True)
        pixels = torch.cat([half for row in rows for half in row] + list(more))
        size = max(self.trained.model.config.size)
        return image_grid(
            list(to_levels(pixels).to(torch.uint8).cpu().numpy()), columns=columns, scale=max(1, 64 // size)
        )

    def images_in(self, held_out: HeldOut) -> int:
        """How many images were looked at."""
        config: ImageModelConfig = self.trained.model.config
        pixels: int = config.num_channels * math.prod(config.size)
        return round(held_out.dimensions / pixels)
