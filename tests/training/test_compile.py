"""torch.compile changes the speed of a run and nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.training.runs import make, rows
from vqtok.data import ImageSource
from vqtok.training.tokenizer import train_tokenizer


@pytest.mark.filterwarnings("ignore:`torch.jit.*deprecated:DeprecationWarning")  # imported by inductor
@pytest.mark.parametrize("backend", ["eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch's own tracer looks
def test_a_compiled_run_is_the_same_run_and_goes_on_without(
    backend: str, tmp_path: Path, sources: tuple[ImageSource, ImageSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Backend "eager" only traces, in a fraction of the time; inductor generates what is run by default."""
    compile, traced = torch.compile, []

    def watched(function: Any) -> Any:
        traced.append(True)
        return compile(function, backend=backend)

    monkeypatch.setattr(torch, "compile", watched)
    fixed = {"type": "ema", "codebook_size": 16, "code_dim": 4, "init": "normal", "restart_threshold": 0.0}
    changes = {"quantizer": fixed} if backend == "inductor" else {}  # which draws other random numbers
    for compiled in (True, False):
        run = tmp_path / str(compiled)
        train_tokenizer(make(run, steps=4, compile=compiled, **changes), *sources)
        train_tokenizer(make(run, compile=not compiled, **changes), *sources, resume=True)
    assert traced == [True, True]
    ones, others = (rows(tmp_path / name, "train") for name in ("True", "False"))
    losses = [row["loss"] for row in ones]
    assert losses[0] == pytest.approx(others[0]["loss"], rel=1e-5)
    assert losses == pytest.approx([row["loss"] for row in others], rel=5e-3)  # rounding makes another code the nearest
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("True", "False"))
    for name, tensor in one.items() if backend == "eager" else ():
        torch.testing.assert_close(tensor, other[name], rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.skipif(shutil.which("g++") is None, reason="inductor compiles C++")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.filterwarnings("ignore:`torch.jit.*is deprecated:DeprecationWarning")  # torch's own, as inductor is loaded
def test_a_run_compiled_by_inductor_is_the_same_run(tmp_path: Path, sources: tuple[ImageSource, ImageSource]) -> None:
    """From the first batch on, in which codes are put on latents and then move."""
    each = {"type": "ema", "codebook_size": 16, "code_dim": 4}
    quantizer = {"type": "residual", "num_codebooks": 2, "each": each}
    for compiled in (True, False):
        torch._dynamo.reset()
        config = make(tmp_path / str(compiled), steps=3, log_every=1, quantizer=quantizer, compile=compiled)
        train_tokenizer(config, *sources)
    assert torch._dynamo.utils.counters["inductor"]  # it was not the eager model that ran
    one, other = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("True", "False"))
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-4, atol=1e-4, msg=name)


def test_many_parts_of_a_batch_are_three_graphs(
    tmp_path: Path, sources: tuple[ImageSource, ImageSource], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first, the last and those between: torch compiles no function more than eight times."""
    compile, traced = torch.compile, []

    def backend(graph: torch.fx.GraphModule, _: Any) -> Any:
        traced.append(graph)
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", lambda function: compile(function, backend=backend))
    found = {}
    for parts in (3, 12):
        traced.clear()
        changes = {"steps": 3, "batch_size": 24, "gradient_accumulation_steps": parts}
        with torch._dynamo.config.patch(fail_on_recompile_limit_hit=True):
            train_tokenizer(make(tmp_path / str(parts), compile=True, **changes), *sources)
        found[parts] = len(traced)
    assert found == {3: 3, 12: 3}
