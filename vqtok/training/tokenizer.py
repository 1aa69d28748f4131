"""Training of a tokenizer: one loop, read from top to bottom."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from signal import Signals

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from tqdm import tqdm

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
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig
from vqtok.training.checkpoint import checkpoint_to_resume, load_checkpoint, save_checkpoint, save_model, step_of
from vqtok.training.config import TokenizerTrainingConfig
from vqtok.training.health import CodeUseWindow, UsageAlarm, add_codes, code_use
from vqtok.training.loop import (
    LossWindow,
    build_accelerator,
    build_optimizer,
    learning_rate_at,
    start_tracker,
    stop_on_signals,
)
from vqtok.training.resolution import save_config
from vqtok.training.runs import MetricsFile, prepare_run

__all__ = ["TrainingResult", "open_training_images", "train_tokenizer"]

SHOWN = 32  # images on an image grid of originals over reconstructions
SHOWN_A_ROW = 16


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        model: folder of the finished model, or None where a signal stopped the run.
        step: steps done.
        metrics: the last evaluation.
        stopped_by: the signal, if one stopped it.
    """

    model: Path | None
    step: int
    metrics: dict[str, float]
    stopped_by: Signals | None


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
            config = replace(config, num_channels=native.num_channels)
        if config.image_size is None:
            size, note = native.training_size(config.dataset)
            factor = config.network["downsample_factor"]
            fitting = [max(factor, side // factor * factor) for side in size]
            if note is None and fitting != list(size):
                note = (
                    f"the images are {size[0]} x {size[1]} pixels (height x width) and are cropped to {fitting[0]} x "
                    f"{fitting[1]}, a multiple of the downsample factor {factor}"
                )
            config = replace(config, image_size=fitting)
            train = replace(train, notes=(*train.notes, *([note] if note else [])))
    return config, train, test


def model_config(config: TokenizerTrainingConfig) -> VQTokenizerConfig:
    """The part of a run's configuration that is saved with the weights."""
    assert config.num_channels is not None  # open_training_images has set it
    return VQTokenizerConfig(
        image_size=config.image_size,
        num_channels=config.num_channels,
        resample=config.resample,
        network=config.network,
        quantizer=config.quantizer,
    )


def train_tokenizer(
    config: TokenizerTrainingConfig, train: ImageSource, test: ImageSource, *, resume: bool = False
) -> TrainingResult:
    """Train into the run folder `config.out`: config.yaml, metrics.jsonl, samples/, checkpoints/ and at the end model/.

    Args:
        config: with image_size and num_channels set, see `open_training_images`.
        train, test: images to learn from and held-out ones to look at.
        resume: go on from the newest whole checkpoint of the run, exactly as if it had not stopped.

    Raises:
        ConfigurationError: a configuration that makes no sense, or a run folder in use.
        DataError: images that cannot be read, or fewer than one batch.
        CheckpointError: a checkpoint that cannot be read or written.
        TrainingError: a loss that is not finite.
    """
    run = Path(config.out)
    newest = checkpoint_to_resume(run, config.steps) if resume else None
    accelerator = build_accelerator(config)
    set_seed(config.seed)
    model = VQTokenizer(model_config(config))
    train_images, test_images = (
        ImageDataset(
            source,
            image_size=model.config.size,
            num_channels=model.config.num_channels,
            resample=model.config.resample,
        )
        for source in (train, test)
    )
    start = step_of(newest) if newest else 0
    parts = accelerator.num_processes * config.gradient_accumulation_steps
    batches = training_batches(
        train_images,
        batch_size=config.batch_size // parts,
        seed=config.seed,
        start_step=start * config.gradient_accumulation_steps,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
        num_workers=config.num_workers,
    )
    if accelerator.is_main_process:
        prepare_run(run, resume=resume)
        save_config(config, run / "config.yaml")
    accelerator.wait_for_everyone()
    start_tracker(accelerator, config)

    model.to(memory_format=torch.channels_last)  # type: ignore[call-arg]
    optimizer = build_optimizer(model, config)
    if config.compile:
        model.compile()  # in place, so that checkpoints hold the same names with and without
    model, optimizer = accelerator.prepare(model, optimizer)
    set_seed(config.seed, device_specific=True)  # from here on every process draws noise of its own

    window = CodeUseWindow(
        num_codebooks=accelerator.unwrap_model(model).num_codebooks,
        codebook_size=accelerator.unwrap_model(model).codebook_size,
        images=config.usage_window,
        batch_size=config.batch_size,
        accelerator=accelerator,
    )
    alarm = UsageAlarm(config)
    accelerator.register_for_checkpointing(window, alarm)
    if newest:
        load_checkpoint(accelerator, newest)
    metrics_file = MetricsFile(run, after_step=start) if accelerator.is_main_process else None

    def log(step: int, split: str, values: dict[str, float]) -> None:
        accelerator.log({f"{split}/{name}": value for name, value in values.items()}, step=step)
        if metrics_file:
            metrics_file.add(step, split, values)

    step, test_metrics = start, {}
    losses = LossWindow()
    images_seen, began = 0, time.perf_counter()
    progress = tqdm(total=config.steps, initial=start, unit="step", disable=not accelerator.is_main_process)
    model.train()
    with stop_on_signals() as stop, progress:
        while step < config.steps:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, config)
            window.begin_step()
            for _ in range(config.gradient_accumulation_steps):
                pixels = to_pixels(next(batches)["pixels"].to(accelerator.device, non_blocking=True))
                with accelerator.accumulate(model):
                    output = model(pixels)
                    accelerator.backward(output.loss)
                    if accelerator.sync_gradients and config.max_grad_norm > 0:
                        accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)
                    optimizer.step()
                    optimizer.zero_grad()
                losses.add({"loss": output.loss, **output.losses})
                window.add(output.codes)
            step += 1
            images_seen += config.batch_size
            progress.update()
            last, stopping = step == config.steps, stop(accelerator, step)

            saving = step % config.checkpoint_every == 0 or last or stopping
            if step % config.log_every == 0 or saving:  # no checkpoint after a loss that nobody looked at
                counts = window.totals()
                row = losses.close(accelerator, step) | code_use(counts)
                row["learning_rate"] = learning_rate_at(step - 1, config)
                row["images_per_second"] = images_seen / (time.perf_counter() - began)
                log(step, "train", row)
                progress.set_postfix_str(summary(row))
                warning = alarm.look(window, counts, step, last=last)
                if warning and metrics_file:
                    tqdm.write(f"warning: {warning}", file=sys.stderr)
                    metrics_file.add(step, "note", {"note": warning})
                images_seen, began = 0, time.perf_counter()

            if step % config.eval_every == 0 or last:
                plain = accelerator.unwrap_model(model)
                test_metrics = evaluate(accelerator, plain, test_images, config)
                log(step, "test", test_metrics)
                if accelerator.is_main_process:
                    save_samples(accelerator, plain, test_images, run / "samples" / f"step-{step:06d}.png")
                model.train()
                began = time.perf_counter()

            if saving:
                save_checkpoint(accelerator, run, step, keep=config.keep_checkpoints)
                began = time.perf_counter()

            if stopping and not last:
                break

    finished = step == config.steps
    if finished and not test_metrics:  # resumed when there was nothing left to do
        test_metrics = evaluate(accelerator, accelerator.unwrap_model(model), test_images, config)
    if finished and accelerator.is_main_process:
        save_model(accelerator.unwrap_model(model), run)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return TrainingResult(
        model=run / "model" if finished else None, step=step, metrics=test_metrics, stopped_by=stop.signal
    )


