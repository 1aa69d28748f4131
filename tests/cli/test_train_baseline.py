"""vqtok train --model: what VQ-VAE is compared with."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from tests.cli.conftest import Command
from vqtok.baselines import BASELINES, load_baseline

TINY = ["--hidden-size=8", "--batch-size=4", "--steps=3", "--set=network.residual_size=4", "--set=eval_images=8"]


@pytest.mark.parametrize("model", BASELINES)
def test_every_model_trains_on_digits(vqtok: Command, model: str) -> None:
    code, said, complained = vqtok("train", "--model", model, *TINY)
    assert code == 0, complained
    run = f"runs/mnist-mini-{model}"
    lines = said.splitlines()
    assert any(line.startswith(f"  model {model}") for line in lines)
    assert any(line.startswith(f"{model} written to {run}/model (held-out: mse ") for line in lines)
    assert lines[-1] == f"next: vqtok inspect {run}"
    assert load_baseline(run).config.size == (28, 28)
    code, said, _ = vqtok("inspect", run)
    assert code == 0 and f" {model} on mnist-mini" in said
    code, said, _ = vqtok("inspect", f"{run}/model", "--json")
    assert code == 0 and json.loads(said)["kind"] == "baseline"
    assert Path(run, "samples", "step-000003.png").is_file()


def test_settings_come_from_options_files_and_assignments(vqtok: Command) -> None:
    Path("vae.yaml").write_text("model: {type: vae, beta: 3}\nlikelihood: gaussian\n")
    assert vqtok("train", "--config", "vae.yaml", *TINY, "--set=model.latent_dim=4", "--out=a")[0] == 0
    saved = yaml.safe_load(Path("a/config.yaml").read_text())
    assert saved["model"] == {"type": "vae", "latent_dim": 4, "beta": 3.0}
    assert saved["likelihood"] == {"type": "gaussian", "std": 0.1} and "quantizer" not in saved
    assert vqtok("train", "--set=model=iwae", *TINY, "--out=b")[0] == 0
    assert yaml.safe_load(Path("b/config.yaml").read_text())["model"]["type"] == "iwae"
    assert vqtok("train", "--model=vq-vae", *TINY, "--out=c")[0] == 0
    assert "quantizer" in yaml.safe_load(Path("c/config.yaml").read_text())
    code, said, _ = vqtok("train", "--resume", "--out=a", "--set=steps=4")  # knows what it is
    assert code == 0 and "vae written to a/model" in said
    for model, message in (("iwae", "model of the run in a is "), ("vq-vae", "--model vq-vae contradicts model vae")):
        code, _, complained = vqtok("train", "--resume", "--out=a", "--model", model)
        assert code == 2 and message in complained and complained.count("\n") == 1
    code, _, complained = vqtok("train", "--resume", "--out=c", "--model=vae")
    assert code == 2 and complained.count("\n") == 1
    assert "the run in c trains another kind of model, which has no setting model: leave that out" in complained
    code, _, complained = vqtok("train", "--resume", "--out=a", "--quantizer=fsq")
    assert code == 2 and "the run in a trains another kind of model, which has no setting quantizer" in complained
    code, _, complained = vqtok("train", "--resume", "--out=a", "--set=stepz=4")
    assert code == 2 and "'stepz' is not a configuration key. Did you mean 'steps'?" in complained


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model=vae", "--quantizer=ema"], "quantizer cannot be set for model vae, only for a tokenizer"),
        (["--model=vae", "--codebook-size=8"], "quantizer cannot be set for model vae, only for a tokenizer"),
        (["--model=vae", "--init-from=x"], "init_from cannot be set for model vae, only for a tokenizer"),
        (["--model=vea"], "--model must be one of vq-vae, autoencoder, vae, .* got 'vea'. Did you mean 'vae'?"),
        (["--model=vae", "--likelihood=mse"], "likelihood mse gives no probabilities, and vae is trained with"),
        (["--model=vae", "--set=model.betta=1"], "model.betta is not an option of model.type 'vae'"),
        (["--model=vae", "--push-to-hub=a/b"], "--push-to-hub is for tokenizers, not for a vae: leave it out"),
        (["--model=cvae", "--dataset=plain"], "plain has no labels for all of its images, and a cvae is conditioned"),
    ],
)
def test_what_makes_no_sense_is_one_line(
    vqtok: Command, images_folder: Path, arguments: list[str], message: str
) -> None:
    Path("plain").mkdir()
    for path in images_folder.rglob("*.png"):
        path.rename(Path("plain", path.name))
    code, _, complained = vqtok("train", *arguments, *TINY)
    assert code == 2 and complained.startswith("vqtok: error: ") and complained.count("\n") == 1
    for part in message.split(".*"):
        assert part.strip() in complained
    assert not Path("runs").exists()


def test_a_baseline_is_neither_pushed_nor_taken_for_a_tokenizer(vqtok: Command) -> None:
    assert vqtok("train", "--model=autoencoder", *TINY, "--out=run")[0] == 0
    code, _, complained = vqtok("push", "run/model", "a/b")
    assert code == 2 and "holds a baseline (autoencoder): only tokenizers, priors and codes are pushed" in complained
    code, _, complained = vqtok("tokenize", "mnist-mini", "--tokenizer=run", "--out=codes")
    assert code == 2 and "run/model holds no tokenizer: its config.json is of a vqtok baseline" in complained
    code, _, complained = vqtok("evaluate", "--tokenizer=run")
    assert code == 2 and "holds no tokenizer" in complained


def test_settings_of_models_are_listed(vqtok: Command) -> None:
    for name in ("mse", "logistic"):
        assert vqtok("settings", name) == (0, f"{name} has no settings.\n", "")
    assert "model.beta = 1.0\n" in vqtok("settings", "vae")[1]
    assert "model.num_samples = 5\n" in vqtok("settings", "vimco")[1]
    said = vqtok("settings", "train")[1]
    assert "bound_samples = null\n" in said and "Of autoencoder, vae, cvae, iwae, vimco, likelihood-ratio." in said


def test_what_is_measured_of_images_of_16_bits_is_said(vqtok: Command) -> None:
    Path("deep").mkdir()
    for number in range(8):
        Image.fromarray(np.full((28, 28), 5000 * number, dtype=np.uint16)).save(f"deep/{number}.png")
    given = ("train", "--dataset=deep", "--model=vae", *TINY, "--image-size=28", "--num-channels=1")
    code, said, complained = vqtok(*given)
    assert code == 0, complained
    assert "images have 16 bits a channel and are scaled to 8" in said + complained
