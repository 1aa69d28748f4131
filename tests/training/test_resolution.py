"""The parts of a configuration: later ones over earlier ones, saved with the run, and taken up again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.disk import files_limited_to
from tests.quantizers.methods import SMALL, VARIANTS, defaults
from tests.training.runs import resolve
from vqtok.errors import ConfigurationError, DataError
from vqtok.quantizers import QUANTIZERS
from vqtok.quantizers.ema import EMAOptions
from vqtok.quantizers.gumbel import GumbelOptions
from vqtok.quantizers.vq import VQOptions
from vqtok.training.config import TokenizerTrainingConfig
from vqtok.training.resolution import CHANGEABLE, load_config, resolve_config, resume_config, save_config


def test_later_parts_win_over_earlier_ones(tmp_path: Path) -> None:
    """Defaults, then the base, then the file, then options, then --set."""
    base = {"out": "runs/x", "seed": 1, "steps": 1, "batch_size": 1, "log_every": 1}
    config = resolve(
        {"steps": 2, "batch_size": 2, "log_every": 2},
        tmp_path,
        base=base,
        options={"batch_size": 3, "log_every": 3, "seed": None},
        assignments=["log_every=4"],
    )
    assert (config.eval_every, config.seed, config.steps, config.batch_size, config.log_every) == (1000, 1, 2, 3, 4)


def test_entries_of_quantizer_and_network_are_set_one_by_one(tmp_path: Path) -> None:
    config = resolve(
        {"quantizer": {"type": "ema", "codebook_size": 64, "decay": 0.9}, "network.hidden_size": 32},
        tmp_path,
        options={"quantizer.codebook_size": 128},
        assignments=["quantizer.beta=1", "network.residual_size=8"],
    )
    assert config.quantizer.model_dump() == {
        "type": "ema",
        **defaults("ema"),
        "codebook_size": 128,
        "beta": 1.0,
        "decay": 0.9,
    }
    assert config.network.model_dump() == {
        "type": "conv",
        "hidden_size": 32,
        "residual_size": 8,
        "num_residual_blocks": 2,
        "downsample_factor": 4,
    }


@pytest.mark.parametrize(
    "assignments",
    [
        ["quantizer=gumbel"],
        ["quantizer.type=gumbel"],
        ["quantizer={type: gumbel}"],
        ["quantizer.hard=true", "quantizer.type=gumbel"],
        ["quantizer.hard=true", "quantizer=gumbel"],
    ],
)
def test_another_type_drops_what_the_file_said_of_the_old_one_and_no_option(
    assignments: list[str], tmp_path: Path
) -> None:
    file = {"quantizer": {"type": "ema", "epsilon": 0.5, "code_dim": 3}}
    config = resolve(file, tmp_path, options={"quantizer.codebook_size": 16}, assignments=assignments)
    assert config.quantizer == GumbelOptions(codebook_size=16, temperature_steps=5000)  # half of the steps


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        (["quantizer=product"], {"type": "ema"}),
        (["quantizer=product", "quantizer.each=vq"], {"type": "vq"}),
        (["quantizer.each.codebook_size=256", "quantizer.each=vq", "quantizer=product"], {"codebook_size": 256}),
        (["quantizer.each.levels=[8,5,5]", "quantizer.each.type=fsq", "quantizer=product"], {"levels": [8, 5, 5]}),
        (["quantizer={type: product, each: fsq}", "quantizer.each.levels=[8,5]"], {"type": "fsq", "levels": [8, 5]}),
        (["quantizer={type: product, each: {type: lfq, codebook_size: 16}}"], {"type": "lfq", "codebook_size": 16}),
        (["quantizer=residual", "quantizer.each.beta=1"], {"type": "ema", "beta": 1.0}),
        (["quantizer=residual", "quantizer.each={}"], {"type": "ema"}),
    ],
)
def test_a_section_in_a_section_is_set_in_any_order(assignments: list[str], expected: dict[str, Any]) -> None:
    each = resolve(assignments=assignments).model_dump()["quantizer"]["each"]
    kind = each["type"]
    assert each == {"type": kind, **defaults(kind), **expected}


@pytest.mark.parametrize(
    ("assignments", "expected"),
    [
        (["quantizer.each.codebook_size=32"], {"type": "vq", "codebook_size": 32, "beta": 0.5}),
        (["quantizer.each=vq"], {"type": "vq", "codebook_size": 64, "beta": 0.5}),
        (["quantizer.each.type=vq"], {"type": "vq", "codebook_size": 64, "beta": 0.5}),
        (["quantizer={each: {codebook_size: 32}}"], {"type": "vq", "codebook_size": 32, "beta": 0.5}),
        (["quantizer=product"], {"type": "vq", "codebook_size": 64, "beta": 0.5}),
        (["quantizer.each=ema"], {"type": "ema", "codebook_size": 512, "beta": 0.25}),
        (["quantizer.each.type=ema"], {"type": "ema", "codebook_size": 512, "beta": 0.25}),
        (["quantizer=residual"], {"type": "ema", "codebook_size": 512, "beta": 0.25}),
    ],
)
def test_another_type_drops_what_was_said_of_the_old_one_in_its_own_section(
    assignments: list[str], expected: dict[str, Any], tmp_path: Path
) -> None:
    each = {"type": "vq", "codebook_size": 64, "beta": 0.5}
    file = {"quantizer": {"type": "product", "num_codebooks": 4, "each": each}}
    quantizer = resolve(file, tmp_path, assignments=assignments).model_dump()["quantizer"]
    assert expected.items() <= quantizer["each"].items()
    assert quantizer["num_codebooks"] == (2 if quantizer["type"] == "residual" else 4)


@pytest.mark.parametrize("assignment", ["quantizer.each.type=ema", "quantizer.each=ema", "quantizer.each={type: ema}"])
def test_the_default_type_said_aloud_is_no_other_type(assignment: str, tmp_path: Path) -> None:
    """In a section as in a section in it, whether its type was written down or left to the default."""
    file = {"quantizer": {"type": "product", "each": {"codebook_size": 64}}, "network": {"hidden_size": 8}}
    config = resolve(file, tmp_path, assignments=[assignment, "network=conv"])
    assert config.model_dump()["quantizer"]["each"] == {"type": "ema", **defaults("ema"), "codebook_size": 64}
    assert config.model_dump()["network"]["hidden_size"] == 8


@pytest.mark.parametrize("method", sorted(QUANTIZERS))
def test_every_option_of_every_method_can_be_set(method: str) -> None:
    given = {"temperature_steps": 7} if method == "gumbel" else {}  # which is filled in where it is null
    for name, value in (defaults(method) | SMALL[method] | given).items():
        assignments = [f"quantizer={method}", f"quantizer.{name}={json.dumps(value)}"]
        found = resolve(assignments=assignments).model_dump()["quantizer"][name]
        if isinstance(value, dict):
            assert value.items() <= found.items()
        else:
            assert (found, type(found)) == (value, type(value))


def test_set_wins_over_an_option_even_as_a_mapping() -> None:
    config = resolve(options={"quantizer.codebook_size": 16}, assignments=["quantizer={type: vq, codebook_size: 32}"])
    assert config.quantizer == VQOptions(codebook_size=32)


@pytest.mark.parametrize(
    ("assignment", "name", "value"),
    [
        ("learning_rate=1e-3", "learning_rate", 1e-3),
        ("learning_rate=1", "learning_rate", 1.0),
        ("compile=true", "compile", True),
        ("learning_rate=5e-3", "learning_rate", 5e-3),
        ("learning_rate=.5E-2", "learning_rate", 5e-3),
        ("learning_rate=5.E+0", "learning_rate", 5.0),
        ("steps=1_000", "steps", 1000),
        ("compile=yes", "compile", True),
        ("compile=off", "compile", False),
        ("precision=no", "precision", "no"),
        ("precision='no'", "precision", "no"),
        ("revision='1e3'", "revision", "1e3"),
        ("image_size=64", "image_size", [64, 64]),
        ("image_size=[48, 64]", "image_size", [48, 64]),
        ("image_size=null", "image_size", None),
        ("dataset=./my images", "dataset", "./my images"),
        ("dataset=a=b", "dataset", "a=b"),
    ],
)
def test_values_are_read_as_yaml(assignment: str, name: str, value: Any) -> None:
    found = getattr(resolve(assignments=[assignment]), name)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 3\n", r"'stepz' is not a configuration key. Did you mean 'steps'\?"),
        ("steps: [\n", "cannot read the configuration"),
        ("- steps\n", "must hold key: value lines, found list"),
        ("", "must hold key: value lines, found NoneType"),
        ("5: 3\n", "'5' is not a configuration key"),
        ("quantizer: {type: ema, 7: 3}\n", "quantizer.7 is not an option"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_in_one_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(text)
    with pytest.raises(ConfigurationError, match=message) as caught:
        resolve_config(TokenizerTrainingConfig, base={"out": "x"}, file=tmp_path / "bad.yaml")
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot read the configuration .*none.yaml"):
        resolve_config(TokenizerTrainingConfig, file=tmp_path / "none.yaml")


@pytest.mark.parametrize("text", ["1e3", "no", "2020-01-01", "null", "12345e67", "a: b", ""])
def test_text_that_yaml_would_take_for_something_else_is_saved_as_text(text: str, tmp_path: Path) -> None:
    config = TokenizerTrainingConfig(out="x", revision=text)
    save_config(config, tmp_path / "config.yaml")
    assert load_config(TokenizerTrainingConfig, tmp_path / "config.yaml") == config


def test_what_was_saved_with_a_run_is_the_same_run(tmp_path: Path) -> None:
    config = resolve(
        assignments=["quantizer=gumbel", "quantizer.hard=false", "image_size=[16, 24]", "learning_rate=2e-5", "seed=7"]
    )
    save_config(config, tmp_path / "config.yaml")
    assert load_config(TokenizerTrainingConfig, tmp_path / "config.yaml") == config
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: options["type"])
def test_a_run_of_every_method_is_saved_and_read_the_same(options: dict[str, Any], tmp_path: Path) -> None:
    config = resolve({"quantizer": options}, tmp_path)
    save_config(config, tmp_path / "config.yaml")
    assert load_config(TokenizerTrainingConfig, tmp_path / "config.yaml") == config
    assert type(config.quantizer)(**json.loads(json.dumps(config.quantizer.model_dump()))) == config.quantizer
    assert resume_config(TokenizerTrainingConfig, tmp_path).quantizer == config.quantizer


def test_a_full_disk_does_not_cost_the_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    save_config(resolve(), path)
    before = path.read_text()
    with files_limited_to(10), pytest.raises(DataError, match="the disk is full"):
        save_config(resolve(assignments=["steps=9"]), path)
    assert path.read_text() == before


def saved_run(folder: Path) -> Path:
    save_config(
        resolve(base={"out": "elsewhere"}, assignments=["steps=40", "quantizer.beta=0.5"]), folder / "config.yaml"
    )
    return folder


def test_a_run_goes_on_as_it_was_and_where_it_lies_now(tmp_path: Path) -> None:
    resumed = resume_config(TokenizerTrainingConfig, saved_run(tmp_path))
    saved = load_config(TokenizerTrainingConfig, tmp_path / "config.yaml")
    assert resumed == saved.model_copy(update={"out": str(tmp_path)})
    changed = resume_config(
        TokenizerTrainingConfig, tmp_path, options={"steps": 80}, assignments=["tracker=tensorboard", "log_every=1"]
    )
    assert (changed.steps, changed.tracker, changed.log_every) == (80, "tensorboard", 1)
    assert changed.quantizer == EMAOptions(beta=0.5)


@pytest.mark.parametrize(
    "assignment",
    [
        "network.hidden_size=64",
        "quantizer=vq",
        "quantizer.beta=0.25",
        "seed=1",
        "batch_size=16",
        "gradient_accumulation_steps=2",
        "dataset=cifar10",
        "image_size=64",
        "max_grad_norm=2",
        "precision=bf16",
    ],
)
def test_what_decides_the_weights_cannot_change_on_resuming(assignment: str, tmp_path: Path) -> None:
    name = assignment.partition("=")[0].partition(".")[0]
    with pytest.raises(ConfigurationError, match=rf"{name} of the run in .* cannot become .* on resuming") as caught:
        resume_config(TokenizerTrainingConfig, saved_run(tmp_path), assignments=[assignment])
    assert "\n" not in str(caught.value)


def test_a_run_that_named_no_revision_can_go_on_at_the_one_it_began_with(tmp_path: Path) -> None:
    """The dataset may have moved on; the checkpoint knows the commit."""
    pinned = resume_config(TokenizerTrainingConfig, saved_run(tmp_path), assignments=["revision=v1"])
    assert pinned.revision == "v1"
    save_config(pinned, tmp_path / "config.yaml")
    with pytest.raises(ConfigurationError, match="revision of the run in .* is 'v1' and cannot become 'v2'"):
        resume_config(TokenizerTrainingConfig, tmp_path, assignments=["revision=v2"])


def test_only_a_run_is_resumed(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no run to resume in .*: leave out --resume"):
        resume_config(TokenizerTrainingConfig, tmp_path)


def test_what_can_change_on_resuming_exists() -> None:
    assert set(CHANGEABLE) < set(TokenizerTrainingConfig.model_fields)
