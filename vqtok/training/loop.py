"""The training loop of whatever is trained: a task says what a step is, and the loop when to do what.

Adversarial training, with two models and two optimizers, is a task like any other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from signal import Signals

from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import Tensor

from vqtok.errors import ConfigurationError, DataError
from vqtok.training.checkpoint import checkpoint_to_resume, load_checkpoint, save_checkpoint, save_model, step_of
from vqtok.training.config import LoopConfig
from vqtok.training.finite import LossWindow, check_evaluation, check_weights
from vqtok.training.optimization import learning_rate_at
from vqtok.training.progress import Progress, Stopwatch
from vqtok.training.resolution import save_config
from vqtok.training.runs import MetricsFile, prepare_run
from vqtok.training.signals import stop_on_signals
from vqtok.training.task import Report, Task

__all__ = ["TrainingResult", "build_accelerator", "train"]


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
    set_seed(config.seed)
    task = build_task(accelerator)
    batches = task.batches(start)
    main = accelerator.is_main_process
    with prepare_run(run, resume=resume, overwrite=overwrite) if main else nullcontext():
        if main:
            save_config(config, run / "config.yaml")
        accelerator.wait_for_everyone()
        start_tracker(accelerator, config)
        set_seed(config.seed, device_specific=True)  # from here on every process draws noise of its own
        if newest:
            load_checkpoint(accelerator, newest)
        return train_from(start, config, accelerator, task, batches)


def train_from(
    start: int, config: LoopConfig, accelerator: Accelerator, task: Task, batches: Iterator[tuple[Tensor, ...]]
) -> TrainingResult:
    """Go on from a step to the end of the run, whose folder is there and locked; arguments and errors as in `train`."""
    run = Path(config.out)
    metrics_file = MetricsFile(run, after_step=start) if accelerator.is_main_process else None

    def log(step: int, split: str, report: Report) -> None:
        accelerator.log({f"{split}/{name}": value for name, value in report.metrics.items()}, step=step)
        if metrics_file:
            metrics_file.add(step, split, report.metrics)
            for line in (*report.warnings, *report.notes):
                metrics_file.add(step, "note", {"note": line})

    def save(step: int) -> None:
        check_weights(task.models, step)
        save_checkpoint(accelerator, run, step, keep=config.keep_checkpoints)

    def evaluate(step: int, *, last: bool) -> Report:
        report = task.evaluate(step, last=last)
        check_evaluation(report.metrics, step)
        return report

    def train_mode() -> None:
        for each in task.models:
            each.prepared.train()

    step, evaluated = start, None
    losses = LossWindow()
    units_seen, watch = 0, Stopwatch()
    progress = Progress(start, config.steps, silent=not accelerator.is_main_process)
    train_mode()
    with stop_on_signals() as stop, progress:
        while step < config.steps:
            rate = learning_rate_at(step, config)
            for each in task.models:
                each.set_learning_rate(rate)
            parts = in_parts(next(batches), config.gradient_accumulation_steps)
            if step == 0 and len(parts) > 1:
                task.initialize(parts)
            for part in parts:
                with accelerator.accumulate(*(each.prepared for each in task.models)):
                    losses.add(task.step(part))
            task.after_step()
            step += 1
            units_seen += task.units_per_step
            progress.advance()
            last, stopping = step == config.steps, stop(accelerator, step)

            saving = step % config.checkpoint_every == 0 or last or stopping
            try:
                if step % config.log_every == 0 or saving:  # no checkpoint after a loss that nobody looked at
                    row = losses.close(accelerator, step)
                    report = task.training_report(row, step, last=last)
                    speed, units_seen = units_seen / watch.lap(), 0
                    report.metrics = row | report.metrics | {"learning_rate": rate, f"{task.unit}_per_second": speed}
                    log(step, "train", report)
                    progress.training(step, f"{speed:.0f} {task.unit}/s, {report.summary}")
                    for line in (*(f"warning: {text}" for text in report.warnings), *report.notes):
                        progress.write(line)

                if step % config.eval_every == 0 or last:
                    with watch.paused():
                        evaluated = evaluate(step, last=last)
                        log(step, "test", evaluated)
                        for line in (f"step {step}, held-out: {evaluated.summary}", *evaluated.notes):
                            progress.write(line)
                        if accelerator.is_main_process:
                            save_samples(task, run / "samples" / f"step-{step:06d}.png")
                        train_mode()
            except DataError:  # too many images cannot be read, which says nothing against what was learned
                if saving:
                    save(step)
                raise

            if saving:
                with watch.paused():
                    save(step)

            if stopping and not last:
                break

    finished = step == config.steps
    if finished and evaluated is None:  # resumed when there was nothing left to do
        evaluated = evaluate(step, last=True)
    if finished and accelerator.is_main_process:
        save_model(task.saved_model(), run)
    accelerator.wait_for_everyone()
    accelerator.end_training()
    return TrainingResult(
        model=run / "model" if finished else None,
        step=step,
        metrics=evaluated.metrics if evaluated else {},
        warnings=evaluated.warnings if evaluated else [],
        stopped_by=stop.signal,
    )


def in_parts(batch: tuple[Tensor, ...], number: int) -> list[tuple[Tensor, ...]]:
    """A batch, tensors with a row for every image, in parts of equal size."""
    return list(zip(*(tensor.chunk(number) for tensor in batch), strict=True))


def save_samples(task: Task, path: Path) -> None:
    """Write what the task shows of itself, if it does."""
    grid = task.sample_grid()
    if grid is not None:
        path.parent.mkdir(exist_ok=True)
        grid.save(path)


def build_accelerator(config: LoopConfig) -> Accelerator:
    """The accelerator of a run, with its tracker started.

    Raises:
        ConfigurationError: the batch does not divide by the processes, the tracker is not installed, or the precision
            cannot be used.
    """
    tracker = None if config.tracker == "none" else config.tracker
    try:
        accelerator = Accelerator(
            mixed_precision=config.precision,
            gradient_accumulation_steps=config.gradient_accumulation_steps,
            log_with=tracker,
            project_dir=config.out,
        )
    except ValueError as error:  # one that the device lacks, or a second one in one process
        reason = " ".join(str(error).split())
        raise ConfigurationError(f"precision {config.precision!r} cannot be used here: {reason}") from error
    except ImportError as error:
        raise ConfigurationError(
            f"the tracker {config.tracker!r} is not installed: pip install 'vqtok[trackers]'"
        ) from error
    parts = accelerator.num_processes * config.gradient_accumulation_steps
    if config.batch_size % parts:
        raise ConfigurationError(
            f"batch_size {config.batch_size} must divide by {accelerator.num_processes} processes x "
            f"{config.gradient_accumulation_steps} gradient_accumulation_steps"
        )
    if tracker and not accelerator.log_with:
        raise ConfigurationError(f"the tracker {config.tracker!r} is not installed: pip install 'vqtok[trackers]'")
    return accelerator


def start_tracker(accelerator: Accelerator, config: LoopConfig) -> None:
    """Tell the tracker which run this is; values that it cannot hold become text."""
    plain = {
        name: value if isinstance(value, int | float | str) else str(value)
        for name, value in config.model_dump().items()
    }
    accelerator.init_trackers(Path(config.out).name, config=plain)
