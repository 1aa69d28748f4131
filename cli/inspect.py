"""vqtok inspect: what a folder holds, and how healthy the codebook of a tokenizer is."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vqtok_cli.parameters import (
    DATASETS,
    IMAGES_PER_BATCH,
    AsJson,
    DatasetConfig,
    Device,
    ImageColumn,
    checked_batch_size,
)

if TYPE_CHECKING:
    from vqtok.evaluation import CodebookHealth
    from vqtok.report import Summary, Verdict
    from vqtok.tokenizer import VQTokenizer
    from vqtok.training import TokenizerTrainingConfig

__all__ = ["inspect"]

# How a codebook is checked on images where nothing else is said.
DEFAULTS: dict[str, Any] = {"split": "test", "num_images": 2000, "batch_size": 128, "device": None}

# What is printed of a codebook, in words.
NUMBERS = {
    "perplexity": "perplexity",
    "codes_in_use": "codes in use",
    "dead_codes": "dead codes",
    "share_of_top_percent": "share of the 1% most used codes",
    "mean_nearest_distance": "distance to the nearest code, mean",
    "mean_distance": "distance between codes, mean",
    "bits_in_use": "bits in use, at most",
    "constant_dimensions": "dimensions of a code that are constant",
    "sampled_codes": "codes sampled for what follows",
    "sampled_nearest_distance": "distance to the nearest of the sample, mean",
    "sampled_distance": "distance between codes of the sample, mean",
}


def inspect(
    path: Annotated[
        str, typer.Argument(help="Tokenizer, prior, codes or run folder, parquet file of codes, or Hub id of any.")
    ],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the Hub.")] = None,
    dataset: Annotated[
        str | None, typer.Option(help=f"Check the codebook of a tokenizer on these images: {DATASETS}.")
    ] = None,
    dataset_config: DatasetConfig = None,
    image_column: ImageColumn = None,
    split: Annotated[
        str | None, typer.Option(help="With --dataset: split to read.", show_default=DEFAULTS["split"])
    ] = None,
    num_images: Annotated[
        int | None,
        typer.Option(
            help="With --dataset: number of images to use, chosen at random once and for all.",
            show_default=str(DEFAULTS["num_images"]),
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="With --dataset: folder to write the plots to, missing, empty or of earlier plots.",
            show_default="health in the run folder, else ./health",
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help=f"With --dataset: {IMAGES_PER_BATCH[:1].lower()}{IMAGES_PER_BATCH[1:]}",
            show_default=str(DEFAULTS["batch_size"]),
            callback=checked_batch_size,
        ),
    ] = None,
    device: Device = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Recompute the checksums of codes, and name every file that is wrong.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Describe a tokenizer, prior, codes or run folder.

    With --dataset, also check the codebook of a tokenizer on held-out images: whether it is healthy and what to try if
    it is not, with plots of how often and where codes are used, how far apart they are, and the image patches they
    stand for. With --verify, read all codes again and compare their checksums with those of the day they were made.
    """
    from vqtok.errors import ConfigurationError
    from vqtok_cli.checksums import verify_files
    from vqtok_cli.tokenizers import check_revision

    given: dict[str, Any] = {"split": split, "num_images": num_images, "batch_size": batch_size, "device": device}
    if dataset is None:
        refuse_unused(given | {"dataset_config": dataset_config, "image_column": image_column, "out": out})
    check_revision(path, revision)
    if verify:
        if dataset is not None:
            raise ConfigurationError("--verify is for codes, and --dataset for a tokenizer: choose one")
        verify_files(path, as_json=as_json)
        return
    folder, summary = look_at(path, revision)
    found: dict[str, Any] = {"path": path, "kind": summary.kind, "facts": facts(summary)}
    if dataset is None:
        print_facts(path, summary, quiet=as_json)
    else:
        check_tokenizer(folder, path, summary.kind)
        chosen = DEFAULTS | {name: value for name, value in given.items() if value is not None}
        columns = {"config": dataset_config, "image_column": image_column}
        data = {name: value for name, value in columns.items() if value is not None}
        model, health, drawn = measure(path, revision, dataset, data, out, quiet=as_json, **chosen)
        print_facts(path, summary, quiet=as_json)
        found["health"] = report(health, model, drawn, quiet=as_json)
    if as_json:
        typer.echo(json.dumps(defined(found), allow_nan=False))


