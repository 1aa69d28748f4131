"""The way back from the Hub, in processes of their own as a second user would have them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image
from safetensors.torch import load_file, save

from tests.hub.conftest import RunClient, card_text
from tests.hub_server import HubServer, StoredFile
from vqtok.errors import CheckpointError, HubError
from vqtok.hub import fetch, push, push_model
from vqtok.priors import PriorBinding, build_prior
from vqtok.report import describe
from vqtok.tokenizer import VQTokenizer

# huggingface_hub 2.4 uploads LFS files in a way that its own HTTP client calls deprecated
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

ATTEMPT = """
import json
from transformers import AutoImageProcessor, AutoModel
from vqtok import VQTokenizer, VqtokError, generate, load_prior
from vqtok.hub import fetch

def refusal(call, *args, **options):
    try:
        call(*args, **options)
    except VqtokError as error:
        return f"{type(error).__name__}: {error}"
"""


def pushed_twice(run: Path, tokenizer: VQTokenizer) -> tuple[str, str]:
    """The fingerprints of what main and the branch "other" of org/vq-digits hold."""
    push(run, "org/vq-digits")
    first = tokenizer.fingerprint
    next(tokenizer.encoder.parameters()).data.mul_(0.5)
    tokenizer.save_pretrained(run / "model")
    push(run, "org/vq-digits", revision="other")
    assert tokenizer.fingerprint != first
    return first, tokenizer.fingerprint


@pytest.mark.usefixtures("alice")
def test_a_second_process_loads_by_id_and_by_revision_then_from_the_cache_alone(
    hub: HubServer, run: Path, tiny_tokenizer: VQTokenizer, run_client: RunClient
) -> None:
    first, other = pushed_twice(run, tiny_tokenizer)
    binding = PriorBinding(fingerprint=first, grid=(4, 4), codebook_size=16, tokenizer="org/vq-digits")
    for arch in ("pixelcnn", "transformer"):
        prior = build_prior(binding, {"type": arch, "hidden_size": 8, "num_layers": 1})
        assert push_model(prior, f"org/{arch}", private=True) == f"{hub.url}/org/{arch}"
    load = """
main = VQTokenizer.from_pretrained("org/vq-digits")
other = VQTokenizer.from_pretrained("org/vq-digits", revision="other")
auto = AutoModel.from_pretrained("org/vq-digits")
processor = AutoImageProcessor.from_pretrained("org/vq-digits")
print(json.dumps([type(auto).__name__, auto.fingerprint, processor.to_dict() == main.image_processor.to_dict(),
                  main.fingerprint, main.revision, other.fingerprint, other.revision]))
for arch in ("pixelcnn", "transformer"):
    generate(load_prior(f"org/{arch}"), main, num_images=1)  # which compares fingerprints
print(refusal(fetch, "org/never-loaded"))
"""
    assert "org/vq-digits" in hub.read("org/transformer", "README.md").decode()
    commits = [hub.commits("org/vq-digits", branch)[0].id for branch in ("main", "other")]
    expected = ["VQTokenizer", first, True, first, commits[0], other, commits[1]]
    loaded, line = run_client(ATTEMPT + load, home="second").splitlines()
    assert json.loads(loaded) == expected
    assert line.startswith("HubError: org/never-loaded does not exist on the Hub, or is private")

    hub.close()
    loaded, line = run_client(ATTEMPT + load, home="second").splitlines()
    assert json.loads(loaded) == expected
    assert line.startswith(f"HubError: org/never-loaded is not in the cache and the Hub at {hub.url} cannot be reached")

    loaded, line = run_client(ATTEMPT + load, home="second", HF_HUB_OFFLINE="1").splitlines()
    assert json.loads(loaded) == expected
    assert line == "HubError: org/never-loaded is not in the cache, and HF_HUB_OFFLINE is set: unset it"


@pytest.mark.usefixtures("alice")
def test_what_may_not_be_read_is_refused_in_one_line_and_nothing_is_executed(
    hub: HubServer, run: Path, run_client: RunClient
) -> None:
    push(run, "org/secret", private=True)
    push(run, "org/open")
    config = (run / "model" / "config.json").read_bytes()
    code = json.dumps(json.loads(config) | {"auto_map": {"AutoModel": "evil.Evil", "AutoConfig": "evil.Evil"}})
    # what pickle makes of these bytes is os.mkdir("executed")
    pickled = b"cos\nmkdir\n(S'executed'\ntR."
    for repo_id, files in {
        "org/pickle": {"config.json": config, "pytorch_model.bin": pickled},
        "org/code": {"config.json": code.encode(), "evil.py": b"import os\nos.mkdir('executed')\nclass Evil: pass\n"},
    }.items():
        store(hub, repo_id, files)
    began = len(hub.requests)
    lines = run_client(
        ATTEMPT
        + """
