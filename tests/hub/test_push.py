"""What a push puts on the Hub, and what stops it."""

from __future__ import annotations

import json
from pathlib import Path

import huggingface_hub
import pytest

from tests.hub.conftest import card_text
from tests.hub_server import HubServer
from tests.hub_server.store import Refusal, StoredFile
from vqtok.errors import CheckpointError, HubError
from vqtok.hub import check_can_push, push, push_model
from vqtok.tokenizer import VQTokenizer

# huggingface_hub 2.4 uploads LFS files in a way that its own HTTP client calls deprecated
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

TOKENIZER_FILES = ["README.md", "config.json", "model.safetensors", "preprocessor_config.json", "reconstructions.png"]


@pytest.mark.usefixtures("alice")
def test_a_push_is_one_commit_of_weights_settings_card_and_image(hub: HubServer, run: Path) -> None:
    assert push(run / "model", "org/vq-digits") == f"{hub.url}/org/vq-digits"
    (commit,) = hub.commits("org/vq-digits")
    assert sorted(commit.files) == TOKENIZER_FILES
    assert hub.read("org/vq-digits", "model.safetensors") == (run / "model" / "model.safetensors").read_bytes()
    assert hub.read("org/vq-digits", "reconstructions.png") == (run / "samples" / "step-000500.png").read_bytes()
    assert [path for method, path, _ in hub.requests if "/commit/" in path] == ["/api/models/org/vq-digits/commit/main"]
    assert not hub.store.repositories["model", "org/vq-digits"].private


@pytest.mark.usefixtures("alice")
def test_a_run_folder_stands_for_its_model_and_a_bare_name_for_the_users_own(hub: HubServer, run: Path) -> None:
    assert push(run, "digits", private=True, commit_message="first weights") == f"{hub.url}/alice/digits"
    (commit,) = hub.commits("alice/digits")
    assert commit.title == "first weights"
    assert hub.store.repositories["model", "alice/digits"].private


@pytest.mark.usefixtures("alice")
def test_a_push_to_a_branch_leaves_main_as_it_was(hub: HubServer, run: Path) -> None:
    assert push(run, "org/vq-digits", revision="half") == f"{hub.url}/org/vq-digits/tree/half"
    assert hub.commits("org/vq-digits") == []
    assert len(hub.commits("org/vq-digits", "half")) == 1
    push(run, "org/vq-digits", revision="half", commit_message="nothing new")
    assert len(hub.commits("org/vq-digits", "half")) == 1  # the same files again are no commit


@pytest.mark.usefixtures("alice")
def test_a_later_push_removes_what_spoke_of_other_weights_and_nothing_else(
    hub: HubServer, run: Path, prior_folder: Path
) -> None:
    (run / "model" / "metrics.json").write_text(json.dumps({"dataset": "ylecun/mnist", "split": "test", "mse": 0.5}))
    push(run, "org/both")
    api = huggingface_hub.HfApi(endpoint=hub.url)
    api.upload_file(path_or_fileobj=b"mine", path_in_repo="notes.txt", repo_id="org/both")
    push(prior_folder, "org/both")
    newest, _, first = hub.commits("org/both")
    assert sorted(first.files) == sorted([*TOKENIZER_FILES, "metrics.json"])
    expected = ["README.md", "config.json", "generation_config.json", "model.safetensors", "notes.txt"]
    assert sorted(newest.files) == expected


@pytest.mark.usefixtures("alice")
def test_a_card_that_people_wrote_stays(hub: HubServer, run: Path) -> None:
    push(run, "org/vq-digits")
    generated = hub.read("org/vq-digits", "README.md").decode()
    assert generated.startswith("---\n") and "# vq-digits" in generated
    api = huggingface_hub.HfApi(endpoint=hub.url)
    api.upload_file(path_or_fileobj=b"# On the Hub\n", path_in_repo="README.md", repo_id="org/vq-digits")
    (run / "model" / "preprocessor_config.json").write_text("{}")
    push(run, "org/vq-digits")
    assert hub.read("org/vq-digits", "README.md") == b"# On the Hub\n"
    assert hub.read("org/vq-digits", "preprocessor_config.json") == b"{}"
    (run / "model" / "README.md").write_text("# In the folder\n")
    push(run, "org/another")
    assert hub.read("org/another", "README.md") == b"# In the folder\n"


