"""Bring a model from the Hub to this machine: its settings and its safetensors, and nothing that could run code."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import constants, snapshot_download

from vqtok.errors import HubError
from vqtok.hub.errors import hub_errors
from vqtok.hub.folder import SETTINGS

__all__ = ["fetch"]


def fetch(
    repo_id: str,
    *,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder in the cache that holds a repository's settings and safetensors; without network, as last fetched.

    transformers alone would ask a conversion service on the Hub about a repository without safetensors, and take what
    that makes of its pickles. Here such a repository is refused, and its other files never reach this machine.

    Args:
        repo_id: "owner/name".
        revision: branch, tag or commit, by default "main". The commit is the name of the folder that comes back.
        token, cache_dir, local_files_only: as in transformers' `from_pretrained`.

    Raises:
        HubError: no such repository or revision, no permission, no network and nothing cached, or no safetensors in it.
    """
    with hub_errors(repo_id, token if isinstance(token, str) else None):
        snapshot = snapshot_download(
            repo_id,
            revision=revision,
            token=token,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            endpoint=constants.ENDPOINT,
            allow_patterns=[*SETTINGS, "*.safetensors", "*.safetensors.index.json"],
        )
    folder = Path(snapshot)
    if not any(folder.glob("*.safetensors")):
        raise HubError(f"{repo_id} holds no safetensors weights, and no others are read")
    return folder
