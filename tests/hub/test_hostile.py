"""Folders that others wrote: they load, or one line names what is wrong; nothing is fetched, run or marked up."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard
from markdown_it import MarkdownIt

from tests.hub.conftest import EVALUATION, RUN, card_text
from vqtok.errors import CheckpointError, VqtokError
from vqtok.priors import PriorBinding, build_prior, load_prior
from vqtok.report import describe
from vqtok.tokenizer import VQTokenizer

KINDS = ("tokenizer", "transformer", "pixelcnn")
BINDING = PriorBinding(fingerprint="ab" * 32, grid=(2, 2), codebook_size=8, label_names=("cat", "dog"))


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def save(kind: str, tokenizer: VQTokenizer, folder: Path) -> Path:
    if kind == "tokenizer":
        tokenizer.save_pretrained(folder)
    else:
        build_prior(BINDING, {"type": kind, "hidden_size": 8, "num_layers": 1}).save_pretrained(folder)
    return folder


def load(kind: str, folder: Path) -> Any:
    return VQTokenizer.from_pretrained(folder) if kind == "tokenizer" else load_prior(folder)


def configure(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("attn_implementation", "org/kernel"),
        ("attn_implementation", "kernels-community/flash-attn"),
        ("_attn_implementation", "org/kernel"),
        ("_attn_implementation_internal", "org/kernel"),
        ("experts_implementation", "org/kernel"),
        ("kernel_config", {"RMSNorm": "org/kernel"}),
        ("use_kernels", True),
        ("quantization_config", {"quant_method": "bitsandbytes", "load_in_4bit": True}),
        ("compression_config", {}),
        ("auto_map", {"AutoModel": "evil.Evil"}),
        ("trust_remote_code", True),
        ("configuration_files", ["config.5.0.0.json"]),
        ("per_layer_config", {"0": {"hidden_size": 4}}),
    ],
)
def test_settings_that_could_run_or_fetch_code_are_refused_by_name(
    kind: str, key: str, value: object, tmp_path: Path, tiny_tokenizer: VQTokenizer
) -> None:
    folder = save(kind, tiny_tokenizer, tmp_path / "model")
    configure(folder, **{key: value})
    with pytest.raises(CheckpointError, match=f"config.json sets '{key}'"):
        load(kind, folder)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("kind", KINDS)
def test_keys_that_transformers_writes_or_may_write_load_and_change_nothing(
    kind: str, tmp_path: Path, tiny_tokenizer: VQTokenizer
) -> None:
    folder = save(kind, tiny_tokenizer, tmp_path / "model")
    before = load(kind, folder)
    configure(folder, transformers_version="9.9.9", architectures=["Other"], output_attentions=True)
    configure(folder, id2label={"0": "x"}, is_encoder_decoder=True)
    after = load(kind, folder)
    assert after.config._attn_implementation in (None, "sdpa", "eager") and not after.config.output_attentions
    assert after.config.to_dict() == before.config.to_dict()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", ["load", "int8", "float8_e4m3fn", ["float32"], 3])
def test_only_types_of_weights_are_taken_for_one(
    kind: str, dtype: object, tmp_path: Path, tiny_tokenizer: VQTokenizer
) -> None:
    folder = save(kind, tiny_tokenizer, tmp_path / "model")
    configure(folder, dtype=dtype)
    with pytest.raises(CheckpointError, match="dtype.*(float32|valid string)"):
        load(kind, folder)


VALUES = [None, [], {}, 10**15, 10**30, -1, 0, "text", True, float("nan"), [None], {"a": 1}, "MISSING"]


def put(folder: Path, path: tuple[str, ...], value: object) -> None:
    """Set one entry of config.json, or drop it."""
    file = folder / "config.json"
    config = json.loads(file.read_text())
    section = config
    for name in path[:-1]:
        section = section[name]
    if value == "MISSING":
        del section[path[-1]]
    else:
        section[path[-1]] = value
    file.write_text(json.dumps(config))


def paths(values: dict[str, Any], before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key of an object and of the objects in it."""
    found = []
    for key, value in values.items():
        found += [(*before, key), *(paths(value, (*before, key)) if isinstance(value, dict) else [])]
    return found


def attempt(call: Any, *arguments: object) -> None:
    """It works, or is refused in one line."""
    try:
        call(*arguments)
    except VqtokError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000, str(error)


@pytest.mark.usefixtures("no_network")
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_stands_in_a_configuration_is_loaded_or_refused_in_one_line(
    kind: str, tmp_path: Path, tiny_tokenizer: VQTokenizer
) -> None:
    folder = save(kind, tiny_tokenizer, tmp_path / "model")
    whole = (folder / "config.json").read_text()
    for path in paths(json.loads(whole)):
        for value in VALUES:
            put(folder, path, value)
            attempt(load, kind, folder)
            attempt(describe, folder)
            attempt(card_text, folder)
            (folder / "config.json").write_text(whole)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3", '{"model_type": "vqtok"}', "[" * 100_000, "\ud800"])
def test_a_configuration_that_is_no_object_is_refused_in_one_line(
    text: str, tmp_path: Path, tiny_tokenizer: VQTokenizer
) -> None:
    folder = save("tokenizer", tiny_tokenizer, tmp_path / "model")
    (folder / "config.json").write_bytes(text.encode(errors="surrogatepass"))
    for call in (VQTokenizer.from_pretrained, load_prior, card_text):
        with pytest.raises(VqtokError) as caught:
            call(folder)
        assert "\n" not in str(caught.value)


HOSTILE = (
    "x\n# Owned\n| a | [b](https://evil.example) ```\n<script>alert(1)</script> `c` *d* \x1b[31m---\n---\n"
    "$evil {{ 7 * 7 }}"
)


def rendered(text: str) -> str:
    """The body as HTML, by the rules that the Hub's renderer follows."""
    body = re.sub(r"\A---\n.*?\n---\n", "", text, count=1, flags=re.DOTALL)
    return str(MarkdownIt("gfm-like", {"linkify": False}).render(body))


def test_text_from_files_is_shown_and_marks_nothing_up(run: Path, prior_folder: Path, tmp_path: Path) -> None:
    metrics = EVALUATION | {"dataset": HOSTILE, "dataset_resolved": HOSTILE, "split": HOSTILE, "notes": [HOSTILE]}
    (run / "config.yaml").write_text(RUN + yaml.safe_dump({"dataset": HOSTILE, HOSTILE: HOSTILE}))
    config = json.loads((prior_folder / "config.json").read_text())
    config["vqtok"] |= {
        "label_names": [HOSTILE, "dog"],
        "tokenizer": HOSTILE,
        "fingerprint": HOSTILE,
        "revision": HOSTILE,
    }
    (prior_folder / "config.json").write_text(json.dumps(config))
    (prior_folder / "metrics.json").write_text(json.dumps(metrics))
    for text, plain in [
        (
            card_text(run / "model", metrics=metrics, repo_id=HOSTILE),
            card_text(run / "model", metrics=EVALUATION),
        ),
        (card_text(prior_folder, repo_id=HOSTILE), card_text(prior_folder)),
    ]:
        html = rendered(text)
        headings = re.findall(r"<h\d>(.*?)</h\d>", html)
        assert headings[1:] == re.findall(r"<h\d>(.*?)</h\d>", rendered(plain))[1:] and len(headings) >= 4
        assert "<script" not in html and 'href="https://evil' not in html and "\x1b" not in text
        assert html.count("<table>") == rendered(plain).count("<table>")
        assert ModelCard(text).data.library_name == "vqtok"
