"""Every kind of file that is said to be read is read, alone and in a folder; and datasets of several configurations."""

from __future__ import annotations

import gc
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset, DatasetDict, Features
from datasets.exceptions import DatasetNotFoundError

from tests.data.images import Builder, digits, labels_of, levels, png, save, write_tar
from vqtok.data import open_all, open_images, readers
from vqtok.errors import DataError, HubError


def write_rows(folder: Path, kind: str) -> Path:
    """Images of the levels 10, 20 and 30 with the labels 5, 9 and 5; where there are paths, images/ beside them."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"train.{kind}"
    paths = [f"images/{level}.png" for level in (10, 20, 30)]
    if kind in ("csv", "tsv", "json", "jsonl"):
        (folder / "images").mkdir()
        for level in (10, 20, 30):
            (folder / "images" / f"{level}.png").write_bytes(png(level))
    rows = [{"image": path, "label": label} for path, label in zip(paths, (5, 9, 5), strict=True)]
    if kind in ("csv", "tsv"):
        sep = "," if kind == "csv" else "\t"
        file.write_text(
            "".join(f"{a}{sep}{b}\n" for a, b in [("image", "label"), *((r["image"], r["label"]) for r in rows)])
        )
    elif kind == "json":
        file.write_text(json.dumps(rows))
    elif kind == "jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "tar":
        labels = zip((10, 20, 30), (b"5", b"9", b"5"), strict=True)
        write_tar(
            file, {k: v for level, label in labels for k, v in ((f"{level}.cls", label), (f"{level}.png", png(level)))}
        )
    else:
        dataset = Dataset.from_dict(
            {"image": [{"bytes": png(level), "path": None} for level in (10, 20, 30)], "label": [5, 9, 5]},
            features=Features({"image": datasets.Image(), "label": datasets.Value("int64")}),
        )
        if kind == "parquet":
            dataset.to_parquet(file)
        else:
            dataset.save_to_disk(folder / "saved")
            (folder / "saved" / "data-00000-of-00001.arrow").rename(file)
            for left in (folder / "saved").iterdir():
                left.unlink()
            (folder / "saved").rmdir()
    return file


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv", "tsv", "json", "jsonl", "tar"])
def test_every_kind_of_file_is_read_alone(tmp_path: Path, kind: str) -> None:
    file = write_rows(tmp_path / "set", kind)
    (source,) = open_all(str(file)).values()
    assert levels(source) == [10, 20, 30]
    assert labels_of(source) == [0, 1, 0] and source.label_names == ("5", "9")


@pytest.mark.parametrize("kind", ["parquet", "arrow", "csv", "tsv", "json", "jsonl", "tar"])
def test_every_kind_of_file_is_read_from_a_folder(tmp_path: Path, kind: str) -> None:
    file = write_rows(tmp_path / "set", kind)
    if (tmp_path / "set" / "images").exists():  # a folder with images in it is a folder of images
        (source,) = open_all(str(tmp_path / "set")).values()
        assert levels(source) == [10, 20, 30] and f"left out as no images by their names: {file.name}" in source.notes
        for image in (tmp_path / "set" / "images").iterdir():
            image.rename(image.with_suffix(""))
        text = file.read_text().replace(".png", "")
        file.write_text(text)
    (source,) = open_all(str(tmp_path / "set")).values()
    assert levels(source) == [10, 20, 30] and labels_of(source) == [0, 1, 0]


@pytest.mark.parametrize("kind", ["parquet", "arrow", "tar"])
def test_files_with_images_in_them_beside_images_are_refused(tmp_path: Path, kind: str) -> None:
    write_rows(tmp_path, kind)
    (tmp_path / "preview.png").write_bytes(png(1))
    with pytest.raises(
        DataError, match=rf"holds 1 image and 1 parquet, arrow or tar file \(train.{kind}, ...\); name a"
    ):
        open_all(str(tmp_path))


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")  # of pandas
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_a_folder_of_images_with_metadata_has_the_rows_and_columns_of_it(tmp_path: Path, kind: str) -> None:
    for level in (10, 20, 30):
        (tmp_path / f"{level}.png").write_bytes(png(level))
    rows = {"file_name": ["30.png", "10.png"], "label": [4, 2], "caption": ["a", "b"]}
    dataset = Dataset.from_dict(rows)
    metadata = tmp_path / f"metadata.{kind}"
    {"csv": dataset.to_csv, "jsonl": dataset.to_json, "parquet": dataset.to_parquet}[kind](metadata)
    (source,) = open_all(str(tmp_path)).values()
    gc.collect()  # so that the file which pandas leaves open is closed within this test
    assert levels(source) == [30, 10] and labels_of(source) == [1, 0]
    assert source.dataset["caption"][:] == ["a", "b"] and source.label_names == ("2", "4")


def test_metadata_without_file_names_is_an_ordinary_file(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(1))
    (tmp_path / "metadata.csv").write_text("a,b\n1,2\n")
    (source,) = open_all(str(tmp_path)).values()
    assert levels(source) == [1] and source.notes == ("left out as no images by their names: metadata.csv",)


def test_metadata_that_leads_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "private.png").write_bytes(png(1))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "2.png").write_bytes(png(2))
    (tmp_path / "set" / "metadata.jsonl").write_text('{"file_name": "../private.png"}\n')
    with pytest.raises(DataError, match="cannot be loaded: [^\n]*$"):
        open_all(str(tmp_path / "set"))


@pytest.fixture
def two_configurations(tmp_path: Path) -> Path:
    for name, level in (("small", 1), ("large", 2)):
        (tmp_path / "set" / name).mkdir(parents=True)
        images = {"image": [{"bytes": png(level), "path": None}] * 3}
        Dataset.from_dict(images, features=Features({"image": datasets.Image()})).to_parquet(
            tmp_path / "set" / name / "train.parquet"
        )
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in ("small", "large"))
    (tmp_path / "set" / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    return tmp_path / "set"


def test_several_configurations_are_listed_and_one_is_chosen(two_configurations: Path) -> None:
    name = str(two_configurations)
    with pytest.raises(DataError, match=f"^{name} has several configurations: small, large; set dataset_config to"):
        open_all(name)
    assert levels(open_all(name, config="large")["train"]) == [2, 2, 2]
    assert levels(open_images(name, config="small", test_share=0)) == [1, 1, 1]
    with pytest.raises(DataError, match="has no configuration larg, only small, large. Did you mean 'large'"):
        open_all(name, config="larg")


def test_a_configuration_of_what_has_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").write_bytes(png(1))
    for name in ("mnist-mini", str(tmp_path / "images"), str(write_rows(tmp_path / "rows", "parquet"))):
        with pytest.raises(DataError, match="has no configurations, got 'a': leave dataset_config out"):
            open_all(name, config="a")


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("cifra10", "neither built in .cifar10, mnist, mnist-mini. nor a Hub id like org/name. Did you mean 'cifar10'"),
        ("MNIST", "Did you mean 'mnist'"),
        ("./images", "no folder or file ./images"),
        ("/nowhere/at/all", "no folder or file /nowhere/at/all"),
        ("https://example.org/a", "https://example.org/a is no file of rows"),
        ("", "give a folder|neither built in|holds no files"),
    ],
)
def test_a_name_that_is_nothing_is_refused_with_the_nearest(
    name: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=complaint):
        open_images(name)


def test_folders_and_files_without_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no files; give a folder of images"):
        open_images(str(tmp_path))
    (tmp_path / "a.txt").touch()
    with pytest.raises(DataError, match=r"holds 1 file, none of them an image \(a.txt, ...\)"):
        open_images(str(tmp_path))
    image = save(tmp_path / "b.png")
    with pytest.raises(DataError, match="is one image; give the folder"):
        open_images(str(image))
    with pytest.raises(DataError, match="must be parquet, arrow, csv, .* is none of these"):
        open_images(str(tmp_path / "a.txt"))
    (tmp_path / "c.parquet").write_text("no parquet")
    with pytest.raises(DataError, match=r"1 image and 1 parquet, arrow or tar file \(c.parquet"):
        open_images(str(tmp_path))
    image.unlink()
    for broken in (tmp_path, tmp_path / "c.parquet"):
        with pytest.raises(DataError, match="cannot be loaded: [^\n]*$"):
            open_images(str(broken))
    with pytest.raises(DataError, match="a revision belongs to a dataset on the Hub"):
        open_images(str(tmp_path), revision="main")


def test_a_folder_has_no_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "d" / "plain" / "1.png", 5)
    monkeypatch.chdir(tmp_path)
    for name in ("d/plain@x", "./d/plain@x"):
        with pytest.raises(DataError, match="a revision belongs to a .* Hub, but d/plain is a folder here; leave @x"):
            open_images(name)
    (tmp_path / "d" / "plain").rename(tmp_path / "d" / "plain@x")
    assert levels(open_all("d/plain@x")["train"]) == [5]


@pytest.mark.skipif(not hasattr(os, "seteuid"), reason="needs another user than root, who may read every folder")
@pytest.mark.parametrize("closed", ["set", "."])
def test_a_folder_that_may_not_be_read_is_said(closed: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        above = Path(folder)
        save(above / "set" / "1.png")
        for part in (above, above / "set"):
            part.chmod(0o755)
        (above / closed).chmod(0)
        user = os.geteuid()
        os.seteuid(user or 65534)
        try:
            with pytest.raises(DataError, match="^[^\n]*set cannot be read: Permission denied[^\n]*$"):
                open_all(str(above / "set"))
        finally:
            os.seteuid(user)
            (above / closed).chmod(0o755)


def test_hub_names_and_revisions_reach_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[tuple[str, str | None, str | None]] = []

    def load(repository: str, config: str | None, revision: str | None = None) -> Builder:
        asked.append((repository, revision, config))
        return Builder(DatasetDict({"train": digits(4), "test": digits(1)}))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(readers, "load_dataset_builder", load)
    sources = [
        open_images("mnist"),
        open_images("cifar10", revision="abc", config="plain_text"),
        open_images("some.one/thing-2@refs/pr/1"),
        open_images("org/name@old", revision="new"),
    ]
    assert asked == [
        ("ylecun/mnist", None, None),
        ("uoft-cs/cifar10", "abc", "plain_text"),
        ("some.one/thing-2", "refs/pr/1", None),
        ("org/name", "new", None),
    ]
    assert [source.resolved for source in sources] == [repository for repository, *_ in asked]
    assert [source.revision for source in sources] == [revision for _, revision, _ in asked]
    assert [source.name for source in sources][:3] == ["mnist", "cifar10", "some.one/thing-2@refs/pr/1"]


@pytest.mark.parametrize(
    ("error", "expected", "complaint"),
    [
        (
            DatasetNotFoundError("Dataset 'org/mnits' doesn't exist on the Hub"),
            HubError,
            "no folder of that name either",
        ),
        (ConnectionError("Couldn't reach\n the Hub"), HubError, "cannot be reached for org/mnits .*mnist-mini"),
        (RuntimeError("Dataset scripts are no longer supported"), DataError, "cannot be loaded: Dataset scripts"),
        (ValueError("Config name is missing.\nPick one"), DataError, "Config name is missing. Pick one"),
    ],
)
def test_what_the_hub_refuses_is_one_line(
    error: Exception, expected: type[Exception], complaint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(*args: Any, **kwargs: Any) -> None:
        raise error

    monkeypatch.setattr(readers, "load_dataset_builder", load)
    with pytest.raises(expected, match=f"^[^\n]*{complaint}[^\n]*$"):
        open_images("org/mnits")
