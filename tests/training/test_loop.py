from __future__ import annotations

import math

import pytest
import torch
from accelerate import Accelerator

from vqtok.errors import TrainingError
from vqtok.training.finite import LossWindow


def test_a_window_of_losses_gives_its_means_and_starts_anew() -> None:
    window, accelerator = LossWindow(), Accelerator(cpu=True)
    for value in (1.0, 2.0, 6.0):
        window.add({"loss": torch.tensor(value, requires_grad=True), "commitment": torch.tensor(10 * value)})
    assert window.close(accelerator, step=3) == pytest.approx({"loss": 3.0, "commitment": 30.0})
    window.add({"loss": torch.tensor(5.0), "commitment": torch.tensor(7.0)})
    assert window.close(accelerator, step=4) == {"loss": 5.0, "commitment": 7.0}


@pytest.mark.parametrize(("parts", "step"), [(1, 18), (2, 19)])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_its_step_and_parts(parts: int, step: int, value: float) -> None:
    window, accelerator = LossWindow(), Accelerator(cpu=True)
    accelerator.gradient_accumulation_steps = parts
    for number in range(4):  # the window ends with step 20; two steps of two parts, or four of one
        broken = number == 1
        window.add({"loss": torch.tensor(value if broken else 1.0), "reconstruction": torch.tensor(0.5)})
    with pytest.raises(TrainingError, match=rf"not finite at step {step}: loss {value}, reconstruction 0.5; the last"):
        window.close(accelerator, step=20)
    accelerator.gradient_accumulation_steps = 1
