from __future__ import annotations

import json
import math
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import yaml
from PIL import Image

from tests.two_processes import run_two_processes
from vqtok.codes import CodesDataset
from vqtok.data.loading import sampled_rows
from vqtok.errors import ConfigurationError, DataError, MismatchError, TrainingError
from vqtok.priors import PriorBinding, load_prior, negative_log_likelihood
from vqtok.priors.grids import count_codes, unigram_bits_per_code
from vqtok.training import loop
from vqtok.training import prior as task
from vqtok.training.prior import train_prior
from vqtok.training.prior_config import PriorTrainingConfig
from vqtok.training.resolution import resolve_config

BINDING = PriorBinding(fingerprint="f" * 64, grid=(2, 3), codebook_size=8, label_names=("low", "high"))
SMALL = {
    "pixelcnn": {"type": "pixelcnn", "hidden_size": 8, "num_layers": 2, "kernel_size": 3, "dropout": 0.1},
    "transformer": {"type": "transformer", "hidden_size": 16, "num_layers": 1, "num_heads": 2, "dropout": 0.1},
}


def make_arrays(count: int, seed: int) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
    """Codes and labels: rows that count upwards from a random code, below 4 for class 0 and from 4 on for class 1."""
    noise = np.random.default_rng(seed)
    labels = noise.integers(0, 2, count)
    first = noise.integers(0, 4, (count, 2, 1))
    return ((first + np.arange(3)) % 4 + 4 * labels[:, None, None]).astype(np.uint16), labels


TRAIN, TEST = CodesDataset.from_arrays(*make_arrays(96, 0)), CodesDataset.from_arrays(*make_arrays(40, 1))


def make_config(out: Path, arch: str = "transformer", **changes: Any) -> PriorTrainingConfig:
    values = {
        "out": str(out),
        "codes": "codes",
        "arch": SMALL[arch],
        "steps": 8,
        "batch_size": 16,
        "warmup_steps": 2,
        "log_every": 2,
        "eval_every": 4,
        "checkpoint_every": 4,
    }
    return PriorTrainingConfig(**(values | changes))


def rows(run: Path, split: str) -> list[dict[str, float]]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["split"] == split]


@pytest.mark.parametrize("arch", SMALL)
def test_a_run_leaves_a_prior_and_its_numbers(tmp_path: Path, arch: str) -> None:
    result = train_prior(make_config(tmp_path / "run", arch), BINDING, TRAIN, TEST)
    assert result.model == tmp_path / "run" / "model"
    assert result.stopped_by is None
    prior = load_prior(result.model)
    assert PriorBinding.from_config(prior.config) == BINDING
    held_out = TEST.__getitems__(range(40))
    nats = negative_log_likelihood(prior, held_out["codes"], held_out["labels"])
    last = rows(tmp_path / "run", "test")[-1]
    assert last["step"] == 8
    assert last["loss"] == pytest.approx(nats.mean().item() / 6, rel=1e-5)
    assert last["bits_per_code"] == pytest.approx(last["loss"] / math.log(2))
    assert result.metrics["bits_per_code"] == last["bits_per_code"]
    train = rows(tmp_path / "run", "train")
    assert [row["step"] for row in train] == [2, 4, 6, 8]
    assert {"loss", "bits_per_code", "codes_per_second", "learning_rate"} <= set(train[0])
    saved = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert saved["arch"]["hidden_size"] == SMALL[arch]["hidden_size"]
    assert resolve_config(PriorTrainingConfig, base=saved) == make_config(tmp_path / "run", arch)


