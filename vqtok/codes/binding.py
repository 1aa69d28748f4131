"""Where the binding of codes to their tokenizer travels with a dataset, and how it is found again.

It is in three places: whole in `info.description` and in the sidecar `codes.json`; fingerprint and K as the `id` of the
column's feature, a field that every feature of `datasets` has and every process can read. What carries it how far, as
tried with datasets 5.2, pandas 3.1 and polars 2.1 (x: it lasts):

                                              description  feature id  own column  codes.json, card
    save_to_disk, load_from_disk                    x           x           x             x
    map, select, filter, shuffle, with_format       x           x           x             -
    rename_column, add_column, train_test_split     x           x           x             -
    concatenate_datasets, interleave_datasets       x           x           x             -
    to_parquet, from_parquet                        -           x           x             -
    load_dataset of parquet or Arrow, streaming     -           x           x             -
    load_dataset, then save_to_disk                 -           x           x             -
    push_to_hub, load_dataset, streaming            -           x           x             x
    streamed: filter, shuffle, take                 -           x           x             -
    streamed: map without `features=`               -           -           x             -
    to_pandas, merge, from_pandas; polars           -           -           x             -
    a table rewritten without metadata (DuckDB)     -           -           x             -

Not taken: a key of our own in the schema's metadata, beside `huggingface` or in it, goes as soon as a Dataset is built.
A feature of our own cannot be read by a process without vqtok. A constant column of text would last everywhere and
takes 68 bytes a row beside 540 (16x16 codes and a key); dictionary-encoded it takes one, but `datasets` decodes it into
memory when it loads a file. So pandas and polars lose the binding, and `vqtok bind` gives it back.

Columns with different ids cannot be joined by `concatenate_datasets` and `interleave_datasets`: codes of two tokenizers
are never mixed by them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TypeAlias

import datasets

from vqtok.codes.spec import COLUMN, FORMAT, CodesSpec
from vqtok.errors import DataError, MismatchError, shortened

__all__ = ["AnyCodes", "CodeSet", "StreamedCodes", "agreed", "attach", "features_of", "specs_in", "splits_of"]

CodeSet: TypeAlias = datasets.Dataset | datasets.DatasetDict
StreamedCodes: TypeAlias = datasets.IterableDataset | datasets.IterableDatasetDict
AnyCodes: TypeAlias = CodeSet | StreamedCodes
Split: TypeAlias = datasets.Dataset | datasets.IterableDataset


def splits_of(codes: AnyCodes) -> dict[str, Split]:
    """The splits by name; of a dataset that is one split its own name, or `train`."""
    if isinstance(codes, datasets.DatasetDict | datasets.IterableDatasetDict):
        return {str(name): split for name, split in codes.items()}
    return {str(codes.split or "train"): codes}


def features_of(split: Split) -> datasets.Features:
    """The features of a split; of a streamed one that lost them, such as by `map`, what its first rows look like."""
    if split.features is None:
        split = split._resolve_features()
    return split.features or datasets.Features()


def specs_in(codes: AnyCodes, *, name: str) -> list[CodesSpec]:
    """Every spec that a dataset carries, in its descriptions and in the features of its columns.

    Raises:
        DataError: one of them is damaged.
    """
    specs: list[CodesSpec] = []
    for split in splits_of(codes).values():
        specs += _described(split.info.description, name=name)
        own = CodesSpec.from_feature((split.features or {}).get(COLUMN), name=name)
        specs += [own] if own else []
    return specs


def agreed(specs: Iterable[CodesSpec], *, name: str) -> CodesSpec | None:
    """The spec that says most of those found in several places; None where there is none.

    Raises:
        MismatchError: they are not of one tokenizer.
    """
    found = list(specs)
    if len({spec.identity for spec in found}) > 1:
        names = sorted({spec.fingerprint[:12] for spec in found})
        if len(names) == 1:
            sizes = " and ".join(sorted({f"{spec.shape} below {spec.codebook_size:,}" for spec in found}))
            raise MismatchError(
                f"{name} says in one place that its grids are other than in another ({sizes}): was "
                "its codes.json edited? Delete that, and run the same `vqtok tokenize` again"
            )
        raise MismatchError(f"{name} mixes codes of several tokenizers ({', '.join(names)}): keep the codes of one")
    return max(found, key=lambda spec: (spec.repository is not None, len(spec.preprocessing)), default=None)


def attach(codes: AnyCodes, spec: CodesSpec) -> AnyCodes:
    """The same rows, with the binding wherever a dataset can carry it; no row is read or copied."""
    if isinstance(codes, datasets.DatasetDict | datasets.IterableDatasetDict):
        return type(codes)({name: attach(split, spec) for name, split in codes.items()})
    features = datasets.Features({**features_of(codes), COLUMN: spec.feature})
    description = with_description(codes.info.description, spec)
    if isinstance(codes, datasets.IterableDataset):
        streamed = codes.cast(features)
        streamed.info.description = description
        return streamed
    if (codes.features, codes.info.description) == (features, description):
        return codes
    info = codes.info.copy()
    info.features, info.description = features, description
    # What `map` cached of the dataset without the binding must not be taken for that of this one.
    fingerprint = hashlib.sha256(f"{codes._fingerprint} {spec.to_json()}".encode()).hexdigest()[:16]
    bound = datasets.Dataset(
        codes.data, info=info, split=codes.split, indices_table=codes._indices, fingerprint=fingerprint
    )
    shown = codes.format
    bound.set_format(shown["type"], shown["columns"], shown["output_all_columns"], **shown["format_kwargs"])
    return bound


def _described(description: object, *, name: str) -> list[CodesSpec]:
    """The specs in a description: one, or several where `concatenate_datasets` joined them with empty lines."""
    if not isinstance(description, str):
        raise DataError(f"{name} is damaged: its description must be text, got {shortened(description)}")
    return [CodesSpec.from_json(part, name=name) for part in _parts(description) if part.startswith("{")]


def with_description(description: str, spec: CodesSpec) -> str:
    """A description with this spec in place of those in it."""
    others = [part for part in _parts(description) if not (part.startswith("{") and FORMAT in part)]
    return "\n\n".join([*others, spec.to_json()])


def _parts(description: str) -> list[str]:
    return [part.strip() for part in description.split("\n\n") if part.strip()]
