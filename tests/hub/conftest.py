"""A test Hub for each test, its clients in this process and in others, folders to push and what was measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Protocol

import huggingface_hub
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from tests.hub_server import HubServer
from vqtok.hub import open_folder
from vqtok.hub.card import card_of
from vqtok.tokenizer import VQTokenizer

ROOT = Path(__file__).resolve().parents[2]
RUN = "out: /runs/digits\nsteps: 500\ncheckpoint_every: 500\n"  # what tells the configuration of a run
EVALUATION = {
    "dataset": "cifar10",
    "dataset_resolved": "uoft-cs/cifar10",
    "dataset_revision": "0123abc",
    "split": "test",
    "num_images": 10000,
    "num_images_in_split": 10000,
    "mse": 0.0031,
    "mse_over_variance": 0.0489,
    "psnr": 24.5,
    "ssim": 0.87,
    "perplexity": 431.25,
    "codes_in_use": 512,
    "codebook_size": 512,
}


class RunClient(Protocol):
    def __call__(
        self, code: str, *, token: str | None = ..., home: str = ..., fails: bool = ..., **env: str
    ) -> str: ...


def card_text(folder: Path, *, metrics: Mapping[str, object] | None = None, repo_id: str | None = None) -> str:
    """The card of a model folder, where these metrics lie if there are any."""
    if metrics:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    return card_of(open_folder(folder), repo_id or str(folder), folder).text


@pytest.fixture
def hub() -> Iterator[HubServer]:
    """alice and bob; org belongs to alice; hf_reader is alice's token for reading only."""
    users = {"hf_alice": "alice", "hf_bob": "bob", "hf_reader": "alice"}
    with HubServer(users, {"org": ["alice"]}, read_only=["hf_reader"]) as server:
        yield server


@pytest.fixture
def run_client(hub: HubServer, tmp_path: Path) -> RunClient:
    """Run Python code as a user of the test Hub would; gives its stdout, or with `fails` its stderr.

    `home` names the cache: two calls with the same name share it, and a new name is an empty one.
    """

    def run(code: str, *, token: str | None = "hf_alice", home: str = "home", fails: bool = False, **env: str) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= hub.client_environment(token, tmp_path / home)
        environment |= {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error::UserWarning", "OMP_NUM_THREADS": "1"} | env
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    return run


@pytest.fixture
def alice(hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """Make this process a client of the test Hub with alice's token.

    Clients that read their address when imported, such as transformers, need `run_client` instead.
    """
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
    template = f"{hub.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    return "hf_alice"


@pytest.fixture
def run(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> Path:
    """The run folder of a tokenizer: recipe, figures of training, an image and the model."""
    folder = tmp_path / "runs" / "digits"
    tiny_tokenizer.save_pretrained(folder / "model")
    (folder / "config.yaml").write_text(f"{RUN}dataset: ylecun/mnist\n")
    rows = [
        {"step": 250, "split": "test", "mse": 0.5, "perplexity": 2.0, "usage": 0.25},
        {"step": 500, "split": "train", "loss": 0.125, "usage": 0.5},
        {"step": 500, "split": "test", "mse": 0.0625, "perplexity": 12.5, "usage": 0.75},
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "samples").mkdir()
    for step, grey in ((250, 10), (500, 200)):
        Image.new("L", (8, 8), grey).save(folder / "samples" / f"step-{step:06d}.png")
    return folder


@pytest.fixture
def prior_folder(tmp_path: Path) -> Path:
    """A prior folder as `save_pretrained` leaves it, with weights that nobody looks into."""
    folder = tmp_path / "prior"
    folder.mkdir()
    binding = {"fingerprint": "ab" * 32, "grid": [4, 4], "codebook_size": 16, "num_codebooks": 1}
    binding |= {"label_names": ["cat", "dog"], "tokenizer": "org/vq-digits"}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "vqtok": binding}))
    (folder / "generation_config.json").write_text("{}")
    save_file({"weight": np.zeros(3, np.float32)}, folder / "model.safetensors")
    return folder
