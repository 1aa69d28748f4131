"""Two gloo processes train what is not frozen, as one process does, and leave the rest to the bit."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.training.runs import make, starting
from tests.two_processes import connect, run_two_processes
from vqtok.data import ImageSource, open_splits
from vqtok.tokenizer import VQTokenizer
from vqtok.training.tokenizer import train_tokenizer

FROZEN = (["encoder"], ["quantizer"], ["encoder", "quantizer"])


def worker(rank: int, folder: Path) -> None:
    """A run for each of the combinations, from one tokenizer."""
    sources = open_splits((folder / "images.txt").read_text(), test_share=0.25)
    with warnings.catch_warnings(action="error"):
        for number, freeze in enumerate(FROZEN):
            connect(rank, folder)
            train_tokenizer(starting(folder / f"two-{number}", folder / "source", freeze=freeze), *sources)


def test_two_processes_leave_frozen_parts_to_the_bit(
    folder: Path, tmp_path: Path, sources: tuple[ImageSource, ImageSource]
) -> None:
    train_tokenizer(make(tmp_path / "source"), *sources)
    (tmp_path / "images.txt").write_text(str(folder))
    run_two_processes(worker, tmp_path)
    source = VQTokenizer.from_pretrained(tmp_path / "source")
    before = source.state_dict()
    for number, freeze in enumerate(FROZEN):
        train_tokenizer(starting(tmp_path / f"one-{number}", tmp_path / "source", freeze=freeze), *sources)
        one, two = (load_file(tmp_path / f"{run}-{number}" / "model" / "model.safetensors") for run in ("one", "two"))
        for name, tensor in two.items():
            torch.testing.assert_close(tensor, one[name], rtol=1e-4, atol=1e-5, msg=name)
        moved = {name.partition(".")[0] for name, tensor in two.items() if not torch.equal(tensor, before[name])}
        assert moved == {"encoder", "quantizer", "decoder"} - set(freeze)
    assert VQTokenizer.from_pretrained(tmp_path / f"two-{number}").fingerprint == source.fingerprint
