"""`--overwrite` and `--resume` in a folder that somebody changed: what is replaced, and what stays."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from datasets import load_from_disk
from PIL import Image
from safetensors.torch import load_file

from tests.cli.conftest import Command
from tests.cli.tiny import TINY
from vqtok import folders
from vqtok.codes import load_codes
from vqtok.errors import ConfigurationError, DataError
from vqtok.store import Store
from vqtok.tokenizer import VQTokenizer
from vqtok.training import loop


def test_a_run_is_replaced_where_that_was_asked_for(vqtok: Command, images_folder: Path) -> None:
    run = Path("runs/images")
    assert vqtok("train", "--dataset", "images", *TINY, "--seed=1")[0] == 0
    code, _, said = vqtok("train", "--dataset", "images", *TINY)
    assert code == 2 and "is not empty: go on with --resume, replace it with --overwrite, or choose another" in said
    (run / "notes.txt").write_text("mine")
    assert vqtok("train", "--dataset", "images", *TINY, "--overwrite", "--steps=2")[0] == 0
    assert [path.name for path in sorted((run / "checkpoints").iterdir())] == ["step-000002"]
    assert [json.loads(row)["step"] for row in (run / "metrics.jsonl").read_text().splitlines()] == [2, 2]
    assert (run / "notes.txt").read_text() == "mine"
    assert vqtok("train", "--dataset", "images", "--out", "fresh", *TINY, "--overwrite", "--steps=2")[0] == 0
    one, other = (load_file(folder / "model/model.safetensors") for folder in (run, Path("fresh")))
    assert all((one[name] == other[name]).all() for name in one)
    code, _, said = vqtok("train", "--resume", "--overwrite", "--out", "fresh")
    assert code == 2 and "--resume goes on with a run and --overwrite replaces it: pass one of them" in said


def test_a_run_goes_on_with_its_own_settings_however_it_is_named(vqtok: Command, images_folder: Path) -> None:
    for out, extra in (("a", "--codebook-size=8"), ("b", "--codebook-size=16")):
        assert vqtok("train", "--dataset", "images", "--out", out, *TINY, extra)[0] == 0
    assert vqtok("train", "--resume", "--out", "a", "--set", "out=b", "--steps=5")[0] == 0
    Path("c.yaml").write_text("out: b\nsteps: 6\n")
    assert vqtok("train", "--resume", "--config", "c.yaml")[0] == 0
    saved = yaml.safe_load(Path("b/config.yaml").read_text())
    assert (saved["out"], saved["steps"], saved["quantizer"]["codebook_size"]) == ("b", 6, 16)
    assert vqtok("train", "--resume", "--config", "c.yaml", "--out", "a")[0] == 0
    saved = yaml.safe_load(Path("a/config.yaml").read_text())
    assert (saved["out"], saved["steps"], saved["quantizer"]["codebook_size"]) == ("a", 6, 8)


def test_a_prior_goes_on_in_the_run_that_a_file_names(
    vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer
) -> None:
    tiny_tokenizer.save_pretrained("tok")
    assert vqtok("tokenize", "images", "--tokenizer", "tok", "--out", "codes")[0] == 0
    quick = ("--steps=1", "--batch-size=4", "--num-layers=1")
    for out, seed in (("runs/prior", 1), ("mine", 2)):
        assert vqtok("train-prior", "codes", "--out", out, *quick, "--hidden-size=8", f"--seed={seed}")[0] == 0
    Path("c.yaml").write_text("out: mine\nsteps: 2\n")
    assert vqtok("train-prior", "--resume", "--config", "c.yaml")[0] == 0
    prior, mine = (yaml.safe_load(Path(out, "config.yaml").read_text()) for out in ("runs/prior", "mine"))
    assert (prior["seed"], prior["steps"], mine["seed"], mine["steps"]) == (1, 1, 2, 2)


def test_links_in_a_run_that_is_replaced_are_removed_and_what_they_lead_to_stays(
    vqtok: Command, images_folder: Path
) -> None:
    """Folders of a run may have been moved to a larger disk, and they may be those of another run."""
    train = ("train", "--dataset", "images", *TINY, "--set=checkpoint_every=1", "--out", "run")
    assert vqtok(*train, "--seed=1")[0] == 0
    for name in ("checkpoints", "samples", "model"):
        Path("run", name).rename(f"disk-{name}")
        Path("run", name).symlink_to(f"../disk-{name}")
    before = sorted(Path().glob("disk-*/**/*"))
    assert vqtok(*train, "--overwrite", "--steps=2")[0] == 0
    assert sorted(Path().glob("disk-*/**/*")) == before
    assert sorted(os.listdir("run/checkpoints")) == ["step-000001", "step-000002"]
    code, said, _ = vqtok("train", "--resume", "--out", "run", "--steps=4")
    assert code == 0 and "at step 4 already" not in said


def test_a_run_that_cannot_be_removed_is_not_replaced(
    vqtok: Command, images_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ("train", "--dataset", "images", *TINY, "--out", "run")
    assert vqtok(*train)[0] == 0

    def denied(path: Path, *, ignore_errors: bool = False) -> None:
        if not ignore_errors:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr("shutil.rmtree", denied)
    code, _, said = vqtok(*train, "--overwrite", "--steps=2")
    assert (code, said.splitlines()[-1]) == (
        2,
        "vqtok: error: cannot write run/model: Permission denied; choose another folder",
    )
    assert sorted(os.listdir("run/checkpoints")) == ["step-000002", "step-000004"]


def test_a_checkpoint_that_was_moved_away_is_forgotten_and_stays_there(vqtok: Command, images_folder: Path) -> None:
    assert vqtok("train", "--dataset", "images", *TINY, "--out", "run", "--set=keep_checkpoints=1")[0] == 0
    Path("run/checkpoints/step-000004").rename("elsewhere")
    Path("run/checkpoints/step-000004").symlink_to("../../elsewhere")
    assert vqtok("train", "--resume", "--out", "run", "--steps=5")[0] == 0
    assert os.listdir("run/checkpoints") == ["step-000005"]
    assert Path("elsewhere/state.json").is_file()


def test_a_link_among_the_samples_is_replaced_and_what_it_leads_to_stays(vqtok: Command, images_folder: Path) -> None:
    """A run folder may have come from elsewhere."""
    assert vqtok("train", "--dataset", "images", *TINY, "--out", "run")[0] == 0
    Path("precious.txt").write_text("mine")
    Path("run/samples/step-000005.png").symlink_to("../../precious.txt")
    assert vqtok("train", "--resume", "--out", "run", "--steps=5")[0] == 0
    assert Path("precious.txt").read_text() == "mine"
    with Image.open("run/samples/step-000005.png") as image:
        assert image.format == "PNG"


@pytest.mark.parametrize("config", [None, "model: resnet\nsteps: 3\n", "- 1\n", "{"])
def test_what_is_no_run_is_never_replaced(vqtok: Command, images_folder: Path, config: str | None) -> None:
    Path("project/model").mkdir(parents=True)
    if config is not None:
        Path("project/config.yaml").write_text(config)
    code, _, said = vqtok("train", "--dataset", "images", "--out", "project", *TINY, "--overwrite")
    assert code == 2 and "project is not empty and holds no run, so it will not be overwritten: choose another" in said
    assert Path("project/model").is_dir()


def test_a_folder_that_holds_the_configuration_of_a_run_is_not_yet_a_run(vqtok: Command, images_folder: Path) -> None:
    assert vqtok("train", "--dataset", "images", *TINY, "--out", "run")[0] == 0
    Path("project").mkdir()
    shutil.copy("run/config.yaml", "project")
    mine = [Path("project", name) for name in ("model/thesis.txt", "samples/photo.txt", "health/patients.csv")]
    for path in mine:
        path.parent.mkdir()
        path.write_text("mine")
    train = ("train", "--config", "project/config.yaml", "--dataset", "images", "--out", "project", "--overwrite")
    for metrics in (None, "loss,step\n"):
        if metrics:
            Path("project/metrics.jsonl").write_text(metrics)
        code, _, said = vqtok(*train)
        assert code == 2 and "project is not empty and holds no run, so it will not be overwritten" in said
    shutil.copy("run/metrics.jsonl", "project")
    code, _, said = vqtok(*train)
    assert code == 2 and said == (
        "vqtok: error: project holds model/thesis.txt, samples/photo.txt, which vqtok did not write, so it will not be "
        "overwritten: move that elsewhere, or choose another folder\n"
    )
    assert [path.read_text() for path in mine] == ["mine"] * 3
    for path in mine[:2]:
        path.unlink()
    assert vqtok(*train)[0] == 0
    assert mine[2].read_text() == "mine"


def test_a_run_with_files_of_the_user_in_its_folders_is_not_replaced(
    vqtok: Command, images_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = ("train", "--dataset", "images", *TINY, "--out", "run")
    assert vqtok(*train)[0] == 0
    assert vqtok("evaluate", "--tokenizer", "run/model", "--split=train", "--num-images=2")[0] == 0
    assert vqtok("inspect", "run", "--dataset", "images", "--num-images=2")[0] == 0
    for name in (
        *(
            "samples/mine.txt",
            "samples/2026/step-000001.png",
            "model/notes.md",
            "model/README.md",
            "health/patients.csv",
        ),
        *("checkpoints/step-000004/notes.txt", "checkpoints/step-000004-best/model.safetensors"),
        *("checkpoints/step-000004/best.pt", "checkpoints/step-000004/notes.json", "checkpoints/step-4/state.json"),
        *("model/metrics.mine.json", "model/model-best.safetensors", "samples/step-1.png"),
    ):
        mine = Path("run", name)
        mine.parent.mkdir(exist_ok=True)
        mine.write_text("mine")
        code, _, said = vqtok(*train, "--overwrite")
        assert code == 2 and f"run holds {name}, which vqtok did not write" in said
        assert mine.read_text() == "mine" and Path("run/model/model.safetensors").is_file()
        mine.unlink()
    shutil.rmtree("run/samples")
    Path("run/samples").write_text("mine")
    assert "run holds samples, which vqtok did not write" in vqtok(*train, "--overwrite")[2]
    Path("run/samples").unlink()
    for cut_off in ("checkpoints/.step-000002.partial/.tmp", "checkpoints/.step-000002.old/state.json"):
        Path("run", cut_off).parent.mkdir()
        Path("run", cut_off).touch()

    def all_but_the_numbers(path: Path) -> None:
        if path.name == "health.json":
            raise ConfigurationError("cut off")
        path.unlink()

    with monkeypatch.context() as patch:
        patch.setattr(folders, "remove", all_but_the_numbers)
        assert "cut off" in vqtok(*train, "--overwrite")[2]
    assert sorted(os.listdir("run/health")) == ["health.json"]
    assert vqtok(*train, "--overwrite")[0] == 0
    assert sorted(os.listdir("run")) == [
        "checkpoints",
        "config.yaml",
        "images.json",
        "metrics.jsonl",
        "model",
        "samples",
    ]


def test_what_the_user_put_beside_a_model_is_there_when_the_run_went_on(vqtok: Command, images_folder: Path) -> None:
    assert vqtok("train", "--dataset", "images", *TINY, "--out", "run")[0] == 0
    assert vqtok("evaluate", "--tokenizer", "run/model")[0] == 0
    Path("run/model/README.md").write_text("mine")
    assert vqtok("train", "--resume", "--out", "run", "--steps=5")[0] == 0
    assert Path("run/model/README.md").read_text() == "mine"
    assert not Path("run/model/metrics.json").exists()  # of the model before


def test_a_run_that_ended_before_its_first_step_is_replaced(
    vqtok: Command, images_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise ConfigurationError("no network")

    train = ("train", "--dataset", "images", *TINY, "--out", "run")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "start_tracker", refuse)
        assert "no network" in vqtok(*train)[2]
    assert vqtok(*train, "--overwrite")[0] == 0
    for path in Path("run").iterdir():  # killed when all but the configuration was removed
        if path.name != "config.yaml":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    Path("run/.owner.txt").write_text("process 7 on a-machine\n")
    assert vqtok(*train, "--overwrite")[0] == 0


def plus_one(row: dict[str, Any]) -> dict[str, Any]:
    return {"one": 1}


def test_a_codes_folder_with_files_of_the_user_is_not_replaced(
    vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer
) -> None:
    tiny_tokenizer.save_pretrained("tok")
    tokenize = ("tokenize", "images", "--tokenizer", "tok", "--out", "codes")
    assert vqtok(*tokenize)[0] == 0
    for processes in (None, 2):
        load_from_disk("codes").map(plus_one, num_proc=processes)  # leaves files of its cache there
    of_nobody = [Path("codes", name) for name in (".DS_Store", "train/._a")]
    unfinished = Path("codes/train/.vqtok-1a2b3c4d.tmp.arrow")
    for path in (*of_nobody, unfinished):
        path.touch()
    assert vqtok(*tokenize, "--overwrite")[0] == 0
    assert not unfinished.exists()
    for path in of_nobody:  # in nobody's way
        path.unlink()
    dated = (".20260115/thesis.txt", ".20260116.txt", ".1a2b3c4d.json")
    hidden = (
        ".notes.old",
        ".photos.old/a.png",
        ".vqtok-notes",
        "._mine/a.png",
        ".model.old/a",
        ".DS_Store/a.png",
        "train/.nfs0/a.png",
    )
    like_ours = ("train/data-mine.arrow", "train/cache-of-mine.arrow", "data/train-1-of-2.parquet")
    for name in ("notes.txt", "photos/a.png", "train/b.json", *like_ours, *dated, *hidden):
        mine = Path("codes", name)
        mine.parent.mkdir(parents=True, exist_ok=True)
        mine.write_text("mine")
        code, _, said = vqtok(*tokenize, "--overwrite")
        assert code == 2 and mine.read_text() == "mine" and Path("codes/codes.json").is_file()
        assert said == (
            f"vqtok: error: codes holds {name}, which vqtok did not write, so it will not be overwritten: "
            "move that elsewhere, or choose another folder\n"
        )
        mine.unlink()
    Path("mine.txt").touch()
    Path("codes/link").symlink_to("../mine.txt")
    assert "codes holds link, which vqtok did not write" in vqtok(*tokenize, "--overwrite")[2]


def test_datasets_that_the_user_saved_in_a_codes_folder_stay(
    vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer
) -> None:
    tiny_tokenizer.save_pretrained("tok")
    for split in ("train", "test"):
        shutil.copytree("images", f"splits/{split}")
    tokenize = ("--tokenizer", "tok", "--out", "codes", "--overwrite")
    for images, mine in (("images", "my-selection"), ("splits", "my-selection"), ("splits", "work/2026")):
        assert vqtok("tokenize", images, *tokenize)[0] == 0
        codes = load_from_disk("codes")
        codes.map(lambda row: row)  # leaves files of its cache there
        codes.save_to_disk(f"codes/{mine}")
        kept = sorted(Path("codes", mine).rglob("*"))
        code, _, said = vqtok("tokenize", images, *tokenize)
        assert code == 2 and f"codes holds {mine}/" in said and "which vqtok did not write" in said
        assert sorted(Path("codes", mine).rglob("*")) == kept
        shutil.rmtree(Path("codes", mine))


@pytest.mark.parametrize("removed", [0, 8, -3, -2, -1])
def test_codes_are_replaced_wherever_the_removal_of_the_old_ones_was_cut_off(
    vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer, monkeypatch: pytest.MonkeyPatch, removed: int
) -> None:
    tiny_tokenizer.save_pretrained("tok")
    for split in ("train", "test"):
        shutil.copytree("images", f"splits/{split}")
    tokenize = ("tokenize", "splits", "--tokenizer", "tok", "--out", "codes")
    assert vqtok(*tokenize, "--shard-rows", "5")[0] == 0
    number = sum(path.is_file() for path in Path("codes").rglob("*"))
    remove, left = Store.remove, [removed % number]

    def cut_off(self: Store, name: str) -> None:
        if not left[0]:
            raise DataError("cut off")
        left[0] -= 1
        remove(self, name)

    with monkeypatch.context() as patch:
        patch.setattr(Store, "remove", cut_off)
        assert "cut off" in vqtok(*tokenize, "--overwrite")[2]
    with pytest.raises(DataError, match="not finished" if removed != -1 else "holds a codes.json and no codes"):
        load_codes("codes")
    code, _, said = vqtok(*tokenize, "--overwrite")
    assert code == 0, said
    assert sorted(os.listdir("codes")) == [
        *("README.md", "bad_images.parquet", "codes.json", "dataset_dict.json", "plan", "plan.json", "receipts"),
        *("test", "train"),
    ]
    assert sorted(os.listdir("codes/receipts/train")) == ["00000.json"]


@pytest.mark.parametrize("damage", ["{", "{}", None], ids=["damaged", "no plan", "edited"])
def test_a_plan_that_somebody_changed_is_refused_and_may_be_replaced(
    vqtok: Command, images_folder: Path, tiny_tokenizer: VQTokenizer, damage: str | None
) -> None:
    tiny_tokenizer.save_pretrained("tok")
    tokenize = ("tokenize", "images", "--tokenizer", "tok", "--out", "codes")
    assert vqtok(*tokenize)[0] == 0
    plan = Path("codes/plan.json")
    plan.write_text(damage or plan.read_text().replace('"rows": 12', '"rows": 11'))
    code, _, said = vqtok(*tokenize)
    assert code == 2 and said.startswith("vqtok: error: codes/plan.json ") and said.count("\n") == 1
    assert len(load_codes("codes")) == 12
    assert vqtok(*tokenize, "--overwrite")[0] == 0
    assert len(load_codes("codes")) == 12
