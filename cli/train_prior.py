"""vqtok train-prior: codes -> a prior over them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from vqtok.codes import open_grids
from vqtok.hub import check_can_push, names_text
from vqtok.training import PriorTrainingConfig
from vqtok.training import train_prior as train
from vqtok_cli.described import grouped, options_from, sentence
from vqtok_cli.output import done, note, resolved
from vqtok_cli.parameters import Assignments, ConfigFile, OverwriteRun, PushToHub, Resume
from vqtok_cli.tokenizers import load_tokenizer
from vqtok_cli.training import check_out, finished_model, push_finished, settings_for

__all__ = ["train_prior"]

OPTIONS = {
    "Data": ("label_column", "unconditional"),
    "Prior": ("arch", "arch.hidden_size", "arch.num_layers", "arch.num_heads", "arch.dropout"),
    "Training": ("steps", "batch_size", "learning_rate", "precision", "seed", "tracker", "out"),
}
"""Settings with an option of their own, by the heading of the help that they stand under."""


EPILOG = (
    "These are the settings most often changed. To list all of them, with what each may be and its default, run "
    "vqtok settings train-prior for those of the run, and vqtok settings transformer or vqtok settings pixelcnn for "
    "those of the prior. Pass any of them as in --set class_dropout=0.2."
)


@options_from(PriorTrainingConfig, OPTIONS, defaults={"out": "runs/prior"})
def train_prior(
    given: Mapping[str, Any],
    codes: Annotated[str | None, typer.Argument(help=sentence(PriorTrainingConfig, "codes"))] = None,
    tokenizer: Annotated[
        str | None,
        typer.Option(help="Tokenizer to decode samples with during training: its folder, a run folder or a Hub id."),
    ] = None,
    config: ConfigFile = None,
    set_: Assignments = None,
    resume: Resume = False,
    overwrite: OverwriteRun = False,
    push_to_hub: PushToHub = None,
) -> None:
    """Train a prior on codes.

    The prior is written to OUT/model, next to the settings, the metrics and the checkpoints of the run. If the codes
    have labels, it learns them as classes, which vqtok sample can ask for. Options given here replace settings from
    --config, and --set replaces both.
    """
    settings = settings_for(
        PriorTrainingConfig,
        given={"codes": codes, **given},
        file=config,
        assignments=set_,
        out="runs/prior",
        resume=resume,
    )
    check_out(settings.out, resume=resume, overwrite=overwrite)
    if push_to_hub:
        check_can_push(push_to_hub)
    binding, train_grids, test_grids, notes = open_grids(
        settings.codes,
        label_column=settings.label_column,
        unconditional=settings.unconditional,
        test_share=settings.test_share,
        seed=settings.seed,
    )
    facts = {
        "images": f"{len(train_grids):,} for training, {len(test_grids):,} held out",
        "grid": f"{' x '.join(map(str, binding.code_shape(0)[1:]))} of {binding.codebook_size:,} codes",
        "classes": names_text(binding.label_names or ()),
        "tokenizer": tokenizer,
    }
    resolved("train-prior", grouped(settings, facts, {"Codes": ("codes",), **OPTIONS}))
    for line in notes:
        note(line)

    loaded = None if tokenizer is None else load_tokenizer(tokenizer)
    result = train(settings, binding, train_grids, test_grids, tokenizer=loaded, resume=resume, overwrite=overwrite)
    model = finished_model("train-prior", result, settings.out)
    done(
        f"prior written to {model} ({result.metrics['loss']:.4g} nats or "
        f"{result.metrics['bits_per_code']:.4g} bits per held-out code; "
        f"{result.metrics['unigram_bits_per_code']:.4g} bits without looking at other codes)",
        next=(
            *("vqtok", "sample", "--prior", settings.out, "--tokenizer", tokenizer or binding.tokenizer or "TOKENIZER"),
            *("--out", "samples.png"),
        ),
    )
    if push_to_hub:
        push_finished(model, push_to_hub)
