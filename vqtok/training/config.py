"""What decides a run: defaults, then a YAML file, then command-line options, then `--set key=value`.

A name on the command line is the name in the file is the name of the field. The resolved configuration is saved with
the run as config.yaml, and that file given back with `--config` is the same run.
"""

from __future__ import annotations

import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, Field, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import torch
import yaml

from vqtok.errors import ConfigurationError, nearest
from vqtok.networks import build_networks, network_options
from vqtok.quantizers import build_quantizer, quantizer_options
from vqtok.tokenizer.configuration import RESAMPLES, fill_options
from vqtok.training.runs import replace_text

__all__ = ["LoopConfig", "TokenizerTrainingConfig", "load_config", "resolve_config", "resume_config", "save_config"]

PRECISIONS = ("no", "bf16", "fp16")
TRACKERS = ("none", "tensorboard", "trackio", "wandb")

# What a run may be given anew when it goes on: its weights, the order of its data and its noise do not depend on these.
CHANGEABLE = (
    "checkpoint_every",
    "compile",
    "eval_every",
    "keep_checkpoints",
    "learning_rate",
    "log_every",
    "num_workers",
    "out",
    "steps",
    "tracker",
    "usage_warning",
    "usage_window",
    "warmup_steps",
)


@dataclass(kw_only=True)
class LoopConfig:
    """What both training loops have.

    Args:
        out: run folder.
        steps: optimizer steps.
        batch_size: examples a step, over all processes and accumulated parts.
        gradient_accumulation_steps: parts that a batch is computed in, to fit memory.
        learning_rate: peak of the schedule: linear warm-up, then cosine to zero.
        warmup_steps: steps of the warm-up.
        weight_decay: AdamW's, on weights of two and more dimensions.
        max_grad_norm: gradients are clipped to this norm; 0 never clips.
        precision: "no" (float32), "bf16" or "fp16" autocast.
        compile: run the model through torch.compile.
        seed: of weights, order of examples and noise.
        num_workers: processes that decode pictures, where they are not held in memory.
        log_every, eval_every, checkpoint_every: in steps.
        keep_checkpoints: newest ones kept.
        tracker: "none", "tensorboard", "trackio" or "wandb".
    """

    out: str
    steps: int = 10_000
    batch_size: int = 32
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1e-3
    warmup_steps: int = 500
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    precision: str = "no"
    compile: bool = False
    seed: int = 0
    num_workers: int = 0
    log_every: int = 50
    eval_every: int = 1000
    checkpoint_every: int = 1000
    keep_checkpoints: int = 2
    tracker: str = "none"

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "gradient_accumulation_steps", "log_every", "eval_every"):
            at_least(name, getattr(self, name), 1)
        at_least("checkpoint_every", self.checkpoint_every, 1)
        at_least("keep_checkpoints", self.keep_checkpoints, 1)
        for name in ("warmup_steps", "weight_decay", "max_grad_norm", "num_workers", "seed"):
            at_least(name, getattr(self, name), 0)
        if not self.learning_rate > 0:
            raise ConfigurationError(f"learning_rate must be above 0, got {self.learning_rate}")
        one_of("precision", self.precision, PRECISIONS)
        one_of("tracker", self.tracker, TRACKERS)
        if self.batch_size % self.gradient_accumulation_steps:
            raise ConfigurationError(
                f"batch_size {self.batch_size} must divide by gradient_accumulation_steps "
                f"{self.gradient_accumulation_steps}"
            )


