"""What came of tokenizing, counted shard by shard; too many images that cannot be read end it."""

from __future__ import annotations

from dataclasses import dataclass, field

from vqtok.codes.plan import Plan, Shard
from vqtok.codes.receipt import BadImage, Receipt
from vqtok.errors import BadImagesError
from vqtok.text import counted

__all__ = ["Tally", "Tokenized"]


@dataclass(frozen=True, kw_only=True)
class Tokenized:
    """What came of it.

    Attributes:
        images: by split how many images have codes.
        bad: the images that could not be read.
        made: shards that this call made.
        resumed: shards that were there already.
    """

    images: dict[str, int]
    bad: tuple[BadImage, ...]
    made: int
    resumed: int


@dataclass(kw_only=True)
class Tally:
    """What is known of the shards that are done."""

    plan: Plan
    stop_on_error: bool
    max_bad_share: float
    images: dict[str, int] = field(default_factory=dict)
    bad: list[BadImage] = field(default_factory=list)
    receipts: dict[str, Receipt] = field(default_factory=dict)

    def result(self, *, made: int) -> Tokenized:
        return Tokenized(images=self.images, bad=tuple(self.bad), made=made, resumed=self.plan.num_shards - made)

    def add(self, shard: Shard, receipt: Receipt) -> None:
        """Note a shard; refuses to go on with too many bad images, or any where none may be.

        Raises:
            BadImagesError: says how many, and names the first.
        """
        images = receipt.rows // self.plan.request.rows_per_image
        self.images[shard.split] = self.images.get(shard.split, 0) + images
        self.bad += receipt.bad
        self.receipts[shard.name] = receipt
        share = 0 if self.stop_on_error else self.max_bad_share
        if self.bad and len(self.bad) / self.plan.rows > share:  # 0.29 * 100 is less than 29
            first = "; ".join(image.reason for image in self.bad[:3])
            raise BadImagesError(
                f"{len(self.bad):,} of {counted(self.plan.rows, 'image')} cannot be read, more than the share of "
                f"{share:.3g} that may be left out: {first}; allow more (--max-bad-share) to go on without them, or "
                "mend them and begin anew (--overwrite)"
            )
