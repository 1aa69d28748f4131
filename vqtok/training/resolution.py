"""What decides a run: defaults, then a YAML file, then command-line options, then `--set key=value`.

A name on the command line is the name in the file is the name of the field. The resolved configuration is saved with
the run as config.yaml, and that file given back with `--config` is the same run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

from vqtok.assignments import merge, nest, parse_assignment, read_yaml, write_yaml_text
from vqtok.errors import ConfigurationError
from vqtok.files import write_text
from vqtok.names import findable, is_gone, meaning
from vqtok.options import Options, types_of
from vqtok.training.config import LoopConfig, TokenizerTrainingConfig
from vqtok.training.start import find_start, same_start

__all__ = ["load_config", "resolve_config", "resume_config", "save_config"]

# What may change when a run goes on: what it learned so far, the order of its data and its noise stay as they were. A
# new learning rate, warm-up or number of steps changes how it learns from there on.
CHANGEABLE = (
    "checkpoint_every",
    "compile",
    "eval_every",
    "gradient_checkpointing",
    "keep_checkpoints",
    "learning_rate",
    "log_every",
    "max_unreadable",
    "num_workers",
    "steps",
    "tracker",
    "usage_warning",
    "usage_window",
    "warmup_steps",
)


Config = TypeVar("Config", bound=LoopConfig)
Kind: TypeAlias = type[Config] | Callable[[Mapping[str, Any]], type[Config]]
"""The configuration to fill, or what says which by the values that are given, as of a command that trains several."""


def kind_for(kind: Kind[Config], *sources: Mapping[str, Any]) -> type[Config]:
    """The configuration to fill with these values, later ones over earlier ones."""
    return kind if isinstance(kind, type) else kind({name: source[name] for source in sources for name in source})


def resolve_config(
    kind: Kind[Config],
    *,
    base: Mapping[str, Any] | None = None,
    file: Path | None = None,
    options: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
) -> Config:
    """The configuration from its parts, later ones over earlier ones.

    Where a part but `base` says `init_from`, that tokenizer is looked up, and what it says of itself is under them all.

    Args:
        kind: the configuration to fill, or what says which.
        base: values under everything else, such as those of a run that is resumed.
        file: a YAML file of fields, or a pipe.
        options: command-line options; those that are None were not given. "quantizer.codebook_size" names an entry.
        assignments: `key=value` with the value in YAML; `quantizer=vq` is short for `quantizer.type=vq`.

    Raises:
        ConfigurationError: an unknown key, a value of the wrong type, an unreadable file, or a setting that contradicts
            the tokenizer of `init_from`.
        CheckpointError, HubError: `init_from` names no tokenizer; see `find_start`.
    """
    sources = read_sources(file, options, assignments)
    below = nest((base or {}).items())
    kind = kind_for(kind, below, *sources)
    names = [source["init_from"] for source in sources if "init_from" in source]
    if "init_from" not in kind.model_fields or not names or not isinstance(names[-1], str):
        return merged(kind, below, *sources)
    start = find_start(names[-1])
    own = start.options.model_dump()
    given = [without(source, own) for source in (below, *sources)]
    config = merged(kind, own, *given, {"init_from": start.name})
    if isinstance(config, TokenizerTrainingConfig):
        start.check(config)
    return config


def without(source: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """What a source says, but for null where a tokenizer says more."""
    return {name: value for name, value in source.items() if value is not None or name not in own}


def read_sources(
    file: Path | None, options: Mapping[str, Any] | None, assignments: Sequence[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What a file says, and over it what options and assignments say; a pipe can be read but once."""
    given = [(name, value) for name, value in (options or {}).items() if value is not None]
    given += map(parse_assignment, assignments)
    return nest((read_yaml(file, regular=False) if file else {}).items()), nest(given)


def merged(kind: type[Config], *sources: Mapping[str, Any]) -> Config:
    """The configuration that sources give, later ones over earlier ones."""
    values = name_types(kind, {})
    for source in sources:
        values = name_types(kind, merge(values, source))
    return kind(**values)


def name_types(kind: type[Options], values: Mapping[str, Any]) -> dict[str, Any]:
    """Values whose sections, inner ones too, all name their type, so that `merge` can tell when another is chosen."""
    named = dict(values)
    for name, field in kind.model_fields.items():
        given = named.get(name, {})
        if (section := types_of(field)) and isinstance(given, Mapping | str):
            entries = {"type": given} if isinstance(given, str) else {"type": section.default} | dict(given)
            named[name] = name_types(section.named(entries["type"]), entries)
    return named


def resume_config(
    kind: Kind[Config],
    run: Path | None = None,
    *,
    file: Path | None = None,
    options: Mapping[str, Any] | None = None,
    assignments: Sequence[str] = (),
) -> Config:
    """The configuration of a run that goes on: as saved with it, with what may change on the way changed.

    Args:
        run: its folder, where no source names another as `out`.
        file, options, assignments: as in `resolve_config`.

    Raises:
        ConfigurationError: no run is named or there is none, or a setting that its weights or its data depend on was
            given anew.
    """
    sources = read_sources(file, options, assignments)
    named = [source["out"] for source in ({"out": run}, *sources) if source.get("out")]
    if not named:
        raise ConfigurationError("--resume needs the run folder: --out runs/<name>")
    run = Path(str(named[-1]))
    saved = run / "config.yaml"
    if not saved.is_file():
        raise ConfigurationError(f"there is no run to resume in {run}: leave out --resume to start one")
    values = read_yaml(saved)
    chosen = kind_for(kind, values)
    asked = kind_for(kind, *sources).model_fields
    given = dict.fromkeys(name for source in sources for name in source)
    if foreign := [name for name in given if name in asked and name not in chosen.model_fields]:
        raise ConfigurationError(
            f"the run in {run} trains another kind of model, which has no setting {', '.join(foreign)}: leave that out"
        )
    kind = chosen
    before = load_config(kind, saved).model_dump() | {"out": str(run)}
    config = merged(kind, before, *sources, {"out": str(run)})
    now = config.model_dump()
    for name, value in before.items():
        same = now[name] == value or (name == "dataset" and (is_gone(value) or meaning(now[name]) == meaning(value)))
        same = same or (name == "revision" and value is None)  # the checkpoint knows at which commit the run began
        same = same or (name == "init_from" and same_start(value, now[name]))
        if name not in CHANGEABLE and not same:
            raise ConfigurationError(
                f"{name} of the run in {run} is {value!r} and cannot become {now[name]!r} on resuming; "
                f"what can change: {', '.join(CHANGEABLE)}"
            )
    if is_gone(now.get("dataset", "")):
        raise ConfigurationError(
            f"the images of the run in {run}, {now['dataset']}, are no longer there: say with --dataset where they are"
        )
    return config.model_copy(update={"init_from": before["init_from"]}) if "init_from" in before else config


def save_config(config: LoopConfig, path: Path) -> None:
    """Write every field as YAML, in the order of their declaration; a dataset so that it is found from any folder."""
    values = config.model_dump()
    if "dataset" in values:
        values["dataset"] = findable(values["dataset"])
    write_text(path, write_yaml_text(values))


def load_config(kind: type[Config], path: Path) -> Config:
    """Read back what `save_config` wrote."""
    return resolve_config(kind, base=read_yaml(path))
