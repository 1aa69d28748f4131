from __future__ import annotations

import copy
from typing import Any

import pytest
import torch

from vqtok.quantizers import EMAQuantizer, GumbelQuantizer, IndexBackpropagationQuantizer, VectorQuantizer
from vqtok.quantizers.codebook import CodebookQuantizer
from vqtok.quantizers.restart import CodeUsage

METHODS = [EMAQuantizer, GumbelQuantizer, IndexBackpropagationQuantizer, VectorQuantizer]


def make(method: type[CodebookQuantizer], **options: Any) -> CodebookQuantizer:
    torch.manual_seed(0)
    quantizer = method(**({"codebook_size": 8, "code_dim": 3, "decay": 0.5} | options))
    quantizer.noise.batches_seen.fill_(1000)  # in the first batches the decay is less
    return quantizer


def usage_of(quantizer: CodebookQuantizer) -> CodeUsage:
    assert quantizer.usage is not None
    return quantizer.usage


@pytest.mark.parametrize("method", METHODS)
def test_dead_codes_and_no_others_are_put_on_latents_of_the_batch(method: type[CodebookQuantizer]) -> None:
    """By a forward pass in training: those under a quarter of the mean use, 2 of 8 rows."""
    quantizer = make(method, init="normal", restart_threshold=0.25, metric="euclidean")
    first, latents = torch.randn(2, 4, 3, 4, 4)
    quantizer(first)
    before = torch.tensor([0.0, 1.5, 2.0, 2.5, 14.5, 14.5, 14.5, 14.5])
    usage_of(quantizer).cluster_size.copy_(before)
    moved = copy.deepcopy(quantizer)
    usage_of(moved).threshold = 0.0
    moved(latents)
    codes = quantizer(latents).codes
    rows = latents.permute(0, 2, 3, 1).reshape(-1, 3)
    for code in range(2):
        assert (rows == quantizer.codebook[code]).all(dim=1).any()
    torch.testing.assert_close(quantizer.codebook[2:], moved.codebook[2:], rtol=1e-4, atol=1e-5)
    counts = torch.bincount(codes.flatten(), minlength=8)
    sizes = usage_of(quantizer).cluster_size
    assert sizes[:2].tolist() == [4.0, 4.0]  # twice the threshold
    torch.testing.assert_close(sizes[2:], (before + counts)[2:] / 2)
    if isinstance(quantizer, EMAQuantizer):
        torch.testing.assert_close(quantizer.code_sums[:2], 4 * quantizer.codebook[:2])


@pytest.mark.parametrize("method", [EMAQuantizer, GumbelQuantizer, VectorQuantizer])  # not where the longest code wins
def test_restart_leaves_no_code_unused(method: type[CodebookQuantizer]) -> None:
    quantizer = make(method, init="normal", restart_threshold=0.2, codebook_size=32)
    alone = make(method, init="normal", restart_threshold=0.0, codebook_size=32)
    latents = 3 + 0.01 * torch.randn(64, 3, 4, 4)  # far from any code
    for _ in range(30):
        for each in (quantizer, alone):
            each(latents)
    assert len(alone.encode(latents).unique()) < 8
    assert len(quantizer.encode(latents).unique()) >= 30


@pytest.mark.parametrize("method", METHODS)
def test_codes_that_latents_leave_behind_at_the_start_of_training_are_soon_back(
    method: type[CodebookQuantizer],
) -> None:
    """By the decay of later batches an unused code would be dead after 298."""
    torch.manual_seed(0)
    quantizer = method(codebook_size=32, code_dim=3)
    for step in range(60):
        quantizer(torch.randn(16, 3, 4, 4) + min(step, 30))
    assert len(quantizer.encode(torch.randn(64, 3, 4, 4) + 30).unique()) >= 30


@pytest.mark.parametrize("method", [EMAQuantizer, VectorQuantizer])
def test_many_dead_codes_do_not_restart_on_the_same_latents(method: type[CodebookQuantizer]) -> None:
    """Eight codes for every row: after two batches most are dead, but a batch has rows for few of them."""
    torch.manual_seed(0)
    quantizer = method(codebook_size=2048, code_dim=4)
    test, distortions = torch.randn(8, 4, 16, 16), []
    for _ in range(8):
        quantizer(torch.randn(1, 4, 16, 16))
        assert len(quantizer.codebook.unique(dim=0)) > 1900
        distortions.append(quantizer.distortion(test).mean().item())
    assert max(distortions) == distortions[0]


@pytest.mark.parametrize("method", [EMAQuantizer, VectorQuantizer])
@pytest.mark.parametrize("threshold", [0.75, 0.99])
def test_counts_do_not_grow_with_the_restarts(method: type[CodebookQuantizer], threshold: float) -> None:
    """A restarted code counts as used more than evenly here, and one that dies again must not raise what is even."""
    torch.manual_seed(0)
    quantizer = method(codebook_size=128, code_dim=4, restart_threshold=threshold)
    for _ in range(400):
        quantizer(torch.randn(4, 4, 16, 16))
    usage = usage_of(quantizer)
    assert usage.rows_in_batch.item() == pytest.approx(1024)
    assert usage.cluster_size.sum() < 2 * 1024
    assert quantizer.codebook.isfinite().all()


