"""What an architecture of priors is: one object in its own file, with all that differs from one to another."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

from torch import Tensor
from transformers import PreTrainedModel

from vqtok.hub import ModelFolder
from vqtok.priors.base import PriorOptions

__all__ = ["Architecture", "Decoder", "Prior"]

Prior: TypeAlias = PreTrainedModel
"""A prior of any architecture; the entry `vqtok` of its configuration is a `PriorBinding`."""


class Decoder(Protocol):
    """A prior in the middle of its samples, one code after another."""

    def step(self, previous: Tensor | None) -> Tensor:
        """Logits (B, K) of the next code, given the codes (B,) at the position before; None at the first position."""

    def select(self, rows: Tensor) -> None:
        """Go on with some of the B, in the order of `rows`, int64 (B',), in which one may come several times."""


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One architecture. Codes are int64 (B, L) in the order in which a prior reads them, classes int64 (B,).

    Attributes:
        options: what can be chosen.
        optimizer: what its layers are trained with where nobody chooses.
        model: the class of its priors.
        model_type: what their configurations say they are.
        build: an untrained prior from a `PriorBinding` and options by name.
        configuration: of the priors in a folder, made of nothing in its config.json but what is known.
        code_logits: from a prior, codes and classes the logits (B, L, K), those of a position of the codes before it.
        training_loss: from the same the mean nats per code to train on.
        decoder: from a prior and classes what samples codes for these.
    """

    options: type[PriorOptions]
    optimizer: Literal["adamw", "muon"]
    model: type[Prior]
    model_type: str
    build: Callable[..., Prior]
    configuration: Callable[[ModelFolder], Any]
    code_logits: Callable[[Any, Tensor, Tensor], Tensor]
    training_loss: Callable[[Any, Tensor, Tensor], Tensor]
    decoder: Callable[[Any, Tensor], Decoder]
