"""The card of a code set: what the codes are, which tokenizer made them, and for `datasets` where they lie."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any, TypeAlias

import datasets
from datasets.info import DatasetInfosDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData
from yaml import YAMLError

from vqtok.codes.spec import COLUMN, HELD_OUT_COLUMN, IMAGE_ID, CodesSpec
from vqtok.errors import DataError
from vqtok.errors import one_line as error_line
from vqtok.hub import grid_text
from vqtok.hub.card import MARK, hub_id, short_name
from vqtok.hub.markdown import fenced, one_line, plain, table
from vqtok.text import counted, tokenizer_text

__all__ = [
    "CARD",
    "Files",
    "codes_card",
    "is_of_people",
    "is_unfinished",
    "names_files",
    "published",
    "unfinished_card",
    "with_features",
    "with_files",
]

CARD = "README.md"
UNFINISHED = "none-yet/*.arrow"
"""Names no file, so that `load_dataset` refuses what is not whole yet."""

Files: TypeAlias = Mapping[str, str | Sequence[str]]
"""By split the pattern or the paths of its files."""


def published(spec: CodesSpec) -> CodesSpec:
    """A spec without the name of a folder of this machine."""
    repository = hub_id(spec.repository) if spec.repository else None
    return replace(spec, repository=repository, revision=spec.revision if repository else None)


def codes_card(
    spec: CodesSpec, features: datasets.Features, rows: Mapping[str, int], places: Files, repository: str
) -> str:
    """The card of a code set.

    Args:
        spec: the binding.
        features: the columns.
        rows: how many rows each split has; an image has several where there are views.
        places: where their files lie.
        repository: where the code set will be, as owner/name.
    """
    spec = published(spec)
    data = DatasetCardData(tags=["vqtok", "image-tokens"], pretty_name=one_line(short_name(repository)))
    grid = " x ".join(map(str, spec.shape))
    revision = f", revision={json.dumps(spec.revision)}" if spec.revision else ""
    named = f"{json.dumps(spec.repository)}{revision}" if spec.repository else '"THE-TOKENIZER-OF-THESE-CODES"'
    card = DatasetCard.from_template(
        data,
        template_str=files("vqtok.hub").joinpath("templates", "codes.md").read_text(encoding="utf-8"),
        mark=MARK,
        name=plain(short_name(repository)),
        summary=f"Images as grids of {grid} codes, whole numbers below {spec.codebook_size:,}, made with "
        "[vqtok](https://pypi.org/project/vqtok).",
        facts=table(("", ""), _facts(spec, features, rows)),
        repository=json.dumps(repository),
        place=one_line(repository),
        tokenizer=named,
        binding=fenced(json.dumps(spec.to_dict(), indent=2), "json"),
    )
    return with_files(str(card), features, places)


def _facts(spec: CodesSpec, features: datasets.Features, rows: Mapping[str, int]) -> list[tuple[str, str]]:
    others = ", ".join(column for column in features if column != COLUMN)
    views, background = (spec.preprocessing.get(name) for name in ("views", "background"))
    more = [("views", f"{views}: the rows of an image share its {IMAGE_ID}")] if views else []
    more += [("background", f"transparent images are composed over {background}")] if background else []
    if features.get(HELD_OUT_COLUMN) == datasets.Value("bool"):
        more.append(("held out", f"where {HELD_OUT_COLUMN} is true: the tokenizer did not train on these images"))
    return [
        *((split, counted(count, "row" if views else "image")) for split, count in rows.items()),
        ("grid", f"{grid_text(spec.shape)}, {spec.dtype.name}"),
        ("codebook", f"{spec.codebook_size:,} codes"),
        ("tokenizer", tokenizer_text(spec.fingerprint, spec.repository, spec.revision)),
        ("other columns", others or "none"),
        *more,
    ]


def unfinished_card(text: str, places: Files) -> str:
    """A card of codes that are not all there yet, from which `load_dataset` loads nothing.

    Args:
        text: the card as it will be.
        places: by the name of each split what is not there yet.
    """
    return with_files(text, None, dict.fromkeys(places, UNFINISHED))


def is_unfinished(text: str) -> bool:
    """Whether a card is one of `unfinished_card`."""
    return UNFINISHED in text


def is_of_people(text: str) -> bool:
    """Whether somebody wrote a card: it says something, and has lost the mark of a generated one."""
    if MARK in text or is_unfinished(text):
        return False
    return bool(_parsed(text).text.strip())


def with_files(text: str, features: datasets.Features | None, places: Files) -> str:
    """A card, of whoever wrote it, that says to `datasets` where the files lie and what their columns are."""
    card = _parsed(text)
    for section in ("configs", "dataset_info"):
        card.data.pop(section, None)
    if features is not None:
        DatasetInfosDict({"default": datasets.DatasetInfo(features=features)}).to_dataset_card_data(card.data)
    MetadataConfigs({"default": {"data_files": _listed(places)}}).to_dataset_card_data(card.data)
    return str(card)


def names_files(text: str, places: Files) -> bool:
    """Whether a card, of whoever wrote it, says to `datasets` where these files lie."""
    configs = _parsed(text).data.get("configs")
    told = [each.get("data_files") for each in configs if isinstance(each, dict)] if isinstance(configs, list) else []
    return _listed(places) in told


def with_features(text: str, spec: CodesSpec) -> str:
    """A card whose column of codes names their tokenizer; one that lists no columns as it is."""
    card = _parsed(text)
    info: Any = card.data.get("dataset_info")
    (told,) = datasets.Features({COLUMN: spec.feature})._to_yaml_list()
    for section in info if isinstance(info, list) else [info]:
        columns = section.get("features") if isinstance(section, dict) else None
        for column in columns if isinstance(columns, list) else ():
            if isinstance(column, dict) and column.get("name") == COLUMN:
                column |= told
    return str(card)


def _listed(places: Files) -> list[dict[str, Any]]:
    """Files as a card lists them; a name such as fold-1 is one that `datasets` refuses there."""
    return [
        {"split": re.sub(r"\W", "_", split), "path": path if isinstance(path, str) else list(path)}
        for split, path in places.items()
    ]


def _parsed(text: str) -> DatasetCard:
    """A card that people may have written.

    Raises:
        DataError: the header of it is not YAML, or no mapping.
    """
    try:
        return DatasetCard(text, ignore_metadata_errors=True)
    except (ValueError, YAMLError) as error:
        raise DataError(f"{CARD} cannot be read as a card: {error_line(error)}; mend or delete it") from error