import os
print(refusal(fetch, "org/secret"))
print(refusal(fetch, "org/open", revision="none"))
print(refusal(fetch, "org/pickle"))
print(refusal(fetch, "org/code"))
for repo_id in ("org/secret", "org/pickle", "org/code"):
    print(refusal(VQTokenizer.from_pretrained, repo_id))
print(os.path.exists("executed"))
""",
        token=None,
        home="second",
    ).splitlines()
    assert lines[:4] == [
        "HubError: org/secret does not exist on the Hub, or is private: check the name; if private, run "
        "`hf auth login`, or set HF_TOKEN",
        "HubError: org/open has no such revision: give a branch, a tag or a commit of it",
        "HubError: org/pickle holds no safetensors weights, and no others are read",
        "HubError: org/code/config.json sets 'auto_map', which no model of vqtok needs and which could fetch or run "
        "code: remove it to load the rest",
    ]
    assert all(re.match(r"(HubError|ConfigurationError): ", line) for line in lines[4:7]), lines
    assert lines[7:] == ["False"]
    read = [path for method, path, status in hub.requests[began:] if method == "GET" and status == 200]
    assert not [path for path in read if path.endswith((".bin", ".py"))]


@pytest.mark.usefixtures("alice")
def test_a_prior_finds_its_tokenizer_at_the_commit_that_made_its_codes(
    hub: HubServer,
    run: Path,
    tiny_tokenizer: VQTokenizer,
    images_folder: Path,
    tmp_path: Path,
    run_client: RunClient,
) -> None:
    push(run, "org/vq-digits")
    first = hub.commits("org/vq-digits")[0].id
    code = """
