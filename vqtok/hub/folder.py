"""What lies in a folder that may go to the Hub: a tokenizer or a prior, told apart by config.json alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open

from vqtok.errors import CheckpointError

__all__ = ["CARD", "METRICS", "SETTINGS", "ModelFolder", "open_folder", "read_object"]

CARD = "README.md"
METRICS = "metrics.json"
SETTINGS = ("config.json", "preprocessor_config.json", "generation_config.json")

# Weights that can run code while they are read, and code itself; nothing of the kind leaves this machine.
REFUSED = (".bin", ".ckpt", ".h5", ".msgpack", ".npy", ".npz", ".onnx", ".pickle", ".pkl", ".pt", ".pth", ".py")


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """A tokenizer or prior folder that is whole.

    Attributes:
        path: the folder.
        kind: what it holds.
        config: its config.json.
        files: names of the settings and weights in it, and of its metrics where it has some.
        tensors: type, such as "F32", and shape of each tensor of the weights, by name.
    """

    path: Path
    kind: Literal["tokenizer", "prior"]
    config: Mapping[str, Any]
    files: tuple[str, ...]
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]


def open_folder(folder: str | Path) -> ModelFolder:
    """Look into a folder, or into the `model/` of a run folder, and check that what is there can be loaded again.

    Raises:
        CheckpointError: no such folder, neither tokenizer nor prior, missing or damaged weights, or weights and code of
            a kind that is never read from the Hub.
    """
    path = Path(folder)
    if (path / "model" / "config.json").is_file():
        path = path / "model"
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a folder: give the model/ folder of a run, such as runs/cifar10/model")
    kind, config = kind_of(path)
    names = sorted(entry.name for entry in path.iterdir() if entry.is_file())
    if refused := [name for name in names if name.endswith(REFUSED)]:
        raise CheckpointError(
            f"{path} holds {', '.join(refused)}: only safetensors weights are pushed, and no code; move these elsewhere"
        )
    weights = [name for name in names if name.endswith((".safetensors", ".safetensors.index.json"))]
    tensors = read_tensors(path, weights)
    wanted = (*(name for name in SETTINGS if name in names), *weights, *([METRICS] if METRICS in names else []))
    return ModelFolder(path=path, kind=kind, config=config, files=wanted, tensors=tensors)


def kind_of(path: Path) -> tuple[Literal["tokenizer", "prior"], Mapping[str, Any]]:
    """What config.json says a folder holds."""
    if not (path / "config.json").is_file():
        found = sorted(entry.name for entry in path.iterdir())
        listed = f"it holds {', '.join(found[:6])}{' and more' if len(found) > 6 else ''}" if found else "it is empty"
        raise CheckpointError(f"{path} is neither a tokenizer nor a prior folder: no config.json, {listed}")
    config = read_object(path / "config.json")
    if config.get("model_type") == "vqtok":
        return "tokenizer", config
    if isinstance(config.get("vqtok"), dict):  # what binds a prior to its tokenizer
        return "prior", config
    raise CheckpointError(
        f"{path} is neither a tokenizer nor a prior folder: its config.json is of a {config.get('model_type')!r} model "
        "that no vqtok tokenizer belongs to"
    )


def read_tensors(path: Path, weights: list[str]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Type and shape of every tensor, from the headers; weights that are missing or cut off are refused."""
    shards = [name for name in weights if name.endswith(".safetensors")]
    if not shards:
        raise CheckpointError(f"{path} holds no weights: model.safetensors is missing, save the model again")
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for name in shards:
        try:
            with safe_open(path / name, framework="np") as opened:
                slices = {key: opened.get_slice(key) for key in opened.offset_keys()}
                tensors |= {key: (part.get_dtype(), tuple(part.get_shape())) for key, part in slices.items()}
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path / name} is no whole safetensors file: {error}") from error
    for index in set(weights) - set(shards):
        missing = sorted(set(read_object(path / index).get("weight_map", {}).values()) - set(shards))
        if missing:
            raise CheckpointError(f"{path} lacks the weights {', '.join(missing)} that {index} names")
    return tensors


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object that a file holds.

    Raises:
        CheckpointError: it cannot be read, or is not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} must hold a JSON object, found {type(value).__name__}")
    return value