def test_held_out_numbers_are_of_one_choice_of_images(tmp_path: Path) -> None:
    """Not of the first, which may all be of one class; and the unigram is that of the same images."""
    order = np.argsort(TEST.labels, kind="stable")
    config = make_config(tmp_path / "run", eval_images=20, gradient_accumulation_steps=1)
    result = train_prior(config, BINDING, TRAIN, TEST.select(order))
    chosen = TEST.select(order).select(np.array(sampled_rows(40, 20)))
    assert chosen.labels is not None and 5 < chosen.labels.sum() < 15
    prior = load_prior(tmp_path / "run" / "model")
    batch = chosen.__getitems__(range(20))
    nats = negative_log_likelihood(prior, batch["codes"], batch["labels"])
    assert result.metrics["loss"] == pytest.approx(nats.mean().item() / 6, rel=1e-5)
    counts = [count_codes(grids, BINDING, "codes") for grids in (TRAIN, chosen)]
    assert result.metrics["unigram_bits_per_code"] == unigram_bits_per_code(*counts)


@pytest.mark.parametrize("arch", SMALL)
def test_what_can_be_learned_is_learned(tmp_path: Path, arch: str) -> None:
    """A row is decided by its first code, and that is one of four: 2 rows x 2 bits over 6 codes."""
    options = SMALL[arch] | {"hidden_size": 32, "dropout": 0.0}
    config = make_config(tmp_path / "run", arch, steps=150, eval_every=150, checkpoint_every=150, learning_rate=7e-3)
    result = train_prior(PriorTrainingConfig(**config.model_dump() | {"arch": options}), BINDING, TRAIN, TEST)
    assert 0.6 < result.metrics["bits_per_code"] < 0.9
    assert result.metrics["unigram_bits_per_code"] == pytest.approx(3, abs=0.1)


def snapshot(run: Path) -> tuple[dict[str, torch.Tensor], list[float]]:
    weights = load_prior(run).state_dict()
    return weights, [row["loss"] for row in rows(run, "train") + rows(run, "test")]


