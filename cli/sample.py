"""vqtok sample: a prior -> images that were never there."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from vqtok.priors import PriorBinding

__all__ = ["sample"]

SHOWN = 64  # pixels a side that a small image is enlarged to on the image grid


def sample(
    prior: Annotated[
        str | None,
        typer.Option(help="Run or prior folder, or a Hub id; by default the newest run of a prior in runs/."),
    ] = None,
    tokenizer: Annotated[
        str | None, typer.Option(help="Tokenizer folder or Hub id; by default the one the prior was trained with.")
    ] = None,
    num: Annotated[int, typer.Option(help="Number of images.")] = 64,
    label: Annotated[
        list[str] | None,
        typer.Option(help="Class to draw, by name or number; repeatable; by default all classes, each in a row."),
    ] = None,
    temperature: Annotated[float, typer.Option(help="Below 1 favours what is probable.")] = 1.0,
    top_k: Annotated[int, typer.Option(help="Keep the k most probable codes; 0 keeps all.")] = 0,
    top_p: Annotated[float, typer.Option(help="Keep the fewest codes that reach this probability.")] = 1.0,
    guidance_scale: Annotated[float, typer.Option(help="Above 1 follows the class harder.")] = 1.0,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    batch_size: Annotated[int, typer.Option(help="Images at once; changes speed and memory only.")] = 64,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...; by default cuda where there is one.")] = None,
    out: Annotated[Path, typer.Option(help="image grid, PNG.")] = Path("samples.png"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace an existing image grid.")] = False,
) -> None:
    """Draw new images from a prior and decode them on one image grid."""
    import torch

    from vqtok.data import image_grid
    from vqtok.errors import ConfigurationError
    from vqtok.files import new_file
    from vqtok.priors import PriorBinding, generate, load_prior
    from vqtok.training.runs import newest_model
    from vqtok_cli.output import done, resolved
    from vqtok_cli.tokenizers import load_tokenizer

    if out.suffix.lower() != ".png":
        raise ConfigurationError(f"--out must end in .png, got {out}")
    if out.exists() and not overwrite:
        raise ConfigurationError(f"{out} exists: choose another file with --out or pass --overwrite")
    if num < 1:
        raise ConfigurationError(f"--num must be at least 1, got {num}")
    source = prior or str(newest_model("prior"))
    drawn_from = load_prior(source)
    binding = PriorBinding.from_config(drawn_from.config)
    tokenizer_source = tokenizer or binding.tokenizer
    if tokenizer_source is None:
        raise ConfigurationError(f"the prior {source} does not say where its tokenizer is: name it with --tokenizer")
    loaded = load_tokenizer(tokenizer_source, device=device)
    binding.check_tokenizer(loaded.fingerprint)
    torch.nn.Module.to(drawn_from, loaded.device)
    labels, columns = lay_out(binding, label, num)
    count = num if labels is None else len(labels)
    resolved(
        "sample",
        {
            "prior": source,
            "tokenizer": tokenizer_source,
            "images": f"{count} of {classes_shown(binding, labels)}",
            "temperature": temperature,
            "top_k": top_k,
            "top_p": top_p,
            "guidance_scale": guidance_scale,
            "seed": seed,
            "out": out,
        },
    )
    images = generate(
        drawn_from,
        loaded,
        num_images=count,
        labels=labels,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        guidance_scale=guidance_scale,
        seed=seed,
        batch_size=batch_size,
    )
    grid = image_grid(images, columns=columns, gap=4, scale=max(1, SHOWN // max(images[0].size)))
    with new_file(out) as partial:
        grid.save(partial)
    run = Path(source).parent if Path(source).name == "model" else Path(source)
    model = run / "model" if (run / "model").is_dir() else None
    done(f"{count} images on {out}", next=f"vqtok push {model} ORG/NAME" if model else None)


def lay_out(binding: PriorBinding, given: list[str] | None, num: int) -> tuple[list[int] | None, int]:
    """The class of each image, or None for a prior without classes, and how many images stand in a row.

    Classes asked for come in turn. Otherwise each class fills a row, of as many images as go into `num` evenly;
    classes for which `num` leaves no image are left out.
    """
    if given:
        numbers = [binding.label_number(label) for label in given]
        return [numbers[index % len(numbers)] for index in range(num)], math.ceil(math.sqrt(num))
    if not binding.num_classes:
        return None, math.ceil(math.sqrt(num))
    if num < binding.num_classes:
        return list(range(num)), math.ceil(math.sqrt(num))
    columns = num // binding.num_classes
    return [number for number in range(binding.num_classes) for _ in range(columns)], columns


def classes_shown(binding: PriorBinding, labels: list[int] | None) -> str:
    """The classes on the image grid, for people."""
    if labels is None:
        return "no class"
    names = [(binding.label_names or ())[number] for number in dict.fromkeys(labels)]
    return ", ".join(names) if len(names) <= 12 else f"{len(names)} classes"
