"""Training of a tokenizer: its step, and what is measured and shown of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from vqtok.data import (
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
from vqtok.losses import in_bits
from vqtok.quantizers import CodeCounting
from vqtok.text import counted
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig
from vqtok.training import loop
from vqtok.training.checkpoint import newest_checkpoint
from vqtok.training.config import TokenizerTrainingConfig
from vqtok.training.health import CodeUseWindow, UsageAlarm, usage_warning
from vqtok.training.loop import TrainingResult
from vqtok.training.optimization import OptimizedModel
from vqtok.training.same_data import SameData
from vqtok.training.start import Origin, Start, find_start
from vqtok.training.task import Report, Task, sum_over_processes
from vqtok.training.unreadable import UnreadableImages

__all__ = ["TokenizerTask", "open_training_images", "train_tokenizer"]

EVALUATED_AT_ONCE = 128  # held-out images that a process decodes and reconstructs
SHOWN = 32  # images on an image grid of originals over reconstructions
SHOWN_A_ROW = 16
SMALLEST_VARIANCE = 1e-12  # of pixels in [0, 1]: under it images are all of one level, but for rounding


def open_training_images(config: TokenizerTrainingConfig) -> tuple[TokenizerTrainingConfig, ImageSource, ImageSource]:
    """The training and test images, and the configuration with the size and channels that the images decide.

    A size that the images decide is cut to a multiple of the downsample factor; what is cropped or resized for it is
    among the notes of the training images.

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
    if config.image_size is None or config.num_channels is None:
        native = native_format(train)
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
            train = replace(train, notes=(*train.notes, *([note] if note else [])))
    return config, train, test


def model_config(config: TokenizerTrainingConfig) -> VQTokenizerConfig:
    """The part of a run's configuration that is saved with the weights."""
    assert config.num_channels is not None  # open_training_images has set it
    return VQTokenizerConfig(
        image_size=config.image_size,
        num_channels=config.num_channels,
        resample=config.resample,
        network=config.network.model_dump(),
        quantizer=config.quantizer.model_dump(),
        likelihood=config.likelihood.model_dump(),
    )


