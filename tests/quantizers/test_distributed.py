"""Two gloo processes on a part of the batch each do what one process does on the whole of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from tests.quantizers.methods import METHODS, SMALL
from tests.two_processes import run_two_processes
from vqtok.quantizers import build_quantizer
from vqtok.quantizers.distributed import count_rows, mean_over_processes, pick_rows
from vqtok.quantizers.restart import BatchUsage, CodeUsage

STEPS, BATCH = 5, 8
Share = Callable[[int, Tensor], Tensor]

codebook = {"codebook_size": 24, "code_dim": 4, "decay": 0.5}
dying = codebook | {"restart_threshold": 0.6}

SAME: dict[str, dict[str, Any]] = {
    "bsq": {"type": "bsq", "codebook_size": 16, "entropy_weight": 1.0},
    "cosine": {"type": "ema", "metric": "cosine", "projection_dim": 3, "gradient": "rotation", **dying},
    "ema": {"type": "ema", **dying},
    "entropy": {"type": "vq", "entropy_weight": 0.5, "entropy_temperature": 2.0, **dying},
    "ibq": {"type": "ibq", "entropy_weight": 0.5, **dying},
    "kmeans": {"type": "ema", "init": "kmeans", **codebook},
    "lfq": {"type": "lfq", "codebook_size": 16, "entropy_weight": 1.0, "temperature": 1.0},
    "product": {"type": "product", "each": {"type": "ema", **dying, "code_dim": 2}},
    "residual": {"type": "residual", "num_codebooks": 3, "stage_dropout": 0.4, "each": {"type": "vq", **dying}},
    "shared": {
        "type": "residual",
        "num_codebooks": 3,
        "stage_dropout": 0.5,
        "shared": True,
        "each": {"type": "ema", **dying},
    },
    "simvq": {"type": "simvq", "codebook_size": 24, "code_dim": 4, "init": "data"},
    "vq": {"type": "vq", **dying},
}
"""Methods that sample nothing of their own: what two processes do is what one does on the whole batch."""

LASTING: dict[str, Any] = {"type": "ema", **codebook, "restart_threshold": 0.0}
"""No code restarts: which row a code restarts on does depend on how many each process has."""

EMPTY_STEPS = (0, 3, STEPS - 1)
"""Where every method is tried with a second process that has no row."""

PLAIN: dict[str, dict[str, Any]] = {
    "product": {"type": "product", "num_codebooks": 4, "each": {"type": "ema", **dying}},
    "residual": {"type": "residual", "num_codebooks": 8, "each": {"type": "ema", **dying}},
    "gumbel": {"type": "gumbel", **dying},
    "simvq": {"type": "simvq", "codebook_size": 24, "code_dim": 4},
    "vq": {"type": "vq", **dying},
}
"""What is counted by how often processes meet."""

COUNTED = {name: SAME[name] for name in ("bsq", "ema", "entropy", "ibq", "lfq")}

SPLITS = [(0, 10), (10, 0), (3, 7), (9, 1)]  # rows of the first and of the second process
POSITIONS = torch.tensor([0, 2, 3, 3, 5, 8, 9, 9])


def small(method: str) -> dict[str, Any]:
    return {"type": method, **SMALL[method]}


class Model(nn.Module):
    """The smallest tokenizer there is: an encoder of one number a channel, and a loss on what the decoder would get."""

    def __init__(self, options: dict[str, Any]) -> None:
        super().__init__()
        self.quantizer = build_quantizer(options)
        self.scale = nn.Parameter(torch.ones(self.quantizer.code_dim, 1, 1))

    def forward(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        output = self.quantizer(latents * self.scale)
        weights = torch.linspace(-1, 1, self.quantizer.code_dim).view(-1, 1, 1)
        towards_decoder = (weights * output.quantized).sum() / max(1, output.quantized.numel())
        return output.loss + towards_decoder, output.codes


@dataclass
class Result:
    """What some training steps left.

    Attributes:
        state: of the whole model.
        codes: of every step.
        losses: of every step.
    """

    state: dict[str, Tensor]
    codes: list[Tensor]
    losses: list[float]


def train(options: dict[str, Any], share: Share, seed: int, learning_rate: float = 0.5) -> Result:
    """Some training steps with plain gradient descent, by data parallel training where there are two processes."""
    torch.manual_seed(0)
    model = Model(options)
    # Buffers are not broadcast, so that two processes agree because they computed the same.
    parallel = DistributedDataParallel(model, broadcast_buffers=False) if dist.is_initialized() else model
    latents = torch.randn(STEPS, BATCH, model.quantizer.code_dim, 4, 4)
    latents += torch.linspace(0, 4, STEPS).view(STEPS, 1, 1, 1, 1)  # they drift, so that codes die
    optimizer = torch.optim.SGD(model.parameters(), lr=learning_rate)
    torch.manual_seed(seed)
    codes, losses = [], []
    for step in range(STEPS):
        loss, found = parallel(share(step, latents[step]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        codes.append(found)
        losses.append(loss.item())
    return Result(state=model.state_dict(), codes=codes, losses=losses)


def collectives(options: dict[str, Any]) -> int:
    """How many collectives a training forward pass takes, once the codes have started."""
    torch.manual_seed(0)
    quantizer = build_quantizer(options)
    called, all_reduce = [], dist.all_reduce
    for _ in range(2):
        called.clear()
        dist.all_reduce = lambda tensor: (called.append(tensor), all_reduce(tensor))  # type: ignore[assignment]
        try:
            quantizer(torch.randn(2, quantizer.code_dim, 4, 4))
        finally:
            dist.all_reduce = all_reduce
    return len(called)


def worker(rank: int, folder: Path) -> dict[str, Any]:
    """One of the two processes."""

    def half(step: int, batch: Tensor) -> Tensor:
        return batch.chunk(2)[rank]

    def uneven(step: int, batch: Tensor) -> Tensor:
        return batch.split([BATCH - 3, 3])[rank]

    def sometimes_none(step: int, batch: Tensor) -> Tensor:
        return batch[: BATCH if rank == 0 else 0] if step in EMPTY_STEPS else half(step, batch)

    rows = torch.arange(10.0)[:, None]
    parts = [rows.split(split)[rank] for split in SPLITS]
    results = {
        "same": {name: train(options, half, seed=100 + rank) for name, options in SAME.items()},
        "uneven codebook": train(LASTING, uneven, seed=100 + rank, learning_rate=0.0),
        "empty codebook": train(LASTING, sometimes_none, seed=100 + rank, learning_rate=0.0),
        "empty": {method: train(small(method), sometimes_none, seed=100 + rank) for method in METHODS},
        "picked": [pick_rows(part, POSITIONS, count_rows(part)) for part in parts],
        "counted": [count_rows(part).tolist() for part in parts],
        "means": [],
        "collectives": {name: collectives(options) for name, options in (PLAIN | COUNTED).items()},
    }
    for part in parts:
        mine = part.clone().requires_grad_()
        mean = mean_over_processes(mine)
        mean.square().sum().backward()
        alone = mean_over_processes(part, together=False)
        results["means"].append((mean.detach(), mine.grad, alone))
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the two processes left."""
    return run_two_processes(worker, tmp_path_factory.mktemp("two"))


