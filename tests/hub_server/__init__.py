"""A Hugging Face Hub on this machine for tests: the real clients talk to it over HTTP.

It answers only what `huggingface_hub`, `transformers` and `datasets` ask for when they push, load and list models and
datasets. Point a client at it with `client_environment()`; the clients read their address when they are imported, so
they belong in a process of their own, or get `endpoint=` in every call.

    with HubServer(users={"hf_alice": "alice"}, organizations={"org": ["alice"]}) as hub:
        subprocess.run([...], env=hub.client_environment("hf_alice", home=tmp_path))
        hub.commits("org/name"), hub.requests

`python -m tests.hub_server` serves one until Ctrl-C, for a look by hand.
"""

from __future__ import annotations

from tests.hub_server.server import HubServer
from tests.hub_server.store import Commit, Repository, Store, StoredFile

__all__ = ["Commit", "HubServer", "Repository", "Store", "StoredFile"]