def train_tokenizer(
    config: TokenizerTrainingConfig,
    train: ImageSource,
    test: ImageSource,
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> TrainingResult:
    """Train into the run folder `config.out`, which holds the model in model/ at the end.

    Beside it are config.yaml, images.json, metrics.jsonl, samples/ and checkpoints/.

    Args:
        config: with image_size and num_channels set, see `open_training_images`. One with `init_from` comes from
            `resolve_config`, which fills it from that tokenizer.
        train, test: images to learn from and held-out ones to look at.
        resume: go on from the newest whole checkpoint of the run, exactly as if it had not stopped.
        overwrite: replace the run that is in the folder.

    Raises:
        ConfigurationError: a configuration that makes no sense, a run folder in use, or one to overwrite that holds the
            tokenizer of `init_from`.
        DataError: images that cannot be read, or fewer than one batch.
        CheckpointError: a checkpoint that cannot be read or written.
        TrainingError: a loss that is not finite.
        HubError: the tokenizer of `init_from` cannot be read.
    """
    begins = not (resume and newest_checkpoint(Path(config.out)))
    start = find_start(config.init_from) if config.init_from and begins else None
    if start is not None:
        config = config.model_copy(update={"init_from": start.name})
        if overwrite:
            start.check_kept(Path(config.out))
    return loop.train(config, partial(TokenizerTask, config, train, test, start), resume=resume, overwrite=overwrite)


class TokenizerTask(Task):
    """A tokenizer learns to reconstruct images; arguments as `train_tokenizer` takes them.

    Args:
        start: the tokenizer whose weights a run begins with; None where there is none, or a checkpoint to go on from.
    """

    unit = "images"

    def __init__(
        self,
        config: TokenizerTrainingConfig,
        train: ImageSource,
        test: ImageSource,
        start: Start | None,
        accelerator: Accelerator,
    ) -> None:
        self.config, self.accelerator = config, accelerator
        model = VQTokenizer(model_config(config))
        if start is not None:
            start.fill(model, config)
        model.freeze(*config.freeze)
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
        self.tokenizer = OptimizedModel(model, config, accelerator)
        if "quantizer" not in config.freeze:
            model.quantizer.watch(self.tokenizer.adamw)
        self.models = [self.tokenizer]
        self.units_per_step = config.batch_size
        self.codes: list[Tensor] = []  # of the parts of this step
        self.counting = CodeCounting.of(model.quantizer)
        self.window = CodeUseWindow(
            self.counting,
            images=min(config.usage_window, len(self.train_images)),  # images seen again show no more codes
            batch_size=config.batch_size,
            accelerator=accelerator,
        )
        self.alarm = UsageAlarm(config)
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
        same = SameData(config.dataset, "images", facts)
        accelerator.register_for_checkpointing(
            *(self.window, self.alarm, same, self.unreadable, self.unreadable_test),
            Origin(config=model.config),
        )

    def write_records(self, run: Path) -> None:
        write_text(run / IMAGES_RECORD, self.record.model_dump_json(indent=2) + "\n")

    def batches(self, start: int) -> Iterator[tuple[Tensor, ...]]:
        batches = training_batches(
            self.train_images,
            batch_size=self.config.batch_size // self.accelerator.num_processes,
            seed=self.config.seed,
            start_step=start,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
            num_workers=self.config.num_workers,
        )
        return ((batch["pixels"],) for batch in batches)

    @torch.no_grad()
    def initialize(self, parts: Sequence[tuple[Tensor, ...]]) -> None:
        """Codes that start on data start on the latents of all parts, as those of one batch would."""
        model = self.tokenizer.model
        if "quantizer" in self.config.freeze:
            return
        with self.accelerator.autocast():
            latents = [model.encoder(model.checked(self.pixels(part))) for part in parts]
        model.quantizer.initialize(torch.cat(latents))

    def pixels(self, part: tuple[Tensor, ...]) -> Tensor:
        """The pixels of a part of a batch on the device: float32 (B, C, H, W) in [-1, 1]."""
        return to_pixels(part[0].to(self.accelerator.device, non_blocking=True))

    def step(self, part: tuple[Tensor, ...]) -> dict[str, Tensor]:
        pixels = self.pixels(part)
        self.tokenizer.model.quantizer.set_part(len(self.codes), self.config.gradient_accumulation_steps)
        output = self.tokenizer.prepared(pixels, reconstruct=False)
        self.tokenizer.step(output.loss)
        self.codes.append(output.codes)
        return {"loss": output.loss, **output.losses}

    def after_step(self) -> None:
        self.window.add(self.codes)
        self.codes.clear()

    def training_report(self, losses: dict[str, float], step: int, *, last: bool) -> Report:
        use = self.counting.use(self.window.totals())
        warnings, notes = self.alarm.look(self.window, use, step, last=last)
        summary = f"loss {losses['loss']:.4f}, reconstruction {losses['reconstruction']:.4f}, {use.summary('training')}"
        count, named = self.unreadable.look(step, "cannot be read, replaced by others")
        return Report(metrics=use.metrics() | count, summary=summary, warnings=warnings + named, notes=notes)

    @torch.no_grad()
    def evaluate(self, step: int, *, last: bool) -> Report:
        """Reconstruction error and code use on held-out images; every process takes its share of the batches.

        `mse` is that of pixels in [0, 1]; `mse_over_variance` divides it by the variance of the same pixels. Of a
        likelihood, `bits_per_dim` bounds -log2 p(x) with all codes equally probable, and is `distortion` plus `rate`.
        """
        accelerator, model, images = self.accelerator, self.tokenizer.model.eval(), self.test_images
        # Squared error, x, x^2, elements and nats, added up on the host, for MPS has no float64.
        sums = torch.zeros(5, dtype=torch.float64)
        counts = torch.zeros(self.counting.shape, dtype=torch.int64, device=accelerator.device)
        for batch in ordered_batches(
            images,
            EVALUATED_AT_ONCE,
            self.config.num_workers,
            num_images=self.config.eval_images or None,
            rank=accelerator.process_index,
            world_size=accelerator.num_processes,
        ):
            pixels = to_pixels(batch["pixels"].to(accelerator.device))
            with accelerator.autocast():
                codes = model.encode(pixels)
                error = (model.decode(codes) - pixels) / 2
                nats = model.distortion(pixels, codes) if model.likelihood.is_likelihood else pixels.new_zeros(1)
            unit = (pixels.cpu().double() + 1) / 2
            squares = error.cpu().double().square().sum()
            number = sums.new_tensor(unit.numel())
            sums += torch.stack([squares, unit.sum(), unit.square().sum(), number, nats.cpu().double().sum()])
            self.counting.add(counts, codes)
        squared, total, total_of_squares, elements, nats = sum_over_processes(sums)
        unreadable, named = self.unreadable_test.look(step, "held out cannot be read, left out")
        if not elements:
            raise images.none_readable(next(iter(images.unreadable.values())))
        mse = squared / elements
        variance = total_of_squares / elements - (total / elements) ** 2
        ratio = {"mse_over_variance": mse / variance} if variance > SMALLEST_VARIANCE else {}
        counts = accelerator.reduce(counts, reduction="sum").cpu()
        use = self.counting.use(counts)
        numbers = {"mse": mse, **ratio}
        if model.likelihood.is_likelihood:
            numbers |= in_bits(distortion=nats / elements, rate=model.rate)
        summary = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        report = Report(
            metrics=numbers | use.metrics() | unreadable, summary=f"{summary}, {use.summary('held-out')}", notes=named
        )
        seen = round(elements / (model.config.num_channels * math.prod(model.config.size)))
        warning = usage_warning(self.config, use, f"on {counted(seen, 'held-out image')}")
        if last and warning:
            report.warnings.append(f"step {step}: {warning}")
        return report

    @torch.no_grad()
    def sample_grid(self) -> Image.Image:
        """Rows of held-out originals that can be read, each over the row of their reconstructions."""
        model, held_out = self.tokenizer.model.eval(), self.test_images
        known = [index for index in range(len(held_out)) if index not in held_out.unreadable]
        readable, _, _ = held_out.read([known[place] for place in sampled_rows(len(known), SHOWN)])
        columns = min(SHOWN_A_ROW, len(readable))
        shown = readable[: len(readable) // columns * columns]  # whole rows
        pixels = to_pixels(shown.to(self.accelerator.device))
        with self.accelerator.autocast():
            decoded = model.decode(model.encode(pixels))
        rows = zip(pixels.split(columns), decoded.split(columns), strict=True)
        images = [image for row in rows for half in row for image in model.image_processor.post_process(half)]
        return image_grid(images, columns=columns, scale=max(1, 64 // max(model.config.size)))

    def saved_model(self) -> VQTokenizer:
        tokenizer: VQTokenizer = self.tokenizer.model
        return tokenizer
