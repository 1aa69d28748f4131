"""Parts of a tokenizer that training leaves as they are, to the bit."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from tests.quantizers.methods import SMALL, VARIANTS
from tests.training.runs import at_step, differences, make, resolve, rows, starting
from tests.training.test_init_from import Sources, pixels_of
from vqtok.errors import ConfigurationError
from vqtok.networks.vqgan.blocks import ResidualBlock
from vqtok.tokenizer import VQTokenizer
from vqtok.training.start import find_start
from vqtok.training.tokenizer import TokenizerTask, train_tokenizer

CODES = ["encoder", "quantizer"]
VQGAN = {
    "type": "vqgan",
    "base_channels": 4,
    "channel_multipliers": [1, 2, 2],
    "num_res_blocks": 1,
    "z_channels": 4,
    "norm_groups": 2,
    "dropout": 0.1,
}


def changed(before: VQTokenizer, after: VQTokenizer) -> set[str]:
    """The parts of which a tensor is not what it was."""
    old, new = before.state_dict(), after.state_dict()
    return {name.partition(".")[0] for name in old if not torch.equal(old[name], new[name])}


@pytest.mark.parametrize("quantizer", VARIANTS, ids=lambda options: options["type"])
def test_with_encoder_and_quantizer_frozen_codes_stay_and_the_error_falls(
    quantizer: dict[str, Any], tmp_path: Path, sources: Sources
) -> None:
    train_tokenizer(make(tmp_path / "source", quantizer=quantizer, steps=4), *sources)
    source = VQTokenizer.from_pretrained(tmp_path / "source")
    config = starting(tmp_path / "run", tmp_path / "source", freeze=CODES, steps=24, eval_every=2, learning_rate=1e-2)
    train_tokenizer(config, *sources)
    found = VQTokenizer.from_pretrained(tmp_path / "run")
    assert changed(source, found) == {"decoder"}
    assert found.fingerprint == source.fingerprint
    assert torch.equal(found.encode(pixels_of(sources[0], source)), source.encode(pixels_of(sources[0], source)))
    errors = [row["mse"] for row in rows(tmp_path / "run", "test")]
    assert errors[-1] < 0.9 * errors[0]
    for row in rows(tmp_path / "run", "train"):
        assert row["loss"] == row["reconstruction"]  # which nothing but the decoder can make smaller


@pytest.mark.parametrize(
    ("method", "freeze", "moves"),
    [
        ("ema", ["encoder"], {"quantizer", "decoder"}),
        ("ema", ["quantizer"], {"encoder", "decoder"}),
        ("vq", ["quantizer"], {"encoder", "decoder"}),
        ("gumbel", ["quantizer"], {"encoder", "decoder"}),
        ("residual", ["quantizer"], {"encoder", "decoder"}),
        ("vq", ["encoder", "decoder"], {"quantizer"}),
        ("vq", ["decoder"], {"encoder", "quantizer"}),
        ("ema", ["quantizer", "decoder"], {"encoder"}),
    ],
)
@pytest.mark.parametrize("parts", [1, 2])
def test_only_what_is_not_frozen_moves(
    method: str, freeze: list[str], moves: set[str], parts: int, tmp_path: Path, sources: Sources
) -> None:
    quantizer = {"type": method, **SMALL[method]}
    train_tokenizer(make(tmp_path / "source", quantizer=quantizer, steps=4), *sources)
    more = {"freeze": freeze, "gradient_accumulation_steps": parts, "weight_decay": 0.1}
    train_tokenizer(starting(tmp_path / "run", tmp_path / "source", **more), *sources)
    models = [VQTokenizer.from_pretrained(tmp_path / name) for name in ("source", "run")]
    assert changed(*models) == moves


def test_frozen_codes_that_never_started_do_not_start_on_data(
    tmp_path: Path, sources: Sources, tiny_tokenizer: VQTokenizer
) -> None:
    tiny_tokenizer.save_pretrained(tmp_path / "source")
    more = {"freeze": ["quantizer"], "gradient_accumulation_steps": 2}
    train_tokenizer(starting(tmp_path / "run", tmp_path / "source", **more), *sources)
    assert changed(tiny_tokenizer, VQTokenizer.from_pretrained(tmp_path / "run")) == {"encoder", "decoder"}


def test_a_frozen_gumbel_quantizer_passes_a_gradient_of_the_reconstruction(tmp_path: Path, sources: Sources) -> None:
    """In evaluation mode, in which it samples nothing."""
    quantizer = {"type": "gumbel", **SMALL["gumbel"], "kl_weight": 0.0}
    train_tokenizer(make(tmp_path / "source", quantizer=quantizer, steps=4), *sources)
    tokenizer = VQTokenizer.from_pretrained(tmp_path / "source").train()
    tokenizer.freeze("quantizer")
    pixels = pixels_of(sources[0], tokenizer)
    output = tokenizer(pixels)
    output.loss.backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in tokenizer.encoder.parameters())
    assert torch.equal(output.quantized, tokenizer.quantizer.decode(output.codes))


@pytest.mark.usefixtures("any_precision")
@pytest.mark.parametrize("precision", ["no", "bf16"])
@pytest.mark.parametrize(("freeze", "stop"), [(CODES, 4), (["quantizer"], 5)])
def test_resume_is_bit_for_bit(
    freeze: list[str],
    stop: int,
    precision: str,
    tmp_path: Path,
    sources: Sources,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    train_tokenizer(make(tmp_path / "source", network=VQGAN, steps=4, precision=precision), *sources)
    more = {"freeze": freeze, "precision": precision}
    train_tokenizer(starting(tmp_path / "whole", tmp_path / "source", **more), *sources)
    part = starting(tmp_path / "part", tmp_path / "source", **more)
    with monkeypatch.context() as patch:
        at_step(patch, stop, lambda: signal.raise_signal(signal.SIGTERM))
        assert train_tokenizer(part, *sources).step == stop
    assert train_tokenizer(part, *sources, resume=True).step == 8
    assert differences(tmp_path / "whole", tmp_path / "part") == []


def test_a_frozen_part_has_no_optimizer_state_no_gradient_and_no_backward_pass(
    tmp_path: Path, sources: Sources
) -> None:
    train_tokenizer(make(tmp_path / "source", network=VQGAN, steps=4), *sources)
    config = starting(tmp_path / "run", tmp_path / "source", freeze=CODES)
    task = TokenizerTask(config, *sources, find_start(str(tmp_path / "source")), Accelerator(cpu=True))
    task.trained.prepared.train()
    model = task.trained.model
    frozen = [*model.encoder.modules(), *model.quantizer.modules()]
    assert not any(module.training for module in frozen) and all(each.training for each in model.decoder.modules())
    moved = {id(each) for one in task.trained.optimizers for group in one.param_groups for each in group["params"]}
    assert moved == {id(each) for each in model.decoder.parameters()}
    latents = []
    model.encoder.register_forward_hook(lambda module, given, result: latents.append(result))
    task.step(next(task.batches(0)))
    assert latents[0].grad_fn is None
    assert all(each.grad is None for each in model.encoder.parameters())


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.filterwarnings("ignore:`torch.jit.*deprecated:DeprecationWarning")
@pytest.mark.parametrize("freeze", [CODES, ["quantizer"]])
def test_a_compiled_run_keeps_frozen_parts_too(
    freeze: list[str], tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    compile = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function: compile(function, backend="eager"))
    train_tokenizer(make(tmp_path / "source", steps=4), *sources)
    for compiled in (True, False):
        more = {"freeze": freeze, "compile": compiled}
        train_tokenizer(starting(tmp_path / str(compiled), tmp_path / "source", **more), *sources)
    source, one, other = (VQTokenizer.from_pretrained(tmp_path / name) for name in ("source", "True", "False"))
    assert changed(source, one) == changed(source, other) == {"encoder", "quantizer", "decoder"} - set(freeze)
    losses = [[row["loss"] for row in rows(tmp_path / name, "train")] for name in ("True", "False")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


def test_what_makes_no_sense_is_refused(tmp_path: Path, sources: Sources) -> None:
    with pytest.raises(
        ConfigurationError, match="freeze keeps encoder and quantizer, and nothing is learned yet: say w"
    ):
        resolve(assignments=["freeze=[quantizer, encoder]"])
    train_tokenizer(make(tmp_path / "source", steps=1), *sources)
    start = ["init_from=" + str(tmp_path / "source")]
    assert resolve(assignments=[*start, "freeze=[quantizer, encoder, quantizer]"]).freeze == CODES
    assert resolve(assignments=[*start, "freeze=encoder"]).freeze == ["encoder"]
    with pytest.raises(
        ConfigurationError, match="freeze encoder, quantizer, decoder leaves no weights to train: leave"
    ):
        resolve(assignments=[*start, "freeze=[quantizer, encoder, decoder]"])
    with pytest.raises(ConfigurationError, match="leaves no weights to train, and quantizer has none: leave one out"):
        resolve(assignments=[*start, "freeze=[encoder, decoder]"])
    with pytest.raises(ConfigurationError, match="freeze must be a list, each one of encoder, quantizer, decoder"):
        resolve(assignments=[*start, "freeze=[encodr]"])
    for changed in ("quantizer.beta=1", "image_size=32"):
        with pytest.raises(ConfigurationError, match="with encoder and quantizer frozen its fingerprint stays: leave"):
            resolve(assignments=[*start, "freeze=[encoder, quantizer]", changed])
    assert resolve(assignments=[*start, "freeze=quantizer", "quantizer.beta=1"]).quantizer.model_dump()["beta"] == 1


def test_gradient_checkpointing_computes_blocks_again_and_changes_nothing(
    tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    for again in (True, False):
        config = make(tmp_path / str(again), network=VQGAN, gradient_checkpointing=again)
        train_tokenizer(config, *sources)
    assert differences(tmp_path / "True", tmp_path / "False") == []
    ran, forward = [], ResidualBlock.forward

    def counted(self: ResidualBlock, *given: Any) -> Any:
        ran.append(self)
        return forward(self, *given)

    monkeypatch.setattr(ResidualBlock, "forward", counted)
    train_tokenizer(make(tmp_path / "more", network=VQGAN, gradient_checkpointing=True, steps=1), *sources)
    assert len(ran) == 4 * len(set(ran))  # forward and backward, the evaluation, and the image grid
    with pytest.raises(ConfigurationError, match="gradient_checkpointing is of vqgan alone, and the network is conv"):
        resolve(assignments=["gradient_checkpointing=true"])
