"""What lies in a folder: a tokenizer, a prior, a baseline, codes or a run, in a few aligned lines."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vqtok.assignments import read_yaml
from vqtok.errors import CheckpointError, DataError
from vqtok.hub import (
    describe_baseline,
    describe_prior,
    describe_tokenizer,
    grid_text,
    is_run,
    kind_of,
    open_folder,
    read_metric_rows,
    read_metrics,
    read_settings,
    shown,
    step_of,
)
from vqtok.text import counted, tokenizer_text

__all__ = ["Summary", "describe", "describe_codes"]

Rows = list[tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a folder holds.

    Attributes:
        kind: "tokenizer", "prior", "baseline", "codes" or "run".
        rows: names and values, to be read by people.
    """

    kind: str
    rows: tuple[tuple[str, str], ...]


def describe(folder: str | Path, *, name: str | None = None) -> Summary:
    """Summarise a folder.

    Args:
        folder: a tokenizer, prior, codes or run folder.
        name: what errors call it; the folder where not given.

    Raises:
        DataError: there is no such folder, or it holds none of these; says what was found.
        VqtokError: what it holds is damaged.
    """
    folder, name = Path(folder), name or str(folder)
    if folder.suffix in (".parquet", ".arrow") and folder.is_file():
        return describe_codes(folder)
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{name} {what}: name a tokenizer, prior, codes or run folder, or a Hub id such as org/name")
    kind = content_of(folder, name)
    if kind is None:
        if (folder / "config.yaml").is_file():
            read_yaml(folder / "config.yaml", error=CheckpointError)  # damaged, it may be that of a run
        entries = sorted(entry.name for entry in folder.iterdir())
        more = " and more" if len(entries) > 6 else ""
        found = f"it holds {', '.join(entries[:6])}{more}" if entries else "it is empty"
        raise DataError(f"{name} is neither a tokenizer, a prior, codes nor a run of vqtok: {found}")
    return Summary(kind=kind, rows=tuple(ROWS[kind](folder)))


def describe_codes(place: str | Path) -> Summary:
    """Summarise codes; the place is whatever `load_codes` takes, and its errors are those."""
    return Summary(kind="codes", rows=tuple(codes_rows(place)))


def content_of(folder: Path, name: str) -> str | None:
    """What a folder holds, told by its files; None where it is nothing of ours.

    Raises:
        CheckpointError: it holds a model of another library, or a damaged one.
    """
    names = {entry.name for entry in folder.iterdir()}
    if is_run(folder):
        return "run"
    if names & {"codes.json", "dataset_dict.json"} or {"state.json", "dataset_info.json"} <= names:
        return "codes"
    if any(entry.endswith(".parquet") for entry in names) or (folder / "data").is_dir() and "README.md" in names:
        return "codes"
    return kind_of(read_settings(folder), name=name) if "config.json" in names else None


def tokenizer_rows(folder: Path) -> Rows:
    """What the card of a tokenizer says, its fingerprint and, where it was evaluated, its metrics."""
    from vqtok.tokenizer import VQTokenizer

    fingerprint = VQTokenizer.from_pretrained(folder).fingerprint
    about = describe_tokenizer(open_folder(folder))
    return [*about.rows, ("fingerprint", fingerprint), *metrics_rows(folder / "metrics.json")]


def baseline_rows(folder: Path) -> Rows:
    """What a baseline is."""
    from vqtok.baselines import load_baseline

    load_baseline(folder)  # which refuses what cannot be used
    return list(describe_baseline(open_folder(folder)))


def prior_rows(folder: Path) -> Rows:
    """What the card of a prior says."""
    from vqtok.priors import load_prior

    load_prior(folder)  # which refuses what cannot be used
    return list(describe_prior(open_folder(folder)).rows)


