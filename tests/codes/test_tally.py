"""Too many images that cannot be read end the work: more than the share that may be, and not that share itself."""

from __future__ import annotations

import pytest

from tests.codes.conftest import make_spec
from vqtok.codes.plan import Plan, Request, SplitPlan
from vqtok.codes.receipt import BadImage, Receipt
from vqtok.codes.tally import Tally
from vqtok.errors import BadImagesError


def add_bad(number: int, *, of: int, share: float) -> None:
    split = SplitPlan(name="train", rows=of, source={}, columns={})
    plan = Plan(request=Request(dataset="x", fingerprint="a" * 64), spec=make_spec(), splits=(split,))
    (shard,) = plan.shards()
    bad = tuple(BadImage(row=row, name=f"{row}.png", reason=f"{row}.png is damaged") for row in range(number))
    receipt = Receipt(plan=plan.digest, shard=shard.name, rows=of - number, bytes=1, sha256="", bad=bad)
    Tally(plan=plan, stop_on_error=False, max_bad_share=share).add(shard, receipt)


@pytest.mark.parametrize(("number", "of", "share"), [(29, 100, 0.29), (7, 100, 0.07), (0, 100, 0.0), (100, 100, 1.0)])
def test_the_share_itself_may_be_bad(number: int, of: int, share: float) -> None:
    add_bad(number, of=of, share=share)
    if number < of:
        with pytest.raises(BadImagesError, match=f"^{number + 1} of 100 images cannot be read, more than the share"):
            add_bad(number + 1, of=of, share=share)
