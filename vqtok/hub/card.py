"""Model cards: what a model is, how to use it, what was measured, how it was trained.

The text is in `templates/`, the facts come from `description.py` and the figures from files beside the model, see
`run_metadata.py`. Where there are none the card says so.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from vqtok.assignments import write_yaml_text
from vqtok.errors import CheckpointError
from vqtok.hub.description import Binding, describe_prior, describe_tokenizer
from vqtok.hub.folder import CARD, ModelFolder, check_links
from vqtok.hub.markdown import code, fenced, one_line, plain, table
from vqtok.hub.run_metadata import RunMetadata, find_run_metadata
from vqtok.names import KNOWN, hub_name
from vqtok.text import counted

__all__ = ["MARK", "Card", "card_of", "shown"]

MARK = "<!-- Written by vqtok. To keep a text of your own, change it and delete this line. -->"
IMAGES = {"tokenizer": "reconstructions.png", "prior": "samples.png"}
CAPTIONS = {
    "tokenizer": ("Reconstructions", "Held-out images over their reconstructions"),
    "prior": ("Samples", "Sampled from the prior"),
}
TASKS = {"tokenizer": "image-feature-extraction", "prior": "unconditional-image-generation"}  # names of the Hub

# The numbers a card shows, in this order, under the names they have on disk.
MEANINGS = {
    "mse": "mean squared error of pixels in [0, 1]",
    "mse_over_variance": "mean squared error over the variance of the data",
    "psnr": "peak signal-to-noise ratio, dB",
    "ssim": "structural similarity, 1 at best",
    "bits_per_dim": "bits per dimension of the pixels themselves, all codes equally probable",
    "bits_per_dim.uniform.total": "bits per dimension of the pixels themselves, all codes equally probable",
    "bits_per_dim.learned.total": "bits per dimension with a learned prior over the codes",
    "bits_per_dim.distortion": "of these the bits of the pixels given their codes",
    "perplexity": "exponential of the entropy of the codes: so many codes in even use",
    "usage": "share of the codes that occur on these images",
    "codes_in_use": "codes that occur on these images",
    "bits_in_use": "sum of the entropies of the dimensions of a code, in bits: it carries no more",
    "bit_usage": "share of its bits",
    "constant_dimensions": "dimensions with one value on all of these images",
    "loss": "nats per code",
    "bits_per_code": "bits per code",
    "unigram_bits_per_code": "bits per code of a model that knows only how frequent each code is",
}


@dataclass(frozen=True)
class Card:
    """The text of a README.md and the images it shows, by the name under which they lie beside it."""

    text: str
    images: Mapping[str, Path] = field(default_factory=dict)


def card_of(folder: ModelFolder, repo_id: str, origin: Path) -> Card:
    """The card of a tokenizer or a prior, with the figures and the image that lie in and beside `origin`.

    A README.md in the origin that people wrote, which has lost the mark of a generated one, is taken as it is.

    Args:
        folder: the model.
        repo_id: where it will be.
        origin: the folder that it was loaded from, or its own.

    Raises:
        CheckpointError: a file that cannot be read, or that is a link to one elsewhere.
    """
    name = IMAGES[folder.kind]
    run_metadata = find_run_metadata(origin, name)
    images = {name: run_metadata.image} if run_metadata.image else {}
    written = origin / CARD
    check_links(origin, [written])
    if written.is_file() and MARK not in (text := read_card(written)):
        return Card(text, images)
    return Card(build_card(folder, run_metadata, repo_id), images)


def read_card(path: Path) -> str:
    """The text of a README.md. Raises CheckpointError where it is none."""
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as UTF-8 text: {error}") from error


def build_card(folder: ModelFolder, run_metadata: RunMetadata, repository: str) -> str:
    """Fill in the template of this kind of model."""
    check_links(folder.path, (folder.path / name for name in folder.files))
    about = describe_tokenizer(folder) if folder.kind == "tokenizer" else describe_prior(folder)
    binding = about.binding
    card = ModelCard.from_template(
        card_data(folder, run_metadata, repository),
        template_str=files("vqtok.hub").joinpath("templates", f"{folder.kind}.md").read_text(encoding="utf-8"),
        mark=MARK,
        name=plain(short_name(repository)),
        summary=plain(about.summary),
        facts=table(("", ""), about.rows),
        repository=json.dumps(repository),
        shape=(1, *about.shape),
        paper=plain(about.paper),
        tokenizer=tokenizer_arguments(binding) if binding else "",
        has_classes=bool(binding and binding.label_names),
        fingerprint=code(binding.fingerprint[:12] if binding else ""),
        metrics=metrics_section(run_metadata),
        image=image_section(run_metadata, folder.kind),
        recipe=recipe_section(run_metadata),
    )
    return str(card)


def tokenizer_arguments(binding: Binding) -> str:
    """What `VQTokenizer.from_pretrained` is given to load the tokenizer of a prior."""
    repository = hub_id(binding.tokenizer)
    if repository is None:
        return '"THE-TOKENIZER-OF-ITS-CODES"'
    revision = f", revision={json.dumps(binding.revision)}" if binding.revision else ""
    return f"{json.dumps(repository)}{revision}"


def card_data(folder: ModelFolder, run_metadata: RunMetadata, repository: str) -> ModelCardData:
    """What the Hub searches and sorts by. A licence is for the owner to choose: none is claimed."""
    task = TASKS[folder.kind]
    measured = run_metadata.metrics or {}
    name, split = measured.get("dataset"), measured.get("split")
    measured_on = hub_id(measured.get("dataset_resolved", name))
    results = [
        EvalResult(
            task_type=task,
            dataset_type=measured_on or "custom",
            dataset_name=one_line(Path(str(name)).name),
            dataset_split=one_line(split),
            dataset_revision=measured.get("dataset_revision") if measured_on else None,
            metric_type=key,
            metric_value=value,
        )
        for key, value in shown(measured).items()
        if name and split
    ]
    trained_on = hub_id((run_metadata.recipe or {}).get("dataset"))
    return ModelCardData(
        library_name="vqtok",
        pipeline_tag=task,
        tags=["vqtok", "vq-vae", "image-tokenizer" if folder.kind == "tokenizer" else "image-generation"],
        datasets=[trained_on] if trained_on else None,
        model_name=one_line(short_name(repository)),
        eval_results=results or None,
    )


def metrics_section(run_metadata: RunMetadata) -> str:
    """A table of what was measured, and on what."""
    if run_metadata.metrics:
        measured = run_metadata.metrics
        notes = [plain(note) for note in measured.get("notes") or () if isinstance(note, str)]
        told = "".join(f"\n\n{note[:1].upper()}{note[1:]}." for note in notes)
        return f"{images_of(measured)}:\n\n{metric_table(measured)}{told}"
    if run_metadata.held_out:
        recipe, step = run_metadata.recipe or {}, run_metadata.held_out["step"]
        data = code(recipe.get("dataset") or recipe.get("codes"))
        where = f"at step {plain(step)}, on what was held out of {data}"
        return f"Measured while training, {where}:\n\n{training_table(run_metadata)}"
    return "No metrics are stored with these weights. `vqtok evaluate` measures them and stores them here."


def images_of(measured: Mapping[str, Any]) -> str:
    """How many images of which split of what an evaluation looked at."""
    name = measured.get("dataset_resolved", measured.get("dataset"))
    split = f"{code(hub_id(name) or Path(str(name)).name)}, split {code(measured.get('split'))}"
    count, whole = measured.get("num_images"), measured.get("num_images_in_split")
    if not isinstance(count, int):
        return f"On {split}"
    if not isinstance(whole, int) or whole == count:
        return f"On {counted(count, 'image')} of {split}"
    return f"On {count:,} of the {whole:,} images of {split}"


def training_table(run_metadata: RunMetadata) -> str:
    """What training measured last; the use of the codes on its own images apart from that on held-out ones."""
    rows = [
        ("held-out usage" if name == "usage" else name, f"{value:.5g}", MEANINGS[name])
        for name, value in shown(run_metadata.held_out or {}).items()
    ]
    usage = run_metadata.training_usage
    if usage is not None:
        meaning = "share of the codes that occurred on the last images of training"
        rows.append(("training usage", f"{usage:.5g}", meaning))
    return table(("metric", "value", "meaning"), rows)


def metric_table(values: Mapping[str, Any]) -> str:
    rows = [(name, f"{value:.5g}", MEANINGS[name]) for name, value in shown(values).items()]
    return table(("metric", "value", "meaning"), rows)


def shown(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that people are shown, in this order: those with a meaning that are finite."""
    found = {name: entry(values, name) for name in MEANINGS}
    return {name: value for name, value in found.items() if is_number(value)}


