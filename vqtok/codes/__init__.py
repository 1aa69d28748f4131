"""Sets of images as Arrow sets of code grids, and back.

    images ─local→ codes folder (writer, spec) ─reader→ dataset, or one array of grids ─loaded→ images
                                                         ─dataset→ batches of grids

A codes folder is what `datasets.load_from_disk` reads, with a spec that says which tokenizer made it.
"""

from __future__ import annotations

from vqtok.codes.bind import bind_codes
from vqtok.codes.binding import AnyCodes, CodeSet, splits_of
from vqtok.codes.dataset import CodesDataset
from vqtok.codes.detokenize import detokenize_dataset
from vqtok.codes.grids import open_grids
from vqtok.codes.launch import OtherProcessError, is_launched, launch_size, local_rank
from vqtok.codes.local import tokenize_dataset, tokenize_images
from vqtok.codes.opening import is_codes, is_on_hub
from vqtok.codes.options import TokenizeOptions
from vqtok.codes.plan import Plan
from vqtok.codes.push import push_codes
from vqtok.codes.reader import codes_array, load_codes, read_bad_images, read_spec
from vqtok.codes.spec import COLUMN, SIDECAR, CodesSpec
from vqtok.codes.tally import Tokenized
from vqtok.codes.verify import Verified, verify_codes
from vqtok.codes.workplace import check_place, codes_files

__all__ = [
    "COLUMN",
    "SIDECAR",
    "AnyCodes",
    "CodeSet",
    "CodesDataset",
    "CodesSpec",
    "OtherProcessError",
    "Plan",
    "TokenizeOptions",
    "Tokenized",
    "Verified",
    "bind_codes",
    "check_place",
    "codes_array",
    "codes_files",
    "detokenize_dataset",
    "is_codes",
    "is_launched",
    "is_on_hub",
    "launch_size",
    "load_codes",
    "local_rank",
    "open_grids",
    "push_codes",
    "read_bad_images",
    "read_spec",
    "splits_of",
    "tokenize_dataset",
    "tokenize_images",
    "verify_codes",
]
