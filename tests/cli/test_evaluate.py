"""vqtok evaluate: which images it takes, where the numbers go, and what it refuses."""

from __future__ import annotations

import errno
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import datasets
import pytest
import yaml
from typer.testing import CliRunner

from tests.lossless.models import make_prior, make_tokenizer
from vqtok.data import open_splits
from vqtok.errors import CheckpointError, ConfigurationError, DataError, MismatchError
from vqtok.hub import open_folder
from vqtok.hub.card import card_of
from vqtok.tokenizer import VQTokenizer
from vqtok_cli.main import app


@pytest.fixture
def run(tiny_tokenizer: VQTokenizer, images_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run folder that says it was trained on the twelve images, a third of them held out by seed 5."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "runs" / "images"
    tiny_tokenizer.save_pretrained(folder / "model")
    settings = {
        "out": "runs/images",
        "steps": 3,
        "checkpoint_every": 3,
        "dataset": str(images_folder),
        "test_share": 0.34,
        "seed": 5,
    }
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


def vqtok(*arguments: object) -> str:
    """Run a command as typed; what a user can get wrong is raised."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def measured(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_run_says_which_images_were_held_out(run: Path, images_folder: Path) -> None:
    output = vqtok("evaluate")
    found = measured(run / "model" / "metrics.json")
    assert (found["dataset"], found["split"], found["num_images"]) == ("images", "test", 4)
    assert (found["test_share"], found["seed"]) == (0.34, 5) and "4 of the 12" in found["notes"][0]
    assert "what it was trained on" in output and "runs/images/model" in output and "held out" in output
    assert f"{found['mse']:.5g}" in output and f"{found['psnr']:.5g} dB" in output

    given = vqtok("evaluate", "--tokenizer", run, "--dataset", images_folder)  # named, it is read in the same way
    again = measured(run / "model" / "metrics.json")
    assert again["pixels_sha256"] == found["pixels_sha256"] and "what it was trained on" not in given
    _, test = open_splits(str(images_folder), test_share=0.34, seed=6)
    assert len(test) == 4  # another seed holds out as many, so the digest above is what tells them apart


def test_another_dataset_and_split_and_file(run: Path, images_folder: Path, tmp_path: Path) -> None:
    other = shutil.copytree(images_folder, tmp_path / "other" / "train")
    vqtok(
        *("evaluate", "--tokenizer", run / "model", "--dataset", other.parent, "--split", "train"),
        *("--out", tmp_path / "deep" / "numbers.json", "--num-images", 3, "--batch-size", 2),
    )
    found = measured(tmp_path / "deep" / "numbers.json")
    assert (found["split"], found["num_images"], found["batch_size"]) == ("train", 3, 2)
    assert (found["test_share"], found["seed"]) == (0.1, 0)  # the run's own belong to its own dataset
    assert not (run / "model" / "metrics.json").exists()


def test_numbers_have_the_names_that_a_card_reads(run: Path) -> None:
    vqtok("evaluate")
    names = {"dataset", "split", "num_images", "mse", "mse_over_variance", "psnr", "ssim", "perplexity"}
    assert names | {"codes_in_use", "codebook_size"} <= set(measured(run / "model" / "metrics.json"))


def test_what_cannot_be_measured_is_refused(run: Path, tmp_path: Path) -> None:
    alone = shutil.copytree(run / "model", tmp_path / "alone")
    with pytest.raises(ConfigurationError, match="no run beside .*alone says what it was trained on: name images"):
        vqtok("evaluate", "--tokenizer", alone)
    with pytest.raises(ConfigurationError, match="is a folder, not a file: choose another file"):
        vqtok("evaluate", "--out", tmp_path)
    with pytest.raises(DataError):
        vqtok("evaluate", "--dataset", tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match="num_images must be at least 1, got 0"):
        vqtok("evaluate", "--num-images", 0)
    shutil.rmtree(run)
    with pytest.raises(CheckpointError, match="no finished tokenizer"):
        vqtok("evaluate")


@pytest.mark.parametrize("config", ["lr: 3\nmodel: resnet\n", "- 1\n", "a: [", "x: !!bool z\n"])
@pytest.mark.parametrize("command", ["evaluate --tokenizer", "inspect"])
def test_the_configuration_of_another_program_is_none_of_a_run(run: Path, config: str, command: str) -> None:
    (run / "config.yaml").write_text(config)
    vqtok(*command.split(), run / "model", "--dataset", "images", "--split", "train")
    with pytest.raises(ConfigurationError, match="no run beside"):
        vqtok("evaluate")


def test_a_part_of_a_split_does_not_take_the_place_of_the_whole(run: Path) -> None:
    vqtok("evaluate")
    whole = measured(run / "model" / "metrics.json")
    output = vqtok("evaluate", "--num-images", 2)
    assert measured(run / "model" / "metrics.json") == whole and "metrics-2-images.json" in output
    assert measured(run / "model" / "metrics-2-images.json")["num_images"] == 2
    assert "metrics-2-images.json" not in open_folder(run).files  # what vqtok push sends
    (run / "model" / "metrics.json").unlink()
    vqtok("evaluate", "--num-images", 4)  # as many as there are
    assert measured(run / "model" / "metrics.json")["num_images"] == 4


def test_another_split_does_not_take_the_place_of_the_held_out_images(run: Path) -> None:
    for more in ([], ["--num-images", 2]):
        vqtok("evaluate", *more)
        vqtok("evaluate", "--split", "train", *more)
    found = {path.name: measured(path) for path in (run / "model").glob("metrics*.json")}
    assert {name: (each["split"], each["num_images"]) for name, each in found.items()} == {
        "metrics.json": ("test", 4),
        "metrics-2-images.json": ("test", 2),
        "metrics-train.json": ("train", 8),
        "metrics-train-2-images.json": ("train", 2),
    }


def test_a_folder_that_cannot_be_written_is_found_out_before_measuring(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = tempfile.TemporaryFile

    def denied(*arguments: Any, dir: Path, **options: Any) -> Any:
        if dir.name == "model":
            raise PermissionError(errno.EACCES, "Permission denied", str(dir))
        return made(*arguments, dir=dir, **options)

    def work(*_: object, **__: object) -> None:
        raise AssertionError("work began")

    monkeypatch.setattr(tempfile, "TemporaryFile", denied)
    monkeypatch.setattr(VQTokenizer, "encode", work)
    message = "cannot write .*model/metrics.json: Permission denied; choose another folder"
    with pytest.raises(ConfigurationError, match=message):
        vqtok("evaluate")
    assert not list((run / "model").glob(".*"))


@pytest.mark.parametrize("size", [10**20, 2**20 + 1, 0, -1])
@pytest.mark.parametrize(
    "command",
    [
        "evaluate",
        "inspect runs/images --dataset images --out drawn",
        "tokenize images",
        "detokenize codes",
        "sample",
    ],
)
def test_a_batch_that_no_memory_holds_is_refused_by_every_command(run: Path, command: str, size: int) -> None:
    before = sorted(Path().rglob("*"))
    with pytest.raises(ConfigurationError, match=f"^batch_size must be from 1 to 1,048,576, got {size}$"):
        vqtok(*command.split(), "--batch-size", size)
    assert sorted(Path().rglob("*")) == before


def test_only_earlier_measurements_are_replaced(run: Path, tmp_path: Path) -> None:
    for name, text in {
        "thesis.txt": "mine",
        "package.json": '{"name": "mine"}',
        "list.json": "[]",
        "train.json": '{"dataset": "x", "split": "y"}',
    }.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(ConfigurationError, match="holds no metrics of vqtok, so it will not be overwritten"):
            vqtok("evaluate", "--out", name)
        assert (tmp_path / name).read_text() == text
    vqtok("evaluate", "--out", "numbers.json")
    (tmp_path / "link.json").symlink_to("numbers.json")
    vqtok("evaluate", "--out", "link.json", "--num-images", 2)
    assert (tmp_path / "link.json").is_symlink() and measured(tmp_path / "numbers.json")["num_images"] == 2
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_a_pipe_stays_a_pipe(run: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ConfigurationError, match="pipe is a device or pipe, not a file"):
        vqtok("evaluate", "--out", "pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_json_is_the_measurement_on_stdout_and_nothing_else(run: Path) -> None:
    result = CliRunner().invoke(app, ["evaluate", "--json"])
    assert result.exit_code == 0 and result.stdout.count("\n") == 1
    assert json.loads(result.stdout) == measured(run / "model" / "metrics.json")
    assert "4 of the 12" in result.stderr and "vqtok evaluate" in result.stderr


@pytest.fixture
def bits_run(run: Path) -> Path:
    """The run with a tokenizer of a likelihood, and runs/prior, over its codes and with the classes of its images."""
    tokenizer = make_tokenizer({"type": "logistic"}, num_channels=1)
    tokenizer.save_pretrained(run / "model")
    make_prior(tokenizer, "pixelcnn").save_pretrained(run.parent / "prior" / "model")
    return run


def test_bits_per_dimension_are_printed_and_kept_with_both_priors(bits_run: Path) -> None:
    assert "bits per dimension" not in vqtok("evaluate")
    assert "bits_per_dim" not in measured(bits_run / "model" / "metrics.json")
    output = vqtok("evaluate", "--bits-per-dim", "--prior", "runs/prior")
    found = measured(bits_run / "model" / "metrics.json")
    bits = found["bits_per_dim"]
    assert bits["learned"]["prior"] == {"repository": "runs/prior/model", "revision": None}
    lines = [line.split() for line in output.splitlines()]
    assert ["bits", "per", "dimension", "(logistic)", "rate", "distortion", "total"] in lines
    for name, shown in (("uniform", ["equally", "probable", "codes"]), ("learned", ["prior", "runs/prior/model"])):
        numbers = [bits[name]["rate"], bits["distortion"], bits[name]["total"]]
        assert [*shown, *(f"{number:.4f}" for number in numbers)] in lines
    said = "the learned prior was given no class, so that bits bound -log2 p(x)"
    assert f"note: {said}" in output and said in found["notes"]
    with_labels = vqtok("evaluate", "--bits-per-dim", "--prior", "runs/prior", "--with-labels", "--json")
    again = json.loads(with_labels[with_labels.index("{") : with_labels.rindex("}") + 1])["bits_per_dim"]
    assert again["learned"]["labels"] and again["learned"]["rate"] != bits["learned"]["rate"]
    assert again["uniform"] == bits["uniform"]
    card = card_of(open_folder(bits_run / "model"), "org/name", bits_run / "model").text
    assert "bits_per_dim.learned.total" in card and f"{bits['uniform']['total']:.5g}" in card


def test_bits_per_dimension_that_cannot_be_measured_are_one_line(bits_run: Path, tiny_tokenizer: VQTokenizer) -> None:
    for options in (["--prior", "runs/prior"], ["--with-labels"], ["--prior-revision", "main"]):
        with pytest.raises(ConfigurationError, match=f"{options[0]} says how .* measured: add --bits-per-dim"):
            vqtok("evaluate", *options)
    with pytest.raises(ConfigurationError, match="--prior-revision is of a prior on the Hub: name one with --prior"):
        vqtok("evaluate", "--bits-per-dim", "--prior-revision", "main")
    with pytest.raises(CheckpointError, match="runs/images.* no prior"):
        vqtok("evaluate", "--bits-per-dim", "--prior", "runs/images")
    tiny_tokenizer.save_pretrained(bits_run / "model")
    with pytest.raises(MismatchError, match="the prior models codes of tokenizer"):
        vqtok("evaluate", "--bits-per-dim", "--prior", "runs/prior")
    with pytest.raises(ConfigurationError, match="trained with mse"):
        vqtok("evaluate", "--bits-per-dim")
