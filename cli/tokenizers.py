"""How commands load a tokenizer: from a folder, a run folder or the Hub, onto the device that was asked for."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vqtok.priors import Prior
    from vqtok.tokenizer import VQTokenizer

__all__ = ["check_revision", "load_prior_of", "load_tokenizer", "tokenize_with"]


def load_tokenizer(name: str | None, *, device: str | None = None, revision: str | None = None) -> VQTokenizer:
    """Load a tokenizer for use, None for that of the newest finished run; a run folder stands for the model in it.

    Raises:
        CheckpointError: a folder without a tokenizer, or no finished run.
        HubError: a repository or revision that cannot be read.
        ConfigurationError: a device that this machine does not have, or a revision of a folder.
    """
    import torch

    from vqtok.errors import ConfigurationError
    from vqtok.tokenizer import VQTokenizer
    from vqtok.training.runs import newest_model

    name = str(newest_model("tokenizer")) if name is None else name
    check_revision(name, revision)
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=device).item()  # which the device called meta cannot say
    except (RuntimeError, AssertionError, ImportError):
        raise ConfigurationError(
            f"there is no device {device!r} here: leave out --device, or give cpu or one that torch finds"
        ) from None
    arguments = {} if revision is None else {"revision": revision}
    model = VQTokenizer.from_pretrained(name, **arguments)
    torch.nn.Module.to(model, device)  # transformers leaves its own `to` without annotations
    return model


def load_prior_of(model: VQTokenizer, name: str | None, revision: str | None) -> Prior | None:
    """Load the prior of that name over a tokenizer's codes onto its device; None where no name is given.

    Raises:
        CheckpointError, HubError: there is no prior that can be read.
        ConfigurationError: a revision of a folder, or of no prior.
        MismatchError: the prior models the codes of another tokenizer.
    """
    import torch

    from vqtok.errors import ConfigurationError
    from vqtok.priors import PriorBinding, load_prior

    if name is None:
        if revision is not None:
            raise ConfigurationError("--prior-revision is of a prior on the Hub: name one with --prior")
        return None
    check_revision(name, revision)
    prior = load_prior(name, revision)
    PriorBinding.from_config(prior.config).check_tokenizer(model.fingerprint)
    torch.nn.Module.to(prior, model.device)
    return prior


def check_revision(name: str, revision: str | None) -> None:
    """Refuse a revision of what is no repository, which would be ignored."""
    from vqtok.errors import ConfigurationError

    if revision is not None and Path(name).is_dir():
        raise ConfigurationError(
            f"{name} is a folder, which has no revision {revision!r}: leave the revision out, or name a Hub repository"
        )


def tokenize_with(
    tokenizer: object, dataset: str, *, config: str | None, image_column: str | None, revision: str | None = None
) -> list[object]:
    """The words of the command that turns the images of a dataset into codes."""
    options = {"dataset-config": config, "image-column": image_column, "tokenizer": tokenizer, "revision": revision}
    given = (word for name, value in options.items() if value is not None for word in (f"--{name}", value))
    return ["vqtok", "tokenize", dataset, *given, "--out", "codes"]
