"""vqtok train-prior: codes -> a prior over them."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from datasets import Dataset

    from vqtok.data.columns import Labels
    from vqtok.priors import PriorBinding
    from vqtok.training.grids import CodeGrids
    from vqtok.training.prior_config import PriorTrainingConfig

__all__ = ["open_grids", "train_prior"]


def train_prior(
    codes: Annotated[str | None, typer.Argument(help="Codes folder, as `vqtok tokenize` writes it.")] = None,
    out: Annotated[str | None, typer.Option(help="Run folder; by default runs/prior.")] = None,
    arch: Annotated[str | None, typer.Option(help="transformer or pixelcnn; by default transformer.")] = None,
    hidden_size: Annotated[int | None, typer.Option(help="Width; by default 256, of a pixelcnn 128.")] = None,
    num_layers: Annotated[int | None, typer.Option(help="Layers; by default 6, of a pixelcnn 8.")] = None,
    num_heads: Annotated[int | None, typer.Option(help="Attention heads of a transformer; by default 4.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Share dropped in training; by default 0.")] = None,
    unconditional: Annotated[
        bool | None,
        typer.Option("--unconditional", help="Leave the labels of the codes out."),
    ] = None,
    label_column: Annotated[str | None, typer.Option(help="Where several columns could be it.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps; by default 10000.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Images a step, over all processes; by default 64.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate; by default 0.001.")] = None,
    precision: Annotated[str | None, typer.Option(help="no (float32), bf16 or fp16; by default no.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of weights, order and noise; by default 0.")] = None,
    tracker: Annotated[str | None, typer.Option(help="none, tensorboard, trackio or wandb; by default none.")] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer of the codes, to decode samples during training; a folder or Hub id.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings, such as a run's config.yaml.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any other setting, such as arch.dropout=0.1; repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the run's newest checkpoint.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run that is in --out.")] = False,
    push_to_hub: Annotated[str | None, typer.Option(metavar="ORG/NAME", help="Push the finished prior.")] = None,
) -> None:
    """Train a prior on a set of codes. It knows the classes where the codes have labels."""
    from vqtok.hub import check_can_push, push
    from vqtok.training import resolve_config, resume_config
    from vqtok.training.prior import train_prior as train
    from vqtok.training.prior_config import PriorTrainingConfig
    from vqtok_cli.output import done, note, resolved
    from vqtok_cli.tokenizers import load_tokenizer

    options = {
        "codes": codes,
        "out": out,
        "arch": arch,
        "arch.hidden_size": hidden_size,
        "arch.num_layers": num_layers,
        "arch.num_heads": num_heads,
        "arch.dropout": dropout,
        "unconditional": unconditional,
        "label_column": label_column,
        "steps": steps,
        "batch_size": batch_size,
        "learning_rate": learning_rate,
        "precision": precision,
        "seed": seed,
        "tracker": tracker,
    }
    given: dict[str, Any] = {"file": config, "options": options, "assignments": set_ or []}
    if resume:
        settings = resume_config(PriorTrainingConfig, Path(out or "runs/prior"), **given)
    else:
        settings = resolve_config(PriorTrainingConfig, base={"out": "runs/prior"}, **given)
    if push_to_hub:
        check_can_push(push_to_hub)
    binding, train_grids, test_grids, notes = open_grids(settings)
    resolved(
        "train-prior",
        asdict(settings)
        | {
            "images": f"{len(train_grids)} train, {len(test_grids)} test",
            "grid": f"{' x '.join(map(str, binding.code_shape(0)[1:]))} of {binding.codebook_size} codes",
            "classes": ", ".join(binding.label_names) if binding.label_names else "none",
            "tokenizer": tokenizer,
        },
    )
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
        DataError: no codes there, no training split, a label column that is not there, or labels that are none.
    """
    from datasets import DatasetDict

    from vqtok.codes import codes_array, load_codes, read_spec
    from vqtok.data.sources import find_held_out
    from vqtok.errors import DataError
    from vqtok.priors import PriorBinding
    from vqtok.training.grids import CodeGrids, hold_out

    dataset = load_codes(config.codes)
    spec = read_spec(config.codes)
    splits = dict(dataset) if isinstance(dataset, DatasetDict) else {"train": dataset}
    if "train" not in splits:
        raise DataError(f"{config.codes} has no split 'train', only {', '.join(splits)}: tokenize training images too")
    labels, notes = open_labels(config, splits)
    held, held_notes = find_held_out(splits, "train", labels)
    if held and labels and not labels.are_in(splits[held]):
        held, held_notes = None, (f"the split {held} has no labels, so it is not used",)

    def grids(name: str) -> CodeGrids:
        classes = labels.of(splits[name], f"{config.codes}, split {name}") if labels else None
        return CodeGrids(codes=codes_array(splits[name]), labels=classes)

    binding = PriorBinding(
        fingerprint=spec.fingerprint,
        grid=spec.grid,
        codebook_size=spec.codebook_size,
        num_codebooks=spec.num_codebooks,
        label_names=labels.names if labels else None,
        tokenizer=spec.repository,
    )
    notes = [*notes, *held_notes]
    if held:
        return binding, grids("train"), grids(held), notes
    train, test = hold_out(grids("train"), share=config.test_share, seed=config.seed)
    note = f"no test split: {len(test)} images held out (test_share {config.test_share:g}, seed {config.seed})"
    return binding, train, test, [*notes, note]


def open_labels(config: PriorTrainingConfig, splits: dict[str, Dataset]) -> tuple[Labels | None, list[str]]:
    """The classes of the codes by the rule of `vqtok.data.columns`, None for a prior without; and notes for the user.

    Raises:
        DataError: several columns could be it, or the one that is named holds no labels for all training images.
    """
    from vqtok.data.columns import find_labels
    from vqtok.errors import DataError

    if config.unconditional:
        return None, []
    labels, notes = find_labels(splits, config.codes, config.label_column, must_choose=True)
    if labels is None or not labels.are_in(splits["train"]):
        if config.label_column:
            raise DataError(
                f"the column {config.label_column} of {config.codes} has training images without a label: choose "
                "another, or pass --unconditional"
            )
        return None, [*notes, "the codes have no labels, so the prior has no classes"]
    return labels, list(notes)
