"""vqtok detokenize: a codes folder -> images."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vqtok_cli.parameters import BatchSize, Device, Split

if TYPE_CHECKING:
    from vqtok.codes import CodesSpec
    from vqtok.tokenizer import VQTokenizer

__all__ = ["detokenize"]


def detokenize(
    codes: Annotated[Path, typer.Argument(help="Codes folder, as written by vqtok tokenize.")],
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
    batch_size: BatchSize = 64,
    device: Device = None,
) -> None:
    """Decode a codes folder back to images."""
    from datasets import DatasetDict

    from vqtok.codes import detokenize_dataset, load_codes, read_spec
    from vqtok.errors import DataError, did_you_mean
    from vqtok.folders import check_free
    from vqtok.text import counted
    from vqtok_cli.output import done, resolved
    from vqtok_cli.tokenizers import load_tokenizer

    check_free(out)
    rows = load_codes(codes)
    spec = read_spec(codes)
    if split is not None:
        names = [str(name) for name in rows] if isinstance(rows, DatasetDict) else [str(rows.split)]
        if split not in names:
            raise DataError(f"{codes} has no split {split}; found: {', '.join(names)}.{did_you_mean(split, names)}")
        rows = rows[split] if isinstance(rows, DatasetDict) else rows
    if tokenizer is None:
        model = find_tokenizer(spec, device=device)
    else:
        model = load_tokenizer(tokenizer, device=device)
        spec.check(model)
    count = sum(rows.num_rows.values()) if isinstance(rows, DatasetDict) else rows.num_rows
    resolved(
        "detokenize",
        {
            "codes": codes,
            "images": f"{count:,}",
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