def codes_rows(place: str | Path) -> Rows:
    """Splits, grid, use of codes and tokenizer of codes."""
    from datasets import DatasetDict

    from vqtok.codes import codes_array, load_codes, read_bad_images, read_spec

    codes = load_codes(place)
    spec = read_spec(codes)
    splits = dict(codes) if isinstance(codes, DatasetDict) else {codes.split or "rows": codes}
    first = next(iter(splits.values()))
    rows = [
        ("grid", f"{grid_text(spec.shape)}, {spec.dtype.name}"),
        ("codebook", f"{spec.codebook_size:,} codes"),
        ("columns", ", ".join(f"{key} ({type_text(feature)})" for key, feature in first.features.items())),
    ]
    rows += [(name, str(spec.preprocessing[name])) for name in ("views", "background") if name in spec.preprocessing]
    thing = "row" if "views" in spec.preprocessing else "image"
    for split, dataset in splits.items():
        use = code_use_text(codes_array(dataset), spec.codebook_size, spec.num_codebooks)
        rows.append((str(split), f"{counted(len(dataset), thing)}, {use}"))
    bad = read_bad_images(place)["path"].to_pylist()
    if bad:
        more = f" and {len(bad) - 3:,} more" if len(bad) > 3 else ""
        rows.append(("bad images", f"{len(bad):,} could not be read: {', '.join(bad[:3])}{more}"))
    rows.append(("tokenizer", tokenizer_text(spec.fingerprint, spec.repository, spec.revision)))
    rows.append(("written by", f"vqtok {spec.vqtok_version}"))
    return rows


def run_rows(folder: Path) -> Rows:
    """State, last metrics and files of a run folder."""
    config = read_yaml(folder / "config.yaml", error=CheckpointError)
    rows = read_metric_rows(folder)
    step, steps = (rows[-1]["step"] if rows else 0), config.get("steps")
    saved = {path.parent.name: step_of(path.parent) for path in folder.glob("checkpoints/step-*/state.json")}
    checkpoints = sorted((name for name, at in saved.items() if at is not None), key=lambda name: saved[name] or 0)
    model = config.get("model")
    name = str(model.get("type") if isinstance(model, Mapping) else model)
    kind = "prior" if "codes" in config else "tokenizer" if model is None else name
    if (folder / "model" / "config.json").is_file():
        state = f"finished: {steps} steps"
    elif checkpoints:
        command = "train-prior" if kind == "prior" else "train"
        resume = shlex.join(("vqtok", command, "--resume", "--out", str(folder)))
        state = f"stopped at step {step} of {steps}: goes on with `{resume}`"
    else:
        state = f"not finished: step {step} of {steps}, no checkpoint to go on from"
    lines = [
        ("trains", f"{'an' if kind[:1] in 'aei' else 'a'} {kind} on {config.get('codes', config.get('dataset'))}"),
        ("state", state),
    ]
    for split, name in (("train", "training"), ("test", "held out")):
        last = next((row for row in reversed(rows) if row["split"] == split), None)
        if last:
            use = {f"{name.replace(' ', '-')} usage" if key == "usage" else key: value for key, value in last.items()}
            lines.append((f"{name}, step {last['step']}", numbers_text(use)))
    lines += [("warning", str(row["note"])) for row in rows if row["split"] == "note" and "note" in row]
    lines.append(("checkpoints", ", ".join(checkpoints) or "none"))
    lines.append(("files", ", ".join(sorted(e.name + ("/" if e.is_dir() else "") for e in folder.iterdir()))))
    return lines


ROWS: dict[str, Callable[[Path], Rows]] = {
    "baseline": baseline_rows,
    "codes": codes_rows,
    "prior": prior_rows,
    "run": run_rows,
    "tokenizer": tokenizer_rows,
}


def metrics_rows(path: Path) -> Rows:
    """What `vqtok evaluate` found, where it wrote it."""
    if not path.is_file():
        return [("metrics", "none: measure them with `vqtok evaluate`")]
    metrics = read_metrics(path)
    where = f"{metrics['dataset']}, split {metrics['split']}"
    if metrics.get("num_images") is not None:
        where = f"{counted(metrics['num_images'], 'image')} of {where}"
    return [("measured on", where), ("metrics", numbers_text(shown(metrics)))]


def numbers_text(row: Mapping[str, Any]) -> str:
    numbers = {k: v for k, v in row.items() if isinstance(v, int | float) and k != "step"}
    return ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())


def type_text(feature: Any) -> str:
    """7 x 7 uint16 of codes, 10 classes of a label, string of a file name."""
    if getattr(feature, "names", None):
        return f"{len(feature.names)} classes"
    shape = getattr(feature, "shape", None)
    name = str(getattr(feature, "dtype", None) or type(feature).__name__)
    return f"{' x '.join(map(str, shape))} {name}" if shape else name


def code_use_text(codes: Any, codebook_size: int, num_codebooks: int) -> str:
    """Perplexity and codes in use of an array of grids (N, h, w[, Q])."""
    from vqtok.evaluation import code_use

    if not len(codes):
        return "no codes"
    use = code_use(codes, codebook_size=codebook_size, num_codebooks=num_codebooks)
    return f"perplexity {use.perplexity:.4g}, {use.codes_in_use} of {use.num_codes} codes in use"
