"""What a codes folder will hold, fixed before the first image is encoded: splits, shards, and all that decides a byte.

A plan is written once, as plan.json, and never changes. Its digest is over all that decides the bytes of a shard: the
rows, the tokenizer, preprocessing, precision and format. A shard is the `shard_rows` rows that some images of a split
have, one each unless there are several views, in the order of the source, so that whoever has the plan knows all
shards, and 10^9 rows are as quick to open as 10.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import datasets
from pydantic import Field, NonNegativeInt, PositiveInt

from vqtok.codes.options import SEED, SHARD_ROWS, SHARD_SIZE, CodesOptions
from vqtok.codes.spec import COLUMN, CodesSpec
from vqtok.data.fitting import WHITE
from vqtok.data.views import Views
from vqtok.errors import ConfigurationError, DataError, one_line, shortened
from vqtok.schema import checked
from vqtok.store import Store
from vqtok.text import tokenizer_text

__all__ = ["PLAN", "Plan", "Request", "Shard", "SplitPlan", "read_plan"]

PLAN = "plan.json"
FORMAT = "vqtok-plan"
VERSION = 1
ELSEWHERE = "choose another folder, or pass --overwrite"
MOST_SHARDS = 1_000_000  # each is a file and a receipt, whose names are in memory; 10^9 rows are 15,259


class Request(CodesOptions):
    """What a folder was begun with; of two requests for one folder, all of it must be the same."""

    dataset: str = Field(description="Hub id or absolute path of the images")
    fingerprint: str = Field(description="that of the tokenizer")
    seed: NonNegativeInt = Field(0, description=SEED)
    shard_rows: PositiveInt = Field(SHARD_ROWS, description=SHARD_SIZE)

    @property
    def preprocessing(self) -> dict[str, Any]:
        """How the images became pixels where that is not what the tokenizer says."""
        told: dict[str, Any] = {} if self.background == WHITE else {"background": self.background}
        if views := self.image_views:
            told |= {"views": self.views} | ({"seed": self.seed} if views.kind == "random" else {})
        return told

    @property
    def image_views(self) -> Views | None:
        """The views of each image; None where it has its one row."""
        return None if self.views is None else Views.parse(self.views, seed=self.seed)

    @property
    def rows_per_image(self) -> int:
        """1, or as many as there are views."""
        return 1 if (views := self.image_views) is None else views.count

    @property
    def shard_images(self) -> int:
        """Images whose rows fill a shard."""
        return max(1, self.shard_rows // self.rows_per_image)


@dataclass(frozen=True, kw_only=True)
class Shard:
    """The images [start, stop) of a split, whose rows become one file.

    Attributes:
        split: its name.
        index: its number in the split, from 0.
        number: how many shards the split has.
    """

    split: str
    index: int
    number: int
    start: int
    stop: int
    format: str

    @property
    def name(self) -> str:
        """What messages call it, and its receipt: train/00003."""
        return f"{self.split}/{self.index:05d}"

    @property
    def file(self) -> str:
        """Its file in the codes folder, as `save_to_disk` and `push_to_hub` name theirs."""
        if self.format == "parquet":
            return f"data/{self.split}-{self.index:05d}-of-{self.number:05d}.parquet"
        return f"{self.split}/data-{self.index:05d}-of-{self.number:05d}.arrow"

    @property
    def receipt(self) -> str:
        return f"receipts/{self.name}.json"


@dataclass(frozen=True, kw_only=True)
class SplitPlan:
    """One split.

    Attributes:
        rows: images of the source, some of which may turn out to be unreadable.
        source: where they come from, as `vqtok.data.rows` describes it.
        columns: features of the columns of the source that stand beside the codes, as `datasets.Features.to_dict` gives
            them.
        added: features of the columns that `added.py` makes.
        held_out: sha256 of the file that says which images the tokenizer held out, where one does.
    """

    name: str
    rows: NonNegativeInt
    source: dict[str, Any]
    columns: dict[str, Any]
    added: dict[str, Any] = field(default_factory=dict)
    held_out: str | None = None

    def features(self, spec: CodesSpec) -> datasets.Features:
        """The columns of the codes folder, the codes first."""
        beside = datasets.Features.from_dict({**self.columns, **self.added})
        return datasets.Features({COLUMN: spec.feature, **beside})


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done for a codes folder.

    Attributes:
        request: what was asked for.
        spec: which tokenizer, and what a grid is.
        splits: in the order of the source.
        digest: sha256 over all of it, as hex.
    """

    request: Request
    spec: CodesSpec
    splits: tuple[SplitPlan, ...]
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        if self.num_shards > MOST_SHARDS:
            raise DataError(
                f"a plan of {self.num_shards:,} shards, and at most {MOST_SHARDS:,} are possible: give a shard more "
                "rows (--shard-rows)"
            )
        object.__setattr__(self, "digest", hashlib.sha256(_canonical(self._content())).hexdigest())

    @property
    def rows(self) -> int:
        """Images of all splits."""
        return sum(split.rows for split in self.splits)

    @property
    def num_shards(self) -> int:
        """Shards of all splits."""
        return sum(max(1, -(-split.rows // self.request.shard_images)) for split in self.splits)

    def split(self, name: str) -> SplitPlan:
        """The split of that name."""
        return next(split for split in self.splits if split.name == name)

    def shards(self) -> Iterator[Shard]:
        """All shards, in the order of splits and rows; a split without rows has one that is empty."""
        size = self.request.shard_images
        for split in self.splits:
            number = max(1, -(-split.rows // size))
            for index in range(number):
                yield Shard(
                    split=split.name,
                    index=index,
                    number=number,
                    start=index * size,
                    stop=min((index + 1) * size, split.rows),
                    format=self.request.format,
                )

    def check(self, request: Request, place: str) -> None:
        """Refuse to go on with another request.

        Raises:
            ConfigurationError: it differs; the message names the first difference.
        """
        before, now = self.request.model_dump(mode="json"), request.model_dump(mode="json")
        for name in ("dataset", "fingerprint", *before):
            if now[name] != (value := before[name]):
                what = f"{name} {shortened(value)}, not {shortened(now[name])}"
                if name == "fingerprint":
                    what = f"the tokenizer {tokenizer_text(value, self.spec.repository)}, not {now[name][:12]}"
                raise ConfigurationError(
                    f"{place} was begun with {what}: choose another folder, ask for the same again, or pass "
                    "--overwrite to begin anew"
                )

    def write(self, store: Store) -> None:
        """Write plan.json."""
        values = {"format": FORMAT, "version": VERSION, "digest": self.digest, **self._content()}
        store.put(PLAN, (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode())

    def _content(self) -> dict[str, Any]:
        return {
            "request": self.request.model_dump(mode="json"),
            "codes": self.spec.to_dict(),
            "splits": [vars(split) for split in self.splits],  # asdict would copy what can be a million files
        }


def read_plan(store: Store) -> Plan | None:
    """The plan of a codes folder, None where there is none.

    Raises:
        DataError: it is damaged, was edited, or is one of a newer vqtok.
    """
    values, name = store.read_object(PLAN, advice=ELSEWHERE), store.path(PLAN)
    if values is None:
        return None
    if values.get("format") != FORMAT:
        raise DataError(f"{name} is no plan of vqtok: choose another folder")
    if values.get("version") != VERSION:
        raise DataError(f"{name} has version {shortened(values.get('version'))}, not {VERSION}: update vqtok")
    request = checked(Request, _entry(values, "request", name), name=name, error=DataError)
    spec = CodesSpec.from_dict(values.get("codes"), name=name)
    splits = tuple(_split(split, name) for split in _splits(values, name))
    try:
        plan = Plan(request=request, spec=spec, splits=splits)
    except (UnicodeEncodeError, RecursionError) as error:
        raise DataError(f"{name} is damaged ({one_line(error)}): {ELSEWHERE}") from None
    if plan.digest != values.get("digest"):
        raise DataError(f"{name} was edited: its digest is that of another plan; pass --overwrite to begin anew")
    return plan


def _entry(values: dict[str, Any], key: str, name: str) -> dict[str, Any]:
    entry = values.get(key)
    if not isinstance(entry, dict):
        raise DataError(f"{name} is damaged: {key} must be an object, got {shortened(entry)}")
    return entry


def _splits(values: dict[str, Any], name: str) -> list[dict[str, Any]]:
    splits = values.get("splits")
    if not isinstance(splits, list) or not all(isinstance(split, dict) for split in splits) or not splits:
        raise DataError(f"{name} is damaged: splits must be a list of objects, got {shortened(splits)}")
    if len({str(split.get("name")) for split in splits}) < len(splits):
        raise DataError(f"{name} is damaged: two splits have one name")
    return splits


def _split(values: dict[str, Any], name: str) -> SplitPlan:
    """One split; its source, which can name a million files, is what the digest says, and is not looked through."""
    source = _entry(values, "source", name)
    split = replace(checked(SplitPlan, {**values, "source": {}}, name=name, error=DataError), source=source)
    if not split.name or split.name in (".", "..") or not {"/", "\\", "\0"}.isdisjoint(split.name):
        raise DataError(f"{name} is damaged: {shortened(split.name)} is no name of a split")
    try:
        datasets.Features.from_dict({**split.columns, **split.added}).arrow_schema  # noqa: B018  which looks at them
    except (TypeError, ValueError, KeyError, AttributeError, RecursionError) as error:
        raise DataError(f"{name} is damaged: its columns are none of `datasets` ({one_line(error)})") from None
    return split


def _canonical(values: dict[str, Any]) -> bytes:
    return json.dumps(values, sort_keys=True, ensure_ascii=False).encode()
