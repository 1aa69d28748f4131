"""Training of a baseline: its step, and what is measured and shown of it."""

from __future__ import annotations

from functools import partial

import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor

from vqtok.baselines import Baseline, LatentVariableModel, build_baseline
from vqtok.data import Batch, ImageSource
from vqtok.errors import DataError
from vqtok.losses import in_bits
from vqtok.training import loop
from vqtok.training.baseline_config import BaselineTrainingConfig
from vqtok.training.images import SHOWN, ImageTask, model_settings
from vqtok.training.loop import TrainingResult
from vqtok.training.task import Report

__all__ = ["BaselineTask", "train_baseline"]

SHOWN_CLASSES = 10  # a row of samples each


def train_baseline(
    config: BaselineTrainingConfig,
    train: ImageSource,
    test: ImageSource,
    *,
    resume: bool = False,
    overwrite: bool = False,
) -> TrainingResult:
    """Train into the run folder `config.out`, which holds the model in model/ at the end; as `train_tokenizer`.

    Raises:
        ConfigurationError: a configuration that makes no sense, or a run folder in use.
        DataError: images that cannot be read, fewer than one batch, or without the labels that the model needs.
        CheckpointError: a checkpoint that cannot be read or written.
        TrainingError: a loss that is not finite.
    """
    return loop.train(config, partial(BaselineTask, config, train, test), resume=resume, overwrite=overwrite)


def untrained(config: BaselineTrainingConfig, train: ImageSource, test: ImageSource) -> Baseline:
    """The model of a run, with the classes of the images where it is conditioned on them.

    Raises:
        DataError: it needs classes and the images have none.
    """
    names = train.label_names
    if config.model.needs_classes and (names is None or test.label_names is None):
        raise DataError(
            f"{config.dataset} has no labels for all of its images, and a {config.model.type} is conditioned on them: "
            "name their column with --label-column, or train a vae"
        )
    return build_baseline(
        config.model.model_dump(),
        likelihood=config.likelihood.model_dump(),
        label_names=list(names) if names and config.model.needs_classes else None,
        **model_settings(config),
    )


class BaselineTask(ImageTask):
    """A baseline learns to reconstruct images or how probable they are; arguments as `train_baseline` takes them."""

    def __init__(
        self, config: BaselineTrainingConfig, train: ImageSource, test: ImageSource, accelerator: Accelerator
    ) -> None:
        self.config = config
        super().__init__(config, train, test, untrained(config, train, test), accelerator)
        accelerator.register_for_checkpointing(*self.kept)

    def tensors_of(self, batch: Batch) -> tuple[Tensor, ...]:
        return (batch["pixels"], batch["labels"]) if self.config.model.needs_classes else (batch["pixels"],)

    def step(self, part: tuple[Tensor, ...]) -> dict[str, Tensor]:
        output = self.trained.prepared(self.pixels(part), *part[1:], reconstruct=False)
        self.trained.step(output.loss)
        return {"loss": output.loss, **output.losses}

    def training_report(self, losses: dict[str, float], step: int, *, last: bool) -> Report:
        parts = [name for name in ("loss", "reconstruction", "distortion", "rate") if name in losses]
        count, named = self.unreadable.look(step, "cannot be read, replaced by others")
        return Report(metrics=count, summary=", ".join(f"{name} {losses[name]:.4f}" for name in parts), warnings=named)

    def evaluate(self, step: int, *, last: bool) -> Report:
        """Error of reconstructions without noise, and of a model with a prior the bound on held-out images.

        `bits_per_dim` bounds -log2 p(x) with `bound_samples` samples; `distortion` and `rate` are the parts of the
        bound of one sample, to which it is equal there, and which it is below with several. The noise is the same in
        every evaluation.
        """
        model: Baseline = self.trained.model.eval()
        in_training: int = getattr(self.config.model, "num_samples", 1)
        samples = self.config.bound_samples or in_training
        device = self.accelerator.device
        generator = torch.Generator(device).manual_seed(self.config.seed + self.accelerator.process_index)

        def look(pixels: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
            labels = self.labels(batch.get("labels"))
            nats = torch.zeros(3)
            if isinstance(model, LatentVariableModel):
                nats = torch.stack([each.sum() for each in model.bound(pixels, labels, samples, generator)])
            return model.reconstruct(pixels, labels), nats

        found = self.measure(step, look, sums=3)
        numbers = found.errors
        if isinstance(model, LatentVariableModel):
            distortion, rate, total = (nats / found.dimensions for nats in found.sums)
            numbers |= in_bits(distortion=distortion, rate=rate)
            numbers["bits_per_dim"] = in_bits(distortion=total, rate=0.0)["bits_per_dim"]
        return Report(
            metrics=numbers | found.unreadable,
            summary=", ".join(f"{name} {value:.4g}" for name, value in numbers.items()),
            notes=found.notes,
        )

    def labels(self, labels: Tensor | None) -> Tensor | None:
        """Labels on the device for a model that takes them."""
        wanted = self.config.model.needs_classes and labels is not None
        return labels.to(self.accelerator.device) if wanted and labels is not None else None

    @torch.no_grad()
    def sample_grid(self) -> Image.Image:
        """Rows of held-out originals over their reconstructions, and below samples of the prior, if there is one.

        Of a model with classes each row of samples is of one class. The samples are always of the same random numbers,
        so that grids compare.
        """
        model: Baseline = self.trained.model.eval()
        pixels, labels, columns = self.shown_images()
        labels = self.labels(labels)
        with self.accelerator.autocast():
            decoded = model.reconstruct(pixels, labels)
            if not isinstance(model, LatentVariableModel):
                return self.grid_of(pixels, decoded, columns)
            rows = min(len(model.label_names), SHOWN_CLASSES) or max(1, SHOWN // columns)
            classes = torch.arange(rows).repeat_interleave(columns) if model.label_names else None
            samples = model.sample(rows * columns, classes, seed=self.config.seed)
        return self.grid_of(pixels, decoded, columns, samples)

    def saved_model(self) -> Baseline:
        baseline: Baseline = self.trained.model
        return baseline