@pytest.mark.parametrize("card", ["# café\n".encode("latin-1"), b"---\n- a\n---\n# Mine\n"])
@pytest.mark.usefixtures("alice")
def test_a_card_on_the_hub_that_cannot_be_read_stays(hub: HubServer, run: Path, card: bytes) -> None:
    """As git lets anybody push it; the client does not."""
    push(run, "org/vq-digits")
    repository = hub.store.repositories["model", "org/vq-digits"]
    mine = StoredFile(hub.store.put(card), len(card), lfs=False)
    repository.append("main", {**repository.at("main").files, "README.md": mine}, "by git")
    (run / "model" / "preprocessor_config.json").write_text("{}")
    push(run, "org/vq-digits")
    assert hub.read("org/vq-digits", "README.md") == card
    assert hub.read("org/vq-digits", "preprocessor_config.json") == b"{}"


@pytest.mark.usefixtures("alice")
def test_a_model_brings_the_figures_of_its_folder_only_while_its_weights_are_the_same(
    hub: HubServer, run: Path
) -> None:
    (run / "model" / "metrics.json").write_text(json.dumps({"dataset": "ylecun/mnist", "split": "test", "mse": 0.5}))
    tokenizer = VQTokenizer.from_pretrained(run / "model")
    push_model(tokenizer, "org/same")
    (commit,) = hub.commits("org/same")
    assert sorted(commit.files) == sorted([*TOKENIZER_FILES, "metrics.json"])
    assert "| mse | 0.5 |" in hub.read("org/same", "README.md").decode()
    next(tokenizer.decoder.parameters()).data.add_(1)
    push_model(tokenizer, "org/other")
    (commit,) = hub.commits("org/other")
    assert sorted(commit.files) == ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]
    assert "No metrics are stored with these weights" in hub.read("org/other", "README.md").decode()


@pytest.mark.usefixtures("alice")
def test_a_private_push_to_a_public_repository_is_refused_before_anything_is_sent(hub: HubServer, run: Path) -> None:
    hub.store.create("hf_alice", "model", "org/open", private=False)
    with pytest.raises(HubError, match="org/open is public already"):
        push(run, "org/open", private=True)
    assert hub.commits("org/open") == []