def entry(values: Mapping[str, Any], name: str) -> Any:
    """What stands under a name, or under one in the object of another, `outer.inner`; None where there is nothing."""
    found: Any = values
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found


def is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def image_section(run_metadata: RunMetadata, kind: str) -> str:
    if run_metadata.image is None:
        return ""
    title, caption = CAPTIONS[kind]
    when = "" if run_metadata.step is None else f", at step {run_metadata.step}"
    return f"\n## {title}\n\n{caption}{when}.\n\n![{caption}]({IMAGES[kind]})\n"


def recipe_section(run_metadata: RunMetadata) -> str:
    if run_metadata.recipe is None:
        return "No record of the training run is stored with these weights."
    recipe = write_yaml_text(run_metadata.recipe).rstrip()
    return f"<details>\n<summary>config.yaml of the run</summary>\n\n{fenced(recipe, 'yaml')}\n\n</details>"


def short_name(repository: str) -> str:
    """owner/name without the owner; of runs/cifar10/model the name of the run."""
    path = Path(repository)
    return path.parent.name if path.name == "model" and path.parent.name else path.name


def hub_id(name: object) -> str | None:
    """owner/name of a repository on the Hub, where the name stands for one and not for a folder of this machine."""
    found = hub_name(KNOWN.get(str(name), str(name)))
    return found[0] if found else None
