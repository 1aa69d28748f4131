"""What a run starts from: a tokenizer that was trained or converted before.

A run cannot change what decides codes or the shape of a weight: the network, the quantizer, the channels and the way
of resizing are those of the tokenizer. What only training looks at (`TrainingOnly`) and the size of the images can be
chosen anew, and so can the likelihood unless the decoder is frozen: one that takes another number of parameters gets a
new last layer. Where encoder and quantizer are frozen nothing changes that the fingerprint covers, so that codes and
priors made before stay valid.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vqtok.errors import ConfigurationError
from vqtok.hub import find_model, loading
from vqtok.names import hub_name
from vqtok.options import Options, TrainingOnly
from vqtok.quantizers import load_learned
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig
from vqtok.tokenizer.configuration import TokenizerOptions
from vqtok.training.config import TokenizerTrainingConfig

__all__ = ["Origin", "Start", "changes", "find_start", "same_start"]

CODES = {"encoder", "quantizer"}  # what decides them
TRAINED = "it was trained further: figures published of the checkpoint are not its own"


@dataclass(frozen=True, kw_only=True)
class Start:
    """A tokenizer to start from.

    Attributes:
        name: by which it is found from any working folder: an absolute path, or a Hub id with a commit.
        options: what its config.json says.
    """

    name: str
    options: TokenizerOptions

    def check(self, config: TokenizerTrainingConfig) -> None:
        """Refuse a configuration that the weights do not fit, or with which they would give other codes.

        Raises:
            ConfigurationError: names the first setting that is not that of the tokenizer.
        """
        whole = set(config.freeze) >= CODES
        why = "; with encoder and quantizer frozen its fingerprint stays" if whole else ""
        for setting, before, now in changes(self.options, config, whole=whole):
            if setting.startswith("likelihood.") and "decoder" not in config.freeze:
                continue  # it decides no code
            raise ConfigurationError(
                f"{setting} cannot be {now!r}: init_from {self.name} has {before!r}{why}: leave {setting} out"
            )

    def check_kept(self, run: Path) -> None:
        """Refuse to replace the run that this tokenizer is in: its weights would be gone before the new ones are there.

        Raises:
            ConfigurationError: it lies in the folder of the run.
        """
        if os.path.isabs(self.name) and Path(self.name).resolve().is_relative_to(run.resolve()):
            raise ConfigurationError(
                f"{run} holds the tokenizer of init_from, which would be lost: choose another folder with --out"
            )

    def fill(self, model: VQTokenizer, config: TokenizerTrainingConfig) -> None:
        """Put the weights of this tokenizer into a model.

        Raises:
            CheckpointError, HubError: as in `VQTokenizer.from_pretrained`.
            ConfigurationError: as in `check`; or the codes are to stay as they are, and were made in another type.
        """
        self.check(config)
        name, revision = named(self.name)
        source = VQTokenizer.from_pretrained(name, **({"revision": revision} if revision else {}))
        if set(config.freeze) >= CODES and source.dtype != torch.float32:
            raise ConfigurationError(
                f"init_from {self.name} computes in {source.dtype}, and in torch.float32, as training does, it gives "
                "other codes: leave freeze out"
            )
        model.encoder.load_state_dict(source.encoder.state_dict())
        load_decoder(model.decoder, source.decoder.state_dict())
        if origin := source.config.provenance:
            notes = [note for note in origin["notes"] if note != TRAINED]
            model.config.provenance = origin | {"published": None, "notes": [*notes, TRAINED]}
        rows = config.batch_size * math.prod(model.grid)
        load_learned(model.quantizer, source.quantizer.state_dict(), rows_in_batch=rows)


def load_decoder(decoder: nn.Module, weights: dict[str, Tensor]) -> None:
    """Weights of the same network, whose last layer stays untrained where it has other outputs."""
    own = decoder.state_dict()
    decoder.load_state_dict(own | {name: tensor for name, tensor in weights.items() if tensor.shape == own[name].shape})


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Keeps in the checkpoints of a run where its weights come from, since on resuming the start may be gone."""

    config: VQTokenizerConfig

    def state_dict(self) -> dict[str, Any]:
        return {"provenance": self.config.provenance}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.config.provenance = state["provenance"]


def find_start(name: str) -> Start:
    """Find a tokenizer by the name of its folder, of a run folder or on the Hub.

    Raises:
        CheckpointError: there is no tokenizer in the folder.
        HubError: a repository or revision that cannot be read.
    """
    place, revision = named(name)
    folder = find_model(place, kind="tokenizer", **({"revision": revision} if revision else {}))
    with loading(f"a tokenizer from {name}"):
        config = VQTokenizerConfig.from_pretrained(folder.path)
    found = os.path.abspath(place) if Path(place).is_dir() else f"{place}@{folder.path.name}"
    return Start(
        name=found, options=TokenizerOptions(**{key: getattr(config, key) for key in TokenizerOptions.model_fields})
    )


def named(name: str) -> tuple[str, str | None]:
    """A folder or a Hub id, and the revision that a Hub id ends with."""
    return hub_name(name) or (name, None)


def same_start(before: str | None, now: str | None) -> bool:
    """Whether a run that started from `before`, as `find_start` names it, may be said to start from `now`."""
    if before is None or now is None or before == now:
        return before == now
    place, revision = named(now)
    return before == os.path.abspath(place) or (revision is None and named(before)[0] == place)


def changes(before: Options, now: Options, *, whole: bool = False, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Options of a tokenizer that are not as they were: their names, what they were, and what they are now.

    Args:
        before, now: `TokenizerOptions`, of which a run has more than these, or those of a section.
        whole: also what only training looks at, and the size of the images.
    """
    kind = TokenizerOptions if isinstance(before, TokenizerOptions) else type(before)
    for name, field in kind.model_fields.items():
        old, new = getattr(before, name), getattr(now, name)
        free = name == "image_size" or any(isinstance(item, TrainingOnly) for item in field.metadata)
        if not isinstance(old, Options):
            if old != new and (whole or not free):
                yield prefix + name, old, new
        elif type(old) is type(new):
            yield from changes(old, new, whole=whole, prefix=f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}.type", old.model_dump()["type"], new.type
