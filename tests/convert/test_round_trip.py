"""A converted tokenizer gives the same codes wherever it is loaded: by any class, type, from a folder or the Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

from tests.convert.test_convert import case
from tests.hub_server import HubServer
from vqtok.codes import load_codes, read_spec
from vqtok.convert import convert
from vqtok.tokenizer import VQImageProcessor, VQTokenizer

ROOT = Path(__file__).resolve().parents[2]
KINDS = ("taming", "llamagen", "ibq", "taming-gumbel", "magvit2", "cosmos")

# Pushes every tokenizer of this folder, and loads it from there; then the commands.
SCRIPT = """
import json, sys
import torch
from transformers import AutoImageProcessor, AutoModel
from vqtok.tokenizer import VQTokenizer
from vqtok_cli.main import app

names, commands = json.loads(sys.argv[1])
pixels = torch.load("pixels.pt", weights_only=True)
for name in names:
    VQTokenizer.from_pretrained(name).push_to_hub(f"org/{name}")
    model, ours = AutoModel.from_pretrained(f"org/{name}"), VQTokenizer.from_pretrained(f"org/{name}")
    assert model.fingerprint == ours.fingerprint and torch.equal(model.encode(pixels), ours.encode(pixels))
    processed = AutoImageProcessor.from_pretrained(f"org/{name}")
    torch.save({"codes": ours.encode(pixels), "fingerprint": ours.fingerprint, "size": processed.size}, f"{name}.pt")
for arguments in commands:
    app(arguments, standalone_mode=False)
"""


def on_the_hub(folder: Path, *arguments: Any) -> None:
    """Run the script against a Hub of its own."""
    with HubServer({"hf_alice": "alice"}, {"org": ["alice"]}) as hub:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        paths = os.pathsep.join(map(str, (ROOT, ROOT / "typings")))
        environment |= hub.client_environment("hf_alice", folder / "home") | {"PYTHONPATH": paths}
        words = [sys.executable, "-c", SCRIPT, json.dumps(arguments)]
        done = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr


def images(folder: Path) -> list[Image.Image]:
    generator, made = np.random.default_rng(0), []
    folder.mkdir()
    for number, shape in enumerate([(70, 90, 3), (64, 64, 3), (131, 80, 3)]):
        made.append(Image.fromarray(generator.integers(0, 256, shape, dtype=np.uint8)))
        made[-1].save(folder / f"{number}.png")
    return made


def grids(folder: Path) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.asarray(row, dtype=np.int64) for row in load_codes(folder)["codes"]]))


@torch.no_grad()
def test_the_same_codes_from_a_folder_and_from_the_hub(tmp_path: Path) -> None:
    pixels, shown = torch.rand(2, 3, 64, 64) * 2 - 1, images(tmp_path / "images")
    torch.save(pixels, tmp_path / "pixels.pt")
    known, commands = {}, []
    for name in KINDS:
        torch.save(case(name)[1], tmp_path / "a.ckpt")
        known[name] = convert(tmp_path / "a.ckpt", image_size=64).tokenizer
        known[name].save_pretrained(tmp_path / name)
        for place in (name, f"org/{name}"):
            codes = f"codes-{place}"
            commands.append(["tokenize", "images", "--tokenizer", place, "--out", codes, "--quiet"])
            commands.append(["detokenize", codes, "--tokenizer", place, "--out", f"decoded-{place}", "--quiet"])
    on_the_hub(tmp_path, KINDS, commands)
    for name, ours in known.items():
        there = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        assert torch.equal(there["codes"], ours.encode(pixels)) and there["fingerprint"] == ours.fingerprint
        assert there["size"] == {"height": 64, "width": 64}
        codes = ours.tokenize(shown)
        assert len(codes.unique()) > 4
        for place in (name, f"org/{name}"):
            assert read_spec(tmp_path / f"codes-{place}").fingerprint == ours.fingerprint
            assert torch.equal(grids(tmp_path / f"codes-{place}"), codes), place
            files = sorted((tmp_path / f"decoded-{place}").rglob("*.png"))
            for file, image in zip(files, ours.detokenize(codes), strict=True):
                assert np.array_equal(np.asarray(Image.open(file)), np.asarray(image))


@torch.no_grad()
@pytest.mark.parametrize("name", KINDS)
def test_every_class_and_type_loads_it(tmp_path: Path, name: str) -> None:
    torch.save(case(name)[1], tmp_path / "a.ckpt")
    ours = convert(tmp_path / "a.ckpt", image_size=64).tokenizer
    ours.save_pretrained(tmp_path / "saved")
    pixels = torch.rand(2, 3, 64, 64) * 2 - 1
    for kind in (VQTokenizer, AutoModel):
        again = kind.from_pretrained(tmp_path / "saved")
        assert isinstance(again, VQTokenizer) and not again.training
        assert torch.equal(again.encode(pixels), ours.encode(pixels)) and again.fingerprint == ours.fingerprint
        half = kind.from_pretrained(tmp_path / "saved", dtype=torch.bfloat16)
        assert half.encoder.conv_in.weight.dtype == torch.bfloat16
        latents = ours.encoder(pixels)
        assert torch.equal(half.quantizer.encode(latents), ours.quantizer.encode(latents))
        for key, value in ours.quantizer.state_dict().items():
            there = half.quantizer.state_dict()[key]
            assert there.dtype == value.dtype and torch.equal(there, value), key
    processor = AutoImageProcessor.from_pretrained(tmp_path / "saved")
    assert isinstance(processor, VQImageProcessor) and processor.resample == ours.config.resample
