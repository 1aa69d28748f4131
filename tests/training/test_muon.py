from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.training.runs import make
from vqtok.data import ImageSource
from vqtok.errors import TrainingError
from vqtok.priors import PriorBinding, build_prior
from vqtok.training import PriorTrainingConfig
from vqtok.training.config import TokenizerTrainingConfig
from vqtok.training.muon import Muon, orthogonalized
from vqtok.training.optimization import OptimizedModel, build_optimizers
from vqtok.training.tokenizer import train_tokenizer


def by_singular_values(matrix: Tensor) -> Tensor:
    """The iteration on each singular value of the scaled matrix, in float64: x <- a x + b x^3 + c x^5, five times."""
    left, values, right = torch.linalg.svd(matrix.double() / matrix.double().norm(), full_matrices=False)
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return left @ torch.diag(values) @ right


@pytest.mark.parametrize("shape", [(1, 1), (5, 7), (7, 5), (6, 6), (3, 200), (64, 48)])
def test_each_singular_value_goes_through_the_iteration(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(shape) * 1e-3
    (found,) = orthogonalized([matrix])
    torch.testing.assert_close(found.double(), by_singular_values(matrix), atol=2e-4, rtol=0)


def test_matrices_of_all_sizes_at_once_are_those_one_by_one() -> None:
    torch.manual_seed(0)
    matrices = [torch.randn(shape) for shape in ((4, 9), (9, 4), (4, 4), (2, 5), (4, 30), (6, 6))]
    for alone, together in zip((orthogonalized([each])[0] for each in matrices), orthogonalized(matrices), strict=True):
        torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_matrices_of_half_precision_are_orthogonalized_in_full(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    left, right = (torch.linalg.qr(torch.randn(size, 64)).Q for size in (64, 576))
    matrix = (left * torch.logspace(0, -4, 64)) @ right.t()
    (found,) = orthogonalized([matrix.to(dtype)])
    assert torch.linalg.svdvals(found.float())[0] < 1.3


def test_no_gradient_is_no_update() -> None:
    (found,) = orthogonalized([torch.zeros(3, 5)])
    assert (found == 0).all()


def test_a_matrix_of_low_rank_stays_one() -> None:
    torch.manual_seed(0)
    matrix = torch.outer(torch.randn(8), torch.randn(20))
    values = torch.linalg.svdvals(orthogonalized([matrix])[0])
    assert 0.6 < values[0] < 1.3
    assert values[1] < 1e-2


@pytest.mark.parametrize(("shape", "size"), [((4, 3, 2, 2), 3 * 3**0.5), ((16, 4, 1, 1), 6.0), ((4, 16), 6.0)])
def test_steps_are_those_of_the_equations(shape: tuple[int, ...], size: float) -> None:
    torch.manual_seed(0)
    kernel = nn.Parameter(torch.randn(shape))
    expected, momentum = kernel.detach().clone(), torch.zeros(kernel.flatten(1).shape)
    optimizer = Muon([kernel], lr=0.1, momentum=0.9, weight_decay=0.5)
    for _ in range(3):
        kernel.grad = torch.randn(shape)
        gradient = kernel.grad.clone().flatten(1)
        momentum = 0.9 * momentum + gradient
        update = by_singular_values(gradient + 0.9 * momentum).float() * size
        expected = expected * (1 - 0.1 * 0.5) - 0.1 * update.view(shape)
        optimizer.step()
    torch.testing.assert_close(kernel.detach(), expected, atol=1e-3, rtol=0)


def test_the_memory_format_of_kernels_changes_nothing() -> None:
    torch.manual_seed(0)
    start, gradient = torch.randn(4, 3, 2, 2), torch.randn(4, 3, 2, 2)
    moved = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        kernel = nn.Parameter(start.clone().to(memory_format=memory_format))
        kernel.grad = gradient.clone().to(memory_format=memory_format)
        Muon([kernel], lr=0.1).step()
        moved.append(kernel.detach())
    torch.testing.assert_close(*moved)


def test_every_weight_is_moved_by_one_optimizer(tiny_tokenizer: Any) -> None:
    adamw, muon = build_optimizers(tiny_tokenizer, TokenizerTrainingConfig(out="runs/x"))
    moved = [parameter for each in (adamw, muon) for group in each.param_groups for parameter in group["params"]]
    assert {id(each) for each in moved} == {id(each) for each in tiny_tokenizer.parameters()}
    assert len(moved) == len(list(tiny_tokenizer.parameters()))
    assert {parameter.ndim for parameter in muon.param_groups[0]["params"]} == {4}
    (only,) = build_optimizers(tiny_tokenizer, TokenizerTrainingConfig(out="runs/x", optimizer="adamw"))
    assert isinstance(only, torch.optim.AdamW)


@pytest.mark.parametrize(
    ("arch", "moved"),
    [
        (
            {"type": "transformer", "hidden_size": 8, "num_layers": 1, "num_heads": 2},
            {f"self_attn.{name}_proj" for name in "qkvo"} | {f"mlp.{name}_proj" for name in ("gate", "up", "down")},
        ),
        (
            {"type": "pixelcnn", "hidden_size": 8, "num_layers": 1},
            {"vertical", "horizontal", "vertical_to_horizontal", "residual"},
        ),
    ],
)
def test_muon_moves_the_layers_of_a_prior_and_neither_embeddings_nor_heads(
    arch: dict[str, Any], moved: set[str]
) -> None:
    binding = PriorBinding(fingerprint="f" * 64, grid=(2, 2), codebook_size=3, label_names=("a", "b"))
    prior = build_prior(binding, arch)
    names = {id(parameter): name for name, parameter in prior.named_parameters()}
    _, muon = build_optimizers(prior, PriorTrainingConfig(out="runs/x", codes="codes", arch=arch, optimizer="muon"))
    found = [names[id(each)] for each in muon.param_groups[0]["params"]]
    assert {name.partition("layers.0.")[2] for name in found} == {f"{name}.weight" for name in moved}
    assert muon.param_groups[0]["weight_decay"] == 0.05


@pytest.mark.parametrize(("arch", "optimizer"), [("transformer", "muon"), ("pixelcnn", "adamw")])
def test_the_architecture_decides_the_default(arch: str, optimizer: str) -> None:
    given = {"out": "runs/x", "codes": "codes"}
    assert PriorTrainingConfig(**given, arch=arch).optimizer == optimizer
    assert PriorTrainingConfig(**given, arch={"type": arch}, optimizer="muon").optimizer == "muon"
    assert PriorTrainingConfig(**given, arch=arch, optimizer="adamw").optimizer == "adamw"
    assert PriorTrainingConfig(**given).optimizer == "muon"


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_setting_decides_what_moves_the_kernels(
    optimizer: str, tmp_path: Path, sources: tuple[ImageSource, ImageSource]
) -> None:
    train_tokenizer(make(tmp_path / "run", optimizer=optimizer), *sources)
    files = {path.name for path in (tmp_path / "run" / "checkpoints" / "step-000008").glob("optimizer*.bin")}
    assert files == {"optimizer.bin"} | ({"optimizer_1.bin"} if optimizer == "muon" else set())


class ScalingAccelerator:
    """What a training step asks of an accelerator, with the loss scaling of fp16, which is for GPUs alone there."""

    sync_gradients = True

    def __init__(self, scale: float) -> None:
        self.scaler = torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1)
        self.optimizers: list[torch.optim.Optimizer] = []

    def prepare(self, model: nn.Module, *optimizers: torch.optim.Optimizer) -> tuple[Any, ...]:
        self.optimizers = list(optimizers)
        wrapped = [SimpleNamespace(optimizer=each, zero_grad=each.zero_grad) for each in optimizers]
        return model, *wrapped

    def backward(self, loss: Tensor) -> None:
        self.scaler.scale(loss).backward()

    def clip_grad_norm_(self, parameters: Any, norm: float) -> Tensor:
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        return nn.utils.clip_grad_norm_(parameters, norm)


def test_loss_scaling_changes_no_step_of_two_optimizers() -> None:
    config = TokenizerTrainingConfig(out="runs/x", max_grad_norm=1.0)
    pixels, moved = torch.randn(2, 3, 5, 5), []
    for scale in (1.0, 1024.0):
        torch.manual_seed(0)
        model = nn.Conv2d(3, 4, 3)
        accelerator: Any = ScalingAccelerator(scale)
        optimized = OptimizedModel(model, config, accelerator)
        for _ in range(3):
            optimized.step(model(pixels).square().mean())
        moved.append([each.detach().clone() for each in model.parameters()])
        assert accelerator.scaler.get_scale() == scale * 2**3  # once a step, not once an optimizer
    for plain, scaled in zip(*moved, strict=True):
        torch.testing.assert_close(scaled, plain)


def test_gradients_of_fp16_that_are_never_finite_end_the_run() -> None:
    """Rather than halve the scale until it is 0, from where every step would be left out for ever."""
    model, pixels = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 5, 5)
    accelerator: Any = ScalingAccelerator(1024.0)
    optimized = OptimizedModel(model, TokenizerTrainingConfig(out="runs/x"), accelerator)
    model.bias.register_hook(lambda gradient: torch.full_like(gradient, float("nan")))
    with pytest.raises(TrainingError, match="try precision bf16"):
        for _ in range(40):
            optimized.step(model(pixels).square().mean())
    assert accelerator.scaler.get_scale() == 2.0**-25