def test_of_many_dead_codes_about_a_quarter_as_many_restart_as_a_batch_has_rows() -> None:
    """Whatever the restarts before have added to the counts."""
    torch.manual_seed(0)
    quantizer, restarts = VectorQuantizer(codebook_size=1024, code_dim=4, restart_threshold=0.5), []
    for _ in range(200):
        quantizer(torch.randn(1, 4, 8, 8) * 1e-3)
        restarts.append(int(usage_of(quantizer).restarting.sum()))
    assert sum(restarts[100:]) / 100 == pytest.approx(64 / 4, rel=0.1)


def test_a_threshold_of_zero_never_restarts_and_samples_nothing() -> None:
    quantizer = make(EMAQuantizer, init="normal", restart_threshold=0.0)
    state = torch.get_rng_state()
    quantizer(torch.randn(1, 3, 1, 1, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(torch.get_rng_state(), state)
    assert usage_of(quantizer).cluster_size.min().item() == pytest.approx(1 / 16)  # half of an eighth of the one row


@pytest.mark.parametrize("method", [EMAQuantizer, VectorQuantizer])
def test_a_restarted_code_has_no_memory_of_its_old_place(method: type[CodebookQuantizer]) -> None:
    """Its sums are those of its new place, so that the next batch does not drag it back."""
    quantizer = make(method, init="normal", restart_threshold=0.25, decay=0.9)
    with torch.no_grad():
        quantizer.codebook[0] = 1000.0
    for _ in range(40):
        quantizer(torch.randn(4, 3, 4, 4))
    assert quantizer.codebook[0].abs().max() < 10


def test_a_restart_under_cosine_codes_is_on_latents_of_unit_length() -> None:
    quantizer = make(EMAQuantizer, metric="cosine", init="normal", restart_threshold=0.9, decay=0.0)
    latents = 5 * torch.randn(1, 3, 4, 4)
    for _ in range(2):  # found dead in the first batch, restarted in the second
        quantizer(latents)
    directions = torch.nn.functional.normalize(latents.flatten(2)[0].T, dim=1)
    restarted = (usage_of(quantizer).cluster_size - 2 * 0.9 * 16 / 8).abs() < 1e-5
    assert restarted.sum() >= 2
    for code in quantizer.codebook[restarted]:
        assert (directions - code).abs().amax(dim=1).min() < 1e-6


@pytest.mark.parametrize("method", METHODS)
def test_a_batch_that_was_given_up_half_way_leaves_nothing_behind(method: type[CodebookQuantizer]) -> None:
    """As where memory ran out in its second part, or a run goes on from a checkpoint in the same process."""
    quantizer, other = make(method), make(method)
    latents = torch.randn(8, 3, 4, 4)
    for each in (quantizer, other):
        torch.manual_seed(1)
        each(latents)
    quantizer.set_part(0, 2)
    quantizer(100 * latents[:4])
    quantizer.set_part(0, 1)
    for each in (quantizer, other):
        torch.manual_seed(2)
        each(latents)
    for name, tensor in quantizer.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


@pytest.mark.parametrize("method", METHODS)
def test_a_restart_between_forward_and_backward_harms_nothing(method: type[CodebookQuantizer]) -> None:
    """Gradients are those of the codebook that was looked up, as where no code restarts."""
    quantizer = make(method, codebook_size=64, restart_threshold=0.9, decay=0.0, entropy_weight=0.5)
    latents = torch.randn(2, 3, 4, 4, requires_grad=True)
    quantizer(latents)
    still = copy.deepcopy(quantizer)
    usage_of(still).threshold = 0.0
    gradients = []
    for each in (quantizer, still):
        torch.manual_seed(1)
        output = each(latents)
        wanted = [latents, *each.parameters()]
        gradients.append(torch.autograd.grad(output.loss + output.quantized.square().sum(), wanted))
    assert not torch.equal(quantizer.codebook, still.codebook)
    for found, expected in zip(*gradients, strict=True):
        assert torch.equal(found, expected)


def test_a_restarted_code_forgets_its_moments_at_the_next_step_that_is_taken() -> None:
    """Also where mixed precision leaves out the step of the batch in which it restarted, as after an overflow."""
    quantizer = make(VectorQuantizer, init="normal", restart_threshold=0.25)
    optimizer = torch.optim.Adam([quantizer.codebook], lr=0.1)
    quantizer.watch(optimizer)
    for _ in range(3):
        optimizer.zero_grad()
        quantizer(torch.randn(4, 3, 4, 4)).loss.backward()
        optimizer.step()
    optimizer.state[quantizer.codebook]["exp_avg"].fill_(1.0)
    usage_of(quantizer).cluster_size[0] = 0
    quantizer(torch.randn(4, 3, 4, 4))  # restarts the code, and no step is taken
    placed = quantizer.codebook[0].detach().clone()
    resumed = make(VectorQuantizer, init="normal", restart_threshold=0.25)  # from a checkpoint of this moment
    resumed.load_state_dict(quantizer.state_dict())
    resumed_optimizer = torch.optim.Adam([resumed.codebook], lr=0.1)
    resumed_optimizer.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    resumed.watch(resumed_optimizer)
    optimizer.zero_grad()
    output = quantizer(100 + torch.zeros(1, 3, 1, 1))
    output.loss.backward()
    used = int(output.codes)
    assert used != 0
    optimizer.step()
    assert torch.equal(quantizer.codebook[0], placed)
    resumed(100 + torch.zeros(1, 3, 1, 1)).loss.backward()
    resumed_optimizer.step()
    assert torch.equal(resumed.codebook, quantizer.codebook)
