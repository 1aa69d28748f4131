"""Make the plan of a codes folder: list the images once, choose the columns, write it all down."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets

from vqtok.codes.added import added_features, held_out_file, packed
from vqtok.codes.assemble import unfinished_card_of
from vqtok.codes.card import CARD
from vqtok.codes.held_out import HeldOut, find_held_out_images
from vqtok.codes.options import IMAGE_SHARD_ROWS, SHARD_ROWS, CodesOptions, TokenizeOptions
from vqtok.codes.plan import Plan, Request, SplitPlan, read_plan
from vqtok.codes.sidecar import write_sidecar
from vqtok.codes.spec import COLUMN, HELD_OUT_COLUMN, SIDECAR, CodesSpec
from vqtok.codes.workplace import clear, clear_planning
from vqtok.data.opening import OpenedRows, open_rows
from vqtok.data.record import NAMES
from vqtok.data.rows import Rows
from vqtok.errors import ConfigurationError, DataError, did_you_mean
from vqtok.names import findable
from vqtok.store import Store

__all__ = ["ALL", "make_plan", "make_request", "rows_of_shard"]

ALL = "all"
PLAN_FOLDER = "plan"


def make_request(options: TokenizeOptions, dataset: str, spec: CodesSpec) -> Request:
    """What a folder is begun with where these are the options.

    Args:
        dataset: its name as the user gave it.
        spec: that of the tokenizer.

    Raises:
        ConfigurationError: shards of more rows than can be held.
    """
    return Request(
        **options.model_dump(include=set(CodesOptions.model_fields)),
        dataset=findable(dataset),
        fingerprint=spec.fingerprint,
        seed=options.seed or 0,
        shard_rows=rows_of_shard(options.shard_rows, spec, images=options.images),
    )


def make_plan(
    request: Request,
    spec: CodesSpec,
    dataset: str,
    store: Store,
    *,
    streaming: bool = False,
    overwrite: bool = False,
    progress: bool = True,
) -> tuple[Plan, tuple[str, ...]]:
    """List the images of a dataset and write the plan of their codes, unless another process wrote one meanwhile.

    Returns:
        The plan, and what to tell the user.

    Args:
        dataset: its name as the user gave it.
        streaming: read files of the Hub where they are.
        overwrite: in place of the codes and the plan that are there.
        progress: show bars on a terminal.

    Raises:
        DataError: no such dataset, split or column, no images in it, or files that are damaged.
        HubError: the Hub does not have it, does not give it, or cannot be reached.
    """
    with tempfile.TemporaryDirectory(prefix="vqtok-") as scratch:
        folder = Path(scratch) / PLAN_FOLDER
        opened = open_rows(
            dataset,
            folder=folder,
            split=request.split,
            dataset_config=request.dataset_config,
            image_column=request.image_column,
            revision=request.revision,
            streaming=streaming,
            shard_rows=request.shard_images,
            progress=progress,
        )
        held, told = find_held_out_images(spec.repository, dataset, opened, dataset_config=request.dataset_config)
        notes = [*opened.notes, *told]
        if held and (taken := [name for name, rows in opened.splits.items() if _keeps(opened, rows, request)]):
            notes.append(
                f"the column {HELD_OUT_COLUMN} of {taken[0]} is kept as it is: it does not say what the tokenizer held "
                "out in its training"
            )
            held = None
        splits = tuple(_split_plan(opened, name, rows, request, held, scratch) for name, rows in opened.splits.items())
        plan = Plan(request=request, spec=spec, splits=splits)
        card = unfinished_card_of(plan)
        files = {file.relative_to(scratch).as_posix(): file for file in sorted(folder.rglob("*")) if file.is_file()}
        if overwrite:
            clear(store, card)
        elif (theirs := read_plan(store)) is not None:  # at an address, which has no locks
            return theirs, tuple(notes)
        else:
            clear_planning(store, keep={SIDECAR, CARD, *files})
        write_sidecar(spec, store)
        store.put(CARD, card)
        for name, file in files.items():
            store.put(name, file.read_bytes())
    plan.write(store)
    named = request.columns is not None and list(request.columns) != [ALL]
    return plan, (*notes, *([] if named else _left_out(opened, splits)))


def rows_of_shard(wanted: int | None, spec: CodesSpec, *, images: bool) -> int:
    """The rows of a shard: those that were asked for, else as many as are of use and can be held.

    Raises:
        ConfigurationError: so many grids cannot be held.
    """
    if wanted is not None and wanted > spec.most_rows:
        shape = " x ".join(map(str, spec.shape))
        raise ConfigurationError(f"shard_rows must be at most {spec.most_rows:,} for grids of {shape}, got {wanted:,}")
    return wanted if wanted is not None else min(IMAGE_SHARD_ROWS if images else SHARD_ROWS, spec.most_rows)


def _keeps(opened: OpenedRows, rows: Rows, request: Request) -> bool:
    """Whether the source has a column of its own for the images that are held out."""
    return HELD_OUT_COLUMN in _chosen_columns(opened, rows, request)


def _split_plan(
    opened: OpenedRows, name: str, rows: Rows, request: Request, held: HeldOut | None, scratch: str
) -> SplitPlan:
    kept = _chosen_columns(opened, rows, request)
    features = datasets.Features({column: rows.features[column] for column in kept})
    added = added_features(request, rows, held_out=held is not None)
    if taken := [column for column in added if column in (*kept, COLUMN)]:
        raise DataError(
            f"the images already have a column named {taken[0]!r}, which is written beside the codes here: rename it, "
            "or name the columns to keep (--columns) without it"
        )
    split = SplitPlan(
        name=name,
        rows=len(rows),
        source=rows.to_json(base=scratch),
        columns=features.to_dict(),
        added=added.to_dict(),
    )
    if held is None or held.split != name:
        return split
    bits = packed(held.rows())
    file = Path(scratch) / held_out_file(name)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(bits)
    return replace(split, held_out=hashlib.sha256(bits).hexdigest())


def _chosen_columns(opened: OpenedRows, rows: Rows, request: Request) -> list[str]:
    """The columns beside the codes: names and labels of images, all that a listing has, or those asked for.

    Columns that hold files are never among them: a dataset from elsewhere could name any file of this machine.

    Raises:
        DataError: a column that does not exist, holds files, or has the name of the codes.
    """
    wanted = request.columns
    others = [str(column) for column in rows.features if column != rows.image_column]
    plain = [column for column in others if not holds_files(rows.features[column])]
    if wanted is None:
        chosen = plain if rows.kind == "listing" else [each for each in plain if each in (*NAMES, opened.label_column)]
    elif list(wanted) == [ALL]:
        chosen = plain
    else:
        chosen = list(dict.fromkeys(wanted))
        for column in chosen:
            if column == rows.image_column:
                raise DataError(f"the column {column} of {rows.name} holds its images: --images keeps them")
            if column not in others:
                raise DataError(
                    f"{rows.name} has no column {column} beside its images, only {', '.join(others) or 'none'}."
                    f"{did_you_mean(column, others)}"
                )
            if column not in plain:
                raise DataError(f"the column {column} of {rows.name} holds files, which are not kept beside codes")
    if COLUMN in chosen:
        raise DataError(f"the images already have a column named {COLUMN!r}: rename it before tokenizing")
    return chosen


def _left_out(opened: OpenedRows, splits: Sequence[SplitPlan]) -> list[str]:
    """What to tell of columns that are not kept, where none were named."""
    left: dict[bool, dict[str, None]] = {True: {}, False: {}}  # by whether they hold files, in order
    for split in splits:
        rows = opened.splits[split.name]
        for name in rows.features:
            if name not in (rows.image_column, *split.columns):
                left[holds_files(rows.features[name])][name] = None
    notes = []
    if left[False]:
        notes.append(
            f"columns that are left out of the codes folder: {', '.join(left[False])}; --columns all keeps them"
        )
    if left[True]:
        notes.append(f"columns that hold files are left out of the codes folder: {', '.join(left[True])}")
    return notes


def holds_files(feature: Any) -> bool:
    """Whether a column holds images, sounds or other files, or paths to them."""
    if isinstance(feature, dict):
        return {"bytes", "path"} <= set(feature) or any(map(holds_files, feature.values()))
    if isinstance(feature, datasets.List | datasets.LargeList):
        return holds_files(feature.feature)
    return hasattr(feature, "embed_storage")  # Image, Audio, Video and their like
