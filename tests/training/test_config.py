from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tests.disk import files_limited_to
from tests.quantizers.methods import SMALL, VARIANTS, defaults
from vqtok.errors import ConfigurationError, DataError
from vqtok.quantizers import QUANTIZERS
from vqtok.quantizers.ema import EMAOptions
from vqtok.quantizers.fsq import FSQOptions
from vqtok.quantizers.gumbel import GumbelOptions
from vqtok.quantizers.vq import VQOptions
from vqtok.training.config import TokenizerTrainingConfig
from vqtok.training.prior_config import PriorTrainingConfig
from vqtok.training.resolution import CHANGEABLE, load_config, resolve_config, resume_config, save_config


def resolve(file: dict[str, Any] | None = None, folder: Path | None = None, **parts: Any) -> TokenizerTrainingConfig:
    if file is not None:
        assert folder is not None
        (folder / "given.yaml").write_text(yaml.safe_dump(file, sort_keys=False))
        parts["file"] = folder / "given.yaml"
    return resolve_config(TokenizerTrainingConfig, **({"base": {"out": "runs/x"}} | parts))


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
    file = {"quantizer": {"type": "product", "num_codebooks": 4, "each": {"type": "vq", "codebook_size": 64}}}
    file["quantizer"]["each"]["beta"] = 0.5  # type: ignore[index]
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
    ("assignment", "message"),
    [
        ("stepz=1", r"'stepz' is not a configuration key. Did you mean 'steps'\?"),
        ("quantiser.beta=1", r"'quantiser' is not a configuration key. Did you mean 'quantizer'\?"),
        ("quantizer.codebok_size=1", r"quantizer.codebok_size is not an option .* Did you mean 'codebook_size'\?"),
        ("network.width=1", "network.width is not an option of network.type 'conv'"),
        ("restart_threshold=0", r"key. Did you mean 'quantizer.restart_threshold'\?"),
        ("codebok_size=3", r"key. Did you mean 'quantizer.codebook_size'\?"),
        ("hidden_size=64", r"key. Did you mean 'network.hidden_size'\?"),
        ("type=vq", r"key. Did you mean 'quantizer.type'\?"),
        ("cls=3", "^'cls' is not a configuration key"),
        ("quantizer.self=3", "quantizer.self is not an option of quantizer.type 'ema'"),
        (".x=1", "^'' is not a configuration key$"),
        ("quantizer.\x1b[31m=1", r"^quantizer.\\x1b\[31m is not an option"),
        ('quantizer={"a\\nb": 1}', r"^quantizer.a\\nb is not an option"),
        ("quantizer={7: 3}", "quantizer.7 is not an option of quantizer.type 'ema'"),
        ("quantizer={null: 3}", "quantizer.None is not an option of quantizer.type 'ema'"),
        ("dataset=2020-13-45", "the value in --set 'dataset=2020-13-45' is not YAML: .*month must be in 1..12"),
        ("steps.x=1", "steps must be a whole number of at least 1, got {'x': 1}"),
        ("steps", r"--set takes key=value, such as quantizer.codebook_size=1024, got 'steps'"),
        ("=3", "--set takes key=value"),
        ("steps=[1", "is not YAML"),
        ("steps=-1", "steps must be a whole number of at least 1, got -1"),
        ("steps=0", "steps must be a whole number of at least 1, got 0"),
        ("steps=1.5", "steps must be a whole number of at least 1, got 1.5"),
        ("steps=many", "steps must be a whole number of at least 1, got 'many'"),
        ("steps=true", "steps must be a whole number of at least 1, got True"),
        ("steps=null", "steps must be a whole number of at least 1, got None"),
        ("compile=1", "compile must be true or false, got 1"),
        ("image_size=[1.5, 2]", r"image_size must be \[height, width\] or one number .* or null, got \[1.5, 2\]"),
        ("learning_rate=0", "learning_rate must be a number above 0, got 0"),
        ("learning_rate=nan", "learning_rate must be a number above 0, got 'nan'"),
        ("learning_rate=.nan", "learning_rate must be a number above 0 and finite, got nan"),
        ("learning_rate=.inf", "learning_rate must be a number above 0 and finite, got inf"),
        ("learning_rate=1e400", "learning_rate must be a number above 0 and finite, got inf"),
        ("learning_rate=1" + 400 * "0", r"learning_rate must be a number above 0, got 10*\.\.\.$"),
        ("learning_rate=true", "learning_rate must be a number above 0, got True"),
        ("quantizer.beta=.inf", "quantizer.beta must be a number of at least 0 and finite, got inf"),
        ("quantizer.beta=true", "quantizer.beta must be a number of at least 0, got True"),
        ("seed=1" + 30 * "0", "seed must be a whole number from 0 to 2147483648, got 10*$"),
        ("seed=-1", "seed must be a whole number from 0 to 2147483648, got -1"),
        ("quantizer.codebook_size=1" + 30 * "0", "codebook_size must be a whole number from 2 to 4294967296, got 10*$"),
        ("network.hidden_size=100000000000", "network.hidden_size must be a whole number from 2 to 65536, got 10*$"),
        ("num_channels=true", r"num_channels must be 1 \(grey\), 3 \(RGB\) or null, got True"),
        ("num_channels=1.0", r"num_channels must be 1 \(grey\), 3 \(RGB\) or null, got 1.0"),
        ("image_size=true", "image_size must be .* got True"),
        ("image_size=0", "image_size must be .* got 0"),
        ("image_size=[16]", r"image_size must be .* got \[16\]"),
        ("image_size=[16, 16, 3]", r"image_size must be .* got \[16, 16, 3\]"),
        ("revision=1e3", "revision must be text or null, got 1000.0"),
        ("precision=yes", "precision must be one of no, bf16, fp16, got True"),
        ("precision=fp8", "precision must be one of no, bf16, fp16, got 'fp8'"),
        ("tracker=tensorbord", r"Did you mean 'tensorboard'\?"),
        ("gradient_accumulation_steps=5", "batch_size 32 must divide by gradient_accumulation_steps 5"),
        ("test_share=1", "test_share must be a number above 0 and below 1, got 1"),
        ("usage_window=0", "usage_window must be a whole number of at least 1, got 0"),
        ("usage_warning=50", "usage_warning must be a number from 0 to 1, got 50"),
        ("usage_warning=nan", "usage_warning must be a number from 0 to 1, got 'nan'"),
        ("num_channels=0", r"num_channels must be 1 \(grey\), 3 \(RGB\) or null, got 0"),
        ("resample=cubic", r"resample must be one of .* Did you mean 'bicubic'\?"),
        ("quantizer=5", "quantizer must be the name of a type or key: value entries, got 5"),
        ("quantizer.type=[vq]", r"quantizer.type must be one of bsq, .*, vq, got \['vq'\]"),
        ("quantizer=emma", r"Did you mean 'ema'\?"),
        ("quantizer.codebook_size=1", "quantizer.codebook_size must be a whole number from 2 to 4294967296, got 1"),
        ("quantizer.beta=nan", "quantizer.beta must be a number of at least 0, got 'nan'"),
        ("quantizer.each=vq", "quantizer.each is not an option of quantizer.type 'ema'"),
        ("quantizer.beta.x=1", "quantizer.beta must be a number of at least 0, got {'x': 1}"),
        ("quantizer={type: product, each: 3}", "quantizer.each must be the name of a type or .*, got 3"),
        ("quantizer={type: product, each: null}", "quantizer.each must be the name of a type or .* got None"),
        ("quantizer={type: product, each: emma}", r"quantizer.each.type must be one of .* Did you mean 'ema'\?"),
        ("quantizer={type: product, each: {levels: [5]}}", "quantizer.each.levels is not an option of .* 'ema'"),
        ("quantizer={type: product, levels: [5], each: fsq}", r"Did you mean 'quantizer.each.levels'\?"),
        ("quantizer={type: product, codebook_size: 5}", r"Did you mean 'quantizer.each.codebook_size'\?"),
        ("quantizer={type: product, each: {codebook_size: 1}}", "quantizer.each.codebook_size must be a whole"),
        ("quantizer={type: product, each: product}", "quantizer.each.type must be one of bsq, .*, vq, got 'product'"),
        ("quantizer={type: residual, each: fsq}", "quantizer.each.type must be one of ema, simvq, vq, got 'fsq'"),
        ("quantizer={type: fsq, levels: [5, a]}", r"quantizer.levels must be a list of whole .* got \[5, 'a'\]"),
        ("network.downsample_factor=0", "network.downsample_factor must be a power of two up to 1024, got 0"),
        ("network.hidden_size=-3", "network.hidden_size must be a whole number from 2 to 65536, got -3"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(assignment: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        resolve(assignments=[assignment])
    assert "\n" not in str(caught.value)


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


def test_the_run_folder_must_be_given() -> None:
    with pytest.raises(ConfigurationError, match="out must be given"):
        resolve_config(TokenizerTrainingConfig)


def test_all_that_must_be_given_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError, match="^out, codes must be given$"):
        resolve_config(PriorTrainingConfig)


@pytest.mark.parametrize("text", ["1e3", "no", "2020-01-01", "null", "12345e67", "a: b", ""])
def test_text_that_yaml_would_take_for_something_else_is_saved_as_text(text: str, tmp_path: Path) -> None:
    config = TokenizerTrainingConfig(out="x", revision=text)
    save_config(config, tmp_path / "config.yaml")
    assert load_config(TokenizerTrainingConfig, tmp_path / "config.yaml") == config


def test_no_two_configurations_share_what_can_change() -> None:
    given = {"type": "fsq", "levels": [5, 5]}
    one, other = (resolve(options={"quantizer": given, "image_size": [8, 8]}) for _ in range(2))
    for config in (one, resolve(options={"quantizer": "fsq"})):
        config.quantizer.model_dump()["levels"].append(9)
        config.quantizer.levels.append(9)  # type: ignore[attr-defined]
    assert other.quantizer == FSQOptions(levels=[5, 5]) and given["levels"] == [5, 5]
    assert resolve(options={"quantizer": "fsq"}).quantizer == FSQOptions() == FSQOptions(levels=[8, 8, 8])


def test_a_configuration_cannot_be_changed_unseen() -> None:
    config = resolve()
    with pytest.raises(ValidationError, match="frozen"):
        config.steps = 3


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


def test_only_a_run_is_resumed(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no run to resume in .*: leave out --resume"):
        resume_config(TokenizerTrainingConfig, tmp_path)


def test_what_can_change_on_resuming_exists() -> None:
    assert set(CHANGEABLE) < set(TokenizerTrainingConfig.model_fields)


@pytest.mark.parametrize(("steps", "expected"), [(300, 150), (10_000, 5000), (1, 1)])
def test_the_temperature_of_gumbel_falls_within_the_run(steps: int, expected: int) -> None:
    alone = resolve(assignments=["quantizer=gumbel", f"steps={steps}"]).quantizer
    inner = resolve(assignments=["quantizer={type: product, each: gumbel}", f"steps={steps}"]).quantizer
    assert alone.model_dump()["temperature_steps"] == inner.model_dump()["each"]["temperature_steps"] == expected
    given = resolve(assignments=["quantizer={type: gumbel, temperature_steps: 7}", f"steps={steps}"]).quantizer
    assert given.model_dump()["temperature_steps"] == 7
