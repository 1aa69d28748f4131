"""Published checkpoints as tokenizers: find tensors, know the family, rename, build, account for every tensor."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vqtok.convert.checkpoint import read_checkpoint, tensors_of
from vqtok.convert.family import Family, Published
from vqtok.convert.registry import FAMILIES
from vqtok.errors import CheckpointError, ConfigurationError, did_you_mean
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig

__all__ = ["Converted", "convert"]

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".jit", ".pkl")
INSIDE = ("ema", "model", "state_dict")  # where programs keep their weights in a checkpoint, the best first
NAMED = 3  # tensors in a line


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A tokenizer and where it comes from.

    Attributes:
        tokenizer: in float32 and evaluation mode.
        name: of its family, as `--from` takes it.
        family: what is known of it.
        published: which of the published ones it seems to be, by its codes and its grid.
        dropped: tensors of the checkpoint that have no use here.
        notes: what the user should know.
    """

    tokenizer: VQTokenizer
    name: str
    family: Family
    published: Published | None
    dropped: tuple[str, ...]
    notes: tuple[str, ...]


def convert(source: str | os.PathLike[str], *, family: str | None = None, image_size: int | None = None) -> Converted:
    """A published checkpoint as a tokenizer that gives the same codes; no code of the checkpoint is run.

    Args:
        source: a file, or a folder of one or several.
        family: a name of `FAMILIES`; by default it is known by the names of the tensors.
        image_size: pixels a side that images are brought to; by default those of the published tokenizer.

    Raises:
        CheckpointError: no checkpoint, none of a family that is known, or one whose tensors are not all accounted for.
        ConfigurationError: no such family.
    """
    place = Path(source)
    tensors, notes = _tensors(place)
    name = _family_of(frozenset(tensors), str(place)) if family is None else _checked(family)
    chosen = FAMILIES[name]
    kept = {key: tensor for key, tensor in tensors.items() if not re.fullmatch(chosen.dropped, key)}
    try:
        parts = chosen.parts(kept, _settings(place))
        with torch.device("meta"):  # nothing is allocated for sizes that tensors without numbers may claim
            empty = VQTokenizer(VQTokenizerConfig(image_size=4096, network=parts.network, quantizer=parts.quantizer))
    except (CheckpointError, ConfigurationError) as error:
        raise CheckpointError(f"{place} is no checkpoint of {chosen.title}: {error}") from error
    factor = empty.config.downsample_factor
    more = _check(empty, parts.tensors, f"{place} as {chosen.title}")
    published = chosen.published.get((_codes(parts.quantizer), factor))
    config = VQTokenizerConfig(
        image_size=image_size or (published.image_size if published else chosen.image_size),
        network=parts.network,
        quantizer=parts.quantizer,
        resample=chosen.resample,
    )
    tokenizer = VQTokenizer(config).eval()
    _fill(tokenizer, parts.tensors)
    return Converted(
        tokenizer=tokenizer,
        name=name,
        family=chosen,
        published=published,
        dropped=tuple(sorted(tensors.keys() - kept.keys())),
        notes=(*notes, *parts.notes, *more),
    )


def _tensors(place: Path) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """The tensors of a file, or of all files of a folder, by their names there."""
    if not place.exists():
        raise CheckpointError(f"there is no file or folder {place}")
    files = sorted(file for file in place.iterdir() if file.suffix in SUFFIXES) if place.is_dir() else [place]
    if place.is_dir() and any(file.suffix == ".safetensors" for file in files):
        files = [file for file in files if file.suffix == ".safetensors"]  # of the same weights in two formats
    if not files:
        raise CheckpointError(f"{place} holds no checkpoint: none of its files ends in {', '.join(SUFFIXES)}")
    found: dict[str, Tensor] = {}
    notes: list[str] = []
    for file in files:
        tree = read_checkpoint(file)
        try:
            for part in INSIDE:
                if isinstance(tree, Mapping) and isinstance(tree.get(part), Mapping) and tensors_of(tree[part]):
                    if part == "ema":
                        notes.append("the exponential averages of the weights are taken")
                    tree = tree[part]
                    break
            found |= tensors_of(tree)
        except CheckpointError as error:
            raise CheckpointError(f"{file} is no checkpoint: {error}") from error
    if not found:
        raise CheckpointError(f"{place} holds no tensors")
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}, tuple(notes)


def _settings(place: Path) -> Mapping[str, Any]:
    """The config.json beside a checkpoint, where there is one."""
    file = (place if place.is_dir() else place.parent) / "config.json"
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _checked(family: str) -> str:
    if family not in FAMILIES:
        raise ConfigurationError(
            f"--from must be one of {', '.join(FAMILIES)}, got {family!r}.{did_you_mean(family, FAMILIES)}"
        )
    return family


def _family_of(names: frozenset[str], place: str) -> str:
    found = [name for name, family in FAMILIES.items() if family.recognise(names)]
    if len(found) == 1:
        return found[0]
    some = ", ".join(sorted(names)[:NAMED])
    if found:
        raise CheckpointError(f"{place} may be of {' or '.join(found)}: say which with --from")
    raise CheckpointError(
        f"{place} is of no family that is known, by its tensors ({some}, ...): say which with --from, one of "
        f"{', '.join(FAMILIES)}"
    )


def _codes(quantizer: Mapping[str, Any]) -> int:
    levels = quantizer.get("levels")
    if levels:
        product = 1
        for level in levels:
            product *= level
        return product
    return int(quantizer["codebook_size"])


def _check(tokenizer: VQTokenizer, tensors: Mapping[str, Tensor], place: str) -> tuple[str, ...]:
    """Whether every tensor has its place, and every place its tensor; gives what to tell the user.

    Raises:
        CheckpointError: one is missing, has no place, or another shape.
    """
    own = tokenizer.state_dict()
    training = tokenizer.quantizer.training_state
    missing = [name for name in own if name not in tensors and name.rpartition(".")[2] not in training]
    notes: tuple[str, ...] = ()
    if "decoder.conv_in.weight" not in tensors:
        missing = [name for name in missing if not name.startswith("decoder.")]
        notes = ("the checkpoint has no decoder: the codes are right, and the decoder is to be trained",)
    unknown = [name for name in tensors if name not in own]
    shapes = [
        f"{name} is {list(tensors[name].shape)}, not {list(own[name].shape)}"
        for name in own
        if name in tensors and tensors[name].shape != own[name].shape
    ]
    for what, some in (("lacks", missing), ("has no place for", unknown), ("does not fit:", shapes)):
        if some:
            more = f" and {len(some) - NAMED:,} more" if len(some) > NAMED else ""
            raise CheckpointError(f"{place} {what} {', '.join(some[:NAMED])}{more}")
    held = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    if sum(tensor.nbytes for tensor in tensors.values()) > sum(held.values()):
        raise CheckpointError(f"{place} has several tensors of the same numbers")
    return notes


def _fill(tokenizer: VQTokenizer, tensors: Mapping[str, Tensor]) -> None:
    """Put every tensor into its place."""
    tokenizer.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=False)
    initialized = getattr(tokenizer.quantizer, "initialized", None)
    if isinstance(initialized, Tensor):
        initialized.fill_(True)
