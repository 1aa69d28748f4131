"""The card of a converted tokenizer: what it is, whose it is, and under which terms."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData

from vqtok.convert.driver import Converted
from vqtok.hub import describe_tokenizer, open_folder
from vqtok.hub.markdown import plain, table

__all__ = ["card_of"]


def card_of(converted: Converted, folder: Path, name: str) -> str:
    """The text of its README.md.

    Args:
        converted: what was converted.
        folder: where the tokenizer is saved.
        name: what it is called.
    """
    about, family = describe_tokenizer(open_folder(folder)), converted.family
    published = converted.published
    terms = "" if family.may_share else ", which does not allow to give them to others"
    source = [
        ("code of its authors", f"{family.source}, {family.code_license}"),
        ("weights", f"{family.weights_license}{terms}"),
        ("paper", family.paper),
    ]
    if published:
        source.append(("published as", f"{published.name}, reconstruction FID {published.rfid}"))
    card = ModelCard.from_template(
        ModelCardData(tags=["vqtok", "image-tokenizer"], pipeline_tag="image-feature-extraction"),
        template_str=files("vqtok.convert").joinpath("templates", "tokenizer.md").read_text(encoding="utf-8"),
        name=plain(name),
        title=plain(family.title[:1].upper() + family.title[1:]),
        summary=plain(about.summary),
        facts=table(("", ""), about.rows),
        source=table(("", ""), source),
        shape=(1, *about.shape),
        notes="\n".join(f"- {plain(note)}" for note in converted.notes),
    )
    return str(card)
