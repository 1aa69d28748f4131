"""What lies in a folder of a model: a tokenizer, a prior or a baseline, told apart by config.json alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from vqtok.errors import CheckpointError
from vqtok.hub.settings import CONFIG, read_settings
from vqtok.hub.weights import Tensors, read_tensors, weight_files

__all__ = [
    "BASELINES",
    "CARD",
    "METRICS",
    "PRIORS",
    "SETTINGS",
    "Kind",
    "ModelFolder",
    "check_links",
    "kind_of",
    "open_folder",
]

CARD = "README.md"
METRICS = "metrics.json"
SETTINGS = (CONFIG, "preprocessor_config.json", "generation_config.json")

Kind: TypeAlias = Literal["tokenizer", "prior", "baseline"]
PRIORS = {"llama": "Llama transformer", "vqtok-pixelcnn": "gated PixelCNN"}
"""By the `model_type` of a prior what people call its architecture."""
BASELINES = {
    "vqtok-autoencoder": "autoencoder",
    "vqtok-cvae": "conditional VAE",
    "vqtok-iwae": "importance-weighted autoencoder",
    "vqtok-likelihood-ratio": "discrete VAE, likelihood-ratio gradient",
    "vqtok-vae": "VAE",
    "vqtok-vimco": "discrete VAE, VIMCO gradient",
}
"""By the `model_type` of a baseline what people call it."""


@dataclass(frozen=True, kw_only=True)
class ModelFolder:
    """The folder of a tokenizer, prior or baseline that is whole.

    Attributes:
        path: the folder.
        kind: what it holds.
        config: its config.json.
        files: names of the settings and weights in it, and of its metrics where it has some.
        tensors: type and shape of each tensor of the weights.
    """

    path: Path
    kind: Kind
    config: Mapping[str, Any]
    files: tuple[str, ...]
    tensors: Tensors


def open_folder(folder: str | Path, *, kind: Kind | None = None) -> ModelFolder:
    """Look into a folder, or into the `model/` of a run folder, and check that what is there can be loaded.

    Args:
        folder: the folder.
        kind: what it must hold; either where not given.

    Raises:
        CheckpointError: no such folder, neither tokenizer nor prior, or missing or damaged settings or weights.
    """
    called = f"no {kind}" if kind else "neither a tokenizer nor a prior"
    path = Path(folder)
    if not (path / CONFIG).is_file() and (path / "model" / CONFIG).is_file():
        path = path / "model"
    if not path.is_dir():
        raise CheckpointError(f"{path} is not a folder: give the model/ folder of a run, such as runs/cifar10/model")
    if not (path / CONFIG).is_file():
        found = sorted(entry.name for entry in path.iterdir())
        listed = f"it holds {', '.join(found[:6])}{' and more' if len(found) > 6 else ''}" if found else "it is empty"
        raise CheckpointError(f"{path} holds {called}: its config.json is missing, {listed}")
    config = read_settings(path)
    kind = kind_of(config, name=str(path), wanted=kind)
    weights = weight_files(path)
    files = [*SETTINGS, *weights, METRICS]
    return ModelFolder(
        path=path,
        kind=kind,
        config=config,
        files=tuple(name for name in files if (path / name).is_file()),
        tensors=read_tensors(path, weights),
    )


def kind_of(config: Mapping[str, Any], *, name: str, wanted: Kind | None = None) -> Kind:
    """What a config.json is of.

    Args:
        config: the object in it.
        name: what the error calls the place it was found.
        wanted: what it must be of; either where not given.

    Raises:
        CheckpointError: it is of something else.
    """
    model_type = config.get("model_type")
    found: Kind | None = None
    if model_type == "vqtok":
        found = "tokenizer"
    elif model_type in PRIORS and isinstance(config.get("vqtok"), dict):  # what binds a prior to its tokenizer
        found = "prior"
    elif model_type in BASELINES:
        found = "baseline"
    if found is None or wanted not in (None, found):
        called = f"no {wanted}" if wanted else "neither a tokenizer nor a prior"
        what = f"a vqtok {found}" if found else f"a {model_type!r} model"
        raise CheckpointError(f"{name} holds {called}: its config.json is of {what}")
    return found


def check_links(folder: Path, paths: Iterable[Path]) -> None:
    """Refuse files of a folder that are links to files elsewhere: what is published must have been put there.

    Loading and looking follow links, as the folders of the Hub's cache are made of them.

    Raises:
        CheckpointError: names the first.
    """
    for path in paths:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise CheckpointError(
                f"{path} is a link to a file outside {folder}, and is not published: put a copy in its place"
            )
