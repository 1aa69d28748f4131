"""The test Hub itself, through the ordinary client: what the other tests lean on."""

from __future__ import annotations

from tests.hub.conftest import RunClient
from tests.hub_server import HubServer

REFUSALS = """
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

def refusal(call, *args, **options):
    try:
        call(*args, **options)
    except HfHubHTTPError as error:
        return f"{type(error).__name__} {error.response.status_code}"
    return "none"
"""


def test_files_come_back_as_they_were_pushed_and_a_commit_is_one_commit(hub: HubServer, run_client: RunClient) -> None:
    printed = run_client(
        """
import hashlib
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
api = HfApi()
big = bytes(range(256)) * 400
api.create_repo("org/thing", private=True)
api.create_repo("org/thing", exist_ok=True)
add = lambda path, content: CommitOperationAdd(path, content)
files = [add("config.json", b"{}"), add("model.safetensors", big), add("deep/er/notes.txt", b"x")]
api.create_commit("org/thing", files, commit_message="first")
api.create_branch("org/thing", branch="next")
api.create_commit(
    "org/thing", [CommitOperationDelete("config.json"), add("model.safetensors", b"small")],
    commit_message="second", revision="next",
)
print(sorted(api.list_repo_files("org/thing")), sorted(api.list_repo_files("org/thing", revision="next")))
print(open(api.hf_hub_download("org/thing", "model.safetensors"), "rb").read() == big)
print(open(api.hf_hub_download("org/thing", "model.safetensors", revision="next"), "rb").read())
print([commit.title for commit in api.list_repo_commits("org/thing", revision="next")])
print([entry.path for entry in api.list_repo_tree("org/thing")])
print(api.model_info("org/thing").private)
"""
    )
    assert printed.splitlines() == [
        "['config.json', 'deep/er/notes.txt', 'model.safetensors'] ['deep/er/notes.txt', 'model.safetensors']",
        "True",
        "b'small'",
        "['second', 'first', 'initial commit']",
        "['config.json', 'deep', 'model.safetensors']",
        "True",
    ]
    assert [commit.title for commit in hub.commits("org/thing")] == ["first"]
    assert hub.read("org/thing", "model.safetensors", "next") == b"small"


def test_who_may_not_read_or_write_is_refused_as_by_the_hub(hub: HubServer, run_client: RunClient) -> None:
    hub.store.create("hf_alice", "model", "alice/secret", private=True)
    hub.store.create("hf_alice", "model", "alice/open", private=False)
    printed = run_client(
        REFUSALS
        + """
for token in (False, "hf_nobody", "hf_bob", "hf_reader"):
    api = HfApi(token=token)
    print(
        refusal(api.model_info, "alice/secret"), refusal(api.model_info, "alice/open"),
        refusal(api.model_info, "alice/none"), refusal(api.create_repo, "alice/new"),
        refusal(api.model_info, "alice/open", revision="none"), sep=", ",
    )
"""
    )
    assert printed.splitlines() == [
        "RepositoryNotFoundError 401, none, RepositoryNotFoundError 401, HfHubHTTPError 401, RevisionNotFoundError 404",
        ", ".join(["HfHubHTTPError 401"] * 5),
        "RepositoryNotFoundError 404, none, RepositoryNotFoundError 404, HfHubHTTPError 403, RevisionNotFoundError 404",
        "none, none, RepositoryNotFoundError 404, HfHubHTTPError 403, RevisionNotFoundError 404",
    ]


def test_a_dataset_pushed_by_datasets_is_loaded_by_datasets(run_client: RunClient) -> None:
    printed = run_client(
        """
from datasets import Dataset, load_dataset
Dataset.from_dict({"label": [3, 1, 4]}).push_to_hub("org/numbers", split="test")
print(load_dataset("org/numbers", split="test")["label"][:])
print([row["label"] for row in load_dataset("org/numbers", split="test", streaming=True)])
"""
    )
    assert printed.splitlines() == ["[3, 1, 4]", "[3, 1, 4]"]
