"""vqtok train-prior: codes -> a prior over them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vqtok.hub import check_can_push, push
from vqtok.training import resolve_config, resume_config
from vqtok.training.prior import train_prior as train
from vqtok.training.prior_config import PriorTrainingConfig
from vqtok_cli.described import grouped, options_from, sentence
from vqtok_cli.output import done, note, resolved
from vqtok_cli.parameters import Assignments, ConfigFile, Overwrite, PushToHub, Resume
from vqtok_cli.tokenizers import load_tokenizer

if TYPE_CHECKING:
    from datasets import Dataset

    from vqtok.priors import PriorBinding
    from vqtok.training.grids import CodeGrids

__all__ = ["open_grids", "train_prior"]

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
    overwrite: Overwrite = False,
    push_to_hub: PushToHub = None,
) -> None:
    """Train a prior on a codes folder.

    The prior is written to OUT/model, next to the settings, the metrics and the checkpoints of the run. If the codes
    have labels, it learns them as classes, which vqtok sample can ask for. Options given here replace settings from
    --config, and --set replaces both.
    """
    sources: dict[str, Any] = {"file": config, "options": {"codes": codes, **given}, "assignments": set_ or []}
    if resume:
        settings = resume_config(PriorTrainingConfig, Path(given.get("out", "runs/prior")), **sources)
    else:
        settings = resolve_config(PriorTrainingConfig, base={"out": "runs/prior"}, **sources)
    if push_to_hub:
        check_can_push(push_to_hub)
    binding, train_grids, test_grids, notes = open_grids(settings)
    facts = {
        "images": f"{len(train_grids):,} for training, {len(test_grids):,} held out",
        "grid": f"{' x '.join(map(str, binding.code_shape(0)[1:]))} of {binding.codebook_size:,} codes",
        "classes": ", ".join(binding.label_names) if binding.label_names else "none",
        "tokenizer": tokenizer,
    }
    resolved("train-prior", grouped(settings, facts, OPTIONS))
    for line in notes:
        note(line)

    loaded = load_tokenizer(tokenizer) if tokenizer else None
    result = train(settings, binding, train_grids, test_grids, tokenizer=loaded, resume=resume, overwrite=overwrite)
    if result.model is None:
        assert result.stopped_by is not None  # nothing else ends a run early
        done(
            f"{result.stopped_by.name} at step {result.step}: saved in {settings.out}/checkpoints",
            next=f"vqtok train-prior --resume --out {settings.out}",
        )
        raise typer.Exit(128 + result.stopped_by)
    done(
        f"prior written to {result.model} ({result.metrics['loss']:.4g} nats or "
        f"{result.metrics['bits_per_code']:.4g} bits per held-out code; "
        f"{result.metrics['unigram_bits_per_code']:.4g} bits without looking at other codes)",
        next=f"vqtok sample --prior {settings.out} --tokenizer {tokenizer or binding.tokenizer or 'TOKENIZER'} "
        "--out samples.png",
    )
    if push_to_hub:
        done(f"pushed to {push(result.model, push_to_hub)}")


def open_grids(config: PriorTrainingConfig) -> tuple[PriorBinding, CodeGrids, CodeGrids, list[str]]:
    """What a codes folder holds: tokenizer and classes, training images, held-out images, and what to tell the user.

    Raises:
        DataError: no codes there, or no training split.
        ConfigurationError: a label column that is not there, or labels asked for that are none.
    """
    from datasets import DatasetDict

    from vqtok.codes import codes_array, load_codes, read_spec
    from vqtok.errors import DataError
    from vqtok.priors import PriorBinding
    from vqtok.training.grids import CodeGrids, hold_out

    dataset = load_codes(config.codes)
    spec = read_spec(config.codes)
    splits = dict(dataset) if isinstance(dataset, DatasetDict) else {"train": dataset}
    if "train" not in splits:
        raise DataError(f"{config.codes} has no split 'train', only {', '.join(splits)}: tokenize training images too")
    held = next((name for name in ("test", "validation", "valid", "val") if name in splits), None)
    column = None if config.unconditional else find_label_column(splits["train"], config.label_column)
    names = label_names(splits["train"], column) if column else None

    def grids(name: str) -> CodeGrids:
        return CodeGrids(codes=codes_array(splits[name]), labels=labels(splits[name], column) if column else None)

    binding = PriorBinding(
        fingerprint=spec.fingerprint,
        grid=spec.grid,
        codebook_size=spec.codebook_size,
        num_codebooks=spec.num_codebooks,
        label_names=names,
        tokenizer=spec.repository,
        revision=spec.revision,
    )
    notes = [] if column or config.unconditional else ["the codes have no labels, so the prior has no classes"]
    if held:
        return binding, grids("train"), grids(held), notes
    train, test = hold_out(grids("train"), share=config.test_share, seed=config.seed)
    note = f"no test split: {len(test)} images held out (test_share {config.test_share:g}, seed {config.seed})"
    return binding, train, test, [*notes, note]


def find_label_column(dataset: Dataset, given: str | None) -> str | None:
    """The column of classes: the one named, the one called label, or the only one of that type."""
    from datasets import ClassLabel, Value

    from vqtok.errors import ConfigurationError, did_you_mean

    allowed = [
        name
        for name, feature in dataset.features.items()
        if isinstance(feature, ClassLabel) or (isinstance(feature, Value) and "int" in feature.dtype)
    ]
    if given is not None:
        if given not in allowed:
            found = ", ".join(allowed) or "none"
            raise ConfigurationError(
                f"label_column {given!r} holds no labels; columns that do: {found}.{did_you_mean(given, allowed)}"
            )
        return given
    typed = [name for name in allowed if isinstance(dataset.features[name], ClassLabel)]
    if "label" in allowed:
        return "label"
    if len(typed) > 1:
        raise ConfigurationError(f"several columns hold labels: name one of {', '.join(typed)} with --label-column")
    return typed[0] if typed else None


def label_names(dataset: Dataset, column: str) -> tuple[str, ...]:
    """Names of the classes; their numbers where the column has none."""
    from datasets import ClassLabel

    feature = dataset.features[column]
    if isinstance(feature, ClassLabel):
        return tuple(feature.names)
    return tuple(map(str, range(int(labels(dataset, column).max()) + 1)))


def labels(dataset: Dataset, column: str) -> Any:
    """The labels of all rows, int64 (N,)."""
    import numpy as np

    from vqtok.errors import DataError

    values = dataset.select_columns([column]).with_format("arrow")[:][column]
    if values.null_count:
        raise DataError(f"{values.null_count} rows have no label in the column {column!r}: pass --unconditional")
    return np.asarray(values, dtype=np.int64)
