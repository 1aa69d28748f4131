"""vqtok complete: a part of an image -> the whole, in several ways."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vqtok_cli.parameters import BatchSize, Device, Seed
from vqtok_cli.priors import (
    DecoderName,
    DecoderRevision,
    GuidanceScale,
    OverwriteFile,
    PriorName,
    PriorRevision,
    Temperature,
    TopK,
    TopP,
    check_out,
    load_with_tokenizer,
    prior_source,
    write_grid,
)

__all__ = ["complete"]

MOST = 1000  # completions on one image grid
COLUMNS = 8


def complete(
    image: Annotated[Path, typer.Argument(help="Image to complete.")],
    keep: Annotated[
        str | None,
        typer.Option(metavar="<side:share>", help="Part to keep: top, bottom, left or right and a share: top:0.5."),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            help="Image of what to keep, instead of --keep: white (128 and above) is kept, black is completed. Of the "
            "size of the image, or of the images of the tokenizer."
        ),
    ] = None,
    prior: PriorName = None,
    revision: PriorRevision = None,
    tokenizer: DecoderName = None,
    tokenizer_revision: DecoderRevision = None,
    num_completions: Annotated[int, typer.Option(help="Number of completions, at most 1,000.")] = 4,
    label: Annotated[
        list[str] | None,
        typer.Option(
            metavar="<str>",
            help="Class of the image, by name or number. Several are dealt to the completions in turn.",
            show_default="no class",
        ),
    ] = None,
    candidates: Annotated[
        int,
        typer.Option(
            help="Candidates for each completion, at most 4,096, weighted by how well they explain kept codes that "
            "follow. One is enough, and taken, where none do."
        ),
    ] = 8,
    resample: Annotated[
        str,
        typer.Option(
            metavar="<positions|grids>",
            help="Choose among candidates along the way (positions), or among whole grids in the end (grids).",
        ),
    ] = "positions",
    paste: Annotated[bool, typer.Option("--paste", help="Put the kept pixels in the place of decoded ones.")] = False,
    temperature: Temperature = 1.0,
    top_k: TopK = 0,
    top_p: TopP = 1.0,
    guidance_scale: GuidanceScale = 1.0,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    device: Device = None,
    out: Annotated[Path, typer.Option(help="Image grid to write, a PNG file.")] = Path("completions.png"),
    overwrite: OverwriteFile = False,
) -> None:
    """Complete an image of which a part is known.

    A position of the code grid keeps its code where every pixel that it stands for is kept; the codes of the others are
    sampled from the prior, and the tokenizer decodes them all. Of what is not kept nothing is looked at. The image grid
    shows the original, what is kept of it on grey, and the completions.
    """
    from vqtok import priors
    from vqtok.data import masked_image
    from vqtok.errors import ConfigurationError
    from vqtok.priors.completion import preprocessing
    from vqtok.text import counted
    from vqtok_cli.output import done, resolved

    check_out(out, overwrite=overwrite, sources=[image, *([mask] if mask else [])])
    if not 1 <= num_completions <= MOST:
        raise ConfigurationError(f"--num-completions must be from 1 to {MOST:,}, got {num_completions:,}")
    source = prior_source(prior)
    loaded_prior, binding, loaded = load_with_tokenizer(source, revision, tokenizer, tokenizer_revision, device=device)
    part = masked_image(image, mask, keep=keep, **preprocessing(loaded))
    labels = [binding.label_number(each) for each in label][:num_completions] if label else None
    resolved(
        "complete",
        {
            "image": image,
            "prior": source,
            "revision": revision,
            "tokenizer": loaded.repository,
            "tokenizer_revision": loaded.revision,
            "keep": keep,
            "mask": mask,
            "kept": f"{int(part.positions(binding.grid).sum())} of {binding.grid[0] * binding.grid[1]} positions",
            "label": ", ".join((binding.label_names or ())[number] for number in labels) if labels else "no class",
            "completions": num_completions,
            "candidates": candidates,
            "resample": resample,
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "guidance_scale": guidance_scale,
            "seed": seed,
            "out": out,
        },
    )
    completions = priors.complete(
        loaded_prior,
        loaded,
        image,
        mask,
        keep=keep,
        num_completions=num_completions,
        labels=labels,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        guidance_scale=guidance_scale,
        seed=seed,
        batch_size=batch_size,
        candidates=candidates,
        resample=resample,  # type: ignore[arg-type]  # which it checks
        paste=paste,
    )
    images = [part.image, part.shown(), *completions]
    rows = [min(COLUMNS, len(images) - start) for start in range(0, len(images), COLUMNS)]
    write_grid(images, rows, out, overwrite=overwrite)
    done(f"{counted(num_completions, 'completion')} on {out}, after the original and what is kept of it")
