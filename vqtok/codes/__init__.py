"""Sets of images as Arrow sets of code grids, and back.

    images ─local→ codes folder (writer, spec) ─reader→ dataset, or one array of grids ─loaded→ images

A codes folder is what `datasets.load_from_disk` reads, with a spec that says which tokenizer made it.
"""

from __future__ import annotations

from vqtok.codes.detokenize import detokenize_dataset
from vqtok.codes.grids import open_grids
from vqtok.codes.local import file_columns, tokenize_dataset, tokenize_sources
from vqtok.codes.reader import CodeSet, codes_array, load_codes, read_broken, read_spec
from vqtok.codes.spec import COLUMN, SIDECAR, CodesSpec
from vqtok.codes.writer import SplitWriter, own_files, write_sidecar, write_splits

__all__ = [
    "COLUMN",
    "SIDECAR",
    "CodeSet",
    "CodesSpec",
    "SplitWriter",
    "codes_array",
    "detokenize_dataset",
    "file_columns",
    "load_codes",
    "open_grids",
    "own_files",
    "read_broken",
    "read_spec",
    "tokenize_dataset",
    "tokenize_sources",
    "write_sidecar",
    "write_splits",
]
