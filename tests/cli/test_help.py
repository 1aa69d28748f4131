"""What the command says of itself: help, version, completion, and how little it needs to say it."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from vqtok import __version__
from vqtok.codes import TokenizeOptions
from vqtok.tokenizer import VQTokenizer
from vqtok.training import TokenizerTrainingConfig
from vqtok_cli.main import COMMANDS

VQTOK = Path(sys.executable).parent / "vqtok"
CLI = Path(__file__).parents[2] / "cli"


def test_the_table_of_commands_is_that_of_the_files() -> None:
    """Names and lines stand in a literal, so that help needs none of the modules."""
    for name, line in COMMANDS.items():
        module = importlib.import_module(f"vqtok_cli.{name.replace('-', '_')}")
        documented = inspect.getdoc(getattr(module, name.replace("-", "_")))
        assert documented is not None and documented.splitlines()[0] == line
    with_command = {
        path.stem.replace("_", "-")
        for path in CLI.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name == path.stem != "main"
    }
    assert set(COMMANDS) == with_command


@pytest.mark.parametrize(
    "name", ["train", "train-prior", "tokenize", "detokenize", "inspect", "convert", "push", "compress", "decompress"]
)
def test_a_command_that_needs_to_be_told_something_shows_its_help(vqtok: Command, tmp_path: Path, name: str) -> None:
    code, said, complained = vqtok(name)
    assert code == 2
    assert f"Usage: vqtok {name} [OPTIONS]" in said + complained and "--help" in said + complained
    assert list(tmp_path.iterdir()) == []


def test_every_command_is_told_in_a_line_that_a_terminal_shows_whole(vqtok: Command) -> None:
    _, said, _ = vqtok("--help")
    assert all(line in said for line in COMMANDS.values())


def test_version(vqtok: Command) -> None:
    assert vqtok("--version") == (0, f"vqtok {__version__}\n", "")


@pytest.mark.parametrize("command", [[], *([name] for name in COMMANDS)], ids=lambda command: " ".join(command) or "-")
def test_h_is_help_and_redirected_help_is_plain_text(vqtok: Command, command: list[str]) -> None:
    code, said, _ = vqtok(*command, "-h")
    assert code == 0 and vqtok(*command, "--help")[1] == said
    assert said.startswith("Usage: vqtok") and "\x1b" not in said and "─" not in said
    if command:
        assert COMMANDS[command[0]] in said and "--quiet" in said


def test_help_shows_the_defaults_and_choices_of_the_settings(vqtok: Command) -> None:
    said = flat(vqtok("train", "--help")[1])
    config = TokenizerTrainingConfig.model_fields
    assert f"--steps <int> Number of optimizer steps. [default: {config['steps'].default}]" in said
    assert "--quantizer <bsq|ema|fsq|gumbel|ibq|lfq|product|residual|simvq|vq>" in said
    assert "--tracker <none|tensorboard|trackio|wandb>" in said and "[default: runs/<dataset>]" in said
    assert "vqtok settings" in said
    said = flat(vqtok("train-prior", "--help")[1])
    assert "--arch <pixelcnn|transformer>" in said and "[default: 256 (pixelcnn: 128)]" in said


def test_help_of_tokenize_shows_the_options_as_they_are_declared(vqtok: Command) -> None:
    said = flat(vqtok("tokenize", "--help")[1])
    for name, field in TokenizeOptions.model_fields.items():
        option = f"--{name.replace('_', '-')} "
        assert (option in said) == (name not in ("revision", "ray_device")) or name == "revision"
        if name not in ("revision", "ray_device"):
            text = flat(field.description or "")
            assert f"{text[:1].upper()}{text[1:]}." in said
    assert "--split <str> Split to read. [default: (every split)]" in said
    assert "--precision <float32|bfloat16|float16>" in said and "[default: (65536; 4096 where images are kept)]" in said
    assert "--columns <name,...>" in said and "Names are separated by commas;" in said and "[default: white]" in said
    assert said.index("--out") < said.index("--tokenizer") < said.index("--split") < said.index("--batch-size")


def flat(text: str) -> str:
    return " ".join(text.split())


def test_help_on_a_terminal_has_panels_and_keeps_square_brackets() -> None:
    said = on_terminal("train", "--help")
    plain = re.sub(r"\x1b\[[0-9;]*m", "", said)
    assert "\x1b[" in said and "─ Data ─" in plain and "─ Training ─" in plain
    assert "[height, width]" in plain and "[default: 10000]" in plain
    said = re.sub(r"\x1b\[[0-9;]*m", "", on_terminal("tokenize", "--help"))
    assert "─ Images ─" in said and "─ Codes ─" in said and "─ Where it runs ─" in said
    assert "─" not in on_terminal("--help", NO_COLOR="1", TERM="dumb")


def on_terminal(*arguments: str, **variables: str) -> str:
    """What the command prints on a terminal of 200 columns."""
    ours, theirs = pty.openpty()
    kept = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "TERM")}
    environment = kept | {"COLUMNS": "200", "TERM": "xterm-256color"} | variables
    with subprocess.Popen([VQTOK, *arguments], stdout=theirs, stderr=theirs, env=environment) as running:
        os.close(theirs)
        parts = []
        while part := read(ours):
            parts.append(part)
    os.close(ours)
    assert running.returncode == 0
    return b"".join(parts).decode()


def read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # Linux says so where the other end is closed
        return b""


def test_completion_of_commands_loads_no_framework_and_of_options_their_choices() -> None:
    assert complete("vqtok t", 1) == ["train", "tokenize", "train-prior"]
    assert complete("vqtok train --quantizer s", 3) == ["simvq"]
    code = f"import sys; sys.argv = ['vqtok']; from vqtok_cli.main import main\ntry: main()\nfinally: {LOADED}"
    done = subprocess.run([sys.executable, "-c", code], env=completing("vqtok t", 1), capture_output=True, text=True)
    assert done.stdout.splitlines()[-1] == "[]"
    in_bash = ["bash", "-c", f"{VQTOK} --show-completion; exit $?"]  # the shell is told by the parent process
    shown = subprocess.run(in_bash, capture_output=True, text=True)
    assert shown.returncode == 0 and "_VQTOK_COMPLETE=complete_bash" in shown.stdout


LOADED = "print([name for name in ('torch', 'vqtok', 'rich') if name in sys.modules])"


def completing(words: str, word: int) -> dict[str, str]:
    return os.environ | {"_VQTOK_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(word)}


def complete(words: str, word: int) -> list[str]:
    done = subprocess.run([VQTOK], env=completing(words, word), capture_output=True, text=True)
    return done.stdout.split()


def test_quiet_leaves_only_results_and_errors(
    vqtok: Command, tiny_tokenizer: VQTokenizer, images_folder: Path, tmp_path: Path
) -> None:
    tiny_tokenizer.save_pretrained(tmp_path / "tok")
    given = (images_folder, "--tokenizer", "tok", "--out", "codes", "--quiet")
    assert vqtok("tokenize", *given) == (0, "codes of 12 images written to codes\n", "")
    assert vqtok("tokenize", *given) == (0, "codes of 12 images are all there in codes\n", "")
    code, said, complained = vqtok("tokenize", *given, "--batch-size", "2")
    assert (code, said) == (2, "") and complained.startswith("vqtok: error: codes was begun with batch_size 64, not 2")
    code, said, complained = vqtok("detokenize", "codes", "--tokenizer", "tok", "-q")
    assert (code, said, complained) == (0, "12 images written to reconstructions\n", "")
    code, said, complained = vqtok("evaluate", "--tokenizer", "tok", "--dataset", images_folder, "-q", "--json")
    assert (code, complained) == (0, "") and json.loads(said)["num_images"] == 1


def test_a_mistyped_command_or_option_is_answered_with_the_nearest(vqtok: Command) -> None:
    code, _, said = vqtok("tran", "--steps", "3")
    assert code == 2 and "Did you mean 'train'" in said
    code, _, said = vqtok("train", "--step", "3")
    assert code == 2 and "--steps" in said
