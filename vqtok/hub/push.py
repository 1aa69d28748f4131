"""Send a tokenizer or prior folder to the Hub: weights, settings, card and image, all in one commit."""

from __future__ import annotations

import filecmp
import tempfile
import warnings
from pathlib import Path
from typing import Any, Protocol

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, RepoCard, constants
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]  # public, but not listed
from yaml import YAMLError

from vqtok.errors import CheckpointError, HubError
from vqtok.hub.card import MARK, Card, card_of
from vqtok.hub.errors import hub_errors
from vqtok.hub.folder import BASELINES, CARD, METRICS, ModelFolder, check_links, open_folder
from vqtok.hub.provenance import sharing_warning

__all__ = ["check_can_push", "make_repository", "open_to_push", "push", "push_model"]

# Files of an earlier push that would say something false beside other weights. What others put there stays.
OWN_FILES = (METRICS, "generation_config.json", "preprocessor_config.json", "reconstructions.png", "samples.png")
# Weights that can run code while they are read, and code itself; nothing of the kind leaves this machine.
REFUSED = (".bin", ".ckpt", ".h5", ".msgpack", ".npy", ".npz", ".onnx", ".pickle", ".pkl", ".pt", ".pth", ".py")
SUFFIXES = (".safetensors", ".safetensors.index.json")  # of weights


class Saveable(Protocol):
    """What can be saved as a model folder."""

    @property
    def name_or_path(self) -> str | None: ...

    def save_pretrained(self, save_directory: Any, /) -> Any: ...


def push(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
) -> str:
    """Push a folder as one commit, making the repository and the branch where they do not exist.

    A card that people wrote, in the folder or on the Hub, is never written over.

    Args:
        folder: a tokenizer or prior folder, or a run folder that holds one as `model/`.
        repo_id: "owner/name", or "name" below the token's own user.
        private: make the repository private; one that is public already is refused.
        token: access token; by default that of `hf auth login` or HF_TOKEN.
        revision: branch to push to, by default "main".
        commit_message: title of the commit.

    Returns:
        Address of the repository, or of the branch in it.

    Raises:
        CheckpointError: the folder is not whole, or holds anything but safetensors weights; see `open_to_push`.
        HubError: no token, no permission, no network, or no such name.
    """
    model = open_to_push(folder)
    return send(model, model.path, repo_id, private, token, revision, commit_message)


def push_model(
    model: Saveable,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
) -> str:
    """Push a model as it is in memory; arguments, result and errors are those of `push`.

    Its card holds the metrics and the recipe of the folder it was loaded from, but only while its weights are still
    those: figures of other weights are not its own. Before weights are sent that may not be given to others, a
    UserWarning says so.
    """
    with tempfile.TemporaryDirectory() as temporary:
        model.save_pretrained(temporary)
        folder = open_folder(temporary)
        if warning := sharing_warning(folder.config):
            warnings.warn(warning, stacklevel=3)
        return send(folder, origin_of(model, folder), repo_id, private, token, revision, commit_message)


def open_to_push(folder: str | Path) -> ModelFolder:
    """`open_folder` for a folder whose files are to be published.

    Raises:
        CheckpointError: also for weights and code of a kind that is never read from the Hub.
    """
    model = open_folder(folder)
    check_pushable(model)
    names = sorted(entry.name for entry in model.path.iterdir() if entry.is_file())
    if refused := [name for name in names if name.endswith(REFUSED)]:
        raise CheckpointError(
            f"{model.path} holds {', '.join(refused)}: only safetensors weights are pushed, and no code; move these "
            "elsewhere"
        )
    return model


def check_pushable(folder: ModelFolder) -> None:
    """Refuse a model that has no card.

    Raises:
        CheckpointError: it is a baseline.
    """
    if folder.kind == "baseline":
        name = BASELINES[folder.config["model_type"]]
        raise CheckpointError(f"{folder.path} holds a baseline ({name}): only tokenizers, priors and codes are pushed")