@pytest.mark.parametrize("max_grad_norm", [0.0, 1.0])
@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_gradient_that_overflows_for_one_optimizer_skips_the_step_of_both(value: float, max_grad_norm: float) -> None:
    torch.manual_seed(0)
    model, pixels = nn.Conv2d(3, 4, 3), torch.randn(2, 3, 5, 5)
    accelerator: Any = ScalingAccelerator(1024.0)
    config = TokenizerTrainingConfig(out="runs/x", max_grad_norm=max_grad_norm)
    optimized = OptimizedModel(model, config, accelerator)
    optimized.step(model(pixels).square().mean())
    before = [each.detach().clone() for each in model.parameters()]
    overflow = model.bias.register_hook(lambda gradient: torch.full_like(gradient, value))
    optimized.step(model(pixels).square().mean())
    overflow.remove()
    assert all(torch.equal(*pair) for pair in zip(model.parameters(), before, strict=True))
    assert accelerator.scaler.get_scale() == 1024.0  # doubled by the first step, halved by the second
    overflow = model.bias.register_hook(lambda gradient: torch.full_like(gradient, 3e24))  # whose square overflows
    optimized.step(model(pixels).square().mean())
    overflow.remove()
    assert accelerator.scaler.get_scale() == 512.0
    optimized.step(model(pixels).square().mean())
    assert not torch.equal(model.weight, before[0])
