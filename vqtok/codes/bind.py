"""Give codes back the name of the tokenizer that made them, once what can be checked is checked.

Grids do not tell who made them: all that can be seen is that they are whole, of the tokenizer's shape and type, and
that every code lies in [0, K). No row is written anew. Of a dataset in memory the features change, of a saved folder
its JSON files and card, and of a parquet file the footer: a new one goes behind the old, so that the rows stay where
they are, however many gigabytes they take.
"""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from vqtok.codes.binding import AnyCodes, agreed, attach, features_of, specs_in, splits_of
from vqtok.codes.card import CARD, with_features
from vqtok.codes.columns import view
from vqtok.codes.opening import files_of, is_on_hub, open_codes, read_schema, tables_in
from vqtok.codes.plan import read_plan
from vqtok.codes.reader import load_codes
from vqtok.codes.sidecar import read_sidecar
from vqtok.codes.spec import COLUMN, SIDECAR, CodesSpec
from vqtok.data.saved import is_saved, split_folders
from vqtok.errors import ConfigurationError, DataError, MismatchError
from vqtok.files import NO_ACCESS, NO_ROOM, in_one_line, write_text
from vqtok.hub.card import read_card
from vqtok.schema import read_object
from vqtok.store import Store, is_url

if TYPE_CHECKING:
    from vqtok.tokenizer import VQTokenizer

__all__ = ["bind_codes"]


def bind_codes(codes: AnyCodes | str | Path, tokenizer: VQTokenizer, *, overwrite: bool = False) -> AnyCodes:
    """Say which tokenizer made these codes, where pandas, polars or a `map` on a stream lost it.

    Args:
        codes: a dataset, of which another is given back; or a folder, a parquet file or a pattern of such files, which
            say so from then on.
        tokenizer: the one that made them.
        overwrite: bind also codes that name another tokenizer.

    Returns:
        The codes with their binding; a folder or files as `load_codes` gives them. A stream is not read to check it.

    Raises:
        ConfigurationError: a dataset on the Hub or at an address, a link, or a file that cannot be written.
        DataError: no codes, or none that this tokenizer can have made.
        MismatchError: they name another tokenizer.
    """
    spec = CodesSpec.from_tokenizer(tokenizer)
    if isinstance(codes, str | Path):
        _bind_place(codes, spec, overwrite)
        return load_codes(codes)
    spec = _as_told(specs_in(codes, name="the dataset"), spec, "the dataset", overwrite)
    for split in splits_of(codes).values():
        _check_split(split, spec, "the dataset")
    return attach(codes, spec)


def _bind_place(place: str | Path, spec: CodesSpec, overwrite: bool) -> None:
    path, name = Path(os.path.expanduser(place)), str(place)
    if is_url(name):
        raise ConfigurationError(f"{name} is not on this disk: copy it here, and bind the copy")
    if is_on_hub(name):
        raise ConfigurationError(
            f"{name} is on the Hub and cannot be bound there: load it with datasets, give it to bind_codes, and push it"
        )
    if path.is_dir() and is_saved(path):
        return _bind_saved(path, spec, overwrite)
    files = [str(path / file) for file in _tables_of(path)] if path.is_dir() else files_of(path)
    if others := [file for file in files if not file.endswith(".parquet")]:
        raise DataError(f"{others[0]} is an Arrow stream, whose beginning cannot change: save the dataset as parquet")
    if not files:
        raise DataError(f"no codes at {name}: name a folder of codes or a parquet file")
    told = [CodesSpec.from_feature(features_in(file).get(COLUMN), name=file) for file in files]
    spec = _as_told([*_told_beside(path), *(each for each in told if each)], spec, name, overwrite)
    for file in files:
        _check_links([Path(file)])
        _check_parquet(file, spec)
    for file, said in zip(files, told, strict=True):
        if said is None or said.identity != spec.identity:  # else its bytes are those of its receipt
            _bind_parquet(Path(file), spec)
    if path.is_dir():
        _write_beside(path, spec, {})


def _tables_of(path: Path) -> list[str]:
    """The files of codes in a folder, relative to it: where it has a plan, the shards of that."""
    plan = read_plan(Store(path))
    if plan is None:
        return tables_in(path)
    open_codes(path, streaming=True)  # or refuse what is not finished
    return [shard.file for shard in plan.shards()]


def _bind_saved(path: Path, spec: CodesSpec, overwrite: bool) -> None:
    opened = open_codes(path)
    spec = _as_told([*_told_beside(path), *specs_in(opened.codes, name=str(path))], spec, str(path), overwrite)
    for split in splits_of(opened.codes).values():
        _check_split(split, spec, str(path))
    folders = split_folders(path)
    _check_links([path / SIDECAR, path / CARD, *(folder / name for folder in folders for name in OWN)])
    _write_beside(path, spec, read_sidecar(path) or {})
    for folder in folders:
        _bind_split(folder, spec)


INFO, STATE = OWN = ("dataset_info.json", "state.json")


def _bind_split(folder: Path, spec: CodesSpec) -> None:
    """Write the binding into the JSON files of one split; the features there go before those of its Arrow files."""
    info, state = read_object(folder / INFO), read_object(folder / STATE)
    bound = attach(datasets.Dataset.load_from_disk(str(folder)), spec)
    info |= {"description": bound.info.description, "features": bound.features.to_dict()}
    # What `map` cached in this folder without the binding must not be found again.
    state["_fingerprint"] = bound._fingerprint
    write_text(folder / INFO, json.dumps(info, indent=2))
    write_text(folder / STATE, json.dumps(state, indent=2, sort_keys=True))


