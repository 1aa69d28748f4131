"""Published checkpoints as tokenizers: know the family, rename, build, account for every tensor."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from vqtok.convert.registry import FAMILIES
from vqtok.convert.source import Source, open_source
from vqtok.errors import CheckpointError, ConfigurationError, did_you_mean
from vqtok.hub import Provenance, check_finite
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig

__all__ = ["Converted", "convert"]

NAMED = 3  # tensors in a line


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A tokenizer and where it comes from.

    Attributes:
        tokenizer: in float32 and evaluation mode.
        family: its name, as `--from` takes it.
        provenance: what the tokenizer keeps of its origin.
        dropped: names of the tensors of the checkpoint that have no use here.
    """

    tokenizer: VQTokenizer
    family: str
    provenance: Provenance
    dropped: tuple[str, ...]


def convert(
    source: str | os.PathLike[str],
    *,
    family: str | None = None,
    image_size: int | None = None,
    revision: str | None = None,
) -> Converted:
    """A published checkpoint as a tokenizer that gives the same codes; no code of the checkpoint is run.

    Args:
        source: a file or a folder; or owner/name on the Hub, with the file or folder in it behind another "/".
        family: a name of `FAMILIES`; by default it is known by the tensors.
        image_size: pixels a side that images are brought to; by default those of the published tokenizer.
        revision: branch, tag or commit on the Hub, by default "main".

    Raises:
        CheckpointError: no checkpoint, none of a family that is known, or one whose tensors are not all accounted for.
        ConfigurationError: no such family, or an image size that does not divide.
        HubError: a repository or revision that cannot be read.
    """
    if family is not None and family not in FAMILIES:
        raise ConfigurationError(
            f"--from must be one of {', '.join(FAMILIES)}, got {family!r}.{did_you_mean(family, FAMILIES)}"
        )
    opened = open_source(os.fspath(source), revision=revision)
    family = family or _family_of(opened)
    chosen = FAMILIES[family]
    kept = {key: tensor for key, tensor in opened.tensors.items() if not re.fullmatch(chosen.dropped, key)}
    try:
        parts = chosen.parts(kept, opened.config)
        with torch.device("meta"):  # nothing is allocated for sizes that tensors without numbers may claim
            empty = VQTokenizer(VQTokenizerConfig(image_size=4096, network=parts.network, quantizer=parts.quantizer))
    except (CheckpointError, ConfigurationError) as error:
        raise CheckpointError(f"{opened.name} is no checkpoint of {chosen.title}: {error}") from error
    notes = [*opened.notes, *parts.notes, *_check(empty, parts.tensors, f"{opened.name} as {chosen.title}")]
    published = chosen.published.get((empty.codebook_size, empty.quantizer.code_dim, empty.config.downsample_factor))
    if chosen.published and not published:
        notes.append(
            f"no published tokenizer of {chosen.title} has this shape: whether images are resized as it needs "
            f"({chosen.resample}) and whose license it is under, only its authors can say"
        )
    config = VQTokenizerConfig(
        image_size=image_size or (published.image_size if published else chosen.image_size),
        network=parts.network,
        quantizer=parts.quantizer,
        resample=chosen.resample,
    )
    tokenizer = VQTokenizer(config).eval()
    _fill(tokenizer, parts.tensors, opened.name)
    provenance = chosen.provenance(opened.public, published, notes)
    config.provenance = provenance.model_dump()
    return Converted(
        tokenizer=tokenizer,
        family=family,
        provenance=provenance,
        dropped=tuple(sorted(opened.tensors.keys() - kept.keys())),
    )


def _family_of(source: Source) -> str:
    found = [name for name, family in FAMILIES.items() if family.recognise(source.tensors)]
    if len(found) == 1:
        return found[0]
    if found:
        raise CheckpointError(f"{source.name} may be of {' or '.join(found)}: say which with --from")
    some = ", ".join(sorted(source.tensors)[:NAMED])
    raise CheckpointError(
        f"{source.name} is of no family that is known, by its tensors ({some}, ...): say which with --from, one of "
        f"{', '.join(FAMILIES)}"
    )


def _check(tokenizer: VQTokenizer, tensors: Mapping[str, Tensor], place: str) -> list[str]:
    """Whether every tensor has its place, and every place its tensor; gives what to tell the user.

    Raises:
        CheckpointError: one is missing, has no place, or another shape or type, or several share their numbers.
    """
    own = tokenizer.state_dict()
    training = tokenizer.quantizer.training_state
    missing = [name for name in own if name not in tensors and name.rpartition(".")[2] not in training]
    notes = []
    if "decoder.conv_in.weight" not in tensors:
        missing = [name for name in missing if not name.startswith("decoder.")]
        notes = ["the checkpoint has no decoder: the codes are right, and the decoder is to be trained"]
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
    if numbers := [name for name, tensor in tensors.items() if not tensor.is_floating_point()]:
        kind = str(tensors[numbers[0]].dtype).removeprefix("torch.")
        raise CheckpointError(f"{place} has weights that are no floating point numbers: {numbers[0]} is {kind}")
    held = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors.values()}
    if sum(tensor.nbytes for tensor in tensors.values()) > sum(held.values()):
        raise CheckpointError(f"{place} has several tensors of the same numbers")
    return notes


@torch.no_grad()
def _fill(tokenizer: VQTokenizer, tensors: Mapping[str, Tensor], place: str) -> None:
    """Put every tensor into its place.

    Raises:
        CheckpointError: numbers that are not finite.
    """
    own = tokenizer.state_dict()
    for name, tensor in tensors.items():
        own[name].copy_(tensor)  # one after the other: a checkpoint of another type is never copied whole
    check_finite(tokenizer, name=place)
    initialized = getattr(tokenizer.quantizer, "initialized", None)
    if isinstance(initialized, Tensor):
        initialized.fill_(True)
