"""Training images that cannot be read: others take their place, and the run says which, and stops at too many."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from accelerate.utils import gather_object

from vqtok.data import ImageDataset, UnreadableImage

__all__ = ["UnreadableImages"]

NAMED = 3  # reasons in one line of the log


class UnreadableImages:
    """Counts and names the training images that were found to be unreadable; a checkpoint keeps them.

    Args:
        images: the training images.
        max_share: of them that may be unreadable.

    Raises:
        DataError: more than that are known to be unreadable already.
    """

    def __init__(self, images: ImageDataset, max_share: float) -> None:
        self.images, self.max_share = images, max_share
        self.told: set[int] = set()
        images.check_unreadable(max_share)

    def look(self) -> tuple[int, list[str]]:
        """How many are known on all processes, and a line where there are new ones; every process must ask.

        Raises:
            DataError: too many; names the first.
        """
        for found in gather_object([dict(self.images.unreadable)]):
            self.images.unreadable.update(found)
        self.images.check_unreadable(self.max_share)
        new = sorted(self.images.unreadable.keys() - self.told)
        self.told.update(new)
        count = len(self.images.unreadable)
        if not new:
            return count, []
        reasons = "; ".join(self.images.unreadable[index].reason for index in new[:NAMED])
        more = f" and {len(new) - NAMED:,} more" if len(new) > NAMED else ""
        what = (
            "1 image cannot be read, so another takes its place"
            if len(new) == 1
            else (f"{len(new):,} images cannot be read, so others take their place")
        )
        return count, [f"{what}: {reasons}{more}"]

    def state_dict(self) -> dict[str, Any]:
        return {"unreadable": [asdict(image) for image in self.images.unreadable.values()], "told": sorted(self.told)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.images.unreadable.update({image["index"]: UnreadableImage(**image) for image in state["unreadable"]})
        self.told = set(state["told"])
