"""vqtok train from the weights of a tokenizer, and with the networks of published ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from tests.cli.conftest import Command
from tests.cli.test_hub import on_the_hub
from tests.convert.test_convert import case
from vqtok.tokenizer import VQTokenizer

LOOP = ["--batch-size=4", "--set=warmup_steps=1", "--set=log_every=2", "--set=checkpoint_every=2"]
SMALL = [
    *("--set=network.base_channels=8", "--set=network.norm_groups=4", "--set=network.z_channels=8"),
    *("--set=network.num_res_blocks=1", "--codebook-size=16", "--code-dim=4"),
]


def rows(run: str, split: str) -> list[dict[str, float]]:
    found = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row["split"] == split]


def test_the_decoder_of_a_converted_tokenizer_goes_on_and_its_codes_stay(vqtok: Command, images_folder: Path) -> None:
    _, tensors = case("llamagen")
    torch.save({"model": tensors}, "a.pt")
    assert vqtok("convert", "a.pt", "--out", "tok", "--image-size", 16)[0] == 0
    assert vqtok("tokenize", "images", "--tokenizer", "tok", "--out", "codes", "-q")[0] == 0
    frozen = ["--init-from", "tok", "--freeze", "encoder", "--freeze", "quantizer"]
    more = ["--dataset", "images", *LOOP, "--set=eval_every=1", "--steps=12"]
    code, said, complained = vqtok("train", *frozen, *more, "--out", "run")
    assert code == 0, complained
    lines = [line.split() for line in said.splitlines()]
    assert ["init_from", str(Path("tok").absolute())] in lines and ["freeze", "encoder,", "quantizer"] in lines
    assert ["image_size", "16,", "16"] in lines and ["num_channels", "3"] in lines
    errors = [row["mse"] for row in rows("run", "test")]
    assert errors[-1] < 0.9 * errors[0]
    before, after = VQTokenizer.from_pretrained("tok"), VQTokenizer.from_pretrained("run")
    assert after.fingerprint == before.fingerprint
    images = sorted(images_folder.rglob("*.png"))
    assert torch.equal(after.tokenize(images), before.tokenize(images))
    assert vqtok("detokenize", "codes", "--tokenizer", "run", "--out", "decoded", "-q")[0] == 0
    assert vqtok("tokenize", "images", "--tokenizer", "run", "--out", "codes", "-q")[1].endswith("all there in codes\n")

    shutil.rmtree("tok")
    code, _, complained = vqtok("train", "--resume", "--out", "run", "--steps=14")
    assert code == 0, complained
    assert VQTokenizer.from_pretrained("run").fingerprint == before.fingerprint


def test_a_network_by_its_name_is_trained(vqtok: Command) -> None:
    few = ["--image-size=16", "--steps=30", "--set=eval_images=64", "--set=checkpoint_every=30"]
    code, said, complained = vqtok("train", "--dataset", "mnist-mini", "--network", "vqgan-f8", *SMALL, *LOOP, *few)
    assert code == 0, complained
    assert "  network vqgan" in said.splitlines()
    model = VQTokenizer.from_pretrained("runs/mnist-mini")
    assert model.grid == (2, 2) and model.config.network["channel_multipliers"] == [1, 1, 2, 4]
    losses = [row["reconstruction"] for row in rows("runs/mnist-mini", "train")]
    assert losses[-1] < 0.6 * losses[0]
    assert yaml.safe_load(Path("runs/mnist-mini/config.yaml").read_text())["network"]["type"] == "vqgan"


def test_the_commit_of_a_tokenizer_on_the_hub_is_kept(
    tmp_path: Path, images_folder: Path, tiny_tokenizer: VQTokenizer
) -> None:
    """`main` and `next` hold two tokenizers."""
    tiny_tokenizer.save_pretrained(tmp_path / "tok")
    train = ["train", "--dataset", "images", "--steps=2", "--freeze=encoder", "--freeze=quantizer", *LOOP]
    done = on_the_hub(
        tmp_path,
        [*train, "--init-from", "org/vq", "--out", "one"],
        [*train, "--init-from", "org/vq@next", "--out", "two"],
        [*train, "--config", "one/config.yaml", "--steps=4", "--out", "three"],
        ["train", "--resume", "--out", "two", "--steps=4", "--init-from", "org/vq"],
    )
    assert done.returncode == 0, done.stderr
    one, two, three = (yaml.safe_load((tmp_path / run / "config.yaml").read_text()) for run in ("one", "two", "three"))
    names = [each["init_from"].partition("@") for each in (one, two, three)]
    assert [name for name, _, _ in names] == 3 * ["org/vq"] and all(len(commit) == 40 for _, _, commit in names)
    assert names[0] == names[2] != names[1]
    models = [VQTokenizer.from_pretrained(tmp_path / run) for run in ("one", "two", "three")]
    assert models[0].fingerprint == models[2].fingerprint == tiny_tokenizer.fingerprint != models[1].fingerprint


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--network=vqgan-f8 --downsample-factor=4", "downsample_factor must be 8, as down_levels and patch make it"),
        ("--network=vqgan-f8 --hidden-size=4", "network.hidden_size is not an option of network.type 'vqgan'"),
        ("--network=vqgan-f9", "got 'vqgan-f9'. Did you mean 'vqgan-f8'?"),
        ("--freeze=encoder", "freeze keeps encoder, and nothing is learned yet: say with init_from what to start from"),
        ("--freeze=encodr --set=steps=4", "freeze must be a list, each one of encoder, quantizer, decoder, got"),
        ("--init-from=nowhere", "there is no folder nowhere to load a tokenizer from"),
        ("--init-from=images", "images holds no tokenizer: its config.json is missing"),
    ],
)
def test_what_makes_no_sense_is_one_line(vqtok: Command, images_folder: Path, given: str, message: str) -> None:
    code, said, complained = vqtok("train", "--dataset", "images", *given.split())
    (line,) = complained.splitlines()
    assert (code, said) == (2, "") and line.startswith("vqtok: error: ") and message in line
    assert not Path("runs").exists()
