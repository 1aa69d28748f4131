"""Find a model: a folder, or a repository on the Hub of which settings and safetensors come, and nothing that runs."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from huggingface_hub import constants, hf_hub_download, snapshot_download
from huggingface_hub.errors import RemoteEntryNotFoundError

from vqtok.errors import CheckpointError, HubError
from vqtok.hub.errors import hub_errors
from vqtok.hub.folder import SETTINGS, Kind, ModelFolder, kind_of, open_folder
from vqtok.hub.settings import CONFIG, read_settings
from vqtok.hub.weights import INDEX, WEIGHTS, shards
from vqtok.names import is_hub_id

__all__ = ["fetch", "find_model"]


def find_model(name: str | os.PathLike[str], *, kind: Kind, **asked: Any) -> ModelFolder:
    """Open a model by its name: a folder, a run folder that holds one as `model/`, or a repository on the Hub.

    Args:
        name: the folder or the Hub id.
        kind: what it must hold.
        asked: of a repository, as in `fetch`.

    Raises:
        CheckpointError: there is no such folder, or no whole model in it; see `open_folder`.
        HubError: a repository or revision that cannot be read; see `fetch`.
    """
    folder = Path(name)
    if not folder.is_dir():
        if not is_hub_id(str(name)):
            raise CheckpointError(f"there is no folder {name} to load a {kind} from")
        try:
            folder = fetch(str(name), kind=kind, **asked)
        except HubError as error:  # a folder that is misspelt can look like a repository
            raise HubError(f"there is no folder {name}, and {error}") from error
    return open_folder(folder, kind=kind)


def fetch(
    repo_id: str,
    *,
    kind: Kind | None = None,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder in the cache that holds a repository's settings and safetensors; without network, as last fetched.

    config.json comes first, and the rest only where it is of a model of vqtok: of any other repository nothing but this
    file is read. The rest are named files at the root of the repository. transformers alone would take weights of any
    kind, and ask a conversion service on the Hub about a repository without safetensors.

    Args:
        repo_id: "owner/name".
        kind: what it must hold; either where not given.
        revision: branch, tag or commit, by default "main". The commit is the name of the folder that comes back.
        token, cache_dir, local_files_only: as in transformers' `from_pretrained`.

    Raises:
        HubError: no such repository or revision, no permission, no network and nothing cached, or no model of vqtok.
        CheckpointError: settings that could fetch or run code, or an index that names files elsewhere.
    """
    where: dict[str, Any] = {"token": token, "cache_dir": cache_dir, "local_files_only": local_files_only}
    where["endpoint"] = constants.ENDPOINT
    with hub_errors(repo_id, token if isinstance(token, str) else None):
        try:
            folder = Path(hf_hub_download(repo_id, CONFIG, revision=revision, **where)).parent
        except RemoteEntryNotFoundError:
            raise HubError(f"{repo_id} holds no config.json, so neither a tokenizer nor a prior of vqtok") from None
        try:
            kind_of(read_settings(folder), name=repo_id, wanted=kind)
        except CheckpointError as error:
            raise HubError(str(error).replace(str(folder), repo_id)) from None
        snapshot_download(repo_id, revision=folder.name, allow_patterns=[*SETTINGS, WEIGHTS, INDEX], **where)
        if not (folder / WEIGHTS).is_file() and (folder / INDEX).is_file():
            snapshot_download(repo_id, revision=folder.name, allow_patterns=list(shards(folder / INDEX)), **where)
    if not (folder / WEIGHTS).is_file() and not (folder / INDEX).is_file():
        raise HubError(f"{repo_id} holds no safetensors weights, and no others are read")
    return folder