def test_folders_that_are_no_model_are_refused_with_what_was_found(run: Path, prior_folder: Path) -> None:
    model = run / "model"
    with pytest.raises(CheckpointError, match="nowhere is not a folder"):
        push("nowhere", "org/x")
    with pytest.raises(
        CheckpointError, match=r"neither a tokenizer nor a prior.*it holds step-000250\.png, step-000500"
    ):
        push(run / "samples", "org/x")
    (model / "evil.py").write_text("raise SystemExit")
    (model / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(CheckpointError, match=r"holds evil\.py, pytorch_model\.bin: only safetensors"):
        push(model, "org/x")
    (model / "evil.py").unlink()
    (model / "pytorch_model.bin").unlink()
    whole = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(whole[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is no whole safetensors file"):
        push(model, "org/x")
    (model / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"holds no weights: model\.safetensors is missing"):
        push(model, "org/x")
    index = {"weight_map": {"weight": "model-1.safetensors", "bias": "model-2.safetensors"}}
    (prior_folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (prior_folder / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"lacks the weights model-1\.safetensors, model-2\.safetensors"):
        push(prior_folder, "org/x")
    (prior_folder / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(CheckpointError, match="config.json is of a 'bert' model"):
        push(prior_folder, "org/x")


@pytest.mark.usefixtures("alice")
@pytest.mark.parametrize(
    ("token", "repo_id", "line"),
    [
        (None, "org/x", "the Hub wants an access token for org/x: run `hf auth login`, or set HF_TOKEN"),
        ("hf_nobody", "org/x", "the Hub does not accept the access token: make a new one at"),
        ("hf_bob", "alice/x", "the access token may not write to alice/x: use a token with write permission"),
        ("hf_reader", "alice/x", "the access token may not write to alice/x"),
        ("hf_alice", "a/b/c", "'a/b/c' is not a repository id: write owner/name"),
        ("hf_alice", "org/ö", "'org/ö' is not a repository id"),
    ],
)
def test_what_the_hub_refuses_is_one_line_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, run: Path, token: str | None, repo_id: str, line: str
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError) as raised:
        push(run, repo_id, token=token)
    assert line in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.usefixtures("alice")
def test_an_upload_that_breaks_off_is_one_line_and_no_commit(
    hub: HubServer, monkeypatch: pytest.MonkeyPatch, run: Path
) -> None:
    def full(content: bytes) -> str:
        raise Refusal(413, "storage quota exceeded")

    monkeypatch.setattr(hub.store, "put", full)
    with pytest.raises(HubError, match="the Hub answered 413 for org/x: storage quota exceeded"):
        push(run, "org/x")
    assert hub.commits("org/x") == []


@pytest.mark.usefixtures("alice")
def test_whether_a_push_can_go_through_is_known_beforehand(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_can_push("org/new") == "org/new"
    assert check_can_push("new") == "alice/new"
    assert hub.store.repositories == {}
    for token, repo_id, line in [
        ("hf_nobody", "org/new", "does not accept the access token"),
        ("hf_reader", "alice/new", "the access token of alice may only read"),
        ("hf_alice", "no such name", "'no such name' is not a repository id"),
    ]:
        with pytest.raises(HubError, match=line):
            check_can_push(repo_id, token)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="no access token for the Hub: run `hf auth login`, or set HF_TOKEN"):
        check_can_push("org/new")


@pytest.mark.usefixtures("alice")
def test_without_a_hub_the_line_says_so(hub: HubServer, run: Path) -> None:
    hub.close()
    for attempt in (lambda: push(run, "org/x"), lambda: check_can_push("org/x")):
        with pytest.raises(HubError, match=f"the Hub at {hub.url} cannot be reached.*check the network"):
            attempt()


@pytest.mark.usefixtures("alice")
@pytest.mark.parametrize(
    "name",
    [
        *("README.md", "metrics.json", "reconstructions.png", "preprocessor_config.json", "generation_config.json"),
        *("config.json", "model.safetensors", "../config.yaml", "../metrics.jsonl", "../samples/step-000900.png"),
    ],
)
def test_a_link_to_a_file_elsewhere_is_never_published(hub: HubServer, run: Path, tmp_path: Path, name: str) -> None:
    secret, link = tmp_path / "id_rsa", run / "model" / name
    secret.write_bytes(link.read_bytes() if link.is_file() else b"{}")
    link.unlink(missing_ok=True)
    link.symlink_to(secret)
    for call in (lambda: push(run, "org/x"), lambda: card_text(run / "model")):
        with pytest.raises(CheckpointError, match=f"{link.name} is a link to a file outside"):
            call()
    assert hub.requests == []


@pytest.mark.usefixtures("alice")
def test_a_folder_that_is_a_link_and_links_inside_it_are_pushed(hub: HubServer, run: Path, tmp_path: Path) -> None:
    (run / "model" / "metrics.json").symlink_to("numbers.json")
    (run / "model" / "numbers.json").write_text(json.dumps({"dataset": "ylecun/mnist", "split": "test", "mse": 0.5}))
    (tmp_path / "linked").symlink_to(run / "model")
    push(tmp_path / "linked", "org/x")
    assert hub.read("org/x", "metrics.json") == (run / "model" / "numbers.json").read_bytes()
