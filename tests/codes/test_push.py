"""Codes on the Hub, over real HTTP: what a push sends, what everybody can load of it, and what stops it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import huggingface_hub
import numpy as np
import pytest
import yaml

from tests.codes.conftest import RunClient, WriteCodes, make_grids, make_spec
from tests.hub_server import HubServer
from tests.hub_server.store import StoredFile
from vqtok.codes import load_codes, push, push_codes, read_spec, tokenize_dataset, tokenize_images
from vqtok.errors import CheckpointError, DataError, HubError
from vqtok.tokenizer import VQTokenizer

# huggingface_hub 2.4 uploads LFS files in a way that its own HTTP client calls deprecated
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

SPEC = make_spec(repository="org/vq", revision="abc", preprocessing={"image_size": [8, 12]})
SENT = ["README.md", "codes.json", "dataset_dict.json", "train/dataset_info.json", "train/state.json"]
DATASET = {"kind": "dataset"}

# A process that has no vqtok at all.
WITHOUT = """
import json, sys
sys.modules["vqtok"] = None
import datasets, numpy as np
datasets.disable_progress_bars()
"""


def shards(names: list[str]) -> list[str]:
    return [name for name in names if name.endswith(".arrow")]


def split_up(folder: Path, count: int, split: str = "train") -> Path:
    """A codes folder as the drivers leave it: splits below the root, of several shards each, and codes.json."""
    codes = load_codes(folder)
    assert isinstance(codes, datasets.Dataset)
    place = folder.with_name(f"{folder.name}-{count}")
    datasets.DatasetDict({split: codes}).save_to_disk(place, num_shards={split: count})
    (place / "codes.json").write_bytes((folder / "codes.json").read_bytes())
    return place


@pytest.fixture
def folder(write_codes: WriteCodes) -> Path:
    return write_codes(make_grids(12, SPEC), SPEC)


@pytest.mark.usefixtures("alice")
def test_a_push_is_one_commit_of_shards_state_binding_and_card(hub: HubServer, folder: Path) -> None:
    place = split_up(folder, 3)
    assert push_codes(place, "org/codes") == f"{hub.url}/datasets/org/codes"
    (commit,) = hub.commits("org/codes", **DATASET)
    sent = [f"train/data-0000{number}-of-00003.arrow" for number in range(3)]
    assert sorted(commit.files) == sorted([*SENT, *sent])
    assert hub.read("org/codes", sent[1], **DATASET) == (place / sent[1]).read_bytes()
    push_codes(place, "org/codes")
    assert len(hub.commits("org/codes", **DATASET)) == 1  # the same files again are no commit
    card = hub.read("org/codes", "README.md", **DATASET).decode()
    data = yaml.safe_load(card.split("---\n")[1])
    assert data["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "train/data-*.arrow"}]}
    ]
    assert [column["name"] for column in data["dataset_info"]["features"]] == ["codes", "row"]
    assert json.loads(card.split("```json\n")[1].split("```")[0]) == SPEC.to_dict()
    assert "| train | 12 images |" in card and "| tokenizer | aaaaaaaaaaaa (org/vq at abc) |" in card
    assert 'VQTokenizer.from_pretrained("org/vq", revision="abc")' in card


@pytest.mark.parametrize("count", [1, 3])
def test_anybody_loads_them_streaming_too_and_without_vqtok(
    hub: HubServer, folder: Path, count: int, run_client: RunClient, alice: str
) -> None:
    push_codes(folder if count == 1 else split_up(folder, count), "org/codes")
    printed = run_client(
        WITHOUT
        + """
for streaming in (False, True):
    codes = datasets.load_dataset("org/codes", split="train", streaming=streaming)
    print(json.dumps([np.asarray(row["codes"]).tolist() for row in codes]))
    print(json.dumps([row["row"] for row in codes]), codes.features["codes"], codes.features["codes"].id)
"""
    ).splitlines()
    grids = make_grids(12, SPEC).tolist()
    assert json.loads(printed[0]) == json.loads(printed[2]) == grids
    assert printed[1] == printed[3] == f"{list(range(12))} {SPEC.feature} {SPEC.feature.id}"


LOAD = """
import datasets, json, sys
from vqtok.codes import load_codes, read_spec, push_codes, codes_array
from vqtok.errors import VqtokError
datasets.disable_progress_bars()
"""


def test_they_are_loaded_by_their_id_and_mapped_from_the_cache(
    hub: HubServer, folder: Path, run_client: RunClient, alice: str
) -> None:
    push_codes(split_up(folder, 2), "org/codes")
    push_codes(folder, "org/codes", revision="v1")
    printed = run_client(
        LOAD
        + """
