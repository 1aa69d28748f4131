"""`vqtok push`: send a tokenizer, a prior or codes to the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["push"]


def push(
    folder: Annotated[str, typer.Argument(help="Tokenizer, prior or codes folder, such as runs/cifar10/model.")],
    repo_id: Annotated[str, typer.Argument(help="Repository to upload to, as owner/name.")],
    private: Annotated[
        bool, typer.Option("--private", help="Make a new repository private, and refuse one that is public.")
    ] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch to push to. Created if it does not exist.", show_default="main")
    ] = None,
    message: Annotated[str | None, typer.Option(help="Title of the commit.")] = None,
) -> None:
    """Upload a tokenizer, a prior or codes to the Hugging Face Hub.

    Weights, configuration and a model card with metrics, training settings and example images go up in one commit.
    Codes become a dataset, with a card that names their tokenizer, which load_dataset of datasets reads without vqtok.
    """
    from vqtok.codes import is_codes
    from vqtok.errors import ConfigurationError
    from vqtok.store import is_url

    if is_url(folder):
        raise ConfigurationError(f"{folder} is not on this disk: copy the folder here, and push the copy")
    path = Path(folder)
    push_it = push_codes_folder if is_codes(path) else push_model_folder
    push_it(path, repo_id, private=private, revision=revision, message=message)


def push_model_folder(folder: Path, repo_id: str, *, private: bool, revision: str | None, message: str | None) -> None:
    """Push a tokenizer or a prior that loads, and say how to load it from there."""
    from vqtok.hub import check_can_push, open_to_push, sharing_warning
    from vqtok.hub import push as push_folder
    from vqtok.priors import load_prior
    from vqtok.tokenizer import VQTokenizer
    from vqtok_cli.output import done, resolved, say

    model = open_to_push(folder)
    (load_prior if model.kind == "prior" else VQTokenizer.from_pretrained)(model.path)  # or refuse what does not load
    repo_id = check_can_push(repo_id)
    resolved(
        "push",
        {
            "folder": model.path,
            "kind": model.kind,
            "files": ", ".join(model.files),
            "repository": repo_id,
            "private": private or None,
            "revision": revision,
        },
    )
    if warning := sharing_warning(model.config):
        say(f"warning: {warning}", err=True)
    url = push_folder(model.path, repo_id, private=private, revision=revision, commit_message=message)
    name, load = ("load_prior", "") if model.kind == "prior" else ("VQTokenizer", ".from_pretrained")
    at = f", revision={json.dumps(revision)}" if revision else ""
    done(f"pushed to {url}", next=("python", "-c", f'from vqtok import {name}; {name}{load}("{repo_id}"{at})'))


def push_codes_folder(folder: Path, repo_id: str, *, private: bool, revision: str | None, message: str | None) -> None:
    """Push codes as a dataset, and say what can be done with it."""
    from vqtok.codes import load_codes, push_codes, read_spec, splits_of
    from vqtok.hub import check_can_push
    from vqtok.names import at_revision
    from vqtok.text import tokenizer_text
    from vqtok_cli.output import done, resolved

    codes = load_codes(folder)  # or refuse what does not load
    spec = read_spec(codes)
    repo_id = check_can_push(repo_id)
    resolved(
        "push",
        {
            "folder": folder,
            "kind": "codes",
            "images": ", ".join(f"{len(split):,} {name}" for name, split in splits_of(codes).items()),
            "tokenizer": tokenizer_text(spec.fingerprint, spec.repository, spec.revision),
            "repository": repo_id,
            "private": private or None,
            "revision": revision,
        },
    )
    url = push_codes(folder, repo_id, private=private, revision=revision, commit_message=message)
    done(f"pushed to {url}", next=("vqtok", "train-prior", at_revision(repo_id, revision), "--out", "runs/prior"))
