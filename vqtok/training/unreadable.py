"""What a run knows of images that cannot be read: all processes of all of them, and the user of each of them once."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from accelerate import Accelerator
from accelerate.utils import gather_object

from vqtok.data import ImageDataset, UnreadableImage
from vqtok.text import counted

__all__ = ["UnreadableImages"]

NAMED = 3  # images in a line


class UnreadableImages:
    """The unreadable images of a dataset, over all processes and over the parts of a run that was resumed.

    Args:
        images: batches of it were or will be read.
        max_share: of its images that may be unreadable.
        accelerator: says which processes read it.

    Raises:
        DataError: more are known already.
    """

    def __init__(self, images: ImageDataset, max_share: float, accelerator: Accelerator) -> None:
        self.images, self.max_share, self.accelerator = images, max_share, accelerator
        self.told: set[int] = set()
        images.check_unreadable(max_share)

    def look(self, step: int, what: str) -> tuple[dict[str, float], list[str]]:
        """How many there are so far, if any, and a line that names those that are new; every process must ask.

        `what` goes on from their number, one or many: "cannot be read, left out".

        Raises:
            DataError: there are too many.
        """
        known = self.images.unreadable
        if self.accelerator.num_processes > 1:
            known |= {image.index: image for image in gather_object(list(known.values()))}
        self.images.check_unreadable(self.max_share)
        new = [known[index] for index in sorted(known.keys() - self.told)]
        self.told |= known.keys()
        if not known:
            return {}, []
        return {"unreadable_images": len(known)}, [f"step {step}: {line(new, what)}"] if new else []

    def state_dict(self) -> dict[str, Any]:
        return {"told": [asdict(self.images.unreadable[index]) for index in sorted(self.told)]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave, which was of the same images."""
        before = [UnreadableImage(**image) for image in state["told"]]
        self.images.unreadable |= {image.index: image for image in before}
        self.told = {image.index for image in before}


def line(new: list[UnreadableImage], what: str) -> str:
    """What is wrong with the first of some images, and how many there are."""
    reasons = "; ".join(image.reason for image in new[:NAMED])
    return f"{counted(len(new), 'image')} {what}: {reasons}{'; ...' if len(new) > NAMED else ''}"
