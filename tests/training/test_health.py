"""The watch over the codebook, against counts by hand: a window over the last images, one alarm for each fall."""

from __future__ import annotations

import math
import types
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.quantizers.methods import defaults
from vqtok.quantizers import QUANTIZERS
from vqtok.training.advice import remedies
from vqtok.training.config import TokenizerTrainingConfig
from vqtok.training.health import CodeUseWindow, UsageAlarm, add_codes, attainable_usage, code_use
from vqtok.training.resolution import resolve_config

ALONE: Any = types.SimpleNamespace(device=torch.device("cpu"), num_processes=1, is_main_process=True)


def counted(codes: np.ndarray[Any, Any], num_codebooks: int, codebook_size: int) -> list[list[int]]:
    columns = codes.reshape(-1, num_codebooks)
    return [[int((column == code).sum()) for code in range(codebook_size)] for column in columns.T]


def test_negative_codes_are_not_counted() -> None:
    counts = torch.zeros(2, 3, dtype=torch.int64)
    add_codes(counts, torch.tensor([[[[0, -1], [2, 1]]]]))
    add_codes(counts, torch.tensor([[[[0, 0], [-1, -1]]]]))
    assert counts.tolist() == [[2, 0, 1], [1, 1, 0]]


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_the_window_is_a_recount_of_its_last_images(data: st.DataObject) -> None:
    """Whatever the length, the batch, its parts and the number of codebooks; and looking changes nothing."""
    batch, parts = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 3))
    length, steps = data.draw(st.integers(1, 400)), data.draw(st.integers(1, 120))
    num_codebooks, codebook_size = data.draw(st.integers(1, 3)), data.draw(st.integers(2, 9))
    noise = np.random.default_rng(data.draw(st.integers(0, 99)))
    batch *= parts
    window = CodeUseWindow(
        num_codebooks=num_codebooks,
        codebook_size=codebook_size,
        images=length,
        batch_size=batch,
        accelerator=ALONE,
    )
    shape = (batch, 2, 1, num_codebooks) if num_codebooks > 1 else (batch, 2, 1)
    seen = noise.integers(-1 if num_codebooks > 1 else 0, codebook_size, (steps, *shape))
    for step in range(steps):
        window.add(map(torch.from_numpy, np.split(seen[step], parts)))
        if step % 7 == 0 or step == steps - 1:
            assert window.images % batch == 0
            last = seen[step + 1 - window.images // batch : step + 1]
            assert window.totals().tolist() == counted(last, num_codebooks, codebook_size)
            if window.full:
                bucket = max(batch, length // (16 * batch) * batch)
                assert length - 2 * bucket < window.images <= max(length, batch)
            else:
                assert window.images == (step + 1) * batch


def test_a_window_goes_on_from_its_state_and_one_of_another_length_from_nothing() -> None:
    def window(images: int) -> CodeUseWindow:
        sizes = {"num_codebooks": 1, "codebook_size": 5, "batch_size": 2}
        return CodeUseWindow(images=images, accelerator=ALONE, **sizes)

    def steps(window: CodeUseWindow, seen: torch.Tensor) -> None:
        for codes in seen:
            window.add([codes])

    seen = torch.randint(0, 5, (100, 2, 3, 3), generator=torch.Generator().manual_seed(0))
    whole, first, second, other = window(66), window(66), window(66), window(80)
    steps(whole, seen)
    steps(first, seen[:77])
    second.load_state_dict(first.state_dict())
    steps(second, seen[77:])
    assert torch.equal(whole.totals(), second.totals()) and whole.images == second.images
    other.load_state_dict(first.state_dict())
    assert (other.images, int(other.totals().sum())) == (0, 0)


def test_numbers_are_those_of_the_counts() -> None:
    counts = torch.tensor([[2, 1, 1, 0], [4, 0, 0, 0]])
    entropy = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)
    use = code_use(counts)
    assert use["perplexity"] == pytest.approx((math.exp(entropy) + 1) / 2, rel=1e-12)
    assert (use["usage"], use["dead_codes"]) == (0.5, 4)
    assert code_use(torch.zeros(1, 4, dtype=torch.int64)) == {"perplexity": 1.0, "usage": 0.0, "dead_codes": 4}


def test_few_draws_cannot_show_many_codes() -> None:
    """As many even draws as there are codes leave 1/e of them out."""
    draws = np.random.default_rng(0).integers(0, 1000, (200, 1000))
    found = np.mean([len(np.unique(each)) / 1000 for each in draws])
    counts = torch.ones(1, 1000, dtype=torch.int64)
    assert attainable_usage(counts) == pytest.approx(1 - math.exp(-1)) == pytest.approx(found, abs=2e-3)


def make(quantizer: dict[str, Any] | None = None, **changes: Any) -> TokenizerTrainingConfig:
    return TokenizerTrainingConfig(out="runs/x", quantizer=quantizer or {"type": "ema"}, **changes)


def counts_with(in_use: int, codebook_size: int = 512, each: int = 1000) -> torch.Tensor:
    counts = torch.zeros(1, codebook_size, dtype=torch.int64)
    counts[0, :in_use] = each
    return counts


FULL: Any = types.SimpleNamespace(full=True, images=8192)
HALF_FULL: Any = types.SimpleNamespace(full=False, images=4000)


def warned(alarm: UsageAlarm, window: Any, counts: torch.Tensor, step: int, *, last: bool = False) -> str | None:
    warnings, _ = alarm.look(window, counts, step, last=last)
    return warnings[0] if warnings else None


def test_one_line_for_each_fall() -> None:
    alarm = UsageAlarm(make(usage_warning=0.5))
    said = [warned(alarm, FULL, counts_with(in_use), step) for step, in_use in enumerate([256, 255, 9, 300, 61, 60])]
    assert [bool(line) for line in said] == [False, True, False, False, True, False]
    assert said[4] is not None and said[4].startswith(
        "step 4: 61 of 512 codes in use (11.9%) over the last 8,192 training images, under usage_warning 0.5. Try "
    )
    assert all("\n" not in line for line in said if line)


def test_a_recovery_withdraws_the_warning() -> None:
    alarm = UsageAlarm(make(usage_warning=0.5))
    said = [alarm.look(FULL, counts_with(in_use), step, last=False) for step, in_use in enumerate([9, 60, 300, 301])]
    assert [len(warnings) for warnings, _ in said] == [1, 0, 0, 0]
    assert [notes for _, notes in said] == [
        [],
        [],
        ["step 2: recovered: 300 of 512 codes in use (58.6%) over the last 8,192 training images"],
        [],
    ]


def test_the_window_must_be_full_or_the_run_at_its_end() -> None:
    alarm = UsageAlarm(make())
    assert warned(alarm, HALF_FULL, counts_with(9), 10) is None
    last = warned(alarm, HALF_FULL, counts_with(9), 11, last=True)
    assert last is not None and "over the last 4,000 training images" in last
    assert warned(alarm, FULL, counts_with(9), 12)  # a run that went on says what a longer one would have
    assert warned(UsageAlarm(make(usage_warning=0.0)), FULL, counts_with(1), 1, last=True) is None


def test_an_alarm_goes_on_from_its_state() -> None:
    alarm, other = UsageAlarm(make()), UsageAlarm(make())
    assert warned(alarm, FULL, counts_with(9), 1)
    other.load_state_dict(alarm.state_dict())
    assert warned(other, FULL, counts_with(9), 2) is None


def test_a_large_codebook_is_held_to_what_the_window_can_show() -> None:
    """16,384 draws over 65,536 codes: 22% would be even use, so that 20% is healthy and 10% is not."""
    even = counts_with(13_107, 65_536, each=1)
    even[0, 0] = 16_384 - 13_106
    few = counts_with(6_554, 65_536, each=1)
    few[0, 0] = 16_384 - 6_553
    assert warned(UsageAlarm(make()), FULL, even, 1) is None
    line = warned(UsageAlarm(make()), FULL, few, 1)
    assert line is not None and "where even use would show 22%" in line


def test_advice_names_what_is_not_set_so_already() -> None:
    bare = {"restart_threshold": 0.0, "init": "normal"}
    for method in ("ema", "vq"):
        advice = remedies(make({"type": method, **bare}))
        assert advice[:2] == ["quantizer.restart_threshold=0.05", "quantizer.init=data"]
        assert "learning_rate=0.001" in advice and "warmup_steps=1000" in advice
        assert "quantizer.codebook_size=256" in advice and not any("kl_weight" in each for each in advice)
        healthy = " ".join(remedies(make({"type": method, "restart_threshold": 0.1, "init": "data"})))
        assert "restart" not in healthy and "init" not in healthy
    assert "quantizer.kl_weight=0.002" in remedies(make({"type": "gumbel"}))
    advice = " ".join(remedies(make({"type": "gumbel", "logits": "linear", **bare})))
    assert "restart" not in advice and "init" not in advice  # which these logits cannot honour


@pytest.mark.parametrize("method", sorted(QUANTIZERS))
def test_every_advice_is_a_setting_that_is_taken(method: str) -> None:
    unhealthy = {"restart_threshold": 0.0, "init": "normal"}
    known = {name: value for name, value in unhealthy.items() if name in defaults(method)}
    config = make({"type": method} | known, warmup_steps=0)
    advice = remedies(config)
    assert {"learning_rate=0.001", "warmup_steps=500"} <= set(advice)
    for assignment in advice:
        changed = resolve_config(TokenizerTrainingConfig, base=config.model_dump(), assignments=[assignment])
        assert changed != config
