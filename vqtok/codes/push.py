"""Send a codes folder to the Hub as a dataset: its shards as they lie, `codes.json`, the state and a card.

Up to `FILES_PER_COMMIT` files are one commit. More are several, as the Hub asks for; the first then brings a card that
names no files, and the last the one that does, so that nobody loads half a code set.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import datasets
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, DatasetCard, HfApi, constants

from vqtok.codes.binding import attach, splits_of
from vqtok.codes.card import CARD, Files, codes_card, published, unfinished_card, with_files
from vqtok.codes.opening import read_sidecar
from vqtok.codes.reader import load_codes, read_spec
from vqtok.codes.spec import SIDECAR, CodesSpec
from vqtok.data.saved import is_saved, split_folders
from vqtok.errors import DataError, HubError
from vqtok.hub import hub_errors
from vqtok.hub.card import MARK, read_card
from vqtok.hub.folder import check_links
from vqtok.schema import read_object

__all__ = ["push_codes"]

# What the Hub recommends at most, see "Repository limitations and recommendations" in its documentation.
FILES_PER_COMMIT = 100
ENTRIES_PER_FOLDER = 10_000
FILES_PER_REPOSITORY = 100_000

OF_CODES = re.compile(r"(.+/)?(codes\.json|dataset_dict\.json|dataset_info\.json|state\.json|data-[^/]*\.arrow)")
"""What an earlier push left on the Hub."""

Operation: TypeAlias = CommitOperationAdd | CommitOperationDelete
SPLITS, STATE, INFO = "dataset_dict.json", "state.json", "dataset_info.json"


@dataclass(frozen=True, kw_only=True)
class Upload:
    """What goes up, by its path in the repository: what makes the codes load, and their shards."""

    small: Mapping[str, bytes]
    shards: Mapping[str, Path]
    card: str
    features: datasets.Features
    patterns: Files


def push_codes(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
) -> str:
    """Push a codes folder, making the repository and the branch where they do not exist.

    What an earlier push left there goes. The text of a card that people wrote, in the folder or on the Hub, stays; only
    what it says to `datasets` about files and columns is set. No path of this machine is sent.

    Args:
        folder: what `vqtok tokenize` or `save_to_disk` wrote.
        repo_id: "owner/name", or "name" below the token's own user.
        private: make the repository private; one that is public already is refused.
        token: access token; by default that of `hf auth login` or HF_TOKEN.
        revision: branch to push to, by default "main".
        commit_message: title of the commit.

    Returns:
        Address of the dataset, or of the branch in it.

    Raises:
        DataError: no codes folder, codes without a binding, or more files than the Hub takes.
        CheckpointError: a file that is a link to one elsewhere.
        HubError: no token, no permission, no network, or no such name.
    """
    upload = _gather(Path(folder), repo_id)
    api = HfApi(endpoint=constants.ENDPOINT, token=token)
    with hub_errors(repo_id, token):
        repo_id = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True).repo_id
        if private and not api.dataset_info(repo_id).private:
            raise HubError(f"{repo_id} is public already: make it private in its settings first, or push elsewhere")
        if revision is not None:
            api.create_branch(repo_id, repo_type="dataset", branch=revision, exist_ok=True)
        upload = _gather(Path(folder), repo_id)  # its card names the user where `repo_id` did not
        url = _send(api, upload, repo_id, revision, commit_message or "Push codes of vqtok")
    return url if revision is None else f"{url}/tree/{revision}"


def _gather(folder: Path, repo_id: str) -> Upload:
    """What a codes folder sends; it is loaded first, so that nothing is sent that does not load."""
    if not is_saved(folder):
        raise DataError(f"{folder} is no codes folder: only what `vqtok tokenize` or `save_to_disk` wrote is pushed")
    codes = load_codes(folder)
    spec, splits = read_spec(codes), splits_of(codes)
    small: dict[str, bytes] = {SIDECAR: _sidecar(folder, spec)}
    shards: dict[str, Path] = {}
    places: dict[str, list[str]] = {}
    folders = split_folders(folder)
    for (split, rows), own in zip(splits.items(), folders, strict=True):
        state = read_object(own / STATE)
        names = [entry["filename"] for entry in state["_data_files"]]
        small |= {f"{split}/{STATE}": _json(state), f"{split}/{INFO}": _info(own, rows, spec)}
        shards |= {f"{split}/{name}": own / name for name in names}
        places[split] = [f"{split}/{name}" for name in names]
    small[SPLITS] = _json({"splits": list(splits)})
    check_links(folder, [folder / CARD, *shards.values()])
    _check_limits(folder, [*small, *shards])
    features = next(iter(splits.values())).features
    patterns = {split: _pattern(split, paths) for split, paths in places.items()}
    if (folder / CARD).is_file() and MARK not in (text := read_card(folder / CARD)):
        card = with_files(text, features, patterns)
    else:
        card = codes_card(spec, features, {split: len(rows) for split, rows in splits.items()}, patterns, repo_id)
    return Upload(small=small, shards=shards, card=card, features=features, patterns=patterns)


def _sidecar(folder: Path, spec: CodesSpec) -> bytes:
    """`codes.json` with what it says beside the spec, such as which images could not be read."""
    return _json({**(read_sidecar(folder) or {}), **published(spec).to_dict()})


def _info(folder: Path, rows: datasets.Dataset, spec: CodesSpec) -> bytes:
    info = read_object(folder / INFO)
    bound = attach(rows, published(spec)).info
    return _json({**info, "description": bound.description, "features": bound.features.to_dict()})


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode()


def _pattern(split: str, paths: list[str]) -> str | list[str]:
    """One pattern where all shards are called as `vqtok tokenize` and `save_to_disk` call them."""
    usual = f"{split}/data-*.arrow"
    return usual if all(re.fullmatch(rf"{re.escape(split)}/data-[^/]*\.arrow", path) for path in paths) else paths


def _check_limits(folder: Path, names: list[str]) -> None:
    """Refuse more files than the Hub takes, before any of them is sent."""
    place, most = Counter(name.rpartition("/")[0] for name in names).most_common(1)[0]
    if most > ENTRIES_PER_FOLDER or len(names) > FILES_PER_REPOSITORY:
        raise DataError(
            f"{folder / place} holds {most:,} files, and the Hub takes up to {ENTRIES_PER_FOLDER:,} in a folder: "
            "tokenize the images again with more rows in a shard"
        )


def _send(api: HfApi, upload: Upload, repo_id: str, revision: str | None, message: str) -> str:
    """As many commits as the number of shards needs; the last has what makes the codes load."""
    present = api.list_repo_files(repo_id, repo_type="dataset", revision=revision)
    card = upload.card
    if CARD in present and (theirs := _text_of_people(api, repo_id, revision)):
        card = with_files(theirs, upload.features, upload.patterns)
    kept = {CARD, *upload.small, *upload.shards}
    shards: list[Operation] = [CommitOperationDelete(path_in_repo=name) for name in present if _is_stale(name, kept)]
    shards += [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in upload.shards.items()]
    last: list[Operation] = [_put(name, content) for name, content in {**upload.small, CARD: card.encode()}.items()]
    if len(shards) + len(last) <= FILES_PER_COMMIT:
        commits: list[list[Operation]] = [[*shards, *last]]
    else:
        first = _put(CARD, unfinished_card(card, upload.patterns).encode())
        batches = [shards[at : at + FILES_PER_COMMIT - 1] for at in range(0, len(shards), FILES_PER_COMMIT - 1)]
        commits = [[first, *batches[0]], *batches[1:], last]
    for number, operations in enumerate(commits, start=1):
        part = f" (part {number} of {len(commits)})" if len(commits) > 1 else ""
        # create_commit and not upload_folder, which splits what it sends where it likes
        commit = api.create_commit(
            repo_id, operations, repo_type="dataset", commit_message=message + part, revision=revision
        )
    return str(commit.repo_url)


def _put(name: str, content: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)


def _is_stale(name: str, kept: set[str]) -> bool:
    """Whether a file on the Hub is of an earlier push, and would be taken for one of these codes."""
    return name not in kept and OF_CODES.fullmatch(name) is not None


def _text_of_people(api: HfApi, repo_id: str, revision: str | None) -> str | None:
    """The card on the Hub where somebody wrote it: it says something, and has lost the mark of a generated one."""
    text = Path(api.hf_hub_download(repo_id, CARD, repo_type="dataset", revision=revision)).read_text(encoding="utf-8")
    return text if MARK not in text and DatasetCard(text, ignore_metadata_errors=True).text.strip() else None
