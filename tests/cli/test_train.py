from __future__ import annotations

import json
import re
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file

from tests.cli.conftest import Command
from tests.cli.tiny import TINY
from vqtok.tokenizer import VQTokenizer
from vqtok.training import loop
from vqtok_cli.train import default_run


def test_a_folder_of_images_becomes_a_tokenizer(vqtok: Command, images_folder: Path) -> None:
    code, said, _ = vqtok("train", "--dataset", "./images", *TINY)
    assert code == 0
    lines = [line.split() for line in said.splitlines()]
    assert ["dataset", "./images"] in lines
    assert ["steps", "4"] in lines
    assert ["image_size", "16,", "16"] in lines
    assert ["images", "11", "for", "training,", "1", "held", "out"] in lines
    assert "1 of the 12 images" in said  # held out, and said
    assert "tokenizer written to runs/images/model (held-out: mse " in said
    assert said.splitlines()[-1] == "next: vqtok tokenize ./images --tokenizer runs/images/model --out codes"
    model = VQTokenizer.from_pretrained("runs/images/model")
    assert (model.config.num_channels, model.codebook_size, model.grid) == (1, 16, (4, 4))
    saved = yaml.safe_load(Path("runs/images/config.yaml").read_text())
    assert saved["network"]["residual_size"] == 4
    rows = Path("runs/images/metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [2, 4, 4]


def test_the_next_command_runs_as_it_is_printed(vqtok: Command, images_folder: Path) -> None:
    out, images = "my run; touch evil #", "my images"
    images_folder.rename(images)
    code, said, _ = vqtok("train", "--dataset", images, "--image-column", "image", *TINY, "--out", out, "--steps=2")
    assert code == 0
    next_ = said.splitlines()[-1].removeprefix("next: ")
    options = ["--image-column", "image", "--tokenizer", f"{out}/model", "--out", "codes"]
    assert shlex.split(next_) == ["vqtok", "tokenize", images, *options]
    assert vqtok(*shlex.split(next_)[1:])[0] == 0
    code, said, _ = vqtok("evaluate", "--tokenizer", out)
    words = ["vqtok", "tokenize", str(Path(images).absolute()), *options]  # as the run has it, for any working folder
    assert (code, said.splitlines()[-1]) == (0, f"next: {shlex.join(words)}")


def test_a_short_run_warms_up_for_a_share_of_its_steps(vqtok: Command, images_folder: Path) -> None:
    short = [option for option in TINY if "warmup" not in option and "steps" not in option]
    assert vqtok("train", "--dataset", "images", *short, "--steps=150", "--set=log_every=1")[0] == 0
    rows = [json.loads(row) for row in Path("runs/images/metrics.jsonl").read_text().splitlines()]
    rates = [row["learning_rate"] for row in rows if row["split"] == "train"]
    assert rates[:10] == pytest.approx([0.002 / 3, 0.004 / 3] + [0.002] * 8, rel=0.01)
    assert rates[-1] < 1e-5
    assert yaml.safe_load(Path("runs/images/config.yaml").read_text())["warmup_steps"] == 3


def test_output_that_goes_to_a_file_is_plain_lines(vqtok: Command, images_folder: Path) -> None:
    code, _, said = vqtok("train", "--dataset", "images", *TINY, "--set=usage_warning=0")
    assert code == 0
    assert "\r" not in said
    use = r"codes in use \((training|held-out)\) \d+%"
    training = rf"images/s, loss [\d.]+, reconstruction [\d.]+, perplexity \d+, {use}"
    lines = [rf"step 2/4: \d+ {training}", rf"step 4/4: \d+ {training}"]
    lines += [rf"step 4, held-out: mse [\d.]+, mse_over_variance [\d.]+, perplexity \d+, {use}"]
    for line, pattern in zip(said.splitlines(), lines, strict=True):
        assert re.fullmatch(pattern, line)


def test_a_warning_stands_beside_what_to_run_next(vqtok: Command, images_folder: Path) -> None:
    dead = ["--quantizer=vq", "--set=quantizer.init=normal", "--set=quantizer.restart_threshold=0"]
    code, said, _ = vqtok("train", "--dataset", "images", *TINY, *dead, "--codebook-size=64", "--set=test_share=0.5")
    assert code == 0
    written, warning, next_ = said.splitlines()[-3:]
    assert written.startswith("tokenizer written to runs/images/model")
    assert re.match(r"warning: step 4: \d+ of 64 codes in use \([\d.]+%\) on 6 held-out images, ", warning)
    assert next_.startswith("next: vqtok tokenize")


def test_a_signal_saves_and_leaves_and_the_run_goes_on_as_if_nothing_had_been(
    vqtok: Command, images_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learning_rate_at = loop.learning_rate_at

    def interrupted(done: int, config: Any) -> float:
        if done == 2:
            signal.raise_signal(signal.SIGTERM)
        return learning_rate_at(done, config)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "learning_rate_at", interrupted)
        code, said, _ = vqtok("train", "--dataset", "images", "--out", "part", "--quantizer", "gumbel", *TINY)
    assert code == 128 + signal.SIGTERM
    assert said.splitlines()[-2:] == [
        "SIGTERM at step 3: saved in part/checkpoints",
        "next: vqtok train --resume --out part",
    ]
    assert not Path("part/model").exists()
    assert vqtok("train", "--resume", "--out", "part")[0] == 0
    assert vqtok("train", "--dataset", "images", "--out", "whole", "--quantizer", "gumbel", *TINY)[0] == 0
    whole, part = (load_file(f"{run}/model/model.safetensors") for run in ("whole", "part"))
    assert all((whole[name] == part[name]).all() for name in whole)


def test_the_saved_configuration_is_the_run(vqtok: Command, images_folder: Path) -> None:
    vqtok("train", "--dataset", "images", "--out", "one", *TINY)
    assert vqtok("train", "--config", "one/config.yaml", "--out", "two")[0] == 0
    one, two = (load_file(f"{run}/model/model.safetensors") for run in ("one", "two"))
    assert all((one[name] == two[name]).all() for name in one)


def test_the_run_is_named_after_the_dataset_wherever_that_was_given(vqtok: Command, images_folder: Path) -> None:
    Path("given.yaml").write_text("dataset: images\n")
    assert vqtok("train", "--config", "given.yaml", *TINY)[0] == 0
    assert Path("runs/images/model").is_dir()


@pytest.mark.parametrize(
    ("dataset", "run"),
    [("mnist-mini", "mnist-mini"), ("cifar10", "cifar10"), ("org/mnist", "mnist"), ("./my.images/", "my.images")],
)
def test_names_of_runs(dataset: str, run: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my.images").mkdir()
    assert default_run(dataset) == f"runs/{run}"
    (tmp_path / "digits.parquet").touch()
    assert default_run("digits.parquet") == "runs/digits"
    assert default_run(".") == f"runs/{tmp_path.name}"


def test_a_bare_train_shows_its_help_and_starts_nothing(vqtok: Command) -> None:
    code, said, complained = vqtok("train")
    assert code == 2 and "Usage: vqtok train" in said + complained
    assert list(Path().iterdir()) == []


def test_a_setting_of_a_section_that_is_given_without_it_is_named_in_full(vqtok: Command) -> None:
    code, _, said = vqtok("train", "--dataset", "mnist-mini", "--set", "restart_threshold=0")
    message = "'restart_threshold' is not a configuration key. Did you mean 'quantizer.restart_threshold'?"
    assert (code, said) == (2, f"vqtok: error: {message}\n")


def test_later_sources_win(vqtok: Command, images_folder: Path) -> None:
    """Defaults, then the file, then options that were typed, then --set."""
    Path("run.yaml").write_text("seed: 7\nlearning_rate: 5e-3\nweight_decay: 0.01\nquantizer: {codebook_size: 8}\n")
    given = ["--config=run.yaml", "--learning-rate=2.5e-3", "--seed=0", "--set=learning_rate=1.25e-3"]
    code, _, complained = vqtok("train", "--dataset", "images", *TINY[1:], *given)
    assert code == 0, complained
    saved = yaml.safe_load(Path("runs/images/config.yaml").read_text())
    assert (saved["learning_rate"], saved["seed"], saved["weight_decay"]) == (1.25e-3, 0, 0.01)
    assert (saved["quantizer"]["codebook_size"], saved["quantizer"]["code_dim"], saved["tracker"]) == (8, 4, "none")


def test_what_is_resolved_is_shown_in_groups_without_the_rest_of_the_defaults(
    vqtok: Command, images_folder: Path
) -> None:
    code, said, complained = vqtok("train", "--dataset", "images", *TINY)
    assert code == 0, complained
    shown = said.partition("note: ")[0].splitlines()
    assert shown[0] == "vqtok train"
    assert [line.strip() for line in shown if re.match(r"  \w", line)] == [
        *("data", "quantizer ema", "network conv", "training"),
    ]
    lines = [line.split() for line in shown]
    assert ["codebook_size", "16"] in lines and ["residual_size", "4"] in lines and ["log_every", "2"] in lines
    assert not {"epsilon", "weight_decay", "num_workers"} & {line[0] for line in lines}


def test_quiet_leaves_the_result(vqtok: Command, images_folder: Path) -> None:
    code, said, complained = vqtok("train", "--dataset", "images", *TINY, "--quiet", "--set=usage_warning=0")
    assert (code, complained) == (0, "")
    (line,) = said.splitlines()
    assert line.startswith("tokenizer written to runs/images/model (held-out: mse ")
    code, said, complained = vqtok("train", "--dataset", "images", *TINY, "-q")
    assert (code, said) == (2, "") and complained.startswith("vqtok: error: runs/images is not empty")


def test_photographs_of_mixed_sizes_are_noted_before_training(vqtok: Command, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(12):
        pixels = rng.integers(0, 256, (20 + number, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number:02}.png")
    code, said, _ = vqtok("train", "--dataset", "photos", *TINY)
    assert code == 0
    notes = [line for line in said.splitlines() if line.startswith("note: ")]
    assert any("the largest central square of each is resized to 16 x 16; image_size" in line for line in notes), notes


def test_weights_that_blew_up_end_in_one_line_and_no_tokenizer(vqtok: Command, images_folder: Path) -> None:
    for more in ("--steps=1", "--set=checkpoint_every=1"):
        code, said, complained = vqtok("train", "--dataset", "images", *TINY, "--set=learning_rate=1e30", more, "-q")
        assert (code, said) == (2, "")
        (line,) = complained.splitlines()
        assert line.startswith("vqtok: error: the ") and "after step 1 " in line and "lower learning_rate" in line
        assert not Path("runs/images/model").exists() and not Path("runs/images/checkpoints").exists()
        shutil.rmtree("runs")