@dataclass(kw_only=True)
class TokenizerTrainingConfig(LoopConfig):
    """What decides the training of a tokenizer.

    Args:
        dataset: what `vqtok.data.open_images` takes.
        revision: of a Hub data set.
        image_column, label_column: names, where the feature types do not decide.
        test_share: of the training pictures, held out where the data has no test split.
        image_size: pixels, one number or [height, width]; null takes the pictures' own where they all agree.
        num_channels: 1 or 3; null takes the pictures' own.
        resample: how pictures are resized.
        network, quantizer: as in VQTokenizerConfig, what is left out filled with defaults.
        eval_images: held-out pictures looked at during training; 0 looks at all.
        usage_window: training pictures, over all processes, that the use of the codes is counted over.
        usage_warning: the log warns when the share of codes in use over that window falls under this; 0 never warns.
    """

    dataset: str = "mnist-mini"
    revision: str | None = None
    image_column: str | None = None
    label_column: str | None = None
    test_share: float = 0.1
    image_size: int | list[int] | None = None
    num_channels: int | None = None
    resample: str = "bicubic"
    network: dict[str, Any] = field(default_factory=lambda: {"type": "conv"})
    quantizer: dict[str, Any] = field(default_factory=lambda: {"type": "ema"})
    eval_images: int = 2000
    usage_window: int = 8192
    usage_warning: float = 0.5
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.network = fill_options("network", self.network, "conv", network_options)
        self.quantizer = fill_options("quantizer", self.quantizer, "ema", quantizer_options)
        with torch.device("meta"):  # costs no memory, and refuses numbers that make no sense before data is looked for
            build_networks(self.network, num_channels=1, code_dim=build_quantizer(self.quantizer).code_dim)
        if self.num_channels not in (None, 1, 3):
            raise ConfigurationError(f"num_channels must be 1 (grey) or 3 (RGB), got {self.num_channels}")
        one_of("resample", self.resample, RESAMPLES)
        at_least("eval_images", self.eval_images, 0)
        at_least("usage_window", self.usage_window, 1)
        if not 0 <= self.usage_warning <= 1:
            raise ConfigurationError(f"usage_warning must be between 0 and 1, got {self.usage_warning}")
        if not 0 < self.test_share < 1:
            raise ConfigurationError(f"test_share must be between 0 and 1, got {self.test_share}")


Config = TypeVar("Config", bound=LoopConfig)


def resolve_config(
    kind: type[Config],
    *,
    base: Mapping[str, Any] | None = None,
    file: Path | None = None,
    options: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
) -> Config:
    """The configuration from its parts, later ones over earlier ones.

    Args:
        kind: the dataclass.
        base: values under everything else, such as those of a run that is resumed.
        file: a YAML file of fields.
        options: command-line options; those that are None were not given. "quantizer.codebook_size" names an entry.
        assignments: `key=value` with the value in YAML; `quantizer=vq` is short for `quantizer.type=vq`.

    Raises:
        ConfigurationError: an unknown key, a value of the wrong type, an unreadable file.
    """
    values: dict[str, Any] = {f.name: f.default_factory() for f in fields(kind) if f.default_factory is not MISSING}
    given = [(name, value) for name, value in (options or {}).items() if value is not None]
    given += [parse_assignment(assignment) for assignment in assignments]
    for source in ((base or {}).items(), (read_yaml(file) if file else {}).items(), given):
        for name, value in types_first(source):
            put(kind, values, name, value)
    missing = [f.name for f in fields(kind) if required(f) and f.name not in values]
    if missing:
        raise ConfigurationError(f"{', '.join(missing)} must be given")
    return kind(**values)


def resume_config(
    kind: type[Config],
    run: Path,
    *,
    file: Path | None = None,
    options: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
) -> Config:
    """The configuration of a run that goes on: as saved with it, with what may change on the way changed.

    Raises:
        ConfigurationError: there is no run, or a setting that its weights or its data depend on was given anew.
    """
    saved = run / "config.yaml"
    if not saved.is_file():
        raise ConfigurationError(f"there is no run to resume in {run}: leave out --resume to start one")
    before = load_config(kind, saved)
    now = resolve_config(
        kind, base=asdict(before) | {"out": str(run)}, file=file, options=options, assignments=assignments
    )
    for name, value in asdict(before).items():
        if name not in CHANGEABLE and asdict(now)[name] != value:
            raise ConfigurationError(
                f"{name} of the run in {run} is {value!r} and cannot become {asdict(now)[name]!r} on resuming; "
                f"what can change: {', '.join(CHANGEABLE)}"
            )
    return now


def parse_assignment(assignment: str) -> tuple[str, Any]:
    name, equals, text = assignment.partition("=")
    if not equals or not name.strip():
        raise ConfigurationError(f"--set takes key=value, such as quantizer.codebook_size=1024, got {assignment!r}")
    try:
        return name.strip(), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigurationError(
            f"the value in --set {assignment!r} is not YAML: {' '.join(str(error).split())}"
        ) from error


