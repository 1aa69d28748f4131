"""vqtok inspect: what a folder holds, and how healthy the codebook of a tokenizer is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vqtok.evaluation import CodebookHealth
    from vqtok.tokenizer import VQTokenizer

__all__ = ["inspect"]

# What is printed of a codebook, in words.
NUMBERS = {
    "perplexity": "perplexity",
    "codes_in_use": "codes in use",
    "dead_codes": "dead codes",
    "share_of_top_percent": "share of the 1% most used codes",
    "mean_nearest_distance": "distance to the nearest code, mean",
    "mean_distance": "distance of two codes, mean",
    "bits_in_use": "bits in use, at most",
    "constant_dimensions": "dimensions of a code that are constant",
    "sampled_codes": "codes sampled for what follows",
    "sampled_nearest_distance": "distance to the nearest of the sample, mean",
    "sampled_distance": "distance of two of the sample, mean",
}


def inspect(
    path: Annotated[str, typer.Argument(help="Tokenizer, prior, codes or run folder, or Hub id of the first two.")],
    revision: Annotated[str | None, typer.Option(help="On the Hub: branch, tag or commit.")] = None,
    dataset: Annotated[
        str | None,
        typer.Option(help="Draw the health of a tokenizer's codebook on these images: what vqtok train takes."),
    ] = None,
    split: Annotated[str, typer.Option(help="With --dataset: its split.")] = "test",
    num_images: Annotated[int, typer.Option(help="With --dataset: only the first so many images.")] = 2000,
    out: Annotated[
        Path | None,
        typer.Option(help="With --dataset: folder for the drawings. [default: health in the run folder, else here]"),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="With --dataset: images at once.")] = 128,
    device: Annotated[
        str | None, typer.Option(help="With --dataset: cpu, cuda, ... [default: cuda where there is one]")
    ] = None,
) -> None:
    """Say what a folder holds. It can be a tokenizer, a prior, codes or a run.

    With --dataset also draw the health of a tokenizer's codebook: how often codes are used and where on the grid, how
    far apart they lie, and the patches of images that they stand for.
    """
    from vqtok.errors import ConfigurationError
    from vqtok.hub import fetch
    from vqtok.report import describe
    from vqtok_cli.output import say

    if out is not None and dataset is None:
        raise ConfigurationError("--out is for drawings of a codebook on images: name the images with --dataset")
    folder = Path(path)
    if not folder.exists() and path.count("/") == 1 and not path.startswith((".", "~")):
        folder = fetch(path, revision=revision)
    summary = describe(folder, name=path)
    health = None
    if dataset is not None:
        check_tokenizer(folder, path, summary.kind)
        model, health = measure(path, revision, dataset, split, num_images, batch_size, device)
    say(f"{path}: {summary.kind}")
    width = max(len(name) for name, _ in summary.rows)
    for name, value in summary.rows:
        say(f"  {name:<{width}}  {value}")
    if health is not None:
        draw(health, verdict_on(model, health), out or default_folder(model))


def check_tokenizer(folder: Path, name: str, kind: str) -> None:
    """Refuse what has no codebook to look at."""
    from vqtok.errors import ConfigurationError
    from vqtok.report import describe

    if kind == "run" and (folder / "model" / "config.json").is_file():
        kind = describe(folder / "model").kind
    if kind != "tokenizer":
        what = "a run without a finished tokenizer" if kind == "run" else kind if kind == "codes" else f"a {kind}"
        raise ConfigurationError(
            f"--dataset draws the codebook of a tokenizer, and {name} is {what}: name a tokenizer, or leave it out"
        )


def measure(
    name: str, revision: str | None, dataset: str, split: str, num_images: int, batch_size: int, device: str | None
) -> tuple[VQTokenizer, CodebookHealth]:
    """Load the tokenizer and look at its codes on the images."""
    from vqtok.data import open_images
    from vqtok.evaluation import measure_health
    from vqtok_cli.evaluate import data_settings
    from vqtok_cli.output import note
    from vqtok_cli.tokenizers import load_tokenizer

    model = load_tokenizer(name, device=device, revision=revision)
    data = data_settings(Path(str(model.repository)), dataset)
    source = open_images(data.pop("dataset"), split=split, **data)
    health = measure_health(model, source, num_images=num_images, batch_size=batch_size)
    for line in source.notes:
        note(line)
    return model, health


def default_folder(model: VQTokenizer) -> Path:
    """health/ beside the model of a run, and in the working folder for any other tokenizer."""
    folder = Path(str(model.repository))
    return folder.parent / "health" if (folder.resolve().parent / "config.yaml").is_file() else Path("health")


def verdict_on(model: VQTokenizer, health: CodebookHealth) -> str:
    """Whether the codebook is healthy, by the measure of the run it comes from, and what to try if it is not."""
    from vqtok.training import TokenizerTrainingConfig
    from vqtok.training.health import verdict
    from vqtok_cli.evaluate import run_of
    from vqtok_cli.output import counted

    run, about = run_of(Path(str(model.repository))), health.about
    config = run or TokenizerTrainingConfig(out="", quantizer=model.config.quantizer)
    images = f"on {counted(about['num_images'], 'image')} of {about['dataset']}, split {about['split']}"
    return verdict(config, health.use, images, trained_so=run is not None)


def draw(health: CodebookHealth, verdict: str, folder: Path) -> None:
    """Print the numbers and the verdict, write the drawings and say where they are."""
    from vqtok.report import draw_health
    from vqtok_cli.output import done, note, say

    about, numbers = health.about, health.numbers()
    say(f"its codebook on {about['num_images']:,} images of {about['dataset']}, split {about['split']}")
    width = max(map(len, NUMBERS.values()))
    for name, words in ((name, words) for name, words in NUMBERS.items() if name in numbers):
        say(f"  {words:<{width}}  {number_text(name, numbers[name], totals(health).get(name))}")
    for line in filter(None, [health.counting.note()]):
        note(line)
    say(verdict)
    files = draw_health(health, folder)
    done(f"drawn in {folder}: {', '.join(file.name for file in files)}")


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
