"""Every family that can be converted, by the name that `--from` takes."""

from __future__ import annotations

from collections.abc import Mapping

from vqtok.convert.family import Family
from vqtok.convert.llamagen import JANUS, JANUS_OF_TRANSFORMERS, LLAMAGEN
from vqtok.convert.others import COSMOS, DIFFUSERS, MAGVIT2, MASKGIT
from vqtok.convert.taming import CHAMELEON, IBQ, TAMING

__all__ = ["FAMILIES"]

FAMILIES: Mapping[str, Family] = {
    "chameleon": CHAMELEON,
    "cosmos": COSMOS,
    "diffusers": DIFFUSERS,
    "ibq": IBQ,
    "janus": JANUS,
    "janus-transformers": JANUS_OF_TRANSFORMERS,
    "llamagen": LLAMAGEN,
    "magvit2": MAGVIT2,
    "maskgit": MASKGIT,
    "taming": TAMING,
}