@pytest.mark.parametrize("arch", SMALL)
def test_resume_is_bit_for_bit(tmp_path: Path, arch: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout, hidden classes and the order of codes go on as if nothing had happened."""
    changes = {"gradient_accumulation_steps": 2, "checkpoint_every": 3}
    train_prior(make_config(tmp_path / "whole", arch, **changes), BINDING, TRAIN, TEST)
    interrupt_after(monkeypatch, 5)
    part = make_config(tmp_path / "part", arch, **changes)
    stopped = train_prior(part, BINDING, TRAIN, TEST)
    assert (stopped.step, stopped.model, stopped.stopped_by) == (5, None, signal.SIGTERM)
    assert (tmp_path / "part" / "checkpoints" / "step-000005").is_dir()
    monkeypatch.undo()
    torch.manual_seed(1234)
    train_prior(part, BINDING, TRAIN, TEST, resume=True)
    weights, losses = snapshot(tmp_path / "whole")
    resumed_weights, resumed_losses = snapshot(tmp_path / "part")
    assert all(torch.equal(weights[name], resumed_weights[name]) for name in weights)
    assert losses[-1] == resumed_losses[-1]


def test_a_batch_in_parts_is_the_same_step(tmp_path: Path) -> None:
    """Across the ends of epochs: 96 images are nine steps of ten, and six that an epoch leaves out."""
    runs = []
    for parts in (1, 5):
        changes = {"batch_size": 10, "steps": 20, "class_dropout": 0.0, "gradient_accumulation_steps": parts}
        config = make_config(tmp_path / str(parts), **changes).model_dump()
        config["arch"]["dropout"] = 0.0
        train_prior(PriorTrainingConfig(**config), BINDING, TRAIN, TEST)
        runs.append(snapshot(tmp_path / str(parts)))
    (weights, losses), (other_weights, other_losses) = runs
    assert losses == pytest.approx(other_losses, rel=1e-4)
    for name, tensor in weights.items():
        torch.testing.assert_close(other_weights[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


def test_other_codes_are_refused_on_resuming(tmp_path: Path) -> None:
    """Fewer images come in another order, others are new, and codes of another tokenizer mean something else."""
    run = tmp_path / "run"
    train_prior(make_config(run, steps=4), BINDING, TRAIN, TEST)
    some = np.arange(39)
    before = (run / "config.yaml").read_text()
    for others, message in (
        ((BINDING, TRAIN.select(some), TEST), "codes has training images 39, and the run began with 96: resume it"),
        ((BINDING, TRAIN, TEST.select(some)), "codes has held-out images 39, and the run began with 40: resume it"),
        ((replace(BINDING, fingerprint="e" * 64), TRAIN, TEST), "has tokenizer e{64}, and the run began with f{64}:"),
        ((BINDING, CodesDataset.from_arrays(*make_arrays(96, 2)), TEST), "has a sha256 of how often each code occurs"),
    ):
        with pytest.raises(DataError, match=message):
            train_prior(make_config(run), *others, resume=True)
    assert (run / "config.yaml").read_text() == before
    assert train_prior(make_config(run), BINDING, TRAIN, TEST, resume=True).step == 8


def test_a_finished_run_is_resumed_to_what_it_was(tmp_path: Path) -> None:
    first = train_prior(make_config(tmp_path / "run"), BINDING, TRAIN, TEST)
    again = train_prior(make_config(tmp_path / "run"), BINDING, TRAIN, TEST, resume=True)
    assert again == first
    assert len(rows(tmp_path / "run", "test")) == 2


def interrupt_after(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """Send this process a SIGTERM in the middle of a step."""
    learning_rate_at = loop.learning_rate_at

    def interrupting(done: int, config: PriorTrainingConfig) -> float:
        if done == step - 1:
            signal.raise_signal(signal.SIGTERM)
        return learning_rate_at(done, config)

    monkeypatch.setattr(loop, "learning_rate_at", interrupting)


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = iter(range(100))

    def breaking(prior: Any, codes: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        return sum(weight.sum() for weight in prior.parameters()) * (math.nan if next(calls) == 6 else 0.0)

    monkeypatch.setattr(task, "training_loss", breaking)
    with pytest.raises(TrainingError, match="step 7: loss nan"):
        train_prior(make_config(tmp_path / "run"), BINDING, TRAIN, TEST)
    assert (tmp_path / "run" / "checkpoints" / "step-000004").is_dir()
    assert not (tmp_path / "run" / "model").exists()


def test_no_checkpoint_is_written_after_losses_that_nobody_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of step 6 falls before the numbers of step 9 are due."""
    loss, calls = task.training_loss, iter(range(100))

    def breaking(prior: Any, codes: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        return loss(prior, codes, classes) * (math.nan if next(calls) >= 4 else 1.0)

    monkeypatch.setattr(task, "training_loss", breaking)
    config = make_config(tmp_path / "run", steps=9, log_every=9, checkpoint_every=3, keep_checkpoints=1)
    with pytest.raises(TrainingError, match="not finite at step 5: loss nan; such weights are not saved"):
        train_prior(config, BINDING, TRAIN, TEST)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["step-000003"]
    monkeypatch.undo()
    assert train_prior(config, BINDING, TRAIN, TEST, resume=True).model is not None


@pytest.mark.parametrize("compiled", [True, False])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own tracer looks
def test_a_run_goes_on_compiled_or_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compiled: bool) -> None:
    """Backend "eager" traces as inductor does, in a fraction of the time."""
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **_: compile(model, backend="eager"))
    train_prior(make_config(tmp_path / "run", "pixelcnn", steps=4, compile=compiled), BINDING, TRAIN, TEST)
    longer = make_config(tmp_path / "run", "pixelcnn", compile=not compiled)
    assert train_prior(longer, BINDING, TRAIN, TEST, resume=True).step == 8


