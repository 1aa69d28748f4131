"""How a codebook learns from a training batch, whatever its size, its parts and the number of codes."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch._dynamo.testing import CompileCounter
from torch.utils._python_dispatch import TorchDispatchMode

from tests.quantizers.methods import METHODS, VARIANTS, small
from vqtok.quantizers import EMAQuantizer, Quantizer, ResidualQuantizer, VectorQuantizer, build_quantizer
from vqtok.quantizers.codebook import CodebookQuantizer

RESTARTING = ["ema", "gumbel", "ibq", "vq"]
every_variant = pytest.mark.parametrize("options", VARIANTS, ids=lambda options: options["type"])


def latents_of(quantizer: Quantizer, batch: int, side: int = 4) -> torch.Tensor:
    return torch.randn(batch, quantizer.code_dim, side, side)


@pytest.mark.parametrize(("codebook_size", "batch"), [(8, 64), (64, 32), (512, 4)])
@pytest.mark.parametrize("init", ["data", "kmeans", "normal"])
@pytest.mark.parametrize("method", RESTARTING)
def test_the_first_training_batch_restarts_no_code(method: str, init: str, codebook_size: int, batch: int) -> None:
    """However many rows there are to a code: those that start on data count as used evenly."""
    codebooks = []
    for threshold in (0.2, 0.0):
        torch.manual_seed(0)
        options = {"type": method, "codebook_size": codebook_size, "code_dim": 3, "init": init}
        quantizer = build_quantizer(options | {"restart_threshold": threshold})
        assert isinstance(quantizer, CodebookQuantizer)
        quantizer(latents_of(quantizer, batch, side=8))
        codebooks.append(quantizer.codebook.detach())
    assert torch.equal(*codebooks)


@pytest.mark.parametrize(("codebook_size", "batch"), [(8, 1), (8, 64), (64, 4), (256, 1)])
def test_when_an_unused_code_restarts_depends_on_neither_the_codes_nor_the_batch(
    codebook_size: int, batch: int
) -> None:
    torch.manual_seed(0)
    quantizer = VectorQuantizer(codebook_size=codebook_size, code_dim=2, decay=0.9, restart_threshold=0.05)
    quantizer.noise.batches_seen.fill_(1000)  # in the first batches the decay is less
    latents = torch.randn(batch, 2, 16, 16)
    quantizer(latents)
    assert quantizer.usage is not None
    quantizer.usage.begin_evenly(batch * 16 * 16)
    with torch.no_grad():
        quantizer.codebook[0] = 1000.0
    batches = 0
    while quantizer.codebook[0].abs().max() > 100:
        quantizer(latents)
        batches += 1
    assert batches == math.ceil(math.log(0.05) / math.log(0.9)) + 1  # in the batch after the one that found it dead


@pytest.mark.parametrize("method", ["ibq", "vq"])
def test_an_optimizer_forgets_a_code_that_restarts(method: str) -> None:
    """Its moments would move the code away from the latent that it was put on, though it has no gradient yet."""
    torch.manual_seed(0)
    options = {"codebook_size": 8, "code_dim": 3, "decay": 0.5, "restart_threshold": 0.3, "metric": "euclidean"}
    quantizer = build_quantizer({"type": method} | options)
    assert isinstance(quantizer, CodebookQuantizer)
    optimizer = torch.optim.AdamW(quantizer.parameters(), lr=0.1, weight_decay=0.0)
    quantizer.watch(optimizer)
    latents = latents_of(quantizer, 4)
    restarts = 0
    for step in range(12):
        if step == 4:
            with torch.no_grad():
                quantizer.codebook[0] = -100.0
        output = quantizer(latents)
        output.loss.backward()
        placed = quantizer.codebook.detach().clone()
        assert quantizer.usage is not None
        restarted = quantizer.usage.restarted.clone()
        optimizer.step()
        optimizer.zero_grad()
        if restarted.any():
            restarts += int(restarted.sum())
            assert torch.equal(quantizer.codebook[restarted], placed[restarted])
            assert not torch.equal(quantizer.codebook[~restarted], placed[~restarted])
            for moment in ("exp_avg", "exp_avg_sq"):
                assert (optimizer.state[quantizer.codebook][moment][restarted] == 0).all()
    assert restarts > 0


@every_variant
def test_a_batch_in_parts_leaves_the_codebook_of_the_whole(options: dict[str, Any]) -> None:
    """Where codes start, moving averages, restarts and temperatures; the codes of all parts are those of before."""
    torch.manual_seed(0)
    each = options.get("each", options)
    if each["type"] in RESTARTING and each.get("logits") != "linear":
        each = each | {"restart_threshold": 0.5, "decay": 0.5}
    whole = build_quantizer(options | {"each": each} if "each" in options else each)
    parts = copy.deepcopy(whole)
    for step in range(6):
        latents = latents_of(whole, 8)
        output = whole(latents)
        if step == 0:  # else they would start on the first part
            parts.initialize(latents)
        for index, part in enumerate(latents.chunk(4)):
            parts.set_part(index, 4)
            codes = parts(part).codes
            if each["type"] != "gumbel":  # which samples
                assert torch.equal(codes, output.codes.chunk(4)[index])
        for name, tensor in whole.state_dict().items():
            torch.testing.assert_close(parts.state_dict()[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


@every_variant
def test_training_works_whatever_type_the_model_is_cast_to(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    quantizer = build_quantizer(options).to(torch.bfloat16)
    floats = [tensor for tensor in quantizer.state_dict().values() if tensor.is_floating_point()]
    assert {tensor.dtype for tensor in floats} <= {torch.float32}
    for _ in range(2):
        latents = latents_of(quantizer, 4).to(torch.bfloat16).requires_grad_()
        output = quantizer(latents)
        (output.loss + output.quantized.sum()).backward()
        assert output.quantized.dtype == torch.float32 and latents.grad is not None


class NoDoubles(TorchDispatchMode):
    """Fails where float64 is made, which MPS has not."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        tensors = result if isinstance(result, tuple | list) else [result]
        assert not any(isinstance(each, torch.Tensor) and each.dtype == torch.float64 for each in tensors), func
        return result


