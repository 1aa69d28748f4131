"""What the commands say of a dataset before they work: its size, its configurations, what is private."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import numpy as np
import pytest
from datasets import Dataset, Features
from PIL import Image

from tests.cli.conftest import Command

QUICK = ["--steps", "1", "--batch-size", "2", "--hidden-size", "8", "--codebook-size", "8", "--code-dim", "4"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def photos(folder: Path, *sizes: tuple[int, int]) -> str:
    """Grey JPEGs of (width, height)."""
    folder.mkdir()
    for number, (width, height) in enumerate(sizes):
        noise = np.random.default_rng(number).integers(0, 256, (height, width), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{number}.jpg")
    return str(folder)


def test_large_photos_of_one_size_need_a_chosen_size(vqtok: Command, tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", *[(400, 300)] * 4)
    code, _, said = vqtok("train", "--dataset", folder, "--out", "run", *QUICK)
    assert code == 2 and not (tmp_path / "run").exists()
    assert "are 300 x 400 pixels (height x width); above 256 a size must be chosen: image_size 256" in said
    code, printed, _ = vqtok("train", "--dataset", folder, "--out", "run", "--image-size", "16", *QUICK)
    assert code == 0 and "tokenizer written to run/model" in printed


def test_the_size_that_mixed_photos_get_is_said_before_training(vqtok: Command, tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", *[(30, 40), (20, 50), (60, 70)] * 3)
    code, printed, said = vqtok("train", "--dataset", folder, "--out", "run", *QUICK)
    assert code == 0
    text = printed + said
    assert "the images differ in size (50 x 20 to 70 x 60 pixels" in text and "is resized to 16 x 16" in text
    assert text.index("differ in size") < text.index("tokenizer written to")


def test_a_size_cut_to_the_downsample_factor_is_said(vqtok: Command, tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", *[(18, 16)] * 4)
    code, printed, said = vqtok("train", "--dataset", folder, "--out", "run", *QUICK)
    assert code == 0 and "the images are 16 x 18 pixels (height x width) and are cropped to 16 x 16" in printed + said


@pytest.fixture
def two_configurations(tmp_path: Path) -> str:
    for name, count in (("small", 4), ("large", 6)):
        (tmp_path / "set" / name).mkdir(parents=True)
        images = [Image.new("L", (16, 16), level * 9) for level in range(count)]
        rows = Dataset.from_dict({"image": images}, features=Features({"image": datasets.Image()}))
        for split in ("train", "test"):
            rows.to_parquet(tmp_path / "set" / name / f"{split}.parquet")
    configs = "".join(
        f"- config_name: {name}\n  data_files:\n  - split: train\n    path: {name}/train.parquet\n"
        f"  - split: test\n    path: {name}/test.parquet\n"
        for name in ("small", "large")
    )
    (tmp_path / "set" / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    return str(tmp_path / "set")


def test_every_command_that_reads_images_takes_a_configuration(
    vqtok: Command, two_configurations: str, tmp_path: Path
) -> None:
    code, _, said = vqtok("train", "--dataset", two_configurations, "--out", "run", *QUICK)
    assert code == 2 and "has several configurations: small, large; set dataset_config to one of them" in said
    chosen = ["--dataset-config", "large"]
    assert vqtok("train", "--dataset", two_configurations, "--out", "run", *chosen, *QUICK)[0] == 0
    assert vqtok("evaluate", "--tokenizer", "run/model", "--out", "m.json")[0] == 0  # as the run says
    assert json.loads((tmp_path / "m.json").read_text())["num_images"] == 6
    of_small = ["--dataset", two_configurations, "--dataset-config", "small"]
    assert vqtok("evaluate", "--tokenizer", "run/model", "--out", "m.json", *of_small)[0] == 0
    assert json.loads((tmp_path / "m.json").read_text())["num_images"] == 4
    code, printed, _ = vqtok("inspect", "run/model", "--out", "drawn", *of_small)
    assert code == 0 and "on 4 images" in printed
    code, printed, _ = vqtok(
        "tokenize", two_configurations, "--tokenizer", "run/model", "--out", "codes", "--dataset-config", "small"
    )
    assert code == 0 and "codes of 8 images" in printed


def test_a_private_file_that_a_table_names_is_not_tokenized(
    vqtok: Command, tmp_path: Path, two_configurations: str
) -> None:
    vqtok("train", "--dataset", two_configurations, "--dataset-config", "large", "--out", "run", *QUICK)
    Image.new("L", (16, 16), 99).save(tmp_path / "private.png")
    (tmp_path / "rows").mkdir()
    Image.new("L", (16, 16), 5).save(tmp_path / "rows" / "a.png")
    (tmp_path / "rows" / "rows.csv").write_text(f"image\na.png\n{tmp_path}/private.png\n")
    code, printed, said = vqtok(
        *("tokenize", tmp_path / "rows" / "rows.csv", "--tokenizer", "run/model", "--max-bad-share", "0.5")
    )
    assert code == 0 and "codes of 1 image" in printed
    assert "1 of 2 images could not be read" in printed + said


def test_the_home_of_a_user_that_does_not_exist_is_refused(vqtok: Command, tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos", *[(16, 16)] * 4)
    assert vqtok("train", "--dataset", folder, "--out", "run", *QUICK)[0] == 0
    of_nobody = "~nobody-of-this-name/photos"
    refused = f"there is no folder or file {of_nobody}, and it is neither built in"
    for command in (
        ("train", "--dataset", of_nobody, "--out", "other"),
        ("tokenize", of_nobody, "--tokenizer", "run/model"),
        ("evaluate", "--tokenizer", "run/model", "--dataset", of_nobody),
    ):
        code, _, said = vqtok(*command)
        assert code == 2 and refused in said and said.count("\n") == 1
    config = (tmp_path / "run" / "config.yaml").read_text()
    (tmp_path / "run" / "config.yaml").write_text(config.replace(folder, of_nobody))
    code, _, said = vqtok("evaluate", "--tokenizer", "run/model")
    assert code == 2 and refused in said


def test_a_damaged_table_is_one_line_on_stderr(
    vqtok: Command, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.parquet").touch()
    code, _, said = vqtok("train", "--dataset", "a.parquet", "--out", "run", *QUICK)
    assert code == 2 and said == "vqtok: error: a.parquet cannot be loaded: Parquet file size is 0 bytes\n"
    assert not caplog.records  # `datasets` would print them
