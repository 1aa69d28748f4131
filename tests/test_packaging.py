"""A wheel, installed in a clean environment outside the checkout, holds every module and file and runs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = ["vqtok/py.typed", "vqtok/data/sample/mnist-mini.parquet"]
TEMPLATES = ["vqtok/hub/templates", "vqtok/report/templates"]


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: setuptools leaves a build folder behind, and packs what an older build left in one."""
    copy, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("vqtok", "cli"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, copy)
    offline = ("--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "wheel", *offline, "--wheel-dir", out, copy, cwd=copy)
    return next(out.glob("vqtok-*.whl"))


@pytest.fixture(scope="module")
def clean_python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel and sees our dependencies, but not the checkout.

    A path named by a `.pth` file is searched without running the `.pth` files in it, the editable install's among them.
    """
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    (site,) = folder.glob("lib/python*/site-packages")
    dependencies = Path(pytest.__file__).parents[1]
    (site / "dependencies.pth").write_text(f"{dependencies}\n")
    pip = (sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check")
    run(*pip, "install", "--no-deps", "--no-index", "--force-reinstall", wheel, cwd=folder)
    return python


def test_wheel_holds_the_sources_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    folders = {"vqtok": ROOT / "vqtok", "vqtok_cli": ROOT / "cli"}
    expected = {f"{top}/{p.relative_to(folder)}" for top, folder in folders.items() for p in folder.rglob("*.py")}
    assert {name for name in names if name.endswith(".py")} == expected
    assert [name for name in DATA if name not in names] == []
    for templates in TEMPLATES:
        shipped = {name for name in names if name.startswith(f"{templates}/")}
        assert shipped == {str(path.relative_to(ROOT)) for path in (ROOT / templates).iterdir() if path.is_file()}
        assert shipped
    assert [name for name in names if re.fullmatch(r"vqtok-.*\.dist-info/licenses/LICENSE", name)]


def test_every_module_of_the_wheel_imports_outside_the_checkout(clean_python: Path, tmp_path: Path) -> None:
    code = """
import importlib, importlib.metadata, importlib.resources
from pathlib import Path
files = [file for file in importlib.metadata.files("vqtok") if file.suffix == ".py"]
for file in files:
    name = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
    module = importlib.import_module(name)
    print(Path(module.__file__).resolve())
import vqtok
assert importlib.metadata.version("vqtok") == vqtok.__version__
assert len(files) > 30, files
"""
    loaded = run(clean_python, "-c", code, cwd=tmp_path).split()
    home = clean_python.parents[1].resolve()
    assert [path for path in loaded if not Path(path).is_relative_to(home)] == []


def test_the_installed_command_answers_outside_the_checkout(clean_python: Path, tmp_path: Path) -> None:
    answer = run(clean_python.with_name("vqtok"), "--help", cwd=tmp_path)
    commands = ("train", "tokenize", "detokenize", "train-prior", "sample", "evaluate", "push", "inspect", "demo")
    assert [command for command in commands if command not in answer] == []