def summary(row: dict[str, float]) -> str:
    """What the progress bar says of the last steps."""
    return (
        f"{row['images_per_second']:.0f} images/s, loss {row['loss']:.4f}, reconstruction "
        f"{row['reconstruction']:.4f}, perplexity {row['perplexity']:.0f}, codes in use {row['usage']:.0%}"
    )


@torch.no_grad()
def evaluate(
    accelerator: Accelerator, model: VQTokenizer, images: ImageDataset, config: TokenizerTrainingConfig
) -> dict[str, float]:
    """Reconstruction error and code use on held-out images; every process takes its share of the batches.

    `mse` is that of pixels in [0, 1]; `mse_over_variance` divides it by the variance of the same pixels.
    """
    model.eval()
    sums = torch.zeros(4, dtype=torch.float64, device=accelerator.device)  # squared error, x, x^2, elements
    counts = torch.zeros(model.num_codebooks, model.codebook_size, dtype=torch.int64, device=accelerator.device)
    limit = min(len(images), config.eval_images or len(images))
    for index, batch in enumerate(ordered_batches(images, batch_size=128, num_workers=config.num_workers)):
        if index * 128 >= limit:
            break
        if index % accelerator.num_processes != accelerator.process_index:
            continue
        pixels = to_pixels(batch["pixels"][: limit - index * 128].to(accelerator.device))
        with accelerator.autocast():
            codes = model.encode(pixels)
            error = (model.decode(codes) - pixels) / 2
        unit = (pixels.double() + 1) / 2
        sums += torch.stack(
            [error.double().square().sum(), unit.sum(), unit.square().sum(), sums.new_tensor(unit.numel())]
        )
        add_codes(counts, codes)
    squared, total, total_of_squares, elements = accelerator.reduce(sums, reduction="sum").tolist()
    mse = squared / elements
    variance = total_of_squares / elements - (total / elements) ** 2
    ratio = {"mse_over_variance": mse / variance} if variance > 0 else {}
    return {"mse": mse, **ratio, **code_use(accelerator.reduce(counts, reduction="sum").cpu())}


@torch.no_grad()
def save_samples(accelerator: Accelerator, model: VQTokenizer, images: ImageDataset, path: Path) -> None:
    """Write an image grid: rows of held-out originals, each over the row of their reconstructions."""
    model.eval()
    shown = min(SHOWN, len(images))
    columns = min(SHOWN_A_ROW, shown)
    chosen = list(range(shown // columns * columns))  # whole rows
    pixels = to_pixels(images.__getitems__(chosen)["pixels"].to(accelerator.device))
    with accelerator.autocast():
        decoded = model.decode(model.encode(pixels))
    processor = model.image_processor
    rows = zip(pixels.split(columns), decoded.split(columns), strict=True)
    grid = [image for row in rows for half in row for image in processor.post_process(half)]
    path.parent.mkdir(exist_ok=True)
    image_grid(grid, columns=columns, scale=max(1, 64 // max(model.config.size))).save(path)