def origin_of(model: Saveable, saved: ModelFolder) -> Path:
    """The folder that a model was loaded from where its weights are still the same, or else the one just saved."""
    if not model.name_or_path:
        return saved.path
    origin = Path(model.name_or_path)
    weights = [name for name in saved.files if name.endswith(SUFFIXES)]
    same, _, _ = filecmp.cmpfiles(origin, saved.path, weights, shallow=False)
    return origin if len(same) == len(weights) else saved.path


def send(
    folder: ModelFolder,
    origin: Path,
    repo_id: str,
    private: bool,
    token: str | None,
    revision: str | None,
    commit_message: str | None,
) -> str:
    """One commit of a folder's files, with the card and the metrics of its origin."""
    check_pushable(folder)
    api = HfApi(endpoint=constants.ENDPOINT, token=token)
    contents(folder, origin, card_of(folder, repo_id, origin))  # what is refused is refused before anything is made
    with hub_errors(repo_id, token):
        repo_id = make_repository(api, repo_id, "model", private=private, revision=revision)
        card = card_of(folder, repo_id, origin)
        files = contents(folder, origin, card)
        present = api.list_repo_files(repo_id, revision=revision)
        if CARD in present and written_by_people(api, repo_id, revision):
            del files[CARD]
        stale = [name for name in present if (name in OWN_FILES or name.endswith(SUFFIXES)) and name not in files]
        # create_commit and not upload_folder, which may split what it sends over several commits
        commit = api.create_commit(
            repo_id,
            [
                *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=file) for name, file in files.items()),
                *(CommitOperationDelete(path_in_repo=name) for name in stale),
            ],
            commit_message=commit_message or f"Push a vqtok {folder.kind}",
            revision=revision,
        )
    return str(commit.repo_url) if revision is None else f"{commit.repo_url}/tree/{revision}"


def make_repository(api: HfApi, repo_id: str, kind: str, *, private: bool, revision: str | None) -> str:
    """Make a repository and a branch in it, unless they are there, and give the whole id of the repository.

    Args:
        kind: "model" or "dataset".
        private: as it must be; one that is public already is refused.
        revision: the branch, where it is not "main".

    Raises:
        HubError: the repository is public and should be private.
        Exception: whatever the client says.
    """
    repo_id = api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True).repo_id
    if private and not api.repo_info(repo_id, repo_type=kind).private:
        raise HubError(f"{repo_id} is public already: make it private in its settings first, or push elsewhere")
    if revision is not None:
        api.create_branch(repo_id, repo_type=kind, branch=revision, exist_ok=True)
    return repo_id


def written_by_people(api: HfApi, repo_id: str, revision: str | None) -> bool:
    """Whether somebody wrote the card on the Hub: it says something, and has lost the mark of a generated one."""
    text = Path(api.hf_hub_download(repo_id, CARD, revision=revision)).read_text(encoding="utf-8", errors="replace")
    try:
        return MARK not in text and bool(RepoCard(text, ignore_metadata_errors=True).text.strip())
    except (ValueError, YAMLError):  # of a header that is none
        return True


def contents(folder: ModelFolder, origin: Path, card: Card) -> dict[str, Path | bytes]:
    """What the repository is to hold, by name."""
    check_links(folder.path, (folder.path / name for name in folder.files))
    files: dict[str, Path | bytes] = {name: folder.path / name for name in folder.files}
    if (origin / METRICS).is_file():
        files[METRICS] = origin / METRICS
    return {**files, **card.images, CARD: card.text.encode()}


def check_can_push(repo_id: str, token: str | None = None) -> str:
    """Find out before hours of work what would stop a push at their end; nothing is created.

    Whether the token may write below another owner only the push itself can tell: a Hub need not list every
    organisation that it lets a user write to.

    Returns:
        The whole repository id, with the user's own name where none was given.

    Raises:
        HubError: an invalid id, no token or one that may only read, or no network.
    """
    with hub_errors(repo_id, token):
        validate_repo_id(repo_id)
        user = HfApi(endpoint=constants.ENDPOINT, token=token).whoami()
    owner = repo_id.split("/")[0] if "/" in repo_id else user["name"]
    role = user.get("auth", {}).get("accessToken", {}).get("role")
    if role == "read":
        raise HubError(f"the access token of {user['name']} may only read: use one with write permission")
    return repo_id if "/" in repo_id else f"{owner}/{repo_id}"
