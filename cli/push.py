"""`vqtok push`: send a tokenizer or a prior to the Hub."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["push"]


def push(
    folder: Annotated[Path, typer.Argument(help="Tokenizer or prior folder, such as runs/cifar10/model.")],
    repo_id: Annotated[str, typer.Argument(help="Repository to upload to, as owner/name.")],
    private: Annotated[bool, typer.Option("--private", help="Make the repository private if it is created.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="Branch to push to. Created if it does not exist.", show_default="main")
    ] = None,
    message: Annotated[str | None, typer.Option(help="Title of the commit.")] = None,
) -> None:
    """Upload a tokenizer or prior to the Hugging Face Hub.

    Weights, configuration and a model card with metrics, training settings and example images go up in one commit.
    """
    from vqtok.hub import check_can_push, open_to_push
    from vqtok.hub import push as push_folder
    from vqtok.priors import load_prior
    from vqtok.tokenizer import VQTokenizer
    from vqtok_cli.output import done, resolved

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
    url = push_folder(model.path, repo_id, private=private, revision=revision, commit_message=message)
    name, load = ("load_prior", "") if model.kind == "prior" else ("VQTokenizer", ".from_pretrained")
    at = f", revision={json.dumps(revision)}" if revision else ""
    done(f"pushed to {url}", next=("python", "-c", f'from vqtok import {name}; {name}{load}("{repo_id}"{at})'))
