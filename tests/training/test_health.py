"""The watch over the codebook, against counts by hand: a window over the last images, one alarm for each fall."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.quantizers.methods import defaults
from vqtok.quantizers import QUANTIZERS, CodeCounting, CodeUse
from vqtok.training.advice import remedies
from vqtok.training.config import TokenizerTrainingConfig
from vqtok.training.health import CodeUseWindow, UsageAlarm
from vqtok.training.resolution import resolve_config

ALONE: Any = types.SimpleNamespace(device=torch.device("cpu"), num_processes=1, is_main_process=True)


def each_code(num_codebooks: int, codebook_size: int) -> CodeCounting:
    return CodeCounting(num_codebooks=num_codebooks, codebook_size=codebook_size, levels=(codebook_size,))


def counted(codes: np.ndarray[Any, Any], num_codebooks: int, codebook_size: int) -> list[list[int]]:
    columns = codes.reshape(-1, num_codebooks)
    return [[int((column == code).sum()) for code in range(codebook_size)] for column in columns.T]


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
        each_code(num_codebooks, codebook_size),
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
        return CodeUseWindow(each_code(1, 5), images=images, batch_size=2, accelerator=ALONE)

    def steps(window: CodeUseWindow, seen: torch.Tensor) -> None:
        for codes in seen:
            window.add([codes])

    seen = torch.randint(0, 5, (100, 2, 3, 3), generator=torch.Generator().manual_seed(0))
    whole, first, second = window(66), window(66), window(66)
    steps(whole, seen)
    steps(first, seen[:77])
    second.load_state_dict(first.state_dict())
    steps(second, seen[77:])
    assert torch.equal(whole.totals(), second.totals()) and whole.images == second.images
    for length in (80, 160, 33):  # of as many buckets as before, of longer ones, of fewer
        other = window(length)
        other.load_state_dict(first.state_dict())
        assert (other.images, int(other.totals().sum())) == (0, 0)


def make(quantizer: dict[str, Any] | None = None, **changes: Any) -> TokenizerTrainingConfig:
    return TokenizerTrainingConfig(out="runs/x", quantizer=quantizer or {"type": "ema"}, **changes)


def use_of(in_use: int, codebook_size: int = 512, each: int = 1000) -> CodeUse:
    counts = torch.zeros(1, codebook_size, dtype=torch.int64)
    counts[0, :in_use] = each
    return CodeUse.from_counts(counts, codebook_size)


FULL: Any = types.SimpleNamespace(full=True, images=8192)
HALF_FULL: Any = types.SimpleNamespace(full=False, images=4000)


def warned(alarm: UsageAlarm, window: Any, use: CodeUse, step: int, *, last: bool = False) -> str | None:
    warnings, _ = alarm.look(window, use, step, last=last)
    return warnings[0] if warnings else None


def test_one_line_for_each_fall() -> None:
    alarm = UsageAlarm(make(usage_warning=0.5))
    said = [warned(alarm, FULL, use_of(in_use), step) for step, in_use in enumerate([256, 255, 9, 300, 61, 60])]
    assert [bool(line) for line in said] == [False, True, False, False, True, False]
    assert said[4] is not None and said[4].startswith(
        "step 4: 61 of 512 codes in use (11.9%) over the last 8,192 training images, under usage_warning 0.5. Try "
    )
    assert all("\n" not in line for line in said if line)


def test_a_recovery_withdraws_the_warning() -> None:
    alarm = UsageAlarm(make(usage_warning=0.5))
    said = [alarm.look(FULL, use_of(in_use), step, last=False) for step, in_use in enumerate([9, 60, 300, 301])]
    assert [len(warnings) for warnings, _ in said] == [1, 0, 0, 0]
    assert [notes for _, notes in said] == [
        [],
        [],
        ["step 2: recovered: 300 of 512 codes in use (58.6%) over the last 8,192 training images"],
        [],
    ]


def test_the_window_must_be_full_or_the_run_at_its_end() -> None:
    alarm = UsageAlarm(make())
    assert warned(alarm, HALF_FULL, use_of(9), 10) is None
    last = warned(alarm, HALF_FULL, use_of(9), 11, last=True)
    assert last is not None and "over the last 4,000 training images" in last
    assert warned(alarm, FULL, use_of(9), 12)  # a run that went on says what a longer one would have
    assert warned(UsageAlarm(make(usage_warning=0.0)), FULL, use_of(1), 1, last=True) is None


def test_an_alarm_goes_on_from_its_state() -> None:
    alarm, other = UsageAlarm(make()), UsageAlarm(make())
    assert warned(alarm, FULL, use_of(9), 1)
    other.load_state_dict(alarm.state_dict())
    assert warned(other, FULL, use_of(9), 2) is None


def test_a_large_codebook_is_held_to_what_the_window_can_show() -> None:
    """16,384 samples of 65,536 codes: 22% would be even use, so that 20% is healthy and 10% is not."""

    def use(in_use: int) -> CodeUse:
        counts = torch.zeros(1, 65_536, dtype=torch.int64)
        counts[0, :in_use] = 1
        counts[0, 0] += 16_384 - in_use
        return CodeUse.from_counts(counts, 65_536)

    even, few = use(13_107), use(6_554)
    assert warned(UsageAlarm(make()), FULL, even, 1) is None
    line = warned(UsageAlarm(make()), FULL, few, 1)
    assert line is not None and "where even use would show 22%" in line


def advice_of(quantizer: dict[str, Any], **changes: Any) -> list[str]:
    return remedies(make(quantizer, **changes))


@pytest.mark.parametrize(
    ("quantizer", "expected"),
    [
        ({"type": "vq", "restart_threshold": 0, "init": "normal"}, ["restart_threshold=0.05", "init=data"]),
        ({"type": "ema", "restart_threshold": 0.01}, ["restart_threshold=0.05"]),
        ({"type": "simvq", "init": "normal"}, ["init=data"]),
        ({"type": "gumbel", "restart_threshold": 0.05}, ["restart_threshold=0.2"]),
        ({"type": "gumbel", "logits": "linear", "init": "normal", "restart_threshold": 0}, []),  # cannot honour either
        ({"type": "ibq", "temperature": 0.1, "restart_threshold": 0}, ["restart_threshold=0.05", "temperature=0.02"]),
        ({"type": "lfq", "entropy_weight": 0.01, "temperature": 8}, ["entropy_weight=0.1", "temperature=0.07"]),
        ({"type": "bsq"}, ["entropy_weight=0.2"]),
    ],
    ids=str,
)
def test_advice_is_what_measured_better(quantizer: dict[str, Any], expected: list[str]) -> None:
    """Neither metric=cosine nor entropy_weight=0.1, which made every codebook method worse; 16 codes of 8 dimensions
    leave nothing to say of projections or methods for many codes."""
    size = {"codebook_size": 16} | ({} if quantizer["type"] in ("bsq", "lfq") else {"code_dim": 8})
    found = advice_of(quantizer | size)
    common = ["learning_rate=0.001", "quantizer.codebook_size=8"]
    assert found == [f"quantizer.{line}" for line in expected] + common


def test_advice_on_the_dimension_and_on_many_codes() -> None:
    assert "quantizer.projection_dim=8" in advice_of({"type": "ema"})
    assert "projection_dim" not in " ".join(advice_of({"type": "ema", "projection_dim": 16}))
    found = advice_of({"type": "ema", "codebook_size": 16_384, "code_dim": 32})
    assert found[-3:] == [
        "quantizer.codebook_size=8192",
        "quantizer={type: simvq, codebook_size: 16384, code_dim: 32}",
        "quantizer={type: fsq, levels: [8, 8, 8, 6, 5]}",
    ]
    assert "type" not in " ".join(advice_of({"type": "bsq", "codebook_size": 2**36}))


@pytest.mark.parametrize("method", sorted(QUANTIZERS))
def test_every_advice_is_a_setting_that_is_taken(method: str) -> None:
    unhealthy = {"restart_threshold": 0.0, "init": "normal"}
    known = {name: value for name, value in unhealthy.items() if name in defaults(method)}
    config = make({"type": method} | known)
    advice = remedies(config)
    assert "learning_rate=0.001" in advice
    for assignment in advice:
        changed = resolve_config(TokenizerTrainingConfig, base=config.model_dump(), assignments=[assignment])
        assert changed != config


def test_the_window_of_a_very_large_codebook_holds_fewer_buckets() -> None:
    counting = each_code(1, 2**22)
    window = CodeUseWindow(counting, images=8192, batch_size=32, accelerator=ALONE)
    assert window.counts.shape == (4, 1, 2**22)
