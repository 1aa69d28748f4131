"""Tokenizers and priors of one revision of a repository, over real HTTP, against a Hub of the tests' own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.tiny import TINY
from tests.hub_server import HubServer
from vqtok.codes import read_spec
from vqtok.tokenizer import VQTokenizer

ROOT = Path(__file__).resolve().parents[2]

# Two tokenizers, and a prior of each, on `main` and on the branch `next` of two repositories; then the commands.
SCRIPT = """
import json, sys, torch
from vqtok.priors import PriorBinding, build_prior, load_prior
from vqtok.tokenizer import VQTokenizer
from vqtok_cli.main import app

tokenizer = VQTokenizer.from_pretrained("tok")
for branch in (None, "next"):
    torch.manual_seed(0)
    binding = PriorBinding(fingerprint=tokenizer.fingerprint, grid=(4, 4), codebook_size=16, tokenizer="org/vq")
    prior = build_prior(binding, {"type": "pixelcnn", "hidden_size": 8, "num_layers": 1})
    prior.save_pretrained("prior")
    load_prior("prior").push_to_hub("org/prior", revision=branch)
    tokenizer.push_to_hub("org/vq", revision=branch)
    with torch.no_grad():
        tokenizer.quantizer.codebook.add_(1.0)
for arguments in json.loads(sys.argv[1]):
    app(arguments, standalone_mode=False)
"""

DATASET = """
import json, sys
from huggingface_hub import HfApi
from vqtok_cli.main import app

api = HfApi()
api.create_repo("org/images", repo_type="dataset")
api.upload_folder(repo_id="org/images", repo_type="dataset", folder_path="images")
api.create_branch("org/images", repo_type="dataset", branch="v1")
for arguments in json.loads(sys.argv[1]):
    app(arguments, standalone_mode=False)
"""


def on_the_hub(folder: Path, *commands: list[str], script: str = SCRIPT) -> subprocess.CompletedProcess[str]:
    with HubServer({"hf_alice": "alice"}, {"org": ["alice"]}) as hub:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= hub.client_environment("hf_alice", folder / "home") | {
            "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "typings")))
        }
        words = [sys.executable, "-c", script, json.dumps(commands)]
        return subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)


def test_a_revision_of_the_tokenizer_and_of_the_prior(
    tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer
) -> None:
    tiny_tokenizer.save_pretrained(tmp_path / "tok")
    vq = ["--tokenizer", "org/vq"]
    both = ["--prior", "org/prior", "--revision", "next", *vq, "--tokenizer-revision", "next"]
    done = on_the_hub(
        tmp_path,
        ["tokenize", "images", *vq, "--out", "codes"],
        ["tokenize", "images", *vq, "--revision", "next", "--out", "newer"],
        ["sample", *both, "--num-images", "1"],
    )
    assert done.returncode == 0, done.stderr
    first, second = read_spec(tmp_path / "codes"), read_spec(tmp_path / "newer")
    assert first.fingerprint == tiny_tokenizer.fingerprint != second.fingerprint
    assert f"org/vq ({second.fingerprint[:12]})" in done.stdout and f"revision    {second.revision}" in done.stdout
    assert "1 image on samples.png" in done.stdout


def test_what_to_run_next_has_the_revision_of_the_dataset(tmp_path: Path, images_folder: Path) -> None:
    next_ = "vqtok tokenize org/images@v1 --tokenizer run/model --out codes"
    done = on_the_hub(
        tmp_path,
        ["train", "--dataset", "org/images", "--set", "revision=v1", "--out", "run", *TINY],
        ["evaluate", "--tokenizer", "run"],
        ["evaluate", "--tokenizer", "run", "--dataset", "org/images@v1"],
        next_.split()[1:],
        script=DATASET,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"next: {next_}\n") == 3 and "codes of 12 images written to codes" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["tokenize", "images", "--tokenizer", "tok", "--revision", "v1"],
        ["sample", "--prior", "tok", "--revision", "v1"],
    ],
)
def test_a_folder_has_no_revisions(
    tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer, vqtok: Command, arguments: list[str]
) -> None:
    tiny_tokenizer.save_pretrained(tmp_path / "tok")
    code, _, complained = vqtok(*arguments)
    message = "tok is a folder, which has no revision 'v1': leave the revision out, or name a Hub repository"
    assert (code, complained) == (2, f"vqtok: error: {message}\n")
