"""The parts of the VQGAN against the formulas that they are shortcuts of: values, gradients, and what is kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vqtok.networks import build_networks
from vqtok.networks.vqgan.blocks import ResidualBlock, Upsample
from vqtok.networks.vqgan.norms import AdaptiveGroupNorm, GroupNorm, norm_silu

FORMATS = [torch.contiguous_format, torch.channels_last]
NORM = partial(GroupNorm, groups=4)


def features_of(channels: int, format: torch.memory_format, dtype: torch.dtype = torch.float32) -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, channels, 6, 10).to(dtype).contiguous(memory_format=format).requires_grad_()


def gradients(output: Tensor, *inputs: Tensor) -> tuple[Tensor, ...]:
    torch.manual_seed(1)
    return torch.autograd.grad(output, inputs, torch.randn(output.shape).to(output.dtype))


def kept(module: nn.Module, forward: Callable[[], Tensor]) -> tuple[int, Tensor]:
    """Bytes that a forward pass keeps for the backward pass, beside the parameters, and what it gives."""
    parameters = {parameter.untyped_storage().data_ptr() for parameter in module.parameters()}
    bytes_at: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        bytes_at[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        output = forward()
    return sum(size for at, size in bytes_at.items() if at not in parameters), output


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_norm_and_silu_are_their_formula(dtype: torch.dtype, format: torch.memory_format) -> None:
    """To the bit where torch's own is used, in the order of memory in which it rounds well."""
    norm, features = NORM(32).to(dtype), features_of(32, format, dtype)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    plain = features.float().contiguous()
    wanted = F.silu(F.group_norm(plain, 4, norm.weight.float(), norm.bias.float(), 1e-6)).to(dtype)
    given = norm_silu(norm, features, None)
    rounding: dict[str, Any] = {"rtol": 0, "atol": 0}
    if format == torch.channels_last:
        rounding = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-2, "atol": 1e-2}
    assert given.is_contiguous(memory_format=format)
    torch.testing.assert_close(given, wanted, **rounding)
    inputs = (features, *norm.parameters())
    for ours, theirs in zip(gradients(given, *inputs), gradients(wanted, *inputs), strict=True):
        torch.testing.assert_close(ours, theirs, **rounding)
    with torch.inference_mode():
        assert torch.equal(norm_silu(norm, features, None), given)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize("spread", [0.0, 1e-3, 1.0])
def test_norms_of_flat_images_round_as_well_as_others(spread: float, affine: bool, format: torch.memory_format) -> None:
    """torch's own in channels_last is wrong by 1e-2 at this size: a white background would change codes."""
    torch.manual_seed(0)
    features = torch.randn(1, 32, 1, 1) + spread * torch.randn(1, 32, 256, 256)
    exact = F.group_norm(features.double(), 4, eps=1e-6)
    given = GroupNorm(32, 4, affine=affine)(features.contiguous(memory_format=format))
    torch.testing.assert_close(given.double(), exact, rtol=0, atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_norms_of_features_that_do_not_learn(format: torch.memory_format) -> None:
    """Such as those of a first layer that a user froze; with torch's own in channels_last the process ends here."""
    norm, features = NORM(32), features_of(32, format).detach()
    wanted = gradients(F.silu(F.group_norm(features.contiguous(), 4, norm.weight, norm.bias, 1e-6)), *norm.parameters())
    for given in (F.silu(norm(features)), norm_silu(norm, features, None)):
        for ours, theirs in zip(gradients(given, *norm.parameters()), wanted, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_an_adaptive_norm_of_one_code_is_a_number() -> None:
    norm = AdaptiveGroupNorm(32, 4, code_channels=8)
    assert norm(features_of(32, torch.contiguous_format), torch.randn(2, 8, 1, 1)).isfinite().all()


def test_a_frozen_norm_has_no_gradient_and_passes_one_on() -> None:
    norm, features = NORM(32).requires_grad_(False), features_of(32, torch.contiguous_format)
    (ours,) = gradients(norm_silu(norm, features, None), features)
    assert torch.equal(ours, gradients(F.silu(norm(features)), features)[0])


def test_norm_and_silu_keep_their_input_alone() -> None:
    norm, features = NORM(32), features_of(32, torch.channels_last)
    assert kept(norm, lambda: norm_silu(norm, features, None))[0] == features.nbytes


@pytest.mark.parametrize("format", FORMATS)
def test_doubling_is_nearest_neighbours_and_a_convolution(format: torch.memory_format) -> None:
    double, features = Upsample(8, "nearest"), features_of(8, format)
    inputs = (features, double.conv.weight, double.conv.bias)
    wanted, given = double.conv(F.interpolate(features, scale_factor=2.0, mode="nearest")), double(features)
    assert given.is_contiguous(memory_format=format)
    torch.testing.assert_close(given, wanted, rtol=0, atol=2e-6)
    for ours, theirs in zip(gradients(given, *inputs), gradients(wanted, *inputs), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-4)
    exact = Upsample(2, "nearest").double()
    small = torch.randn(1, 2, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(exact, (small,))
    torch.testing.assert_close(exact(small), exact.conv(F.interpolate(small, scale_factor=2.0)))


def test_doubling_under_autocast() -> None:
    double, features = Upsample(8, "nearest"), features_of(8, torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        given = double(features)
    assert given.dtype == torch.bfloat16
    torch.testing.assert_close(given.float(), double(features), rtol=0.02, atol=0.02)


@pytest.mark.parametrize(("after", "of_output"), [(32, False), (64, False), (64, True)])
def test_a_residual_block_leaves_its_input_and_adds_it(after: int, of_output: bool) -> None:
    block = ResidualBlock(32, after, NORM, bias=True, of_output=of_output, dropout=0.0)
    features = features_of(32, torch.channels_last)
    before = features.detach().clone()
    branch = block.conv1(F.silu(block.norm1(features)))
    branch = block.conv2(F.silu(block.norm2(branch)))
    shortcut = features if block.nin_shortcut is None else block.nin_shortcut(branch if of_output else features)
    wanted, given = shortcut + branch, block(features)
    torch.testing.assert_close(given, wanted)
    inputs = (features, *block.parameters())
    for ours, theirs in zip(gradients(given, *inputs), gradients(wanted, *inputs), strict=True):
        torch.testing.assert_close(ours, theirs)
    with torch.inference_mode():
        torch.testing.assert_close(block(features), wanted)
    assert torch.equal(features, before)


@pytest.mark.parametrize("preset", ["vqgan-f16", "magvit2-f16", "maskgit-f16"])
def test_gradient_checkpointing_keeps_less_than_half_for_equal_gradients(preset: str) -> None:
    options: dict[str, Any] = {"base_channels": 32, "channel_multipliers": [1, 1, 2], "z_channels": 8}
    for part, shape in enumerate([(1, 3, 48, 48), (1, 8, 12, 12)]):
        found = []
        for on in (False, True):
            torch.manual_seed(0)
            network: Any = build_networks({"type": preset, **options}, num_channels=3, code_dim=8)[part]
            network.gradient_checkpointing = on
            network._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
            size, output = kept(network, partial(network, torch.randn(shape)))
            found.append((size, gradients(output, *network.parameters())))
        (plain, wanted), (less, given) = found
        assert less <= plain / 2, (part, less, plain)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(given, wanted, strict=True))