def types_first(pairs: Iterable[tuple[str, Any]]) -> list[tuple[str, Any]]:
    """One pair an entry, those that choose a type before those that set an option of it, outer sections first."""
    entries = [entry for name, value in pairs for entry in spread(name, value)]
    return sorted(entries, key=lambda entry: ("." in entry[0] and not entry[0].endswith(".type"), entry[0].count(".")))


def spread(name: str, value: Any) -> list[tuple[str, Any]]:
    """The entries of a section, of sections in it too, as dotted names; anything else as it is."""
    if not (isinstance(value, Mapping) and value):
        return [(name, value)]
    return [entry for key, inner in value.items() for entry in spread(f"{name}.{key}", inner)]


def put(kind: type[LoopConfig], values: dict[str, Any], name: str, value: Any) -> None:
    """Set one field, or one entry of a field that is a section."""
    known = {f.name: f for f in fields(kind)}
    head, *path = name.split(".")
    if head not in known:
        raise ConfigurationError(f"{name!r} is not a configuration key.{nearest(head, known)}")
    if get_origin(get_type_hints(kind)[head]) is dict:
        put_entry(values[head], path, name, value)
    elif path:
        raise ConfigurationError(f"{name!r} is not a configuration key: {head} has no entries")
    else:
        values[head] = typed(head, value, get_type_hints(kind)[head])


def put_entry(section: dict[str, Any], path: list[str], name: str, value: Any) -> None:
    """Set what a path leads to in a section; no path at all chooses its type."""
    if len(path) == 1 and isinstance(value, str) and isinstance(section.get(path[0]), dict):
        path = [*path, "type"]  # quantizer.each=vq is short for quantizer.each.type=vq
    if len(path) > 1:
        inner = section.get(path[0], {})
        section[path[0]] = {"type": inner} if isinstance(inner, str) else inner
        if not isinstance(section[path[0]], dict):
            raise ConfigurationError(f"{name!r} is not a configuration key: {path[0]} has no entries")
        put_entry(section[path[0]], path[1:], name, value)
        return
    if path:
        given = {path[0]: number(value)}
    elif isinstance(value, str):
        given = {"type": value}
    elif isinstance(value, Mapping):
        given = {}
    else:
        raise ConfigurationError(f"{name} must be a type or key: value entries, got {value!r}")
    if given.get("type", section.get("type")) != section.get("type"):
        section.clear()  # options of one type mean nothing to another
    section.update(given)


def typed(name: str, value: Any, hint: Any) -> Any:
    """The value, refused unless it has the field's type; an int, or text such as 1e-3, may stand for a float."""
    allowed = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    value = number(value) if float in allowed or int in allowed else value
    if float in allowed and type(value) is int:
        return float(value)
    for kind in allowed:
        origin = get_origin(kind) or kind
        if type(value) is origin and (origin is not list or all(type(item) in get_args(kind) for item in value)):
            return value
    wanted = " or ".join("null" if kind is types.NoneType else getattr(kind, "__name__", str(kind)) for kind in allowed)
    raise ConfigurationError(f"{name} must be {wanted}, got {value!r}")


def number(value: Any) -> Any:
    """YAML 1.1 reads 1e-3 as text; what reads as a float is one."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def required(item: Field[Any]) -> bool:
    return item.default is MISSING and item.default_factory is MISSING


def at_least(name: str, value: float, smallest: float) -> None:
    if not value >= smallest:
        raise ConfigurationError(f"{name} must be at least {smallest}, got {value}")


def one_of(name: str, value: str, allowed: Sequence[str]) -> None:
    if value not in allowed:
        raise ConfigurationError(f"{name} must be one of {', '.join(allowed)}, got {value!r}.{nearest(value, allowed)}")


def read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigurationError(f"cannot read the configuration {path}: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise ConfigurationError(f"the configuration {path} must hold key: value lines, found {type(content).__name__}")
    return {str(name): value for name, value in content.items()}


def save_config(config: LoopConfig, path: Path) -> None:
    """Write every field as YAML, in the order of the dataclass."""
    replace_text(path, yaml.safe_dump(asdict(config), sort_keys=False))


def load_config(kind: type[Config], path: Path) -> Config:
    """Read back what `save_config` wrote."""
    return resolve_config(kind, file=path)
