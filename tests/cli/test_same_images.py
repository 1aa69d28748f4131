"""evaluate and inspect measure on the images that a run held out, however and from wherever its dataset is named."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import datasets
import pytest
import yaml

from tests.cli.conftest import Command
from tests.cli.tiny import TINY


@pytest.fixture
def held_out(vqtok: Command, images_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Trains on the folder `images` with seed 5; gives the digest of the pixels that were held out."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    chosen = ["--seed=5", "--set=test_share=0.34", "--image-column=image"]
    assert vqtok("train", "--dataset", "images", "--out", "run", *TINY, *chosen)[0] == 0
    return digest(vqtok)


def digest(vqtok: Command, *arguments: object) -> str:
    code, printed, complained = vqtok("evaluate", "--tokenizer", "run", "--json", *arguments)
    assert code == 0, complained
    found = json.loads(printed)
    assert (found["num_images"], found["seed"], found["test_share"]) == (4, 5, 0.34)
    return str(found["pixels_sha256"])


@pytest.mark.parametrize("name", ["images", "./images", "images/", "{here}/images", "link", "../{folder}/images"])
def test_another_spelling_of_the_dataset_is_the_same_dataset(
    vqtok: Command, held_out: str, tmp_path: Path, name: str
) -> None:
    Path("link").symlink_to("images")
    dataset = name.format(here=tmp_path, folder=tmp_path.name)
    assert digest(vqtok, "--dataset", dataset) == held_out
    code, _, complained = vqtok("inspect", "run", "--dataset", dataset, "--json", "--out", "drawn")
    assert code == 0 and "4 of the 12" in complained and "seed 5" in complained


def test_another_folder_of_the_same_name_is_not_what_it_was_trained_on(
    vqtok: Command, held_out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for each in sorted(Path("images").rglob("*.png"))[:6]:
        (tmp_path / "elsewhere" / each.parent).mkdir(parents=True, exist_ok=True)
        shutil.copy(each, tmp_path / "elsewhere" / each)
    monkeypatch.chdir(tmp_path / "elsewhere")
    code, printed, _ = vqtok("evaluate", "--tokenizer", tmp_path / "run", "--json")
    assert code == 0 and json.loads(printed)["pixels_sha256"] == held_out
    assert "/" not in json.loads(printed)["dataset"] + json.loads(printed)["dataset_resolved"]
    code, printed, _ = vqtok("evaluate", "--tokenizer", tmp_path / "run", "--dataset", "images", "--json")
    assert code == 0 and (json.loads(printed)["seed"], json.loads(printed)["num_images"]) == (0, 1)
    monkeypatch.chdir(tmp_path)
    Path("images").rename("moved")
    code, _, complained = vqtok("evaluate", "--tokenizer", "run")
    assert code == 2 and f"{tmp_path}/images, are no longer there: name them with --dataset" in complained
    code, printed, _ = vqtok("evaluate", "--tokenizer", "run", "--dataset", "moved", "--json")
    assert code == 0 and json.loads(printed)["pixels_sha256"] == held_out
    code, _, complained = vqtok("train", "--resume", "--out", "run")
    assert code == 2 and f"{tmp_path}/images, are no longer there: say with --dataset where" in complained
    code, _, complained = vqtok("train", "--resume", "--out", "run", "--dataset", "moved")
    assert code == 0, complained


def test_a_run_goes_on_with_its_dataset_spelled_as_before(vqtok: Command, held_out: str, tmp_path: Path) -> None:
    for dataset in ("images", "./images/"):
        code, _, complained = vqtok("train", "--resume", "--out", "run", "--dataset", dataset)
        assert code == 0, complained
    code, _, complained = vqtok("train", "--resume", "--out", "run", "--dataset", "mnist-mini")
    assert code == 2 and "cannot become 'mnist-mini' on resuming" in complained
    assert yaml.safe_load(Path("run/config.yaml").read_text())["dataset"] == f"{tmp_path}/images"


def test_a_run_does_not_go_on_with_another_number_of_images(vqtok: Command, held_out: str, tmp_path: Path) -> None:
    shutil.copytree("images", "others")
    Path("others/cat/00.png").unlink()
    Path("images").rename("moved")
    before = Path("run/config.yaml").read_text()
    code, _, complained = vqtok("train", "--resume", "--out", "run", "--dataset", "others", "--steps=5")
    assert code == 2 and Path("run/config.yaml").read_text() == before
    assert (
        "vqtok: error: others has training images 7, and the run began with 8: resume it with the images "
        "it began with, or start a new run\n" in complained
    )
    code, _, complained = vqtok("train", "--resume", "--out", "run", "--dataset", "moved", "--steps=5")
    assert code == 0, complained


def test_images_that_came_since_are_said_to_change_what_is_held_out(vqtok: Command, held_out: str) -> None:
    """A share by the same seed is then another, of images that were trained on."""
    changed = "since the tokenizer was trained, so it may have been trained on some of those held out here"
    for arguments in (("evaluate", "--tokenizer", "run"), ("inspect", "run", "--dataset", "images", "--out", "drawn")):
        code, printed, complained = vqtok(*arguments)
        assert code == 0 and changed not in printed + complained
    shutil.copy("images/cat/00.png", "images/cat/zz.png")
    for arguments in (("evaluate", "--tokenizer", "run"), ("inspect", "run", "--dataset", "images", "--out", "drawn")):
        code, printed, complained = vqtok(*arguments)
        assert code == 0 and f"note: the images of train were 12 and are 13 {changed}\n" in printed + complained
    assert json.loads(Path("run/model/metrics.json").read_text())["notes"][-1].endswith(changed)
    for others in (("--split", "train"), ("--dataset", "mnist-mini"), ("--dataset", "images/dog")):
        code, printed, complained = vqtok("evaluate", "--tokenizer", "run", *others, "--num-images", "2")
        assert code == 0 and changed not in printed + complained


def test_images_that_moved_are_read_from_the_column_of_the_run(
    vqtok: Command, images_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    paths = [str(path) for path in sorted(images_folder.rglob("*.png"))]
    columns = datasets.Features({"photo": datasets.Image(), "mask": datasets.Image(), "kind": datasets.Value("int64")})
    rows = {"photo": paths, "mask": paths[::-1], "kind": [0, 1] * 6}
    datasets.Dataset.from_dict(rows, features=columns).to_parquet("two.parquet")
    chosen = ["--image-column=photo", "--label-column=kind", "--seed=5", "--set=test_share=0.34"]
    assert vqtok("train", "--dataset", "two.parquet", "--out", "run", *TINY, *chosen)[0] == 0
    photos = digest(vqtok)
    Path("two.parquet").rename("moved.parquet")
    assert digest(vqtok, "--dataset", "moved.parquet") == photos
    assert digest(vqtok, "--dataset", "moved.parquet", "--image-column", "mask") != photos
    for column in ([], ["--image-column", "mask"]):
        code, _, complained = vqtok("inspect", "run", "--dataset", "moved.parquet", *column, "--out", "health")
        assert code == 0, complained
    assert vqtok("evaluate", "--tokenizer", "run", "--dataset", "mnist-mini", "--num-images=4")[0] == 0  # other images
    Path("run/config.yaml").unlink()
    assert vqtok("inspect", "run/model", "--dataset", "moved.parquet")[0] == 2
    assert vqtok("inspect", "run/model", "--dataset", "moved.parquet", "--image-column", "photo")[0] == 0
    code, _, complained = vqtok("inspect", "run/model", "--image-column", "photo")
    assert code == 2 and "--image-column is for the check of a codebook on images" in complained
