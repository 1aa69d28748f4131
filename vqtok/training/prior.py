"""Training of a prior: one loop, read from top to bottom."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor, nn
from tqdm import tqdm

from vqtok.data import image_grid
from vqtok.data.loading import training_order
from vqtok.errors import DataError
from vqtok.priors import (
    Detokenizer,
    Prior,
    PriorBinding,
    build_prior,
    generate,
    negative_log_likelihood,
    training_loss,
)
from vqtok.training.checkpoint import load_checkpoint, newest_checkpoint, replace_folder, save_checkpoint
from vqtok.training.grids import CodeGrids, unigram_bits_per_code
from vqtok.training.loop import (
    LossWindow,
    build_accelerator,
    build_optimizer,
    learning_rate_at,
    start_tracker,
    stop_on_signals,
)
from vqtok.training.prior_config import PriorTrainingConfig
from vqtok.training.resolution import save_config
from vqtok.training.runs import MetricsFile, prepare_run
from vqtok.training.tokenizer import TrainingResult

__all__ = ["train_prior"]

SHOWN_A_ROW = 10  # samples of one class on an image grid, for at most as many classes


class PriorLoss(nn.Module):
    """A prior whose forward is its loss, so that several processes and torch.compile see one call."""

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior

    def forward(self, codes: Tensor, classes: Tensor) -> Tensor:
        return training_loss(self.prior, codes, classes)


def train_prior(
    config: PriorTrainingConfig,
    binding: PriorBinding,
    train: CodeGrids,
    test: CodeGrids,
    *,
    tokenizer: Detokenizer | None = None,
    resume: bool = False,
) -> TrainingResult:
    """Train into the run folder `config.out`: config.yaml, metrics.jsonl, samples/, checkpoints/ and at the end model/.

    Args:
        config: `config.codes` only says where the grids came from; they are given here.
        binding: the tokenizer the codes belong to, and their classes; without classes, labels are not looked at.
        train, test: images to learn from and held-out ones to look at.
        tokenizer: decodes samples at each evaluation, where given.
        resume: go on from the newest whole checkpoint of the run, exactly as if it had not stopped.

    Raises:
        ConfigurationError: a configuration that makes no sense, or a run folder in use.
        DataError: codes that do not fit the binding, or too few of them.
        MismatchError: a tokenizer that did not make the codes.
        CheckpointError: a checkpoint that cannot be read or written.
        TrainingError: a loss that is not finite.
    """
    run = Path(config.out)
    if tokenizer is not None:
        binding.check_tokenizer(tokenizer.fingerprint)
    train.check(binding, "the training codes")
    test.check(binding, "the held-out codes")
    if len(train) < config.batch_size:
        raise DataError(
            f"{config.codes} has {len(train)} images for training, fewer than one batch of {config.batch_size}: "
            "give more codes or a smaller batch_size"
        )
    accelerator = build_accelerator(config)
    set_seed(config.seed)
    model: nn.Module = PriorLoss(build_prior(binding, config.arch.model_dump()))
    if accelerator.is_main_process:
        prepare_run(run, resume=resume)
        save_config(config, run / "config.yaml")
    accelerator.wait_for_everyone()
    start_tracker(accelerator, config)

    optimizer = build_optimizer(model, config)
    parts = accelerator.num_processes * config.gradient_accumulation_steps
    model, optimizer = accelerator.prepare(torch.compile(model) if config.compile else model, optimizer)
    set_seed(config.seed, device_specific=True)  # from here on every process drops features and classes of its own

    newest = newest_checkpoint(run) if resume else None
    start = load_checkpoint(accelerator, newest) if newest else 0
    metrics_file = MetricsFile(run, after_step=start) if accelerator.is_main_process else None
    order = training_order(
        len(train),
        batch_size=config.batch_size // parts,
        seed=config.seed,
        start_step=start * config.gradient_accumulation_steps,
        rank=accelerator.process_index,
        world_size=accelerator.num_processes,
    )

    def log(step: int, split: str, values: dict[str, float]) -> None:
        accelerator.log({f"{split}/{name}": value for name, value in values.items()}, step=step)
        if metrics_file:
            metrics_file.add(step, split, values)

    unigram = unigram_bits_per_code(train, test, binding.codebook_size)
    step, test_metrics = start, {}
    losses = LossWindow()
    codes_seen, began = 0, time.perf_counter()
    progress = tqdm(total=config.steps, initial=start, unit="step", disable=not accelerator.is_main_process)
    model.train()
    with stop_on_signals() as stop, progress:
        while step < config.steps:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, config)
            for _ in range(config.gradient_accumulation_steps):
                codes, classes = train.batch(next(order), binding)
                hidden = torch.rand(len(classes)) < config.class_dropout
                classes = classes.masked_fill(hidden, binding.null_class)
                with accelerator.accumulate(model):
                    loss = model(codes.to(accelerator.device), classes.to(accelerator.device))
                    accelerator.backward(loss)
                    if accelerator.sync_gradients and config.max_grad_norm > 0:
                        accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)
                    optimizer.step()
                    optimizer.zero_grad()
                losses.add({"loss": loss})
            step += 1
            codes_seen += config.batch_size * binding.codes_per_image
            progress.update()
            last, stopping = step == config.steps, stop(accelerator, step)

            if step % config.log_every == 0 or last or stopping:
                row = losses.close(accelerator, step)
                row["bits_per_code"] = row["loss"] / math.log(2)
                row["learning_rate"] = learning_rate_at(step - 1, config)
                row["codes_per_second"] = codes_seen / (time.perf_counter() - began)
                log(step, "train", row)
                progress.set_postfix_str(summary(row, unigram))
                codes_seen, began = 0, time.perf_counter()

            if step % config.eval_every == 0 or last:
                prior = accelerator.unwrap_model(model).prior
                test_metrics = evaluate(accelerator, prior, test, config) | {"unigram_bits_per_code": unigram}
                log(step, "test", test_metrics)
                if accelerator.is_main_process and tokenizer is not None:
                    save_samples(prior, tokenizer, config.seed, run / "samples" / f"step-{step:06d}.png")
                model.train()
                began = time.perf_counter()

            if step % config.checkpoint_every == 0 or last or stopping:
                save_checkpoint(accelerator, run, step, keep=config.keep_checkpoints)
                began = time.perf_counter()

            if stopping and not last:
                break
    finished = step == config.steps
    if finished and not test_metrics:  # resumed when there was nothing left to do
        prior = accelerator.unwrap_model(model).prior
        test_metrics = evaluate(accelerator, prior, test, config) | {"unigram_bits_per_code": unigram}
    if finished and accelerator.is_main_process:
        save_prior(accelerator.unwrap_model(model).prior, run)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return TrainingResult(
        model=run / "model" if finished else None, step=step, metrics=test_metrics, stopped_by=stop.signal
    )


def summary(row: dict[str, float], unigram: float) -> str:
    """What the progress bar says of the last steps."""
    return (
        f"{row['codes_per_second']:.0f} codes/s, loss {row['loss']:.4f}, {row['bits_per_code']:.3f} bits per code "
        f"(unigram {unigram:.3f})"
    )


def evaluate(accelerator: Accelerator, prior: Prior, grids: CodeGrids, config: PriorTrainingConfig) -> dict[str, float]:
    """Exact likelihood of held-out codes given their classes; every process takes its share of the batches.

    `loss` is in nats per code, `bits_per_code` the same in bits.
    """
    prior.eval()
    binding = PriorBinding.from_config(prior.config)
    limit = min(len(grids), config.eval_images or len(grids))
    sums = torch.zeros(2, dtype=torch.float64, device=accelerator.device)  # nats, codes
    for index, first in enumerate(range(0, limit, config.batch_size)):
        if index % accelerator.num_processes != accelerator.process_index:
            continue
        codes, classes = grids.batch(slice(first, min(first + config.batch_size, limit)), binding)
        with accelerator.autocast():
            nats = negative_log_likelihood(
                prior, codes.view(binding.code_shape(len(codes))), classes if binding.num_classes else None
            )
        sums += torch.stack([nats.double().sum(), sums.new_tensor(codes.numel())])
    nats_sum, codes_sum = accelerator.reduce(sums, reduction="sum").tolist()
    return {"loss": nats_sum / codes_sum, "bits_per_code": nats_sum / codes_sum / math.log(2)}


def save_samples(prior: Prior, tokenizer: Detokenizer, seed: int, path: Path) -> None:
    """Write a grid of samples, each row of one class; always of the same random numbers, so that grids compare."""
    classes = range(min(PriorBinding.from_config(prior.config).num_classes, SHOWN_A_ROW))
    labels = [label for label in classes for _ in range(SHOWN_A_ROW)] or None
    images = generate(prior, tokenizer, num_images=len(labels or range(SHOWN_A_ROW**2)), labels=labels, seed=seed)
    path.parent.mkdir(exist_ok=True)
    scale = max(1, 64 // max(images[0].size))
    image_grid(images, columns=SHOWN_A_ROW, scale=scale).save(path)


def save_prior(prior: Prior, run: Path) -> None:
    """Write `model/` beside its place, then rename it."""
    partial = run / ".model.partial"
    shutil.rmtree(partial, ignore_errors=True)
    prior.save_pretrained(partial)
    replace_folder(partial, run / "model")