def assert_alike(first: Result, second: Result) -> None:
    """Bit for bit."""
    for key, tensor in first.state.items():
        assert tensor.isfinite().all(), key
        assert torch.equal(tensor, second.state[key]), f"{key} differs between the processes"


def assert_close(first: Result, alone: Result) -> None:
    for key, tensor in alone.state.items():
        torch.testing.assert_close(first.state[key], tensor, rtol=1e-5, atol=1e-5, msg=key)


@pytest.mark.parametrize("name", SAME)
def test_training_is_that_of_one_process(name: str, results: list[dict[str, Any]]) -> None:
    first, second = (result["same"][name] for result in results)
    assert_alike(first, second)
    alone = train(SAME[name], lambda step, batch: batch, seed=100)
    for step, codes in enumerate(alone.codes):
        assert torch.equal(torch.cat([first.codes[step], second.codes[step]]), codes), f"step {step}"
        mean = (first.losses[step] + second.losses[step]) / 2
        assert mean == pytest.approx(alone.losses[step], rel=1e-4, abs=1e-5)
    assert_close(first, alone)


def test_these_steps_restart_codes_and_leave_stages_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not only go where nothing dies."""
    restarts: list[int] = []
    end_batch = CodeUsage.end_batch

    def counted(usage: CodeUsage, batches_seen: Tensor) -> BatchUsage:
        batch = end_batch(usage, batches_seen)
        restarts.append(int(batch.restarted.sum()))
        return batch

    monkeypatch.setattr(CodeUsage, "end_batch", counted)
    for name in ("ema", "vq", "entropy", "cosine"):
        restarts.clear()
        train(SAME[name], lambda step, batch: batch, seed=100)
        assert sum(restarts) >= 2, name
    for name in ("residual", "shared"):
        codes = torch.stack(train(SAME[name], lambda step, batch: batch, seed=100).codes)
        used = (codes >= 0).flatten(1, 3).all(dim=1).sum(dim=1).tolist()
        assert 3 in used and min(used) < 3, name


@pytest.mark.parametrize("method", METHODS)
def test_a_process_without_rows_neither_hangs_nor_spoils_the_other(method: str, results: list[dict[str, Any]]) -> None:
    """In the first batch, in a later one and in the last."""
    first, second = (result["empty"][method] for result in results)
    assert_alike(first, second)
    assert torch.tensor([first.losses, second.losses]).isfinite().all()
    assert [len(codes) for codes in second.codes] == [0, BATCH // 2, BATCH // 2, 0, 0]


def test_a_moving_average_does_not_mind_where_the_rows_are(results: list[dict[str, Any]]) -> None:
    """As long as the encoder stays, whose gradient is a mean over parts of different length."""
    for name in ("empty codebook", "uneven codebook"):
        first, second = (result[name] for result in results)
        assert_alike(first, second)
        alone = train(LASTING, lambda step, batch: batch, seed=100, learning_rate=0.0)
        assert_close(first, alone)


def test_no_method_is_left_out() -> None:
    assert {options["type"] for options in SAME.values()} == set(METHODS) - {"fsq", "gumbel"}
    # fsq takes no mean over a batch, and gumbel samples: each process for itself


def test_rows_are_picked_from_the_batch_of_all(results: list[dict[str, Any]]) -> None:
    """Also where one process has none of them."""
    for result in results:
        for index, split in enumerate(SPLITS):
            assert result["counted"][index] == list(split)
            assert result["picked"][index].flatten().tolist() == POSITIONS.tolist()


def test_means_are_over_the_rows_of_all_and_their_gradient_is_what_averaging_needs(
    results: list[dict[str, Any]],
) -> None:
    """d (mean^2) / d row = 2 mean / 10, times two processes, since their gradients are averaged."""
    for rank, result in enumerate(results):
        for split, (mean, gradient, alone) in zip(SPLITS, result["means"], strict=True):
            assert mean.item() == pytest.approx(4.5)
            torch.testing.assert_close(gradient, torch.full((split[rank], 1), 2 * 4.5 / 10 * 2))
            part = torch.arange(10.0).split(split)[rank]
            assert alone.item() == pytest.approx(part.mean().item() if len(part) else 0.0)


def test_the_statistics_of_a_forward_pass_travel_in_one_collective(results: list[dict[str, Any]]) -> None:
    """Of eight residual stages too, and of codes that restart. The entropy term needs its own before the loss."""
    for result in results:
        plain = {"product": 1, "residual": 1, "gumbel": 1, "simvq": 0, "vq": 1, "ema": 1, "bsq": 1, "lfq": 1}
        assert result["collectives"] == plain | {"entropy": 2, "ibq": 2}
