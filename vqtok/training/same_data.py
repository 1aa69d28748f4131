"""A run goes on with the data that it began with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vqtok.errors import DataError

__all__ = ["SameData"]


class SameData:
    """Refuses to go on from a checkpoint with other data, which would be in another order or mean something else.

    Args:
        name: what an error calls the data.
        kind: images or codes.
        facts: what must be the same, by name.
    """

    def __init__(self, name: str, kind: str, facts: Mapping[str, object]) -> None:
        self.name, self.kind, self.facts = name, kind, facts

    def state_dict(self) -> dict[str, Any]:
        return dict(self.facts)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Compare with what `state_dict` gave.

        Raises:
            DataError: something is not the same.
        """
        for fact, value in self.facts.items():
            if state[fact] != value:
                raise DataError(
                    f"{self.name} has {fact} {value}, and the run began with {state[fact]}: resume it with the "
                    f"{self.kind} it began with, or start a new run"
                )