def test_a_run_does_not_go_back(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train_prior(make_config(run), BINDING, TRAIN, TEST)
    before = (run / "config.yaml").read_text()
    with pytest.raises(ConfigurationError, match="is at step 8 already: steps must be at least that, got 6"):
        train_prior(make_config(run, steps=6), BINDING, TRAIN, TEST, resume=True)
    assert (run / "config.yaml").read_text() == before


def test_a_share_of_the_classes_is_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Tensor] = []
    loss = task.training_loss

    def watching(prior: Any, codes: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        seen.append(classes)
        return loss(prior, codes, classes)

    monkeypatch.setattr(task, "training_loss", watching)
    train_prior(make_config(tmp_path / "run", steps=25, checkpoint_every=25, class_dropout=0.3), BINDING, TRAIN, TEST)
    hidden = torch.cat(seen) == BINDING.null_class
    assert hidden.float().mean().item() == pytest.approx(0.3, abs=0.07)


def test_without_classes_labels_are_not_looked_at(tmp_path: Path) -> None:
    train_prior(make_config(tmp_path / "run", steps=2), replace(BINDING, label_names=None), TRAIN, TEST)
    assert load_prior(tmp_path / "run").config.vocab_size == 8 + 1


class GreyTokenizer:
    """Decodes a grid as one grey pixel, the mean of its codes."""

    fingerprint = BINDING.fingerprint

    def detokenize(self, codes: torch.Tensor) -> list[Image.Image]:
        return [Image.new("L", (1, 1), int(grid.float().mean())) for grid in codes]


def test_a_tokenizer_decodes_a_row_for_each_class(tmp_path: Path) -> None:
    train_prior(make_config(tmp_path / "run"), BINDING, TRAIN, TEST, tokenizer=GreyTokenizer())
    grids = sorted(path.name for path in (tmp_path / "run" / "samples").iterdir())
    assert grids == ["step-000004.png", "step-000008.png"]
    with Image.open(tmp_path / "run" / "samples" / "step-000008.png") as grid:
        assert grid.size == (2 + 10 * (64 + 2), 2 + 2 * (64 + 2))


def test_another_tokenizer_is_refused(tmp_path: Path) -> None:
    tokenizer = GreyTokenizer()
    tokenizer.fingerprint = "0" * 64
    with pytest.raises(MismatchError, match=r"ffffffffffff.*000000000000"):
        train_prior(make_config(tmp_path / "run"), BINDING, TRAIN, TEST, tokenizer=tokenizer)
    assert not (tmp_path / "run").exists()


def wrong_grids() -> Iterator[tuple[CodesDataset, str]]:
    (codes, labels), grids = make_arrays(96, 0), CodesDataset.from_arrays
    yield grids(codes[:, :, :2], labels), r"shape \(N, 2, 3\)"
    yield grids(codes[:0], labels[:0]), "N at least 1"
    yield grids(codes + 1, labels), r"\[0, 8\), got 1 to 8"
    yield grids(codes.astype(np.int64) - 1, labels), r"\[0, 8\), got -1 to 6"
    yield grids(codes), "label for each of the 96"
    yield grids(codes, -labels), r"labels in \[0, 2\), got -1 to 0"
    yield grids(codes[:15], labels[:15]), "15 images for training, fewer than one batch of 16"


@pytest.mark.parametrize(("grids", "message"), list(wrong_grids()))
def test_codes_that_do_not_fit_are_refused(tmp_path: Path, grids: CodesDataset, message: str) -> None:
    with pytest.raises(DataError, match=message):
        train_prior(make_config(tmp_path / "run"), BINDING, grids, TEST)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"class_dropout": 1.0},
        {"test_share": 0.0},
        {"eval_images": -1},
        {"steps": -1},
        {"tracker": "paper"},
        {"num_workers": 2},  # codes are not read by others
    ],
)
def test_settings_that_make_no_sense_are_refused(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(wrong))):
        make_config(tmp_path, **wrong)


def train_alike(rank: int, folder: Path) -> None:
    """Without dropout and hidden classes, which every process draws for itself."""
    config = make_config(folder / str(torch.distributed.is_initialized()), class_dropout=0.0)
    arch = SMALL["transformer"] | {"dropout": 0.0}
    train_prior(PriorTrainingConfig(**config.model_dump() | {"arch": arch}), BINDING, TRAIN, TEST)


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    """Half the batch each."""
    train_alike(0, tmp_path)
    run_two_processes(train_alike, tmp_path)
    one, two = (rows(tmp_path / name, "test")[-1]["loss"] for name in ("False", "True"))
    assert two == pytest.approx(one, rel=1e-5)
