"""The training loop of whatever is trained: a task says what a step is, and the loop when to do what.

Adversarial training, with two models and two optimizers, is a task like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from signal import Signals

import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from vqtok.errors import DataError
from vqtok.training.accelerator import build_accelerator, start_tracker
from vqtok.training.checkpoint import checkpoint_to_resume, load_checkpoint, save_checkpoint, save_model, step_of
from vqtok.training.config import LoopConfig
from vqtok.training.finite import LossWindow, check_evaluation, check_weights
from vqtok.training.optimization import learning_rate_at
from vqtok.training.progress import Progress, Stopwatch
from vqtok.training.resolution import save_config
from vqtok.training.runs import MetricsFile, check_run, prepare_run
from vqtok.training.signals import stop_on_signals
from vqtok.training.task import Report, Task

__all__ = ["TrainingResult", "train"]


@dataclass(frozen=True, kw_only=True)
class TrainingResult:
    """How a run ended.

    Attributes:
        model: folder of the finished model, or None where a signal stopped the run.
        step: steps done.
        metrics: the last evaluation.
        warnings: what the last evaluation found wrong; the caller tells the user.
        stopped_by: the signal, if one stopped it.
    """

    model: Path | None
    step: int
    metrics: dict[str, float]
    warnings: list[str]
    stopped_by: Signals | None


def train(
    config: LoopConfig, build_task: Callable[[Accelerator], Task], *, resume: bool, overwrite: bool
) -> TrainingResult:
    """Train into the run folder `config.out`: config.yaml, metrics.jsonl, samples/, checkpoints/ and at the end model/.

    Args:
        config: decides the run; what the task needs beyond it, the task has.
        build_task: called with the accelerator once the seed is set.
        resume: go on from the newest whole checkpoint of the run, exactly as if it had not stopped.
        overwrite: replace the run that is in the folder.

    Raises:
        ConfigurationError: a configuration that makes no sense, or a run folder in use.
        CheckpointError: a checkpoint that cannot be read or written.
        TrainingError: a loss, weights or an evaluation that are not finite.
        VqtokError: what else the task refuses.
    """
    run = Path(config.out)
    newest = checkpoint_to_resume(run, config.steps) if resume else None
    start = step_of(newest) if newest else 0
    accelerator = build_accelerator(config)
    group = dist.group.WORLD if dist.is_available() and dist.is_initialized() else None
    if accelerator.is_main_process:
        check_run(run, resume=resume, overwrite=overwrite)
    set_seed(config.seed)
    task = build_task(accelerator)
    batches = task.batches(start)
    main = accelerator.is_main_process
    with prepare_run(run, resume=resume, overwrite=overwrite) if main else nullcontext():
        accelerator.wait_for_everyone()
        start_tracker(accelerator, config)
        set_seed(config.seed, device_specific=True)  # from here on every process draws noise of its own
        if newest:
            load_checkpoint(accelerator, newest)
        if main:  # only now, since the checkpoint may refuse other images
            save_config(config, run / "config.yaml")
            task.write_records(run)
            (run / "metrics.jsonl").touch()  # a configuration alone may be a copy, and is never replaced
        result = train_from(start, config, accelerator, task, batches)
    # The group goes last, and from Python. Where DistributedDataParallel is the last to hold it, torch 2.13 waits for
    # its thread with the interpreter's lock in hand, which that thread may wait for: a run of two processes hung so.
    del task, batches
    accelerator.free_memory()
    del group
    return result


def train_from(
    start: int, config: LoopConfig, accelerator: Accelerator, task: Task, batches: Iterator[tuple[Tensor, ...]]
) -> TrainingResult:
    """Go on from a step to the end of the run, whose folder is there and locked; arguments and errors as in `train`."""
    run = Run(start, config, accelerator, task)
    step = start
    with stop_on_signals() as stop, run.progress:
        while step < config.steps:
            rate = learning_rate_at(step, config)
            parts = in_parts(next(batches), config.gradient_accumulation_steps)
            if step == 0 and len(parts) > 1:
                task.initialize(parts)
            run.follow(parts, rate)
            step += 1
            last, stopping = step == config.steps, stop(accelerator, step)

            saving = step % config.checkpoint_every == 0 or last or stopping
            try:
                if step % config.log_every == 0 or saving:  # no checkpoint after a loss that nobody looked at
                    run.report(step, rate, last=last)
                if step % config.eval_every == 0 or last:
                    run.evaluate(step, last=last)
            except DataError:  # too many images cannot be read, which says nothing against what was learned
                if saving:
                    run.save(step)
                raise
            if saving:
                run.save(step)
            if stopping and not last:
                break
    return run.end(step, stop.signal)


class Run:
    """What is done at a step of a run, and what is told and kept of it.

    Args:
        start: the step that the run goes on from.
        config, accelerator, task: of the run.
    """

    def __init__(self, start: int, config: LoopConfig, accelerator: Accelerator, task: Task) -> None:
        self.config, self.accelerator, self.task = config, accelerator, task
        self.folder = Path(config.out)
        self.metrics_file = MetricsFile(self.folder, after_step=start) if accelerator.is_main_process else None
        self.progress = Progress(start, config.steps, silent=not accelerator.is_main_process)
        self.losses = LossWindow()
        self.units_seen, self.watch = 0, Stopwatch()
        self.evaluated: Report | None = None
        self.train_mode()

    def train_mode(self) -> None:
        for each in self.task.models:
            each.prepared.train()

    def follow(self, parts: list[tuple[Tensor, ...]], rate: float) -> None:
        """A step at a learning rate, on a batch in parts."""
        for each in self.task.models:
            each.set_learning_rate(rate)
        for part in parts:
            with self.accelerator.accumulate(*(each.prepared for each in self.task.models)):
                self.losses.add(self.task.step(part))
        self.task.after_step()
        self.units_seen += self.task.units_per_step
        self.progress.advance()

    def report(self, step: int, rate: float, *, last: bool) -> None:
        """Tell of the training steps since the last report."""
        row = self.losses.close(self.accelerator, step)
        report = self.task.training_report(row, step, last=last)
        speed, self.units_seen = self.units_seen / self.watch.lap(), 0
        unit = self.task.unit
        report.metrics = row | report.metrics | {"learning_rate": rate, f"{unit}_per_second": speed}
        self.log(step, "train", report)
        self.progress.training(step, f"{speed:.0f} {unit}/s, {report.summary}")
        for line in (*(f"warning: {text}" for text in report.warnings), *report.notes):
            self.progress.write(line)

    def evaluate(self, step: int, *, last: bool) -> None:
        """Evaluate on what is held out, tell of it and save samples."""
        with self.watch.paused():
            self.evaluated = self.evaluation(step, last=last)
            self.log(step, "test", self.evaluated)
            for line in (f"step {step}, held-out: {self.evaluated.summary}", *self.evaluated.notes):
                self.progress.write(line)
            if self.accelerator.is_main_process:
                save_samples(self.task, self.folder / "samples" / f"step-{step:06d}.png")
            self.train_mode()

    def evaluation(self, step: int, *, last: bool) -> Report:
        report = self.task.evaluate(step, last=last)
        check_evaluation(report.metrics, step)
        return report

    def log(self, step: int, split: str, report: Report) -> None:
        self.accelerator.log({f"{split}/{name}": value for name, value in report.metrics.items()}, step=step)
        if self.metrics_file:
            self.metrics_file.add(step, split, report.metrics)
            for line in (*report.warnings, *report.notes):
                self.metrics_file.add(step, "note", {"note": line})

    def save(self, step: int) -> None:
        """Write a checkpoint, unless the weights are not finite."""
        with self.watch.paused():
            check_weights(self.task.models, step)
            save_checkpoint(self.accelerator, self.folder, step, keep=self.config.keep_checkpoints)

    def end(self, step: int, stopped_by: Signals | None) -> TrainingResult:
        """Save the model where the last step is done, and say how the run ended."""
        finished = step == self.config.steps
        if finished and self.evaluated is None:  # resumed when there was nothing left to do
            self.evaluated = self.evaluation(step, last=True)
        if finished and self.accelerator.is_main_process:
            save_model(self.task.saved_model(), self.folder)
        self.accelerator.wait_for_everyone()
        self.accelerator.end_training()
        return TrainingResult(
            model=self.folder / "model" if finished else None,
            step=step,
            metrics=self.evaluated.metrics if self.evaluated else {},
            warnings=self.evaluated.warnings if self.evaluated else [],
            stopped_by=stopped_by,
        )


def in_parts(batch: tuple[Tensor, ...], number: int) -> list[tuple[Tensor, ...]]:
    """A batch, tensors with a row for every image, in parts of equal size."""
    return list(zip(*(tensor.chunk(number) for tensor in batch), strict=True))


def save_samples(task: Task, path: Path) -> None:
    """Write what the task shows of itself, if it does."""
    grid = task.sample_grid()
    if grid is not None:
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)  # a link in a run from elsewhere may lead to any file
        grid.save(path)
