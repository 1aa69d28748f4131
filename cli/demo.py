"""vqtok demo: the whole way on the digits inside the package, from images to new ones, ending in a page to look at.

It types the very commands that a user would, so what it shows is what they do.
"""

from __future__ import annotations

import json
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from vqtok_cli.parameters import Overwrite, Seed

__all__ = ["Settings", "demo", "run_demo"]

RECORD = "demo.json"  # marks a folder as a demo's own, and tells the page what ran


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Options of the stages beyond their inputs, outputs and seeds.

    The defaults take about four minutes on two cores of 2.5 GHz.
    """

    dataset: str = "mnist-mini"
    train: Sequence[str] = (
        *("--hidden-size", "64", "--codebook-size", "256", "--code-dim", "32"),
        *("--batch-size", "64", "--steps", "1400", "--learning-rate", "3e-3"),
        *("--set", "eval_every=350", "--set", "checkpoint_every=1400"),
    )
    train_prior: Sequence[str] = (
        *("--hidden-size", "128", "--num-layers", "4", "--num-heads", "4"),
        *("--batch-size", "32", "--steps", "1700", "--learning-rate", "2e-3"),
        *("--set", "eval_every=425", "--set", "checkpoint_every=1700"),
    )
    sample: Sequence[str] = ("--num-images", "100", "--top-p", "0.95", "--guidance-scale", "2")


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write everything to.")] = Path("demo"),
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Run every step on handwritten digits, in a few minutes.

    Trains a tokenizer, evaluates and inspects it, tokenizes the images, trains a prior on the codes, samples new images
    and writes a page that shows all of it.
    """
    run_demo(out, seed=seed, overwrite=overwrite)


def run_demo(out: Path, *, seed: int = 0, overwrite: bool = False, settings: Settings | None = None) -> Path:
    """Run every stage into the folder `out` and write the page.

    Returns:
        The page, `out/index.html`.

    Raises:
        ConfigurationError: the folder is not empty, and no demo's or not to be replaced; or a demo is running in it.
        VqtokError: whatever stops a stage.
    """
    from vqtok.locks import locked

    check_out(out, overwrite=overwrite)
    with locked(out):
        prepare(out, overwrite=overwrite)
        return run_stages(out, stages(out, seed, settings or Settings()), settings or Settings())


def run_stages(out: Path, commands: Sequence[tuple[str, list[str]]], settings: Settings) -> Path:
    """Run the commands one after the other and write the page, which is given back."""
    from vqtok_cli.output import done, mention

    record: list[dict[str, str | float]] = []
    write_record(out, record)
    for index, (title, arguments) in enumerate(commands, start=1):
        command = f"vqtok {shlex.join(arguments)}"
        mention(f"[{index}/{len(commands) + 1}] {title}")
        mention(f"$ {command}")
        began = time.perf_counter()
        run_command(arguments)
        record.append({"title": title, "command": command, "seconds": time.perf_counter() - began})
        write_record(out, record)
        mention(f"took {record[-1]['seconds']:.0f} s")
        mention("")

    mention(f"[{len(commands) + 1}/{len(commands) + 1}] write the page")
    page = make_page(out, settings)
    for row in record:
        mention(f"  {row['seconds']:5.0f} s  {row['title']}")
    done(f"the page is {page}: open it in a browser", next=("vqtok", "inspect", f"{out}/tokenizer"))
    return page


def stages(out: Path, seed: int, settings: Settings) -> list[tuple[str, list[str]]]:
    """What each stage is and the arguments of its command, in order."""
    tokenizer, codes, prior = f"{out}/tokenizer", f"{out}/codes", f"{out}/prior"
    model, seeded = f"{tokenizer}/model", ["--seed", str(seed)]
    return [
        ("train a tokenizer", ["train", "--dataset", settings.dataset, "--out", tokenizer, *settings.train, *seeded]),
        ("measure it on held-out images", ["evaluate", "--tokenizer", model, "--dataset", settings.dataset]),
        (
            "look at the health of its codebook",
            ["inspect", tokenizer, "--dataset", settings.dataset, "--out", f"{out}/health"],
        ),
        ("turn the images into codes", ["tokenize", settings.dataset, "--tokenizer", model, "--out", codes]),
        (
            "train a prior on the codes",
            ["train-prior", codes, "--tokenizer", model, "--out", prior, *settings.train_prior, *seeded],
        ),
        (
            "sample new images by class",
            [
                "sample",
                "--prior",
                prior,
                "--tokenizer",
                model,
                *settings.sample,
                *seeded,
                "--out",
                f"{out}/samples.png",
            ],
        ),
    ]


def prepare(out: Path, *, overwrite: bool) -> None:
    """Make the folder, or refuse one that is in use; only what a demo made is ever removed."""
    from vqtok.folders import clear_folder
    from vqtok.locks import locked

    check_out(out, overwrite=overwrite)
    for name in ("tokenizer", "codes", "prior"):
        if (out / name).is_dir():
            with locked(out / name):  # refuses where somebody goes on with what a demo began
                pass
    clear_folder(out, marker=RECORD)


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse a folder that `prepare` would refuse."""
    from vqtok.folders import check_free

    check_free(out, marker=RECORD, ours=own_files, overwrite=overwrite)


def own_files(out: Path) -> str:
    """A regular expression of the files that a demo writes, relative to its folder."""
    from vqtok import codes
    from vqtok.locks import OWNER_FILE
    from vqtok.training.runs import HEALTH_FILES, RUN_FILES

    in_codes = rf"{re.escape(OWNER_FILE)}|{codes.codes_files(out / 'codes')}"  # the first where one was killed
    folders = rf"{HEALTH_FILES}|codes/({in_codes})|(tokenizer|prior)/({RUN_FILES})"
    return rf"{RECORD}|index\.html|samples\.png|{folders}"


def run_command(arguments: list[str]) -> None:
    """Run one command of vqtok as if it had been typed."""
    from vqtok_cli.main import app

    status = app(arguments, standalone_mode=False)
    if status:  # a training run that a signal stopped
        raise typer.Exit(status)


def write_record(out: Path, record: list[dict[str, str | float]]) -> None:
    from vqtok.files import write_text

    write_text(out / RECORD, json.dumps({"stages": record}, indent=2) + "\n")


def make_page(out: Path, settings: Settings) -> Path:
    from vqtok.report import write_report

    return write_report(
        out / "index.html",
        title=f"{settings.dataset}: images to codes and back",
        tokenizer_run=out / "tokenizer",
        codes=out / "codes",
        health=out / "health",
        prior_run=out / "prior",
        samples=out / "samples.png",
        stages=out / RECORD,
    )
