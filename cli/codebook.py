"""How healthy the codebook of a tokenizer is on images: measured, judged, printed and plotted for vqtok inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vqtok.data import open_images
from vqtok.errors import ConfigurationError
from vqtok.evaluation import CodebookHealth, measure_health
from vqtok.hub import read_metric_rows, run_of, training_usage
from vqtok.quantizers import CodeUse
from vqtok.report import Verdict, check_health_folder, describe, draw_health, judge
from vqtok.text import counted
from vqtok.tokenizer import VQTokenizer
from vqtok.training import TokenizerTrainingConfig
from vqtok_cli.output import done, note, say
from vqtok_cli.runs import data_settings, noting_changes, run_config
from vqtok_cli.tokenizers import load_tokenizer

__all__ = ["check_tokenizer", "measure", "report"]

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


def check_tokenizer(folder: Path, name: str, kind: str) -> None:
    """Refuse what has no codebook to look at."""
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
    model = load_tokenizer(name, device=device, revision=revision)
    folder = out or default_folder(model)
    check_health_folder(folder)
    tokenizer = Path(str(model.repository))
    settings = data_settings(tokenizer, dataset) | data
    source = noting_changes(open_images(settings.pop("dataset"), split=split, **settings), tokenizer, settings)
    health = measure_health(model, source, num_images=num_images, batch_size=batch_size)
    for line in source.notes:
        note(line, err=quiet)
    return model, health, folder


def default_folder(model: VQTokenizer) -> Path:
    """health/ beside the model of a run, and in the working folder for any other tokenizer."""
    folder = Path(str(model.repository))
    return folder.parent / "health" if run_of(folder) else Path("health")


def settings_of(model: VQTokenizer) -> TokenizerTrainingConfig:
    """The configuration of a tokenizer's run, or of one like it where there is none beside it."""
    run = run_config(Path(str(model.repository)))
    return run or TokenizerTrainingConfig(out="", network=model.config.network, quantizer=model.config.quantizer)


def report(health: CodebookHealth, model: VQTokenizer, folder: Path, *, quiet: bool) -> dict[str, Any]:
    """Check the codebook and plot it; print the result, and give what --json prints."""
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
    use = health.use
    if isinstance(use, CodeUse):
        return {"codes_in_use": use.num_codes, "dead_codes": use.num_codes}
    return {"bits_in_use": round(use.num_bits, 1), "constant_dimensions": use.num_dimensions}
