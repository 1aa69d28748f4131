"""vqtok bind: codes that lost the name of their tokenizer get it back."""

from __future__ import annotations

from typing import Annotated

import typer

from vqtok_cli.parameters import TokenizerRevision

__all__ = ["bind"]


def bind(
    codes: Annotated[str, typer.Argument(help="Codes: a folder of a saved dataset, or parquet files.")],
    tokenizer: Annotated[
        str, typer.Option(help="Tokenizer that made the codes: its folder, a run folder or a Hub id.")
    ],
    revision: TokenizerRevision = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Bind codes that name another tokenizer, too.")
    ] = False,
) -> None:
    """Say which tokenizer made some codes.

    Codes are bound to their tokenizer when they are made, but pandas, polars and other programs lose that. Checked is
    what can be: the size of the grids, their type, and that the tokenizer has every code in them. Whether it made them,
    only you know. The codes themselves are not written anew.
    """
    from vqtok.codes import bind_codes, splits_of
    from vqtok.text import counted
    from vqtok_cli.output import done, resolved
    from vqtok_cli.tokenizers import load_tokenizer

    model = load_tokenizer(tokenizer, device="cpu", revision=revision)
    height, width = model.grid
    resolved(
        "bind",
        {
            "codes": codes,
            "tokenizer": f"{model.repository} ({model.fingerprint[:12]})",
            "revision": model.revision,
            "grid": f"{height} x {width} of {model.codebook_size:,} codes",
        },
    )
    bound = bind_codes(codes, model, overwrite=overwrite)
    rows = sum(len(split) for split in splits_of(bound).values())
    done(
        f"codes of {counted(rows, 'image')} in {codes} bound to tokenizer {model.fingerprint[:12]}",
        next=("vqtok", "train-prior", codes, "--out", "runs/prior"),
    )