def look_at(path: str, revision: str | None) -> tuple[Path, Summary]:
    """Describe what a name stands for, and say where it lies; on the Hub a model comes before a dataset of its name."""
    from vqtok.codes import is_on_hub
    from vqtok.errors import HubError
    from vqtok.hub import fetch
    from vqtok.names import at_revision
    from vqtok.report import describe, describe_codes
    from vqtok.store import is_url

    if is_url(path):
        return Path(path), describe_codes(path)
    if not is_on_hub(path):
        return Path(path), describe(path)
    repository, _, named = path.partition("@")
    try:
        folder = fetch(repository, revision=revision or named or None)
    except HubError as no_model:
        try:
            return Path(path), describe_codes(at_revision(repository, revision or named or None))
        except HubError:
            raise no_model from None
    return folder, describe(folder, name=path)


def defined(value: Any) -> Any:
    """A value with null for numbers that JSON has not, as for those that are not defined."""
    if isinstance(value, dict):
        return {name: defined(entry) for name, entry in value.items()}
    if isinstance(value, list):
        return [defined(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def refuse_unused(given: Mapping[str, object]) -> None:
    """Refuse options that only say how to check a codebook on images, where no images are named."""
    from vqtok.errors import ConfigurationError

    if unused := [f"--{name.replace('_', '-')}" for name, value in given.items() if value is not None]:
        raise ConfigurationError(
            f"{', '.join(unused)} {'are' if len(unused) > 1 else 'is'} for the check of a codebook on images: "
            "name the images with --dataset"
        )


def facts(summary: Summary) -> dict[str, Any]:
    """Names and values; a name that comes more than once, such as warnings, has a list."""
    values: dict[str, Any] = {}
    for name, value in summary.rows:
        before = values.get(name)
        values[name] = value if before is None else [*(before if isinstance(before, list) else [before]), value]
    return values


def print_facts(path: str, summary: Summary, *, quiet: bool) -> None:
    """One aligned line a fact."""
    from vqtok_cli.output import say

    if quiet:
        return
    say(f"{path}: {summary.kind}")
    width = max(len(name) for name, _ in summary.rows)
    for name, value in summary.rows:
        say(f"  {name:<{width}}  {value}")


def check_tokenizer(folder: Path, name: str, kind: str) -> None:
    """Refuse what has no codebook to look at."""
    from vqtok.errors import ConfigurationError
    from vqtok.report import describe

    if kind == "run" and (folder / "model" / "config.json").is_file():
        kind = describe(folder / "model").kind
    if kind != "tokenizer":
        what = "a run without a finished tokenizer" if kind == "run" else kind if kind == "codes" else f"a {kind}"
        raise ConfigurationError(
            f"--dataset judges the codebook of a tokenizer, and {name} is {what}: name a tokenizer, or leave it out"
        )


def measure(
    name: str,
    revision: str | None,
    dataset: str,
    data: dict[str, Any],
    out: Path | None,
    *,
    split: str,
    num_images: int,
    batch_size: int,
    device: str | None,
    quiet: bool,
) -> tuple[VQTokenizer, CodebookHealth, Path]:
    """Load the tokenizer and look at its codes on the images; gives also the folder to draw into.

    Args:
        data: what `open_images` is told of the images besides what the tokenizer's run says.
    """
    from vqtok.data import open_images
    from vqtok.evaluation import measure_health
    from vqtok.report import check_health_folder
    from vqtok_cli.output import note
    from vqtok_cli.runs import data_settings
    from vqtok_cli.tokenizers import load_tokenizer

    model = load_tokenizer(name, device=device, revision=revision)
    folder = out or default_folder(model)
    check_health_folder(folder)
    settings = data_settings(Path(str(model.repository)), dataset) | data
    source = open_images(settings.pop("dataset"), split=split, **settings)
    health = measure_health(model, source, num_images=num_images, batch_size=batch_size)
    for line in source.notes:
        note(line, err=quiet)
    return model, health, folder


def default_folder(model: VQTokenizer) -> Path:
    """health/ beside the model of a run, and in the working folder for any other tokenizer."""
    from vqtok.hub import run_of

    folder = Path(str(model.repository))
    return folder.parent / "health" if run_of(folder) else Path("health")


def settings_of(model: VQTokenizer) -> TokenizerTrainingConfig:
    """The configuration of a tokenizer's run, or of one like it where there is none beside it."""
    from vqtok.training import TokenizerTrainingConfig
    from vqtok_cli.runs import run_config

    run = run_config(Path(str(model.repository)))
    return run or TokenizerTrainingConfig(out="", network=model.config.network, quantizer=model.config.quantizer)


def report(health: CodebookHealth, model: VQTokenizer, folder: Path, *, quiet: bool) -> dict[str, Any]:
    """Check the codebook and plot it; print the result, and give what --json prints."""
    from vqtok.hub import read_metric_rows, run_of, training_usage
    from vqtok.report import draw_health, judge
    from vqtok_cli.output import done

    verdict, run = judge(health, settings_of(model)), run_of(Path(str(model.repository)))
    in_training = training_usage(read_metric_rows(run)) if run else None
    if not quiet:
        print_health(health, verdict, in_training)
    files = draw_health(health, folder)
    done(f"plots written to {folder}: {', '.join(file.name for file in files)}", err=quiet)
    verdicts = {"healthy": verdict.healthy, "wrong": list(verdict.wrong), "remedies": list(verdict.remedies)}
    measured = {**health.about, **health.numbers(), "training_usage": in_training}
    return {**measured, "verdict": verdicts, "drawings": [str(file) for file in files]}


def print_health(health: CodebookHealth, verdict: Verdict, in_training: float | None) -> None:
    """The numbers, the use in training beside them, and the verdict."""
    from vqtok.text import counted
    from vqtok_cli.output import say

    about, numbers = health.about, health.numbers()
    images = counted(about["num_images"], "image")
    say(f"its codebook on {images} of {about['dataset']}, split {about['split']}")
    rows = [
        (words, number_text(name, numbers[name], totals(health).get(name)))
        for name, words in NUMBERS.items()
        if name in numbers
    ]
    rows.append((f"use on these images, split {about['split']}", f"{health.use.usage:.1%}"))
    if in_training is not None:
        rows.append(("use in training, over its last images", f"{in_training:.1%}"))
    width = max(len(words) for words, _ in rows)
    for words, text in rows:
        say(f"  {words:<{width}}  {text}")
    if counting := health.counting.note():
        say(f"note: {counting}")
    if verdict.healthy:
        say("verdict: healthy")
        return
    say(f"verdict: {'; '.join(verdict.wrong)}")
    if verdict.remedies:
        say(f"try: vqtok train with one or more of {', '.join(f'--set {each}' for each in verdict.remedies)}")


def number_text(name: str, value: float | int, total: float | int | None) -> str:
    """A number of a codebook, with the most it can be where that is known."""
    text = f"{value:,}" if isinstance(value, int) else f"{value:.1%}" if "share" in name else f"{value:.4g}"
    return text if total is None else f"{text} of {total:,}"


def totals(health: CodebookHealth) -> dict[str, float | int]:
    """The most that some numbers can be."""
    from vqtok.quantizers import CodeUse

    use = health.use
    if isinstance(use, CodeUse):
        return {"codes_in_use": use.num_codes, "dead_codes": use.num_codes}
    return {"bits_in_use": round(use.num_bits, 1), "constant_dimensions": use.num_dimensions}
