"""Training of a tokenizer: its step, and what is measured and shown of it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from vqtok.data import Batch, ImageSource
from vqtok.losses import Likelihood, in_bits
from vqtok.quantizers import CodeCounting
from vqtok.text import counted
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig
from vqtok.training import loop
from vqtok.training.checkpoint import newest_checkpoint
from vqtok.training.config import TokenizerTrainingConfig
from vqtok.training.health import CodeUseWindow, UsageAlarm, usage_warning
from vqtok.training.images import ImageTask, model_settings
from vqtok.training.loop import TrainingResult
from vqtok.training.start import Origin, Start, find_start
from vqtok.training.task import Report

__all__ = ["TokenizerTask", "train_tokenizer"]


def model_config(config: TokenizerTrainingConfig) -> VQTokenizerConfig:
    """The part of a run's configuration that is saved with the weights."""
    return VQTokenizerConfig(
        **model_settings(config),
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


class TokenizerTask(ImageTask):
    """A tokenizer learns to reconstruct images; arguments as `train_tokenizer` takes them.

    Args:
        start: the tokenizer whose weights a run begins with; None where there is none, or a checkpoint to go on from.
    """

    def __init__(
        self,
        config: TokenizerTrainingConfig,
        train: ImageSource,
        test: ImageSource,
        start: Start | None,
        accelerator: Accelerator,
    ) -> None:
        self.config = config
        model = VQTokenizer(model_config(config))
        if start is not None:
            start.fill(model, config)
        model.freeze(*config.freeze)
        super().__init__(config, train, test, model, accelerator)
        if "quantizer" not in config.freeze:
            model.quantizer.watch(self.trained.adamw)
        self.codes: list[Tensor] = []  # of the parts of this step
        self.counting = CodeCounting.of(model.quantizer)
        self.window = CodeUseWindow(
            self.counting,
            images=min(config.usage_window, len(self.train_images)),  # images seen again show no more codes
            batch_size=config.batch_size,
            accelerator=accelerator,
        )
        self.alarm = UsageAlarm(config)
        accelerator.register_for_checkpointing(self.window, self.alarm, *self.kept, Origin(config=model.config))

    @torch.no_grad()
    def initialize(self, parts: Sequence[tuple[Tensor, ...]]) -> None:
        """Codes that start on data start on the latents of all parts, as those of one batch would."""
        model = self.trained.model
        if "quantizer" in self.config.freeze:
            return
        with self.accelerator.autocast():
            latents = [model.encoder(model.checked(self.pixels(part))) for part in parts]
        model.quantizer.initialize(torch.cat(latents))

    def step(self, part: tuple[Tensor, ...]) -> dict[str, Tensor]:
        pixels = self.pixels(part)
        self.trained.model.quantizer.set_part(len(self.codes), self.config.gradient_accumulation_steps)
        output = self.trained.prepared(pixels, reconstruct=False)
        self.trained.step(output.loss)
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
        model: VQTokenizer = self.trained.model.eval()
        counts = torch.zeros(self.counting.shape, dtype=torch.int64, device=self.accelerator.device)

        def look(pixels: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
            codes = model.encode(pixels)
            self.counting.add(counts, codes)
            nats = model.distortion(pixels, codes) if isinstance(model.likelihood, Likelihood) else pixels.new_zeros(1)
            return model.decode(codes), nats.sum(0, keepdim=True)

        found = self.measure(step, look, sums=1)
        use = self.counting.use(self.accelerator.reduce(counts, reduction="sum").cpu())
        numbers = found.errors
        if isinstance(model.likelihood, Likelihood):
            numbers |= in_bits(distortion=found.sums[0] / found.dimensions, rate=model.rate)
        summary = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
        report = Report(
            metrics=numbers | use.metrics() | found.unreadable,
            summary=f"{summary}, {use.summary('held-out')}",
            notes=found.notes,
        )
        warning = usage_warning(self.config, use, f"on {counted(self.images_in(found), 'held-out image')}")
        if last and warning:
            report.warnings.append(f"step {step}: {warning}")
        return report

    @torch.no_grad()
    def sample_grid(self) -> Image.Image:
        """Rows of held-out originals that can be read, each over the row of their reconstructions."""
        model: VQTokenizer = self.trained.model.eval()
        pixels, _, columns = self.shown_images()
        with self.accelerator.autocast():
            decoded = model.decode(model.encode(pixels))
        return self.grid_of(pixels, decoded, columns)

    def saved_model(self) -> VQTokenizer:
        tokenizer: VQTokenizer = self.trained.model
        return tokenizer