def _write_beside(folder: Path, spec: CodesSpec, sidecar: dict[str, Any]) -> None:
    """Write the sidecar, with what an earlier one said beside the spec, and the features in the card."""
    values = {**sidecar, **spec.to_dict()}
    card = with_features(read_card(folder / CARD), spec) if (folder / CARD).is_file() else None
    write_text(folder / SIDECAR, json.dumps(values, indent=2, ensure_ascii=False) + "\n")
    if card is not None:
        write_text(folder / CARD, card)


def _told_beside(path: Path) -> list[CodesSpec]:
    """What the sidecar of a folder says, where there is one."""
    sidecar = read_sidecar(path) if path.is_dir() else None
    return [CodesSpec.from_dict(sidecar, name=str(path / SIDECAR))] if sidecar else []


def _as_told(told: Iterable[CodesSpec], spec: CodesSpec, name: str, overwrite: bool) -> CodesSpec:
    """The spec with what is known of how these codes were made, such as their views.

    Raises:
        MismatchError: they name another tokenizer.
    """
    specs = list(told)
    same = [each for each in specs if each.identity == spec.identity and each.preprocessing]
    if not overwrite and (found := agreed(specs, name=name)) and found.identity != spec.identity:
        raise MismatchError(
            f"{name} names tokenizer {found.fingerprint[:12]} as the one that made its codes, not "
            f"{spec.fingerprint[:12]}: pass overwrite (--overwrite) if that is wrong"
        )
    return replace(spec, preprocessing=same[0].preprocessing) if same else spec


def _check_split(split: Any, spec: CodesSpec, name: str) -> None:
    """Refuse a split whose codes the tokenizer cannot have made; of a stream only the type is looked at."""
    feature = features_of(split).get(COLUMN)
    if isinstance(split, datasets.IterableDataset):
        if feature is None:
            raise _no_codes(name, features_of(split))
        return
    if feature is None:
        raise _no_codes(name, split.features)
    if not spec.fits(feature):
        raise DataError(
            f"the codes of {name} are {feature}, and those of tokenizer {spec.fingerprint[:12]} are {spec.feature}"
        )
    for chunk in split.data.column(COLUMN).chunks:
        _check_grids(chunk, spec, name)


def _no_codes(name: str, columns: Iterable[str]) -> DataError:
    return DataError(f"{name} has no column {COLUMN!r}, only {', '.join(columns)}: rename the column of the codes")


def _check_grids(chunk: pa.Array, spec: CodesSpec, name: str) -> None:
    if not len(chunk):
        return
    grids = view(chunk, spec.feature)
    if grids.dtype != spec.dtype:
        raise DataError(f"the codes of {name} are {grids.dtype}, and those of this tokenizer are {spec.dtype}")
    if (largest := int(grids.max())) >= spec.codebook_size:
        raise DataError(
            f"{name} holds the code {largest:,}, and tokenizer {spec.fingerprint[:12]} has {spec.codebook_size:,} codes"
        )


def features_in(file: str) -> datasets.Features:
    """The features of a parquet file."""
    try:
        return datasets.Features.from_arrow_schema(read_schema(file))
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError) as error:
        raise DataError(f"{file} cannot be read as parquet: {str(error).splitlines()[0]}") from error


def _check_parquet(file: str, spec: CodesSpec) -> None:
    with pq.ParquetFile(file) as opened:
        if COLUMN not in opened.schema_arrow.names:
            raise _no_codes(file, opened.schema_arrow.names)
        for group in range(opened.num_row_groups):
            for chunk in opened.read_row_group(group, columns=[COLUMN]).column(COLUMN).chunks:
                _check_grids(chunk, spec, file)


def _bind_parquet(file: Path, spec: CodesSpec) -> None:
    """Append a footer that is the old one with the features of bound codes.

    Places in a footer count from the beginning of the file, and readers take the last footer. What is appended is a few
    kilobytes in one write; where that fails, the file is cut back to what it was.
    """
    before, schema = pq.read_metadata(file), read_schema(str(file))
    bound = schema.set(schema.get_field_index(COLUMN), pa.field(COLUMN, spec.feature()))
    features = datasets.Features({**features_in(str(file)), COLUMN: spec.feature})
    footer = io.BytesIO()
    bound = bound.with_metadata({**(schema.metadata or {}), **features.arrow_schema.metadata})
    pq.ParquetWriter(footer, bound).close()
    after = pq.read_metadata(io.BytesIO(footer.getvalue()))
    after.append_row_groups(before)
    footer = io.BytesIO()
    after.write_metadata_file(footer)
    size = file.stat().st_size
    with in_one_line(file, NO_ROOM | NO_ACCESS), file.open("r+b", buffering=0) as opened:
        try:
            opened.seek(size)
            opened.write(footer.getvalue()[4:])  # without the mark at the beginning of a file
            os.fsync(opened.fileno())
        except OSError:
            opened.truncate(size)
            raise


def _check_links(paths: Iterable[Path]) -> None:
    """Refuse links: in the cache of the Hub they lead to files that are named by their content."""
    if linked := [path for path in paths if path.is_symlink()]:
        raise ConfigurationError(f"{linked[0]} is a link, and the file it leads to is left alone: bind a copy of it")