codes = load_codes("org/codes")
print(len(codes), len(codes.cache_files), all("hub" in file["filename"] for file in codes.cache_files))
print(read_spec(codes).to_json())
print(len(load_codes("org/codes@v1").cache_files), read_spec("org/codes@v1").repository)
rows = load_codes("org/codes", streaming=True)
print(type(rows).__name__, len(list(rows)), read_spec(rows).to_json())
for name in ("org/nothing", "org/codes@nowhere"):
    for streaming in (False, True):
        try:
            load_codes(name, streaming=streaming)
        except VqtokError as error:
            print(type(error).__name__, error)
"""
    ).splitlines()
    assert printed[:2] == ["12 2 True", SPEC.to_json()]
    assert printed[2:4] == ["1 org/vq", f"IterableDataset 12 {SPEC.to_json()}"]
    assert [line.partition(" ")[0] for line in printed[4:]] == ["HubError"] * 4
    run_client(LOAD + "assert len(load_codes('org/codes')) == 12", HF_HUB_OFFLINE="1")  # it is in the cache


def test_a_stream_downloads_what_is_read_of_it(hub: HubServer, folder: Path, run_client: RunClient, alice: str) -> None:
    push_codes(split_up(folder, 6), "org/codes")
    before = len(hub.requests)
    run_client(LOAD + 'print(len(next(load_codes("org/codes", streaming=True).iter(2))["codes"]))')
    asked = {path for method, path, _ in hub.requests[before:] if method == "GET" and ".arrow" in path}
    assert 1 <= len(asked) <= 2  # the first for the features, and for the rows


def test_what_datasets_pushed_keeps_its_binding(
    hub: HubServer, folder: Path, run_client: RunClient, alice: str
) -> None:
    printed = run_client(
        LOAD
        + f"""
load_codes({str(folder)!r}).select(range(5)).push_to_hub("org/mine")
for streaming in (False, True):
    codes = load_codes("org/mine", streaming=streaming)
    print(len(list(codes)), read_spec(codes).fingerprint)
datasets.load_dataset("org/mine")["train"].save_to_disk("again")
print(read_spec("again").fingerprint)
try:
    load_codes("org/mine", tokenizer=type("T", (), {{"fingerprint": "b" * 64, "repository": None, "revision": None}}))
except VqtokError as error:
    print(type(error).__name__)
