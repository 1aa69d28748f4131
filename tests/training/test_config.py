from __future__ import annotations

import pytest
from pydantic import ValidationError

from tests.training.runs import resolve
from vqtok.errors import ConfigurationError
from vqtok.quantizers.fsq import FSQOptions
from vqtok.training.config import TokenizerTrainingConfig
from vqtok.training.prior_config import PriorTrainingConfig
from vqtok.training.resolution import resolve_config


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
        ("type=vq", r"key. Did you mean 'network.type' or 'quantizer.type' or 'likelihood.type'\?"),
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
        ("learning_rate=0", r"learning_rate must be a number above 0 and of at most 1e\+30, got 0"),
        ("learning_rate=nan", r"learning_rate must be a number above 0 and of at most 1e\+30, got 'nan'"),
        ("learning_rate=.nan", r"learning_rate must be a number above 0 and of at most 1e\+30 and finite, got nan"),
        ("learning_rate=.inf", r"learning_rate must be a number above 0 and of at most 1e\+30 and finite, got inf"),
        ("learning_rate=1e400", r"learning_rate must be a number above 0 and of at most 1e\+30 and finite, got inf"),
        (
            "learning_rate=1" + 400 * "0",
            r"learning_rate must be a number above 0 and of at most 1e\+30, got 10*\.\.\.$",
        ),
        ("learning_rate=true", r"learning_rate must be a number above 0 and of at most 1e\+30, got True"),
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
        ("warmup_steps=10001", "warmup_steps 10001 must be at most the 10000 steps of the run, or null"),
        (
            "quantizer={type: gumbel, temperature_steps: 10001}",
            "^quantizer.temperature_steps 10001 must be at most the 10000 steps of the run, or null for half of them$",
        ),
        (
            "quantizer={type: product, each: {type: gumbel, temperature_steps: 10001}}",
            "^quantizer.each.temperature_steps 10001 must be at most the 10000 steps",
        ),
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


def test_the_run_folder_must_be_given() -> None:
    with pytest.raises(ConfigurationError, match="out must be given"):
        resolve_config(TokenizerTrainingConfig)


def test_all_that_must_be_given_is_named_at_once() -> None:
    with pytest.raises(ConfigurationError, match="^out, codes must be given$"):
        resolve_config(PriorTrainingConfig)


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


@pytest.mark.parametrize(("steps", "expected"), [(300, 150), (10_000, 5000), (1, 1)])
def test_the_temperature_of_gumbel_falls_within_the_run(steps: int, expected: int) -> None:
    alone = resolve(assignments=["quantizer=gumbel", f"steps={steps}"]).quantizer
    inner = resolve(assignments=["quantizer={type: product, each: gumbel}", f"steps={steps}"]).quantizer
    assert alone.model_dump()["temperature_steps"] == inner.model_dump()["each"]["temperature_steps"] == expected
    given = resolve(assignments=["quantizer={type: gumbel, temperature_steps: 1}", f"steps={steps}"]).quantizer
    assert given.model_dump()["temperature_steps"] == 1
