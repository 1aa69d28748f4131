"""Training of a prior: its step, and what is measured and shown of it."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from functools import partial

import numpy as np
import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor, nn

from vqtok.data import image_grid
from vqtok.data.loading import sampled_rows, training_order
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
from vqtok.priors.grids import CodeGrids, count_codes, prior_batch, unigram_bits_per_code
from vqtok.text import counted
from vqtok.training import loop
from vqtok.training.loop import TrainingResult
from vqtok.training.optimization import OptimizedModel
from vqtok.training.prior_config import PriorTrainingConfig
from vqtok.training.same_data import SameData
from vqtok.training.task import Report, Task, sum_over_processes

__all__ = ["PriorTask", "train_prior"]

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
    overwrite: bool = False,
) -> TrainingResult:
    """Train into the run folder `config.out`: config.yaml, metrics.jsonl, samples/, checkpoints/ and at the end model/.

    Args:
        config: `config.codes` only says where the grids came from; they are given here.
        binding: the tokenizer the codes belong to, and their classes; without classes, labels are not looked at.
        train, test: images to learn from and held-out ones to look at, such as `CodesDataset`s; read a batch at a time.
        tokenizer: decodes samples at each evaluation, where given.
        resume: go on from the newest whole checkpoint of the run, exactly as if it had not stopped.
        overwrite: replace the run that is in the folder.

    Raises:
        ConfigurationError: a configuration that makes no sense, or a run folder in use.
        DataError: codes that do not fit the binding, or too few of them.
        MismatchError: a tokenizer that did not make the codes.
        CheckpointError: a checkpoint that cannot be read or written.
        TrainingError: a loss that is not finite.
    """
    task = partial(PriorTask, config, binding, train, test, tokenizer)
    return loop.train(config, task, resume=resume, overwrite=overwrite)


class PriorTask(Task):
    """A prior learns how probable code grids are; arguments as `train_prior` takes them."""

    unit = "codes"

    def __init__(
        self,
        config: PriorTrainingConfig,
        binding: PriorBinding,
        train: CodeGrids,
        test: CodeGrids,
        tokenizer: Detokenizer | None,
        accelerator: Accelerator,
    ) -> None:
        if tokenizer is not None:
            binding.check_tokenizer(tokenizer.fingerprint)
        train_counts = count_codes(train, binding, "the training codes")
        rows = sampled_rows(len(test), config.eval_images or None)
        self.test_grids = test if len(rows) == len(test) else test.select(np.array(rows))
        test_counts = count_codes(self.test_grids, binding, "the held-out codes")
        if len(train) < config.batch_size:
            raise DataError(
                f"{config.codes} has {counted(len(train), 'image')} for training, fewer than one batch of "
                f"{config.batch_size}: give more codes or a smaller batch_size"
            )
        self.config, self.binding, self.accelerator = config, binding, accelerator
        self.train_grids, self.tokenizer = train, tokenizer
        self.prior = OptimizedModel(PriorLoss(build_prior(binding, config.arch.model_dump())), config, accelerator)
        self.models = [self.prior]
        self.units_per_step = config.batch_size * binding.codes_per_image
        self.unigram = unigram_bits_per_code(train_counts, test_counts)
        facts = {
            "tokenizer": binding.fingerprint,
            "training images": len(train),
            "held-out images": len(test),
            "a sha256 of how often each code occurs": hashlib.sha256(train_counts.tobytes()).hexdigest(),
        }
        accelerator.register_for_checkpointing(SameData(config.codes, "codes", facts))

    def batches(self, start: int) -> Iterator[tuple[Tensor, Tensor]]:
        order = training_order(
            len(self.train_grids),
            batch_size=self.config.batch_size // self.accelerator.num_processes,
            seed=self.config.seed,
            start_step=start,
            rank=self.accelerator.process_index,
            world_size=self.accelerator.num_processes,
        )
        return (prior_batch(self.train_grids, rows, self.binding) for rows in order)

    def step(self, part: tuple[Tensor, ...]) -> dict[str, Tensor]:
        codes, classes = part
        hidden = torch.rand(len(classes)) < self.config.class_dropout
        classes = classes.masked_fill(hidden, self.binding.null_class)
        device = self.accelerator.device
        loss = self.prior.prepared(codes.to(device), classes.to(device))
        self.prior.step(loss)
        return {"loss": loss}

    def training_report(self, losses: dict[str, float], step: int, *, last: bool) -> Report:
        bits = losses["loss"] / math.log(2)
        return Report(metrics={"bits_per_code": bits}, summary=f"loss {losses['loss']:.4f}, {self.compared(bits)}")

    def compared(self, bits: float) -> str:
        """Bits per code beside those of a guess that looks at no other code."""
        return f"{bits:.3f} bits per code (unigram {self.unigram:.3f})"

    def evaluate(self, step: int, *, last: bool) -> Report:
        """Exact likelihood of held-out codes given their classes; every process takes its share of the batches.

        `loss` is in nats per code, `bits_per_code` the same in bits.
        """
        prior, binding, accelerator = self.saved_model().eval(), self.binding, self.accelerator
        sums = torch.zeros(2, dtype=torch.float64)  # nats, codes; on the host, for MPS has no float64
        for index, first in enumerate(range(0, len(self.test_grids), self.config.batch_size)):
            if index % accelerator.num_processes != accelerator.process_index:
                continue
            rows = range(first, min(first + self.config.batch_size, len(self.test_grids)))
            codes, classes = prior_batch(self.test_grids, rows, binding)
            with accelerator.autocast():
                nats = negative_log_likelihood(
                    prior, codes.view(binding.code_shape(len(codes))), classes if binding.num_classes else None
                )
            sums += torch.stack([nats.cpu().double().sum(), sums.new_tensor(codes.numel())])
        nats_sum, codes_sum = sum_over_processes(sums)
        loss = nats_sum / codes_sum
        bits = loss / math.log(2)
        return Report(
            metrics={"loss": loss, "bits_per_code": bits, "unigram_bits_per_code": self.unigram},
            summary=f"loss {loss:.4f}, {self.compared(bits)}",
        )

    def sample_grid(self) -> Image.Image | None:
        """Samples, each row of one class; always of the same random numbers, so that grids compare."""
        if self.tokenizer is None:
            return None
        classes = range(min(self.binding.num_classes, SHOWN_A_ROW))
        labels = [label for label in classes for _ in range(SHOWN_A_ROW)] or None
        count, seed = len(labels or range(SHOWN_A_ROW**2)), self.config.seed
        images = generate(self.saved_model(), self.tokenizer, num_images=count, labels=labels, seed=seed)
        return image_grid(images, columns=SHOWN_A_ROW, scale=max(1, 64 // max(images[0].size)))

    def saved_model(self) -> Prior:
        prior: Prior = self.prior.model.prior
        return prior