"""
    ).splitlines()
    printed = [line for line in printed if "num_proc" not in line]
    assert printed == ["5 " + "a" * 64, "5 " + "a" * 64, "a" * 64, "MismatchError"]


@pytest.mark.usefixtures("alice")
def test_an_earlier_push_leaves_no_shards_behind_and_files_of_others_stay(hub: HubServer, folder: Path) -> None:
    push_codes(split_up(folder, 4), "org/codes")
    api = huggingface_hub.HfApi(endpoint=hub.url)
    api.upload_file(path_or_fileobj=b"x", path_in_repo="notes.txt", repo_id="org/codes", repo_type="dataset")
    push_codes(split_up(folder, 2), "org/codes")
    newest = hub.commits("org/codes", **DATASET)[0]
    assert shards(sorted(newest.files)) == [f"train/data-0000{number}-of-00002.arrow" for number in range(2)]
    assert "notes.txt" in newest.files


@pytest.mark.parametrize("where", ["folder", "hub"])
@pytest.mark.usefixtures("alice")
def test_a_card_that_people_wrote_keeps_its_text_and_says_where_the_files_are(
    hub: HubServer, folder: Path, where: str
) -> None:
    own = "---\nlicense: mit\nconfigs:\n- config_name: old\n  data_files: gone/*\n---\n# Mine\n"
    if where == "folder":
        (folder / "README.md").write_text(own)
    else:
        push_codes(folder, "org/codes")
        api = huggingface_hub.HfApi(endpoint=hub.url)
        api.upload_file(
            path_or_fileobj=own.encode(), path_in_repo="README.md", repo_id="org/codes", repo_type="dataset"
        )
    push_codes(folder, "org/codes")
    card = hub.read("org/codes", "README.md", **DATASET).decode()
    assert card.endswith("---\n# Mine\n") and "license: mit" in card and "gone" not in card
    assert "train/data-*.arrow" in card and SPEC.fingerprint in card


@pytest.mark.parametrize(
    ("card", "says"),
    [("# café\n".encode("latin-1"), "UTF-8"), (b"---\n- a\n---\n# Mine\n", "a dict"), (b"---\na: [\n---\nx", "a card")],
)
@pytest.mark.usefixtures("alice")
def test_a_card_on_the_hub_that_cannot_be_read_is_one_line_and_stays(
    hub: HubServer, folder: Path, card: bytes, says: str
) -> None:
    """As git lets anybody push it; the client does not."""
    push_codes(folder, "org/codes")
    repository = hub.store.repositories["dataset", "org/codes"]
    files = repository.at("main").files
    mine = StoredFile(hub.store.put(card), len(card), lfs=False)
    repository.append("main", {**files, "README.md": mine}, "by git")
    with pytest.raises(DataError, match=f"^README.md [^\n]*{says}[^\n]*mend or delete it[^\n]*$"):
        push_codes(folder, "org/codes")
    assert hub.read("org/codes", "README.md", **DATASET) == card


def test_many_shards_are_several_commits_and_only_the_last_loads(
    hub: HubServer, folder: Path, run_client: RunClient, alice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "FILES_PER_COMMIT", 6)
    push_codes(split_up(folder, 12), "org/codes")
    commits = hub.commits("org/codes", **DATASET)[::-1]
    assert [commit.title for commit in commits] == [f"Push codes of vqtok (part {part} of 4)" for part in (1, 2, 3, 4)]
    assert [len(shards(list(commit.files))) for commit in commits] == [5, 10, 12, 12]
    assert "dataset_dict.json" not in commits[2].files
    tries = "\n".join(
        f"""
try:
    print(len(datasets.load_dataset("org/codes", revision="{commit.id}", split="train", streaming={streaming})))
except Exception as error:
    print("refused", type(error).__name__)"""
        for commit in commits[:3]
        for streaming in (False, True)
    )
    printed = run_client(WITHOUT + tries + '\nprint(len(datasets.load_dataset("org/codes", split="train")))')
    lines = printed.splitlines()
    assert [line.split()[0] for line in lines] == ["refused"] * 6 + ["12"]


@pytest.mark.usefixtures("alice")
def test_more_files_than_the_hub_takes_are_refused_before_anything_is_made(
    hub: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push, "ENTRIES_PER_FOLDER", 4)
    with pytest.raises(DataError, match=r"train holds 5 files, and the Hub takes up to 4 in a folder"):
        push_codes(split_up(folder, 3), "org/codes")
    assert hub.requests == []


@pytest.mark.usefixtures("alice")
def test_links_codes_without_binding_and_other_folders_are_not_pushed(
    hub: HubServer, folder: Path, tmp_path: Path
) -> None:
    place = split_up(folder, 2)
    outside = tmp_path / "outside.arrow"
    linked = place / "train" / "data-00001-of-00002.arrow"
    linked.rename(outside)
    linked.symlink_to(outside)
    with pytest.raises((CheckpointError, DataError), match="link to a file outside|leads out of"):
        push_codes(place, "org/codes")
    datasets.Dataset.from_dict({"codes": [[[1]]]}).save_to_disk(tmp_path / "unbound")
    with pytest.raises(DataError, match="vqtok bind"):
        push_codes(tmp_path / "unbound", "org/codes")
    with pytest.raises(DataError, match="is no codes folder"):
        push_codes(tmp_path, "org/codes")
    assert hub.requests == []


@pytest.mark.usefixtures("alice")
def test_private_stays_private_and_a_branch_leaves_main_alone(hub: HubServer, folder: Path) -> None:
    assert push_codes(folder, "codes", private=True, revision="v1", commit_message="Mine").endswith("/tree/v1")
    assert hub.store.repositories["dataset", "alice/codes"].private
    assert hub.commits("alice/codes", **DATASET) == []
    (commit,) = hub.commits("alice/codes", "v1", **DATASET)
    assert commit.title == "Mine" and "# codes" in hub.read("alice/codes", "README.md", "v1", **DATASET).decode()
    hub.store.create("hf_alice", "dataset", "org/open", private=False)
    with pytest.raises(HubError, match="org/open is public already"):
        push_codes(folder, "org/open", private=True)


@pytest.mark.usefixtures("alice")
def test_no_path_of_this_machine_is_sent(hub: HubServer, write_codes: WriteCodes, tmp_path: Path) -> None:
    spec = make_spec(repository=str(tmp_path / "secret" / "model"))
    push_codes(split_up(write_codes(make_grids(4, spec), spec), 2), "org/codes")
    (commit,) = hub.commits("org/codes", **DATASET)
    for name in commit.files:
        content = hub.read("org/codes", name, **DATASET)
        assert b"secret" not in content and str(tmp_path).encode() not in content, name
    told: dict[str, Any] = json.loads(hub.read("org/codes", "codes.json", **DATASET))
    assert told["fingerprint"] == spec.fingerprint and told["repository"] is None
    assert np.array_equal(read_spec(tmp_path / "codes").shape, (2, 3))


@pytest.mark.usefixtures("alice")
def test_views_and_images_are_pushed_with_their_codes(
    hub: HubServer, tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer, run_client: RunClient
) -> None:
    for name, options in {"views": {"views": "center"}, "images": {"images": True}}.items():
        options |= {"shard_rows": 5, "progress": False}
        tokenize_images(images_folder, tiny_tokenizer, tmp_path / f"{name}-codes", **options)
        push_codes(tmp_path / f"{name}-codes", f"org/{name}")
    card = hub.read("org/views", "README.md", **DATASET).decode()
    assert "| train | 24 rows |" in card and "center: the rows of an image share its image_id" in card
    loaded = run_client(
        LOAD
        + """
