"""Send a codes folder to the Hub as a dataset: its shards as they lie, `codes.json`, a card, and of Arrow the state.

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
import pyarrow.parquet as pq
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants

from vqtok.codes.binding import attach, features_of, splits_of
from vqtok.codes.card import CARD, Files, codes_card, is_of_people, published, unfinished_card, with_files
from vqtok.codes.opening import is_codes, tables_in
from vqtok.codes.reader import load_codes, read_spec
from vqtok.codes.sidecar import read_sidecar
from vqtok.codes.spec import SIDECAR, CodesSpec
from vqtok.data.saved import is_saved, split_folders
from vqtok.data.tables import loading, open_tables
from vqtok.errors import DataError
from vqtok.hub import hub_errors
from vqtok.hub.card import MARK, read_card
from vqtok.hub.folder import check_links
from vqtok.hub.push import make_repository
from vqtok.schema import read_object

__all__ = ["push_codes"]

# What the Hub recommends at most, see "Repository limitations and recommendations" in its documentation.
FILES_PER_COMMIT = 100
ENTRIES_PER_FOLDER = 10_000
FILES_PER_REPOSITORY = 100_000

OF_CODES = re.compile(r"(.+/)?(codes\.json|dataset_dict\.json|dataset_info\.json|state\.json|data-[^/]*\.arrow)")
"""What an earlier push left on the Hub."""
OF_PARQUET = re.compile(r"data/[^/]+-\d{5}-of-\d{5}\.parquet")
"""So do these, beside a codes.json; where there is none, they are of `push_to_hub`."""

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
        folder: what `vqtok tokenize` or `save_to_disk` wrote, or parquet files with a codes.json beside them.
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
        repo_id = make_repository(api, repo_id, "dataset", private=private, revision=revision)
        upload = _gather(Path(folder), repo_id)  # its card names the user where `repo_id` did not
        url = _send(api, upload, repo_id, revision, commit_message or "Push codes of vqtok")
    return url if revision is None else f"{url}/tree/{revision}"


def _gather(folder: Path, repo_id: str) -> Upload:
    """What a codes folder sends; it is loaded first, so that nothing is sent that does not load."""
    if not is_codes(folder):
        raise DataError(f"{folder} is no codes folder: only what `vqtok tokenize` or `save_to_disk` wrote is pushed")
    return _gather_saved(folder, repo_id) if is_saved(folder) else _gather_parquet(folder, repo_id)


def _gather_parquet(folder: Path, repo_id: str) -> Upload:
    """What a folder of parquet files sends, of which the schemas and numbers of rows are read."""
    codes = load_codes(folder, streaming=True)
    spec, features = read_spec(codes), features_of(next(iter(splits_of(codes).values())))
    builder, own, _ = open_tables(folder, str(folder), tables_in(folder), None)
    files = {str(split): [str(file) for file in paths] for split, paths in builder.config.data_files.items()}
    places = {split: [path.removeprefix(own) for path in paths] for split, paths in files.items()}
    with loading(str(folder)):
        rows = {split: sum(pq.read_metadata(path).num_rows for path in paths) for split, paths in files.items()}
    shards = {name: folder / name for names in places.values() for name in names}
    return _upload(folder, repo_id, spec, rows, features, shards, {}, places)


def _gather_saved(folder: Path, repo_id: str) -> Upload:
    codes = load_codes(folder)
    spec, splits = read_spec(codes), splits_of(codes)
    small: dict[str, bytes] = {}
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
    features = next(iter(splits.values())).features
    counts = {split: len(rows) for split, rows in splits.items()}
    return _upload(folder, repo_id, spec, counts, features, shards, small, places)


def _upload(
    folder: Path,
    repo_id: str,
    spec: CodesSpec,
    rows: Mapping[str, int],
    features: datasets.Features,
    shards: Mapping[str, Path],
    small: Mapping[str, bytes],
    places: Mapping[str, list[str]],
) -> Upload:
    """All of it, with the sidecar and a card, unless something must not be sent."""
    small = {SIDECAR: _sidecar(folder, spec), **small}
    check_links(folder, [folder / CARD, *shards.values()])
    _check_limits(folder, [*small, *shards])
    patterns = {split: _pattern(split, paths) for split, paths in places.items()}
    if (folder / CARD).is_file() and MARK not in (text := read_card(folder / CARD)):
        card = with_files(text, features, patterns)
    else:
        card = codes_card(spec, features, rows, patterns, repo_id)
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
    for usual in (f"{split}/data-*.arrow", f"data/{split}-*.parquet"):
        if all(re.fullmatch(re.escape(usual).replace(r"\*", "[^/]*"), path) for path in paths):
            return usual
    return paths


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
    of_codes = [OF_CODES, OF_PARQUET] if SIDECAR in present else [OF_CODES]
    stale = [name for name in present if name not in kept and any(each.fullmatch(name) for each in of_codes)]
    shards: list[Operation] = [CommitOperationDelete(path_in_repo=name) for name in stale]
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


def _text_of_people(api: HfApi, repo_id: str, revision: str | None) -> str | None:
    """The card on the Hub where somebody wrote it: it says something, and has lost the mark of a generated one."""
    file = api.hf_hub_download(repo_id, CARD, repo_type="dataset", revision=revision)
    try:
        text = Path(file).read_text(encoding="utf-8")
    except ValueError as error:
        raise DataError(f"{CARD} on the Hub cannot be read as UTF-8 text: mend or delete it there") from error
    return text if is_of_people(text) else None
