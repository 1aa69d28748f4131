"""vqtok detokenize: codes -> images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqtok_cli.parameters import BatchSize, Codes, Device, Split

if TYPE_CHECKING:
    from vqtok.codes import CodesSpec
    from vqtok.tokenizer import VQTokenizer

__all__ = ["detokenize"]


def detokenize(
    codes: Codes,
    out: Annotated[Path, typer.Option(help="Folder to write the images to. Must be missing or empty.")] = Path(
        "reconstructions"
    ),
    tokenizer: Annotated[
        str | None,
        typer.Option(
            help="Tokenizer to use: its folder, a run folder or a Hub id.", show_default="the one that made the codes"
        ),
    ] = None,
    split: Split = None,
    streaming: Annotated[
        bool, typer.Option("--streaming", help="Read codes on the Hub while they are decoded, without a copy here.")
    ] = False,
    batch_size: BatchSize = 64,
    device: Device = None,
) -> None:
    """Decode codes back to images."""
    from datasets import Dataset

    from vqtok.codes import detokenize_dataset, load_codes, read_spec, splits_of
    from vqtok.errors import DataError, did_you_mean
    from vqtok.folders import check_free
    from vqtok.text import counted
    from vqtok_cli.output import done, resolved
    from vqtok_cli.tokenizers import load_tokenizer

    check_free(out)
    rows = load_codes(codes, streaming=True) if streaming else load_codes(codes)
    spec = read_spec(rows)
    splits = splits_of(rows)
    if split is not None:
        if split not in splits:
            raise DataError(f"{codes} has no split {split}; found: {', '.join(splits)}.{did_you_mean(split, splits)}")
        rows, splits = splits[split], {split: splits[split]}
    if tokenizer is None:
        model = find_tokenizer(spec, device=device)
    else:
        model = load_tokenizer(tokenizer, device=device)
        spec.check(model)
    counts = [len(each) for each in splits.values() if isinstance(each, Dataset)]
    resolved(
        "detokenize",
        {
            "codes": codes,
            "images": f"{sum(counts):,}" if counts else None,
            "tokenizer": f"{model.repository} ({model.fingerprint[:12]})",
            "batch_size": batch_size,
            "device": model.device,
            "out": out,
        },
    )
    decoded = detokenize_dataset(rows, model, out, batch_size=batch_size)
    done(f"{counted(decoded, 'image')} written to {out}")


def find_tokenizer(spec: CodesSpec, *, device: str | None) -> VQTokenizer:
    """The tokenizer that made the codes: the one they name, else the newest run, whichever has the fingerprint.

    Raises:
        MismatchError: neither has; names the fingerprint.
    """
    from vqtok.errors import CheckpointError, HubError, MismatchError
    from vqtok_cli.tokenizers import load_tokenizer

    tried = []
    for place in (spec.repository, None):
        try:
            revision = spec.revision if place and not Path(place).is_dir() else None
            model = load_tokenizer(place, device=device, revision=revision)
        except (CheckpointError, HubError) as error:
            tried.append(str(error))
            continue
        if model.fingerprint == spec.fingerprint:
            return model
        tried.append(f"{model.repository} is {model.fingerprint[:12]}")
    reasons = "; ".join(dict.fromkeys(tried))
    raise MismatchError(
        f"tokenizer {spec.fingerprint[:12]} made these codes but was not found ({reasons}): name it with --tokenizer"
    )