views = load_codes("org/views")
print(json.dumps([views["view"][:], views["image_id"][:], read_spec(views).preprocessing["views"]]))
image = next(iter(load_codes("org/images", streaming=True)))["image"]
print(json.dumps(image.size))
"""
    ).splitlines()
    ids = [number for number in range(12) for _ in range(2)]
    assert list(map(json.loads, loaded)) == [[[0, 1] * 12, ids, "center"], [16, 16]]
    seen = run_client(
        WITHOUT
        + """
images = datasets.load_dataset("org/images", split="train")
print(json.dumps([len(images), images[11]["image"].size, str(images.features["image"])]))
"""
    )
    assert json.loads(seen) == [12, [16, 16], "Image(mode=None, decode=True)"]


def test_parquet_codes_go_up_with_card_and_binding_and_replace_what_was_there(
    hub: HubServer,
    tmp_path: Path,
    images_folder: Path,
    tiny_tokenizer: VQTokenizer,
    run_client: RunClient,
    alice: str,
) -> None:
    here = tokenize_dataset(
        images_folder, tiny_tokenizer, tmp_path / "parquet", format="parquet", shard_rows=5, progress=False
    )
    tokenize_dataset(images_folder, tiny_tokenizer, tmp_path / "arrow", progress=False)
    push_codes(tmp_path / "arrow", "org/codes")
    push_codes(tmp_path / "parquet", "org/codes")
    names = [f"data/train-0000{number}-of-00003.parquet" for number in range(3)]
    newest = hub.commits("org/codes", **DATASET)[0]
    assert sorted(newest.files) == ["README.md", "codes.json", *names]
    card = yaml.safe_load(hub.read("org/codes", "README.md", **DATASET).decode().split("---\n")[1])
    assert card["configs"][0]["data_files"] == [{"split": "train", "path": "data/train-*.parquet"}]
    printed = run_client(
        WITHOUT
        + """
for streaming in (False, True):
    codes = datasets.load_dataset("org/codes", split="train", streaming=streaming)
    print(json.dumps([np.asarray(row["codes"]).tolist() for row in codes]))
"""
    ).splitlines()
    assert json.loads(printed[0]) == json.loads(printed[1]) == here["codes"][:]
    told = run_client(LOAD + 'print(read_spec("org/codes").fingerprint, len(load_codes("org/codes")))')
    assert told == f"{tiny_tokenizer.fingerprint} 12\n"
    push_codes(tmp_path / "arrow", "org/codes")
    assert not [name for name in hub.commits("org/codes", **DATASET)[0].files if name.endswith(".parquet")]
