"""A mistake of the user is one line on stderr, exit status 2, and nothing written or written over."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator

from tests.cli.conftest import Command
from vqtok.errors import VqtokError
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig
from vqtok.training.runs import MetricsFile
from vqtok_cli.mistakes import user_message

TINY = ["--codebook-size=16", "--code-dim=4", "--hidden-size=8", "--batch-size=4", "--steps=2"]


def everything(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }


@pytest.fixture
def refused(vqtok: Command, tmp_path: Path) -> Callable[..., str]:
    """Run a command that must be refused; give its one line."""

    def call(*arguments: object) -> str:
        before = everything(tmp_path)
        code, _, complained = vqtok(*arguments)
        assert code == 2
        assert everything(tmp_path) == before
        assert complained.endswith("\n")
        assert complained.count("\n") == 1, complained
        assert complained.startswith("vqtok: error: ")
        return complained.removeprefix("vqtok: error: ").rstrip("\n")

    return call


Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "-1"], "steps must be a whole number of at least 1, got -1"),
        (["--set", "stepz=3"], "'stepz' is not a configuration key. Did you mean 'steps'?"),
        (
            ["--set", "quantizer.codebok_size=3"],
            "quantizer.codebok_size is not an option of quantizer.type 'ema', which has codebook_size, code_dim, "
            "projection_dim, metric, init, entropy_weight, entropy_temperature, beta, gradient, restart_threshold, "
            "decay, epsilon. Did you mean 'codebook_size'?",
        ),
        (["--set", "steps"], "--set takes key=value, such as quantizer.codebook_size=1024, got 'steps'"),
        (
            ["--quantizer", "gumble"],
            "quantizer.type must be one of bsq, ema, fsq, gumbel, ibq, lfq, product, residual, simvq, vq, "
            "got 'gumble'. Did you mean 'gumbel'?",
        ),
        (["--codebook-size", "1"], "quantizer.codebook_size must be a whole number from 2 to 4294967296, got 1"),
        (["--downsample-factor", "0"], "network.downsample_factor must be a power of two up to 1024, got 0"),
        (["--num-channels", "2"], "num_channels must be 1 (grey), 3 (RGB) or null, got 2"),
        (["--learning-rate", "0"], "learning_rate must be a number above 0 and of at most 1e+30, got 0"),
        (["--resume"], "--resume needs the run folder: --out runs/<name>"),
        (["--resume", "--out", "none"], "there is no run to resume in none: leave out --resume to start one"),
    ],
)
def test_settings_that_make_no_sense(arguments: list[str], message: str, refused: Refused) -> None:
    assert refused("train", "--dataset", "mnist-mini", *arguments) == message


def test_a_size_that_does_not_divide(refused: Refused, images_folder: Path) -> None:
    assert "nearest sizes that do: 16x16 or 20x20" in refused("train", "--dataset", "images", "--image-size", "18")
    message = refused("train", "--dataset", "images", "--image-size", "0")
    assert message == "image_size must be [height, width] or one number of 1 to 65536 pixels or null, got 0"


def test_a_folder_that_is_missing(refused: Refused) -> None:
    message = refused("train", "--dataset", "./none")
    assert message.startswith("there is no folder or file ./none, and it is neither built in (")


def test_a_folder_that_is_empty(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    message = refused("train", "--dataset", "./empty")
    assert message.startswith("./empty holds no files; give a folder of images (")


def test_texts_that_are_called_images(refused: Refused, images_folder: Path) -> None:
    """Three of twelve, of which at most one is held out; a single one would be passed over."""
    for name in ("00.png", "02.png", "04.png"):
        (images_folder / "cat" / name).write_text("not an image")
    message = refused("train", "--dataset", "images", *TINY)
    assert "mend or remove them, or raise max_unreadable, which is 0.01: " in message
    assert f"{images_folder / 'cat' / '02.png'} is not an image of a format that is read (" in message


def test_too_few_images(refused: Refused, images_folder: Path) -> None:
    message = refused("train", "--dataset", "images", *TINY, "--batch-size=64")
    assert "has 11 images for training, fewer than one batch of 64" in message


def test_a_run_folder_in_use(refused: Refused, vqtok: Command, images_folder: Path) -> None:
    assert vqtok("train", "--dataset", "images", "--out", "run", *TINY)[0] == 0
    message = refused("train", "--dataset", "images", "--out", "run", *TINY)
    advice = "go on with --resume, replace it with --overwrite, or choose another folder with --out"
    assert message == f"run is not empty: {advice}"
    message = refused("train", "--resume", "--out", "run", "--hidden-size=16")
    assert message.startswith("network of the run in run is ") and "cannot become" in message
    message = refused("train", "--resume", "--out", "run", "--steps=1")
    assert message == "the run in run is at step 2 already: steps must be at least that, got 1"
    for more in ([], ["--overwrite"]):
        message = refused("train", "--dataset", "images", "--out", "run/config.yaml", *TINY, *more)
        assert message == "run/config.yaml is a file, not a folder: choose another folder with --out"


def test_a_configuration_that_cannot_be_read(refused: Refused, tmp_path: Path) -> None:
    assert "cannot read the configuration none.yaml" in refused("train", "--config", "none.yaml")
    (tmp_path / "bad.yaml").write_text("steps: [\n")
    assert "cannot read the configuration bad.yaml" in refused("train", "--config", "bad.yaml")


@pytest.mark.parametrize("number", [f"0x{'f' * 5000}", f"0{'7' * 6000}", "9" * 5000])
def test_numbers_of_thousands_of_digits(refused: Refused, tmp_path: Path, number: str) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text(f"out: run\ncheckpoint_every: 1\nsteps: {number}\n")
    for command in ("inspect run", "train --resume --out run", "train --config run/config.yaml --out new"):
        message = refused(*command.split())
        assert message.startswith("cannot read the configuration run/config.yaml: a value that cannot be read, ")
    train = ("train", "--dataset", "mnist-mini", "--out", "new")
    assert refused(*train, f"--steps={number}").startswith("steps must be a whole number of at least 1, got ")
    assert "is not YAML: a value that cannot be read" in refused(*train, "--set", f"steps={number}")
    assert "is not YAML: a value that cannot be read" in refused(*train, "--set", f"tracker={number}")


def test_a_tokenizer_folder_without_weights(refused: Refused, tmp_path: Path, images_folder: Path) -> None:
    VQTokenizer(VQTokenizerConfig(image_size=16, num_channels=1)).save_pretrained(tmp_path / "tok")
    (tmp_path / "tok" / "model.safetensors").unlink()
    message = refused("tokenize", "images", "--tokenizer", "tok", "--out", "codes")
    assert message == "tok holds no weights: model.safetensors is missing, save the model again"


def test_a_full_disk_while_a_checkpoint_is_written(
    vqtok: Command, images_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Accelerator, "save_state", full)
    code, _, complained = vqtok("train", "--dataset", "images", "--out", "run", *TINY)
    assert code == 2
    last = complained.splitlines()[-1]
    assert last.startswith("vqtok: error: cannot write the checkpoint run/checkpoints/step-000002: [Errno 28] No space")
    assert not Path("run/model").exists()


def test_a_full_disk_anywhere_else(vqtok: Command, images_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "run/metrics.jsonl")

    monkeypatch.setattr(MetricsFile, "add", full)
    code, _, complained = vqtok("train", "--dataset", "images", "--out", "run", *TINY)
    assert code == 2
    assert complained.splitlines()[-1] == (
        "vqtok: error: No space left on device (run/metrics.jsonl): free some space or choose a folder that can be "
        "written"
    )


@pytest.mark.parametrize("command", ["train", "train-prior"])
def test_the_run_folder_is_looked_at_before_anything_else(refused: Refused, tmp_path: Path, command: str) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").touch()
    data = ["--dataset", "nowhere"] if command == "train" else ["nowhere"]
    assert refused(command, *data, "--out", "mine") == "mine is not empty: choose another folder with --out"
    message = refused(command, *data, "--out", "/proc/mine")
    assert message.startswith("cannot write /proc/mine: ") and message.endswith("; choose another folder")


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["train", "--dataset", "images", "--steps", ""], "steps"),
        (["train", "--dataset", ""], "dataset"),
        (["train", "--dataset", "images", "--set", ""], "set"),
        (["tokenize", ""], "dataset"),
        (["evaluate", "--tokenizer", ""], "tokenizer"),
        (["sample", "--label", ""], "label"),
    ],
)
def test_an_empty_value_is_refused(refused: Refused, arguments: list[str], name: str) -> None:
    assert refused(*arguments) == f"{name} is empty: give a value, or leave it out"


def test_a_learning_rate_that_no_weight_survives(refused: Refused, images_folder: Path) -> None:
    for option in ("--learning-rate=1e300", "--set=learning_rate=1e300"):
        message = refused("train", "--dataset", "images", *TINY, option)
        assert message == "learning_rate must be a number above 0 and of at most 1e+30, got 1e+300"


def test_letters_that_a_terminal_does_not_have_are_escapes(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> None:
    tiny_tokenizer.save_pretrained(tmp_path / "caf\u00e9 \U0001f642")
    command = [sys.executable, "-c", "from vqtok_cli.main import main; main()", "inspect", "caf\u00e9 \U0001f642"]
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.decode("latin-1").startswith("caf\u00e9 \\U0001f642: tokenizer")


def test_what_a_user_can_mend_is_one_line_and_a_bug_is_not_hidden() -> None:
    assert user_message(VqtokError("two\n  lines")) == "two lines"
    with pytest.raises(Exception, match="num_channels") as caught:
        VQTokenizerConfig(num_channels="3")
    message = user_message(caught.value)
    assert message is not None and message == "num_channels must be a whole number of at least 1, got '3'"
    assert user_message(OSError(errno.ENOENT, "No such file")) is None
    assert user_message(ValueError("a bug of ours")) is None


def test_memory_that_runs_out_is_one_line(vqtok: Command) -> None:
    sizes = ("--codebook-size", 2**32, "--code-dim", 2**16)  # 10^15 bytes
    code, _, complained = vqtok("train", "--dataset", "mnist-mini", "--out", "run", *sizes)
    assert code == 2
    assert complained.splitlines()[-1].startswith("vqtok: error: not enough memory: take a smaller batch, network or ")
    assert "network or codebook (CUDA out of memory" in str(user_message(RuntimeError("CUDA out of memory.\nTried")))
    assert user_message(MemoryError()) is not None
