"""Runs that start from the weights of a tokenizer."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.quantizers.methods import SMALL, VARIANTS
from tests.training.runs import differences, make, resolve, rows, starting
from vqtok.data import ImageDataset, ImageSource, to_pixels
from vqtok.errors import CheckpointError, ConfigurationError
from vqtok.options import TrainingOnly
from vqtok.quantizers import QUANTIZERS, build_quantizer, load_learned
from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig
from vqtok.training.advice import remedies
from vqtok.training.config import TokenizerTrainingConfig
from vqtok.training.resolution import load_config, resume_config
from vqtok.training.start import same_start
from vqtok.training.tokenizer import train_tokenizer

Sources = tuple[ImageSource, ImageSource]

NAMED = {
    "ema": {"type": "ema", **SMALL["ema"]},
    "vq": {"type": "vq", **SMALL["vq"]},
    "simvq": {"type": "simvq", **SMALL["simvq"]},
    "gumbel": {"type": "gumbel", **SMALL["gumbel"]},
    "ibq": {"type": "ibq", **SMALL["ibq"]},
    "product of ema": {"type": "product", "each": {"type": "ema", **SMALL["ema"]}},
    "residual of ema": {"type": "residual", "each": {"type": "ema", **SMALL["ema"]}},
    "shared residual": {"type": "residual", "shared": True, "each": {"type": "ema", **SMALL["ema"]}},
    "fsq": {"type": "fsq", **SMALL["fsq"]},
}


@pytest.fixture
def trained(tmp_path: Path, sources: Sources) -> Path:
    train_tokenizer(make(tmp_path / "source"), *sources)
    return tmp_path / "source"


@pytest.mark.parametrize("source", [".", "model", "../link"])
def test_a_run_never_replaces_the_tokenizer_that_it_starts_from(
    tmp_path: Path, trained: Path, sources: Sources, source: str
) -> None:
    (tmp_path / "link").symlink_to(trained)
    before = (trained / "model/model.safetensors").read_bytes()
    config = starting(trained, trained / source)
    with pytest.raises(ConfigurationError, match="holds the tokenizer of init_from, which would be lost"):
        train_tokenizer(config, *sources, overwrite=True)
    assert (trained / "model/model.safetensors").read_bytes() == before and (trained / "config.yaml").is_file()


def pixels_of(source: ImageSource, tokenizer: VQTokenizer) -> Tensor:
    images = ImageDataset(source, image_size=tokenizer.config.size, num_channels=1)
    return to_pixels(images.read(range(len(images)))[0])


@pytest.mark.parametrize("quantizer", NAMED.values(), ids=list(NAMED))
def test_the_first_step_leaves_codes_and_weights_where_they_were(
    quantizer: dict[str, Any], tmp_path: Path, sources: Sources
) -> None:
    """Learned codes do not start on data again, and no moving average begins anew."""
    train_tokenizer(make(tmp_path / "source", quantizer=quantizer, steps=40), *sources)
    source = VQTokenizer.from_pretrained(tmp_path / "source")
    slow = {"steps": 1, "learning_rate": 1e-9, "batch_size": 8, "log_every": 1, "warmup_steps": 0}
    train_tokenizer(starting(tmp_path / "run", tmp_path / "source", **slow), *sources)
    found = VQTokenizer.from_pretrained(tmp_path / "run")
    for name, tensor in source.state_dict().items():
        if "codebook" in name:
            moved = (found.state_dict()[name] - tensor).norm() / tensor.norm()
            assert moved < 0.2, name
        elif name.rpartition(".")[2] not in source.quantizer.training_state and tensor.is_floating_point():
            torch.testing.assert_close(found.state_dict()[name], tensor, rtol=0, atol=1e-6, msg=name)
    pixels = pixels_of(sources[1], source)
    same = (found.encode(pixels) == source.encode(pixels)).float().mean()
    assert same > 0.9
    mean_squares = [(model.decode(model.encode(pixels)) - pixels).square().mean() for model in (source, found)]
    assert mean_squares[1] < 1.1 * mean_squares[0]
    before = rows(tmp_path / "source", "train")[-1]["reconstruction"]
    assert rows(tmp_path / "run", "train")[0]["reconstruction"] < 2 * before


@pytest.mark.parametrize("shared", [False, True])
def test_codes_whose_use_nobody_counted_count_as_used_evenly(shared: bool) -> None:
    """As in a converted tokenizer: what a batch leaves unused is not dead yet."""
    each = {"type": "vq", "codebook_size": 64, "code_dim": 3, "init": "normal", "restart_threshold": 0.0}
    options = {"type": "residual", "num_codebooks": 3, "shared": shared, "each": each}
    source = build_quantizer(options)
    for member in source.members():
        member.initialized.fill_(True)  # type: ignore[operator]  # a buffer
    going_on = build_quantizer(options | {"each": each | {"restart_threshold": 0.05}})
    load_learned(going_on, source.state_dict(), rows_in_batch=4 * 64)
    latents = torch.randn(4, 3, 8, 8) * 1e-3  # of few codes
    for _ in range(20):
        going_on.train()(latents)
    for old, new in zip(source.members(), going_on.members(), strict=True):
        assert torch.equal(old.codebook, new.codebook)  # type: ignore[arg-type]
        assert float(new.usage.rows_in_batch) == pytest.approx(256 * (3 if shared else 1))  # type: ignore[union-attr]


def test_settings_are_those_of_the_tokenizer_unless_only_training_looks_at_them(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = resolve(options={"init_from": str(trained)}, assignments=["quantizer.beta=0.5", "quantizer.decay=0.9"])
    source = load_config(TokenizerTrainingConfig, trained / "config.yaml")
    assert (config.network, config.image_size, config.num_channels) == (source.network, [16, 16], 1)
    assert config.quantizer == source.quantizer.model_copy(update={"beta": 0.5, "decay": 0.9})
    monkeypatch.chdir(tmp_path)
    again = resolve({"init_from": "source/model", "image_size": 32, "num_channels": None}, tmp_path)
    assert (again.init_from, again.image_size, again.num_channels) == (str(trained / "model"), [32, 32], 1)


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("quantizer.codebook_size=32", "quantizer.codebook_size cannot be 32: init_from .*source has 16: leave quant"),
        ("quantizer.metric=cosine", "quantizer.metric cannot be 'cosine': init_from .* has 'euclidean'"),
        ("quantizer=vq", "quantizer.type cannot be 'vq': init_from .* has 'ema': leave quantizer.type out"),
        ("network=vqgan-f8", "network.type cannot be 'vqgan': init_from .* has 'conv'"),
        ("network.hidden_size=16", "network.hidden_size cannot be 16: init_from .* has 8"),
        ("num_channels=3", "num_channels cannot be 3: init_from .* has 1"),
        ("resample=lanczos", "resample cannot be 'lanczos': init_from .* has 'bicubic'"),
        ("init_from=nowhere", "there is no folder nowhere to load a tokenizer from"),
    ],
)
def test_what_contradicts_the_tokenizer_is_refused(assignment: str, message: str, trained: Path) -> None:
    with pytest.raises((ConfigurationError, CheckpointError), match=message):
        resolve(options={"init_from": str(trained)}, assignments=[assignment])


def test_a_configuration_that_was_not_resolved_is_refused_before_there_is_a_run(
    trained: Path, tmp_path: Path, sources: Sources
) -> None:
    config = make(tmp_path / "run", init_from=str(trained), quantizer={"type": "vq"})
    with pytest.raises(ConfigurationError, match="quantizer.type cannot be 'vq'"):
        train_tokenizer(config, *sources)
    assert not (tmp_path / "run").exists()


def test_a_run_goes_on_without_the_tokenizer_that_it_started_from(
    trained: Path, tmp_path: Path, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    train_tokenizer(starting(tmp_path / "part", "source", steps=4, warmup_steps=2), *sources)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with pytest.raises(ConfigurationError, match="init_from of the run .* and cannot become 'other' on resuming"):
        resume_config(TokenizerTrainingConfig, tmp_path / "part", options={"init_from": "other"})
    with pytest.raises(ConfigurationError, match=r"freeze of the run .* cannot become \['encoder'\] on resuming"):
        resume_config(TokenizerTrainingConfig, tmp_path / "part", assignments=["freeze=encoder"])
    shutil.rmtree(trained)
    config = resume_config(TokenizerTrainingConfig, tmp_path / "part", options={"init_from": "../source", "steps": 8})
    assert config.init_from == str(trained)
    assert train_tokenizer(config, *sources, resume=True).step == 8
    assert load_config(TokenizerTrainingConfig, tmp_path / "part" / "config.yaml").init_from == str(trained)


def test_where_published_weights_come_from_stays_known(tmp_path: Path, sources: Sources, trained: Path) -> None:
    source = VQTokenizer.from_pretrained(trained)
    facts = dict.fromkeys(("program", "checkpoint", "source", "paper", "code_license", "weights_license"), "a word")
    source.config.provenance = facts | {"may_share": False, "published": "as x, FID 2", "notes": ["a note"]}
    source.save_pretrained(tmp_path / "converted")
    run = tmp_path / "run"
    train_tokenizer(starting(run, tmp_path / "converted", steps=2, checkpoint_every=2), *sources)
    shutil.rmtree(tmp_path / "converted")
    resumed = resume_config(TokenizerTrainingConfig, run, assignments=["steps=4"])
    train_tokenizer(resumed, *sources, resume=True)
    kept = VQTokenizer.from_pretrained(run).config.provenance
    notes = ["a note", "it was trained further: figures published of the checkpoint are not its own"]
    assert kept == facts | {"may_share": False, "published": None, "notes": notes}


def test_a_run_that_was_cut_off_before_a_checkpoint_starts_from_the_tokenizer_again(
    trained: Path, tmp_path: Path, sources: Sources
) -> None:
    train_tokenizer(starting(tmp_path / "whole", trained), *sources)
    train_tokenizer(starting(tmp_path / "part", trained), *sources)
    shutil.rmtree(tmp_path / "part" / "checkpoints")
    shutil.rmtree(tmp_path / "part" / "model")
    (tmp_path / "part" / "metrics.jsonl").write_text("")
    train_tokenizer(starting(tmp_path / "part", trained), *sources, resume=True)
    assert differences(tmp_path / "whole", tmp_path / "part") == []


def test_a_temperature_goes_on_from_where_it_was(tmp_path: Path, sources: Sources) -> None:
    train_tokenizer(make(tmp_path / "source", "gumbel"), *sources)
    config = starting(tmp_path / "run", tmp_path / "source", steps=2, warmup_steps=0)
    assert config.quantizer.model_dump()["temperature_steps"] == 4  # of the eight steps before
    train_tokenizer(config, *sources)
    (row,) = rows(tmp_path / "run", "train")
    assert row["temperature"] == pytest.approx(0.0625)
    never_trained = VQTokenizer(VQTokenizerConfig(network={"hidden_size": 8}, quantizer={"type": "gumbel"}))
    never_trained.save_pretrained(tmp_path / "other")
    assert resolve(options={"init_from": str(tmp_path / "other")}).quantizer.model_dump()["temperature_steps"] is None


def test_advice_names_only_what_can_change(trained: Path) -> None:
    found = remedies(resolve(options={"init_from": str(trained)}, assignments=["quantizer.restart_threshold=0"]))
    assert "quantizer.restart_threshold=0.05" in found and not any("size" in each or "type" in each for each in found)


def test_a_likelihood_is_learned_for_codes_that_stay(trained: Path, tmp_path: Path, sources: Sources) -> None:
    source = VQTokenizer.from_pretrained(trained)
    keep = {"freeze": ["encoder", "quantizer"], "likelihood": {"type": "mixture"}}
    slow = {"steps": 1, "learning_rate": 1e-9, "warmup_steps": 0}
    train_tokenizer(starting(tmp_path / "run", trained, **keep, **slow), *sources)
    found = VQTokenizer.from_pretrained(tmp_path / "run")
    assert found.fingerprint == source.fingerprint and found.config.likelihood["type"] == "mixture"
    before, after = source.decoder.state_dict(), found.decoder.state_dict()
    other = [name for name in before if before[name].shape != after[name].shape]
    assert len({name.rpartition(".")[0] for name in other}) == 1  # the last layer
    for name in set(before) - set(other):
        torch.testing.assert_close(after[name], before[name], rtol=0, atol=1e-6)
    pixels = pixels_of(sources[1], found)
    assert torch.equal(found.encode(pixels), source.encode(pixels))
    assert found.distortion(pixels, found.encode(pixels)).isfinite().all()
    with pytest.raises(ConfigurationError, match="likelihood.type cannot be 'mixture': init_from .* has 'mse'"):
        starting(tmp_path / "frozen", trained, likelihood={"type": "mixture"}, freeze=["decoder"])


def test_names_of_one_start() -> None:
    assert same_start("org/tok@1a2b", "org/tok") and same_start("org/tok@1a2b", "org/tok@1a2b")
    assert not same_start("org/tok@1a2b", "org/tok@main") and not same_start("org/tok@1a2b", "org/other")
    assert same_start(str(Path("here").absolute()), "here") and not same_start(None, "here")


def test_a_tokenizer_in_another_type_is_trained_in_float32(trained: Path, tmp_path: Path, sources: Sources) -> None:
    VQTokenizer.from_pretrained(trained, dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    train_tokenizer(starting(tmp_path / "run", tmp_path / "half", steps=1, warmup_steps=0), *sources)
    assert VQTokenizer.from_pretrained(tmp_path / "run").dtype == torch.float32
    frozen = starting(tmp_path / "frozen", tmp_path / "half", freeze=["encoder", "quantizer"])
    with pytest.raises(ConfigurationError, match="computes in torch.bfloat16, and in torch.float32, as training does"):
        train_tokenizer(frozen, *sources)


OTHER_VALUES: dict[str, Any] = {
    "beta": 0.7,
    "decay": 0.5,
    "diversity_gamma": 0.5,
    "entropy_temperature": 0.5,
    "entropy_weight": 0.3,
    "epsilon": 1e-3,
    "gradient": "rotation",
    "hard": False,
    "init": "kmeans",
    "inverse_temperature": 1.0,
    "kl_weight": 0.1,
    "restart_threshold": 0.3,
    "stage_dropout": 0.2,
    "temperature": 2.0,
    "temperature_end": 0.5,
    "temperature_steps": 7,
}


def training_only(options: dict[str, Any], prefix: str = "quantizer.") -> list[str]:
    """Assignments of other values to all that only training looks at, also of what a quantizer is made of."""
    fields = QUANTIZERS[options["type"]].Options.model_fields
    marked = [name for name, field in fields.items() if any(isinstance(item, TrainingOnly) for item in field.metadata)]
    own = [f"{prefix}{name}={OTHER_VALUES[name]}" for name in marked]
    return own + (training_only(options["each"], f"{prefix}each.") if "each" in options else [])


@pytest.mark.parametrize("options", VARIANTS, ids=lambda options: options["type"])
def test_what_only_training_looks_at_decides_no_code(options: dict[str, Any]) -> None:
    torch.manual_seed(0)
    before = build_quantizer(options)
    latents = torch.randn(2, before.code_dim, 4, 4)
    before.train()(latents)
    before.eval()
    for assignment in training_only(options):
        try:
            config = resolve(assignments=[assignment], base={"out": "x", "quantizer": options})
        except ConfigurationError:  # not for this method with its other options
            continue
        after = build_quantizer(config.quantizer.model_dump())
        load_learned(after, before.state_dict(), rows_in_batch=32)
        codes = before.encode(latents)
        assert torch.equal(after.eval().encode(latents), codes), assignment
        assert torch.equal(after.decode(codes), before.decode(codes)), assignment