@every_variant
def test_no_float64_is_made(options: dict[str, Any]) -> None:
    quantizer = build_quantizer(options)
    latents = [latents_of(quantizer, 4) for _ in range(3)]
    with NoDoubles():
        for batch in latents:
            quantizer(batch).loss.detach()
        quantizer.eval()(latents[0])
        quantizer.distortion(latents[0])


def used_stages(seed: int, batches: int = 40) -> list[int]:
    torch.manual_seed(seed)
    quantizer = ResidualQuantizer(num_codebooks=4, each={"codebook_size": 8, "code_dim": 3}, stage_dropout=0.5)
    latents = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return [int((quantizer(latents).codes[0, 0, 0] >= 0).sum()) for _ in range(batches)]


def test_stage_dropout_follows_the_seed() -> None:
    assert used_stages(0) == used_stages(0)
    assert used_stages(0) != used_stages(1)


def test_stage_dropout_compiles_once() -> None:
    torch.manual_seed(0)
    quantizer = ResidualQuantizer(num_codebooks=4, each={"codebook_size": 8, "code_dim": 3}, stage_dropout=0.5)
    counter = CompileCounter()
    torch._dynamo.reset()
    compiled = torch.compile(quantizer, backend=counter)
    latents = torch.randn(2, 3, 4, 4)
    for _ in range(3):
        compiled(latents)
    before = counter.frame_count
    for _ in range(20):
        compiled(latents)
    assert counter.frame_count == before
    torch._dynamo.reset()


@pytest.mark.parametrize("method", METHODS)
def test_an_evaluation_between_parts_changes_nothing(method: str) -> None:
    torch.manual_seed(0)
    quantizer = small(method)
    quantizer(latents_of(quantizer, 4))
    other = copy.deepcopy(quantizer)
    first, second, held_out = (latents_of(quantizer, 4) for _ in range(3))
    for each in (quantizer, other):
        torch.manual_seed(1)
        each.set_part(0, 2)
        each(first)
        if each is other:
            each.eval()(held_out)
            each.train()
        torch.manual_seed(2)
        each.set_part(1, 2)
        each(second)
    for name, tensor in quantizer.state_dict().items():
        assert torch.equal(other.state_dict()[name], tensor), name


def test_ema_restarts_a_code_exactly_on_a_latent() -> None:
    torch.manual_seed(0)
    quantizer = EMAQuantizer(codebook_size=8, code_dim=3, decay=0.5, restart_threshold=0.3)
    latents = latents_of(quantizer, 4)
    quantizer(latents)
    quantizer.codebook[0] = 1000.0
    quantizer.code_sums[0] = 1000.0 * quantizer.usage.cluster_size[0]
    for _ in range(10):
        quantizer(latents)
        if quantizer.codebook[0].abs().max() < 100:
            break
    rows = latents.permute(0, 2, 3, 1).reshape(-1, 3)
    assert (rows == quantizer.codebook[0]).all(dim=1).any()