from vqtok_cli.main import app
app("tokenize images --tokenizer org/vq-digits --out codes".split(), standalone_mode=False)
settings = "--arch pixelcnn --hidden-size 4 --num-layers 1 --steps 2 --batch-size 4 --out runs/prior"
app(["train-prior", "codes", *settings.split()], standalone_mode=False)
"""
    run_client(code, home="second")
    prior = tmp_path / "runs" / "prior"
    assert json.loads((prior / "model" / "config.json").read_text())["vqtok"]["revision"] == first

    next(tiny_tokenizer.encoder.parameters()).data.mul_(0.5)
    tiny_tokenizer.save_pretrained(run / "model")
    push(run, "org/vq-digits")
    sample = "from vqtok_cli.main import app; app(['sample', '--prior', 'runs/prior', '--num-images', '1'])"
    assert first in run_client(sample, home="second")
    with Image.open(tmp_path / "samples.png") as image:
        assert image.size == (72, 72)
    assert f"org/vq-digits at {first}" in card_text(prior / "model")
    assert f'VQTokenizer.from_pretrained("org/vq-digits", revision="{first}")' in card_text(prior / "model")
    assert f"org/vq-digits at {first}" in dict(describe(prior / "model").rows)["tokenizer"]


def store(hub: HubServer, repo_id: str, files: dict[str, bytes]) -> None:
    """Put files into a new repository as its owner would, whatever they are."""
    repository = hub.store.create("hf_alice", "model", repo_id, private=False)
    put = {name: StoredFile(hub.store.put(content), len(content), lfs=False) for name, content in files.items()}
    repository.append("main", put, "by hand", parent=repository.branches["main"])


def downloads(hub: HubServer, began: int) -> list[str]:
    """The files of repositories whose contents were sent since a request, by their paths."""
    sent = [path for method, path, status in hub.requests[began:] if method == "GET" and status == 200]
    return [path.split("/", 5)[5] for path in sent if "/resolve/" in path]


@pytest.mark.usefixtures("alice")
def test_of_a_foreign_model_one_small_file_is_fetched(hub: HubServer, tmp_path: Path) -> None:
    foreign = json.dumps({"model_type": "bert"}).encode()
    store(hub, "org/huge", {"config.json": foreign, "model.safetensors": bytes(10_000), "sub/x.safetensors": b"x"})
    store(hub, "org/none", {"model.safetensors": bytes(10_000)})
    began = len(hub.requests)
    with pytest.raises(HubError, match="org/huge holds neither a tokenizer nor a prior: .* is of a 'bert' model"):
        fetch("org/huge")
    assert downloads(hub, began) == ["config.json"]
    assert [method for method, path, _ in hub.requests[began:] if "org/huge" in path] == ["HEAD", "GET"]
    with pytest.raises(HubError, match="org/none holds no config.json"):
        fetch("org/none")
    assert downloads(hub, began) == ["config.json"]


@pytest.mark.usefixtures("alice")
def test_of_a_model_of_ours_only_the_named_files_at_the_root_are_fetched(hub: HubServer, run: Path) -> None:
    ours = {path.name: path.read_bytes() for path in (run / "model").iterdir()}
    others = {"old/model.safetensors": b"x", "old/config.json": b"{}", "other.safetensors": b"x", "notes.txt": b"x"}
    store(hub, "org/ours", ours | others | {"metrics.json": b"{}"})
    folder = fetch("org/ours")
    assert sorted(downloads(hub, 0)) == ["config.json", "model.safetensors", "preprocessor_config.json"]
    VQTokenizer.from_pretrained(folder)


@pytest.mark.usefixtures("alice")
def test_of_weights_in_parts_those_that_the_index_names_are_fetched(hub: HubServer, run: Path) -> None:
    ours = {path.name: path.read_bytes() for path in (run / "model").iterdir()}
    weights = load_file(run / "model" / "model.safetensors")
    del ours["model.safetensors"]
    names = sorted(weights)
    halves = {f"model-{part + 1}.safetensors": {name: weights[name] for name in names[part::2]} for part in (0, 1)}
    index = {"metadata": {}, "weight_map": {name: file for file, half in halves.items() for name in half}}
    parts = {name: save(half, metadata={"format": "pt"}) for name, half in halves.items()}
    ours |= {"model.safetensors.index.json": json.dumps(index).encode()} | parts
    store(hub, "org/parts", ours | {"model-3.safetensors": b"x"})
    VQTokenizer.from_pretrained("org/parts")
    found = [name for name in downloads(hub, 0) if "model-" in name]  # at once, in any order
    assert sorted(found) == ["model-1.safetensors", "model-2.safetensors"]

    for bad in ("../model-1.safetensors", "sub/model-1.safetensors", "model.bin", "*.safetensors", ".safetensors"):
        broken = json.dumps({"weight_map": {name: bad for name in weights}}).encode()
        repo_id = f"org/bad-{len(hub.store.repositories)}"
        store(hub, repo_id, ours | {"model.safetensors.index.json": broken})
        with pytest.raises(CheckpointError, match=f"'{re.escape(bad)}' is not the name of a safetensors file"):
            fetch(repo_id)
