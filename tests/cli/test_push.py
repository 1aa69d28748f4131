"""`vqtok push` as a user types it, against the test Hub."""

from __future__ import annotations

import ast
import json
import os
import shlex
from pathlib import Path

import huggingface_hub
import pytest
import typer
from typer.testing import CliRunner

from tests.cli.conftest import Command
from tests.hub_server import HubServer
from vqtok.errors import CheckpointError, HubError
from vqtok.tokenizer import VQTokenizer
from vqtok_cli import push as command

# huggingface_hub 2.4 uploads LFS files in a way that its own HTTP client calls deprecated
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=<...>' to upload raw bytes:DeprecationWarning")

APP = typer.Typer()
APP.command()(command.push)


CHAMELEON = {
    "program": "Chameleon",
    "checkpoint": "vqgan.ckpt",
    "source": "https://github.com/facebookresearch/chameleon",
    "paper": "a paper",
    "code_license": "Research License",
    "weights_license": "Research License",
    "may_share": False,
}


def vqtok_push(*arguments: str) -> str:
    result = CliRunner().invoke(APP, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_a_run_is_pushed_and_what_was_sent_and_where_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_tokenizer: VQTokenizer
) -> None:
    monkeypatch.chdir(tmp_path)
    tiny_tokenizer.save_pretrained("runs/digits/model")
    Path("runs/digits/model/metrics.json").write_text(json.dumps({"dataset": "mnist", "split": "test", "mse": 0.5}))
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    with HubServer({"hf_alice": "alice"}) as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        printed = vqtok_push("runs/digits", "digits", "--private", "--revision", "next", "--message", "Ten digits")
        (commit,) = hub.commits("alice/digits", "next")
        assert commit.title == "Ten digits"
        assert hub.store.repositories["model", "alice/digits"].private
        assert "  files       config.json, preprocessor_config.json, model.safetensors, metrics.json\n" in printed
        assert f"pushed to {hub.url}/alice/digits/tree/next\n" in printed
        assert 'VQTokenizer.from_pretrained("alice/digits", revision="next")' in printed

        tiny_tokenizer.config.provenance = CHAMELEON
        tiny_tokenizer.save_pretrained("chameleon")
        told = vqtok_push("chameleon", "alice/chameleon")
        terms = "warning: the weights come from Chameleon and are under the Research License: they may not be given to"
        assert told.index(terms) < told.index("pushed to")
        assert terms not in printed

        with pytest.raises(HubError, match="the access token may not write to bob/digits"):
            vqtok_push("runs/digits", "bob/digits")
        assert ("model", "bob/digits") not in hub.store.repositories
        before = len(hub.requests)
        with pytest.raises(CheckpointError, match="runs holds neither a tokenizer nor a prior"):
            vqtok_push("runs", "digits")
        assert hub.requests[before:] == []


@pytest.mark.parametrize("entry", ["quantizer", "network", "image_size", "num_channels", "resample", "dtype"])
@pytest.mark.parametrize("value", [[], {"a": 1}, -1, "text", [None]], ids=repr)
def test_what_could_not_be_loaded_again_is_not_pushed(
    entry: str, value: object, vqtok: Command, tiny_tokenizer: VQTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_tokenizer.save_pretrained("model")
    config = json.loads(Path("model/config.json").read_text())
    Path("model/config.json").write_text(json.dumps(config | {entry: value}))
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    with HubServer({"hf_alice": "alice"}) as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        status, printed, complained = vqtok("push", "model", "alice/digits")
        assert status == 2 and printed == "" and hub.requests == []
        assert complained.startswith("vqtok: error: ") and complained.count("\n") == 1


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_a_revision_of_any_letters_is_one_line_or_a_command_that_runs(
    vqtok: Command, tiny_tokenizer: VQTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_tokenizer.save_pretrained("model")
    monkeypatch.setenv("HF_TOKEN", "hf_alice")
    with HubServer({"hf_alice": "alice"}) as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        for command in ("push model alice/vq", "inspect alice/vq", "tokenize mnist-mini --tokenizer alice/vq"):
            status, _, complained = vqtok(*command.split(), "--revision", os.fsdecode(b"v\xff"))
            assert status == 2
            line = complained.splitlines()[-1]
            assert line.startswith("vqtok: error: ")
            assert line.endswith(r"'v\udcff' is not UTF-8, and cannot be a name on the Hub: give another")
        status, printed, _ = vqtok("push", "model", "alice/vq", "--revision", 'a"b')
        assert status == 0
        python, option, script = shlex.split(printed.splitlines()[-1].removeprefix("next: "))
        assert (python, option) == ("python", "-c")
        assert ast.literal_eval(script.rpartition("revision=")[2].removesuffix(")")) == 'a"b'
