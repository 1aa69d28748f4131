"""vqtok inspect: one aligned line a fact, from a folder or from the Hub."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import vqtok.hub
from tests.cli.conftest import Command
from vqtok.errors import DataError, HubError
from vqtok.priors import PriorBinding, build_prior
from vqtok.tokenizer import VQTokenizer
from vqtok_cli.main import app


def test_facts_are_aligned_under_the_kind(tiny_tokenizer: VQTokenizer, tmp_path: Path) -> None:
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    result = CliRunner().invoke(app, ["inspect", str(tmp_path / "model")])
    lines = [line for line in result.output.splitlines() if "Loading" not in line and line]
    assert result.exit_code == 0 and lines[0] == f"{tmp_path / 'model'}: tokenizer"
    starts = {line.index(line[2:].split("  ", 1)[1].lstrip(), 2) for line in lines[1:]}
    assert len(starts) == 1
    assert any(line.split() == ["fingerprint", tiny_tokenizer.fingerprint] for line in lines)


def test_plots_that_cannot_be_written_are_refused_before_any_work(
    vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_tokenizer.save_pretrained("tok")
    Path("file").touch()
    Path("loop").symlink_to("loop")
    monkeypatch.setattr("vqtok_cli.codebook.measure_health", None)
    below = ("file/sub", "file/sub/further")
    for out, why in (*((out, "Not a directory") for out in below), ("loop", "Too many levels of symbolic links")):
        code, _, said = vqtok("inspect", "tok", "--dataset", "images", "--out", out)
        assert code == 2 and said == f"vqtok: error: cannot write {out}: {why}; choose another folder\n"


def test_a_hub_id_is_fetched(tiny_tokenizer: VQTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_tokenizer.save_pretrained(tmp_path / "snapshot")
    asked = []

    def fetch(repo_id: str, *, revision: str | None) -> Path:
        asked.append((repo_id, revision))
        return tmp_path / "snapshot"

    monkeypatch.setattr(vqtok.hub, "fetch", fetch)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["inspect", "org/digits", "--revision", "v1"])
    assert asked == [("org/digits", "v1")] and "org/digits: tokenizer" in result.output


@pytest.mark.parametrize("path", ["nowhere", "./no/where", "a/b/c"])
def test_a_folder_that_is_not_there_is_said_to_be_missing(
    path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["inspect", path])
    assert isinstance(result.exception, DataError) and not isinstance(result.exception, HubError)
    assert f"{path} does not exist" in str(result.exception)


def test_the_codebook_is_drawn_on_images(
    vqtok: Command, tiny_tokenizer: VQTokenizer, images_folder: Path, tmp_path: Path
) -> None:
    tiny_tokenizer.save_pretrained(tmp_path / "model")
    status, printed, _ = vqtok(
        *("inspect", tmp_path / "model", "--dataset", images_folder, "--split", "train", "--num-images", 5),
        *("--out", "drawn", "--device", "cpu", "--batch-size", 2),
    )
    assert status == 0
    names = ["frequencies.png", "distances.png", "positions.png", "examples.png", "health.json"]
    assert sorted(path.name for path in Path("drawn").iterdir()) == sorted(names)
    for name in names[:4]:
        with Image.open(Path("drawn") / name) as drawing:
            assert drawing.format == "PNG"
    numbers = json.loads(Path("drawn/health.json").read_text())
    assert numbers["num_images"] == 5 and numbers["fingerprint"] == tiny_tokenizer.fingerprint
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert f"codes in use {numbers['codes_in_use']} of 16" in lines
    assert f"perplexity {numbers['perplexity']:.4g}" in lines
    assert lines[-1] == f"plots written to drawn: {', '.join(names)}"


def test_drawings_of_a_run_go_into_it_and_of_another_tokenizer_here(
    vqtok: Command, tiny_tokenizer: VQTokenizer, images_folder: Path
) -> None:
    tiny_tokenizer.save_pretrained("run/model")
    for expected in ("health", "run/health"):
        assert vqtok("inspect", "run/model", "--dataset", images_folder)[0] == 0
        assert (Path(expected) / "health.json").is_file()
        Path("run/config.yaml").write_text(f"out: run\nsteps: 3\ncheckpoint_every: 3\ndataset: {images_folder}\n")
    assert vqtok("inspect", "run", "--dataset", images_folder, "--out", "third")[0] == 0
    assert Path("third/positions.png").is_file()


def test_links_among_the_drawings_of_a_run_are_replaced_and_what_they_lead_to_stays(
    vqtok: Command, tiny_tokenizer: VQTokenizer, images_folder: Path
) -> None:
    """A run folder may have come from elsewhere."""
    tiny_tokenizer.save_pretrained("run/model")
    Path("run/config.yaml").write_text(f"out: run\nsteps: 3\ncheckpoint_every: 3\ndataset: {images_folder}\n")
    Path("precious.txt").write_text("mine")
    inspect = ("inspect", "run", "--dataset", images_folder)
    assert vqtok(*inspect)[0] == 0
    Path("run/health/frequencies.png").unlink()
    Path("run/health/frequencies.png").symlink_to("../../precious.txt")
    Path("run/health/health.json").rename("health.json")
    Path("run/health/health.json").symlink_to("../../health.json")
    Path("health.json").write_text(Path("health.json").read_text() + " ")
    before = Path("health.json").read_text()
    assert vqtok(*inspect)[0] == 0
    assert Path("precious.txt").read_text() == "mine" and Path("health.json").read_text() == before
    assert json.loads(Path("run/health/health.json").read_text())["num_images"] > 0


@pytest.mark.parametrize("name", ["examples.png", "health.json", "cat.jpg"])
@pytest.mark.parametrize("out", [["--out", "mine"], []])
def test_plots_do_not_go_among_files_of_the_user(
    name: str, out: list[str], vqtok: Command, tiny_tokenizer: VQTokenizer, images_folder: Path
) -> None:
    tiny_tokenizer.save_pretrained("run/model")
    Path("run/config.yaml").write_text(f"out: run\nsteps: 3\ncheckpoint_every: 3\ndataset: {images_folder}\n")
    folder = Path(out[1] if out else "run/health")
    folder.mkdir()
    inspect = ("inspect", "run", "--dataset", images_folder, *out)
    assert vqtok(*inspect)[0] == 0  # an empty folder
    assert vqtok(*inspect)[0] == 0  # and one of earlier plots
    for each in folder.iterdir():
        each.unlink()
    (folder / name).write_text('{"split": "mine"}')
    code, printed, complained = vqtok(*inspect)
    assert (code, printed) == (2, "") and [each.name for each in folder.iterdir()] == [name]
    assert complained == (
        f"vqtok: error: {folder} is not empty and holds no health.json of vqtok, so no plots are written there: "
        "choose another folder with --out\n"
    )
    assert (folder / name).read_text() == '{"split": "mine"}'


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("model", "--dataset", "images", "--split", "valid"), "has no split valid"),
        (("model", "--dataset", "nowhere"), "nowhere"),
        (("model", "--dataset", "images", "--num-images", "0"), "num_images must be at least 1, got 0"),
        (("model", "--dataset", "images", "--device", "warp"), "there is no device 'warp' here"),
        (("model", "--dataset", "images", "--device", "meta"), "there is no device 'meta' here"),
        (("model", "--dataset", "images", "--device", "privateuseone"), "there is no device 'privateuseone' here"),
        (("model", "--dataset", "images", "--device", ""), "device is empty: give a value"),
        (("model", "--out", "drawn"), "name the images with --dataset"),
        (("model", "--split", "bogus", "--num-images", "-7"), "--split, --num-images are for the check of a codebook"),
        (("model", "--batch-size", "1"), "--batch-size is for the check of a codebook on images"),
        (("model", "--device", "bogus"), "--device is for the check of a codebook on images"),
        (("model", "--dataset-config", "bogus"), "--dataset-config is for the check of a codebook on images"),
        (("model", "--revision", "v1"), "model is a folder, which has no revision 'v1'"),
        (("run", "--dataset", "images"), "run is a run without a finished tokenizer"),
        (("codes", "--dataset", "images"), "codes is codes: name a tokenizer"),
    ],
)
def test_what_has_no_codebook_or_no_images_is_one_line(
    arguments: tuple[str, ...],
    message: str,
    vqtok: Command,
    tiny_tokenizer: VQTokenizer,
    images_folder: Path,
) -> None:
    tiny_tokenizer.save_pretrained("model")
    Path("run").mkdir()
    Path("run/config.yaml").write_text("out: run\nsteps: 3\ncheckpoint_every: 3\n")
    if arguments[0] == "codes":
        assert vqtok("tokenize", "images", "--tokenizer", "model", "--out", "codes")[0] == 0
    status, printed, complained = vqtok("inspect", *arguments)
    errors = [line for line in complained.splitlines() if line.startswith("vqtok: error: ")]
    assert status == 2 and len(errors) == 1 and message in errors[0] and "Traceback" not in complained
    assert printed == "" and not Path("drawn").exists() and not Path("health").exists()


EVIL = "\x1b]0;owned\x07\x1b[31m\u202e\x9b2J\r\n"


def only_text(printed: str) -> bool:
    return all(character.isprintable() or character == "\n" for character in printed)


def test_escape_sequences_from_files_are_shown_and_not_sent_to_the_terminal(
    vqtok: Command, tiny_tokenizer: VQTokenizer, images_folder: Path, tmp_path: Path
) -> None:
    binding = PriorBinding(fingerprint=EVIL, grid=(2, 2), codebook_size=8, label_names=(EVIL, "dog"), tokenizer=EVIL)
    build_prior(binding, {"type": "pixelcnn", "hidden_size": 8, "num_layers": 1}).save_pretrained("prior")
    status, printed, _ = vqtok("inspect", "prior")
    assert status == 0 and only_text(printed) and r"\x1b]0;owned\x07" in printed and r"\u202e" in printed

    tiny_tokenizer.save_pretrained("run/model")
    metrics = {"dataset": EVIL, "split": EVIL, "num_images": 3, "mse": 0.5}
    Path("run/model/metrics.json").write_text(json.dumps(metrics))
    Path("run/config.yaml").write_text(f"out: run\nsteps: 3\ncheckpoint_every: 3\ndataset: {json.dumps(EVIL)}\n")
    Path("run/metrics.jsonl").write_text(json.dumps({"step": 1, "split": "note", "note": EVIL}) + "\n")
    (tmp_path / "run" / f"evil{EVIL}.txt").write_text("")
    for folder in ("run", "run/model"):
        status, printed, complained = vqtok("inspect", folder)
        assert status == 0 and only_text(printed + complained) and "owned" in printed

    Path("run/model/config.json").write_text(json.dumps({"model_type": EVIL}))
    for command in (
        ("inspect", "run/model"),
        ("push", "run", "org/x"),
        ("sample", "--prior", "run"),
        ("inspect", EVIL),
    ):
        status, printed, complained = vqtok(*command)
        assert status == 2 and only_text(printed + complained) and complained.count("\n") == 1


def latents_of(tokenizer: VQTokenizer, images: Path) -> torch.Tensor:
    """Latents of all positions of all images, (N, D)."""
    pixels = tokenizer.image_processor(sorted(images.rglob("*.png")))["pixel_values"]
    with torch.no_grad():
        return tokenizer.encoder(pixels).permute(0, 2, 3, 1).flatten(0, 2)


def save_with_codebook(tokenizer: VQTokenizer, codebook: torch.Tensor, run: Path, images: Path) -> None:
    """A run folder whose log says that all codes were in use at the end of training."""
    tokenizer.quantizer.codebook.copy_(codebook)
    tokenizer.save_pretrained(run / "model")
    settings = {"out": str(run), "steps": 3, "checkpoint_every": 3, "dataset": str(images), "quantizer": "vq"}
    (run / "config.yaml").write_text(json.dumps(settings))
    rows = [{"step": 2, "split": "train", "usage": 0.9}, {"step": 3, "split": "train", "usage": 0.95}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_a_healthy_codebook_is_said_to_be_healthy(
    vqtok: Command, tiny_tokenizer: VQTokenizer, images_folder: Path
) -> None:
    latents = latents_of(tiny_tokenizer, images_folder)
    save_with_codebook(tiny_tokenizer, latents[:: len(latents) // 16][:16], Path("run"), images_folder)
    status, printed, _ = vqtok("inspect", "run", "--dataset", images_folder, "--split", "train")
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert status == 0 and "verdict: healthy" in lines and not any(line.startswith("try:") for line in lines)
    assert "use in training, over its last images 95.0%" in lines
    assert "use on these images, split train 93.8%" in lines  # one of the twelve images is held out


def test_a_collapsed_codebook_is_told_with_what_to_try(
    vqtok: Command, tiny_tokenizer: VQTokenizer, images_folder: Path
) -> None:
    codebook = latents_of(tiny_tokenizer, images_folder).mean(dim=0) + 100 * torch.arange(16.0)[:, None]
    codebook[1] = codebook[0]
    save_with_codebook(tiny_tokenizer, codebook, Path("run"), images_folder)
    status, printed, _ = vqtok("inspect", "run", "--dataset", images_folder)
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    (verdict,) = [line for line in lines if line.startswith("verdict: ")]
    assert status == 0 and verdict.startswith("verdict: 1 of 16 codes in use (6.2%)")
    assert verdict.endswith("; 1 code in use lies on top of another code")
    assert "use in training, over its last images 95.0%" in lines and "use on these images, split test 6.2%" in lines
    (advice,) = [line for line in lines if line.startswith("try: ")]
    assert "--set learning_rate=" in advice and "--set quantizer.codebook_size=" in advice


def test_json_is_one_object_and_nothing_else(vqtok: Command, tiny_tokenizer: VQTokenizer, images_folder: Path) -> None:
    codebook = latents_of(tiny_tokenizer, images_folder).mean(dim=0) + 100 * torch.arange(16.0)[:, None]
    save_with_codebook(tiny_tokenizer, codebook, Path("run"), images_folder)
    status, printed, _ = vqtok("inspect", "run/model", "--json")
    found = json.loads(printed)
    assert status == 0 and found["kind"] == "tokenizer" and found["facts"]["grid"] == "4 x 4, 16 codes per image"
    status, printed, complained = vqtok("inspect", "run", "--dataset", images_folder, "--json")
    found = json.loads(printed)
    assert status == 0 and printed.count("\n") == 1 and "plots written to run/health" in complained
    health = found["health"]
    assert (health["codes_in_use"], health["training_usage"], health["split"]) == (1, 0.95, "test")
    assert health["verdict"]["healthy"] is False and "learning_rate=" in " ".join(health["verdict"]["remedies"])
    assert json.loads(Path("run/health/health.json").read_text())["codes_in_use"] == 1


def test_json_has_null_for_what_is_not_defined(
    vqtok: Command, tiny_tokenizer: VQTokenizer, images_folder: Path
) -> None:
    save_with_codebook(tiny_tokenizer, tiny_tokenizer.quantizer.codebook.clone(), Path("run"), images_folder)
    Path("run/metrics.jsonl").write_text('{"step": 2, "split": "train", "usage": NaN}\n')
    status, printed, _ = vqtok("inspect", "run", "--dataset", images_folder, "--json")
    assert status == 0 and "NaN" not in printed and json.loads(printed)["health"]["training_usage"] is None


def test_of_several_processes_the_first_one_prints(
    vqtok: Command, tiny_tokenizer: VQTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_tokenizer.save_pretrained("model")
    monkeypatch.setenv("RANK", "1")
    assert vqtok("inspect", "model") == (0, "", "")
    assert "nothing" in vqtok("inspect", "nothing")[2]  # but every error is told
    monkeypatch.setenv("RANK", "0")
    assert "tokenizer" in vqtok("inspect", "model")[1]
