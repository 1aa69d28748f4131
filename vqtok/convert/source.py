"""Where a checkpoint is: a file, a folder of one, or either in a repository on the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, hf_hub_download
from torch import Tensor

from vqtok.convert.checkpoint import read_checkpoint, tensors_of
from vqtok.convert.renaming import AVERAGES_TAKEN, renamed
from vqtok.errors import CheckpointError, ConfigurationError
from vqtok.hub import hub_errors
from vqtok.names import is_hub_id
from vqtok.schema import read_object

__all__ = ["Source", "open_source"]

SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".jit", ".pkl")
CONFIG = "config.json"
SHARD = re.compile(r"-\d{5}-of-(\d{5})(?=\.\w+$)")
INSIDE = ("ema", "model", "state_dict")  # where programs keep their weights in a checkpoint, the best first
NAMED = 6  # files in a line


@dataclass(frozen=True, kw_only=True)
class Source:
    """A checkpoint that has been read.

    Attributes:
        name: as the user gave it.
        public: the same without the folders of this machine; of a repository with its commit.
        tensors: by their names in the checkpoint.
        config: the config.json beside it; empty where there is none.
        notes: what to tell the user.
    """

    name: str
    public: str
    tensors: dict[str, Tensor]
    config: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def open_source(name: str, *, revision: str | None = None) -> Source:
    """Read a checkpoint, fetching it where it is on the Hub.

    Args:
        name: a file or a folder; or owner/name of a repository, with the file or folder in it behind another "/".
        revision: branch, tag or commit of a repository, by default "main".

    Raises:
        CheckpointError: there is none, there are several, or one that cannot be read.
        ConfigurationError: a revision of what is on this disk.
        HubError: a repository or revision that cannot be read.
    """
    place = Path(name)
    if not place.exists():
        if is_hub_id("/".join(name.split("/")[:2])):
            return _fetched(name, revision)
        raise CheckpointError(f"there is no file or folder {name}")
    if revision is not None:
        raise ConfigurationError(
            f"{name} is on this disk, where it has no revision {revision!r}: leave --revision out, or name a repository"
        )
    if place.is_dir():
        files = [place / file for file in chosen((entry.name for entry in place.iterdir()), name)]
    else:
        files = [place]
    return _read(files, name=name, public=place.resolve().name)


def _fetched(name: str, revision: str | None) -> Source:
    """A checkpoint of a repository: its files and the config.json beside them, and nothing else."""
    owner, repository, *inside = name.rstrip("/").split("/")
    repo_id, within = f"{owner}/{repository}", "/".join(inside)
    with hub_errors(repo_id):
        info = HfApi(endpoint=constants.ENDPOINT).model_info(repo_id, revision=revision)
        there = {entry.rfilename for entry in info.siblings or ()}
        if within in there:
            folder, wanted = within.rpartition("/")[0], [within.rpartition("/")[2]]
        else:
            folder = within
            beside = {path.rpartition("/")[2] for path in there if path.rpartition("/")[0] == folder}
            if within and not beside:
                raise CheckpointError(f"{repo_id} has no file or folder {within}")
            wanted = chosen(beside, name)
        prefix = f"{folder}/" if folder else ""
        for file in wanted:
            if ".." in re.split(r"[/\\]", prefix + file):
                raise CheckpointError(
                    f"{repo_id} has a file {prefix + file}, whose name leads elsewhere: it is not read"
                )
        if prefix + CONFIG in there:
            hf_hub_download(repo_id, prefix + CONFIG, revision=info.sha, endpoint=constants.ENDPOINT)
        files = [
            Path(hf_hub_download(repo_id, prefix + file, revision=info.sha, endpoint=constants.ENDPOINT))
            for file in wanted
        ]
    return _read(files, name=name, public=f"{name} at commit {info.sha}")


def chosen(names: Iterable[str], place: str) -> list[str]:
    """Which files of a folder are its checkpoint: a safetensors file where there is one, and all shards of it.

    Raises:
        CheckpointError: there is none, there are several, or some of its shards are missing.
    """
    found = sorted(name for name in names if name.endswith(SUFFIXES))
    found = [name for name in found if name.endswith(".safetensors")] or found
    if not found:
        raise CheckpointError(f"{place} holds no checkpoint: none of its files ends in {', '.join(SUFFIXES)}")
    first = f"{place.rstrip('/')}/{found[0]}"
    if len({SHARD.sub(r"-of-\1", name) for name in found}) > 1:
        more = f" and {len(found) - NAMED:,} more" if len(found) > NAMED else ""
        raise CheckpointError(
            f"{place} holds several checkpoints, {', '.join(found[:NAMED])}{more}: name one, as in {first}"
        )
    if (shard := SHARD.search(found[0])) and len(found) != int(shard[1]):
        raise CheckpointError(
            f"{place} holds {len(found):,} of the {int(shard[1]):,} files of its checkpoint: fetch the others, or name "
            f"the one that holds the tokenizer, as in {first}"
        )
    return found


def _read(files: list[Path], *, name: str, public: str) -> Source:
    tensors: dict[str, Tensor] = {}
    averaged = False
    for file in files:
        tree = read_checkpoint(file)
        try:
            for part in INSIDE:
                if isinstance(tree, Mapping) and isinstance(tree.get(part), Mapping) and tensors_of(tree[part]):
                    averaged |= part == "ema"
                    tree = tree[part]
                    break
            found = renamed(tensors_of(tree), (r"^module\.", ""))
            if again := sorted(found.keys() & tensors.keys()):
                raise CheckpointError(f"{again[0]} is in another file of it as well")
            tensors |= found
        except CheckpointError as error:
            raise CheckpointError(f"{file} is no checkpoint: {error}") from error
    if not tensors:
        raise CheckpointError(f"{name} holds no tensors")
    notes = (AVERAGES_TAKEN,) if averaged else ()
    config = files[0].with_name(CONFIG)
    return Source(
        name=name,
        public=public,
        tensors=tensors,
        config=read_object(config) if config.is_file() else {},
        notes=notes,
    )
