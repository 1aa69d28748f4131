"""The house rules that no single module can see: exports, layers, packaged folders, what an import pulls in, paths."""

from __future__ import annotations

import ast
import fnmatch
import importlib
import os
import re
import resource
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TOOLS = Path(sys.executable).parent
SOURCES = {"vqtok": ROOT / "vqtok", "vqtok_cli": ROOT / "cli"}


def module_name(path: Path) -> str:
    """`vqtok/data/sources.py` -> `vqtok.data.sources`, `cli/main.py` -> `vqtok_cli.main`."""
    top = next(name for name, folder in SOURCES.items() if path.is_relative_to(folder))
    parts = path.relative_to(SOURCES[top]).with_suffix("").parts
    return ".".join([top, *(part for part in parts if part != "__init__")])


def source_files() -> list[Path]:
    return sorted(path for folder in SOURCES.values() for path in folder.rglob("*.py"))


def exports(path: Path) -> list[str] | None:
    """The literal `__all__` of a file, None where it has none."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            value = ast.literal_eval(node.value)
            assert isinstance(value, list)
            return value
    return None


def export_order(name: str) -> tuple[bool, bool, str]:
    """Constants, then classes, then functions, each by name: ruff's RUF022, which `ruff check --fix` sorts by."""
    return not name.isupper(), not name[0].isupper(), name


def run_python(code: str) -> str:
    """Run code in a fresh interpreter, which no other test has imported anything into, and give its last line."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT.anchor, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def test_every_package_of_the_library_says_what_it_exports() -> None:
    silent = [module_name(path) for path in source_files() if path.name == "__init__.py" and exports(path) is None]
    assert silent in ([], ["vqtok_cli"])


@pytest.mark.parametrize("path", [p for p in source_files() if exports(p) is not None], ids=module_name)
def test_exports_are_sorted_and_exist(path: Path) -> None:
    names = exports(path)
    module = importlib.import_module(module_name(path))
    assert names == sorted(set(names or []), key=export_order)
    assert [name for name in names if not hasattr(module, name)] == []


def test_packaged_folders_are_the_folders_that_exist() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {path.parent for path in source_files()}
    without_init = [str(folder) for folder in folders if not (folder / "__init__.py").is_file()]
    assert without_init == []
    assert listed == sorted(module_name(folder / "__init__.py") for folder in folders)


def test_layers_hold() -> None:
    command = [TOOLS / "lint-imports", "--no-logo", "--no-cache"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_library_leaves_command_line_plots_and_clusters_alone() -> None:
    unwanted = ("typer", "matplotlib", "ray", "gradio")
    code = f"""
import sys, vqtok
for name in vqtok.__all__:
    getattr(vqtok, name)
print([name for name in {unwanted} if name in sys.modules])
"""
    assert run_python(code) == "[]"


FROM_DESCRIPTIONS = ["settings", "tokenize", "train", "train-prior"]
"""Commands whose help is made from the typed options, which are torch's world."""


def test_help_loads_no_framework() -> None:
    unwanted = ("torch", "transformers", "datasets", "accelerate", "numpy", "PIL", "vqtok", "rich")
    names = [path.stem.replace("_", "-") for path in command_files()]
    assert set(FROM_DESCRIPTIONS) < set(names)
    commands = [[], *([name] for name in names if name not in FROM_DESCRIPTIONS)]
    code = f"""
import sys
from vqtok_cli.main import main
for command in {commands}:
    sys.argv = ["vqtok", *command, "--help"]
    try:
        main()
    except SystemExit as stop:
        assert not stop.code, (command, stop.code)
print([name for name in {unwanted} if name in sys.modules])
"""
    assert run_python(code) == "[]"


def command_files() -> list[Path]:
    """The files of `cli/` that hold a command: a function of the file's own name."""
    functions = {
        path: [getattr(node, "name", None) for node in ast.parse(path.read_text()).body] for path in source_files()
    }
    return [
        path
        for path, names in functions.items()
        if path.is_relative_to(ROOT / "cli") and path.stem in names and path.stem != "main"
    ]


def test_help_answers_within_a_second() -> None:
    def seconds() -> float:
        """Processor time, which is what passes on a machine that does nothing else."""
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([TOOLS / "vqtok", "--help"], check=True, capture_output=True, timeout=60)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(seconds() for _ in range(3)) < 1.0


def repository_files() -> Iterator[Path]:
    """Every file of the checkout but what `.gitignore` leaves out."""
    ignored = [".git", *(line.strip("/") for line in (ROOT / ".gitignore").read_text().split())]
    for folder, subfolders, files in os.walk(ROOT):
        subfolders[:] = [name for name in subfolders if not any(fnmatch.fnmatch(name, one) for one in ignored)]
        yield from (Path(folder) / name for name in files)


def test_no_file_names_a_place_of_one_machine() -> None:
    tops = "|".join(["home", "root", "work", "Users", "opt", "mnt"])
    place = re.compile(rf"(?<![\w.~<>$}})-])/({tops})/\w|file://".encode())
    found = {
        f"{path.relative_to(ROOT)}: {match[0]!r}"
        for path in repository_files()
        if path != Path(__file__)
        for match in place.finditer(path.read_bytes())
    }
    assert found == set()
