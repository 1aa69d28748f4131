"""Rows of datasets on the Hub, downloaded or read there by ranges: over real HTTP, through the real client."""

from __future__ import annotations

from pathlib import Path

from tests.data.images import png, write_tar
from tests.data.test_hub import run_client
from tests.data.test_rows import parquet, tar

CLIENT = """
import json, os, sys
import datasets
from pathlib import Path
from huggingface_hub import HfApi
from vqtok.data import image_array, open_all
from vqtok.data.opening import open_rows
from vqtok.data.rows import Rows
from vqtok.errors import VqtokError

datasets.disable_progress_bars()
api = HfApi()
for name in sorted(os.listdir("sets")):
    api.create_repo(f"org/{name}", repo_type="dataset")
    api.upload_folder(repo_id=f"org/{name}", repo_type="dataset", folder_path=f"sets/{name}")

def levels(rows, start, stop):
    images = [image for batch in rows.read(start, stop, 3) for image in batch.images]
    return [int(image_array(image.data(), num_channels=1, size=(1, 1))[0, 0, 0]) for image in images]

def cached(name):
    folder = Path(os.environ["HF_HOME"]) / "hub" / f"datasets--org--{name}"
    return sorted(path.name for path in folder.rglob("*") if path.is_symlink() and path.suffix != ".md")

def show(name, **options):
    try:
        found = open_rows(f"org/{name}", folder=Path("plan"), **options)
    except VqtokError as error:
        print(type(error).__name__, error)
        return
    for split, rows in found.splits.items():
        again = Rows.from_json(json.loads(json.dumps(rows.to_json())))
        same = found.revision == api.dataset_info(f"org/{name}").sha
        print(split, len(again), levels(again, 1, len(again) - 1), rows.kind, same)
"""


def test_files_of_the_hub_are_read_where_they_are_or_downloaded_by_those_who_read_them(tmp_path: Path) -> None:
    for name in ("pq", "tars"):
        (tmp_path / "sets" / name).mkdir(parents=True)
    for split, levels in (("train", range(9)), ("test", range(20, 24))):
        parquet(tmp_path / "sets" / "pq" / "data" / f"{split}-00000-of-00001.parquet", levels)
        tar(tmp_path / "sets" / "tars" / split / "0.tar", levels)
    lines = run_client(
        CLIENT
        + """
for name in ("pq", "tars"):
    show(name, streaming=True)
    print(cached(name), sorted(os.listdir(".")))
    show(name, split="test")
    print(cached(name))
rows = open_rows("org/pq", folder=Path("plan"), split="test").splits["test"]
print(rows.files[0].path.replace(api.dataset_info("org/pq").sha, "SHA"))
wanted, found = open_all("org/tars")["test"], open_rows("org/tars", folder=Path("plan")).splits["test"]
print(found.features == wanted.dataset.features, wanted.revision == api.dataset_info("org/tars").sha)
""",
        tmp_path,
    )
    inside = [*range(1, 8)]
    here = "['home', 'sets']"
    assert lines == [
        f"train 9 {inside} parquet True",
        "test 4 [21, 22] parquet True",
        f"[] {here}",
        "test 4 [21, 22] parquet True",
        "['test-00000-of-00001.parquet']",
        f"train 9 {inside} tar True",
        "test 4 [21, 22] tar True",
        f"[] {here}",
        "test 4 [21, 22] tar True",
        "['0.tar']",
        "hf://datasets/org/pq@SHA/data/test-00000-of-00001.parquet",
        "True True",
    ]


def test_configurations_revisions_and_what_cannot_be_streamed(tmp_path: Path) -> None:
    sets = tmp_path / "sets"
    for name, levels in (("small", range(3)), ("large", range(10, 15))):
        parquet(sets / "two" / name / "train.parquet", levels)
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in ("small", "large"))
    (sets / "two" / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    (sets / "photos" / "train").mkdir(parents=True)
    for level in range(4):
        (sets / "photos" / "train" / f"{level}.png").write_bytes(png(level))
    (sets / "jpgs").mkdir()
    write_tar(sets / "jpgs" / "0.tar", {f"{level}.jpg": png(level) for level in range(4)})
    card = (
        "---\ndataset_info:\n  features:\n  - name: jpg\n    dtype: image\n  - name: __key__\n    dtype: string\n---\n"
    )
    (sets / "jpgs" / "README.md").write_text(card)
    lines = run_client(
        CLIENT
        + """
show("two", streaming=True)
show("two", streaming=True, dataset_config="large")
show("two", dataset_config="small")
show("photos", streaming=True)
show("photos")
show("jpgs", streaming=True)
show("nothing", streaming=True)
api.upload_file(path_or_fileobj=b"x", path_in_repo="two/small/train.parquet", repo_id="org/two", repo_type="dataset")
rows = open_rows("org/two", folder=Path("plan"), dataset_config="large", streaming=True).splits["train"]
values = json.loads(json.dumps(rows.to_json()).replace("train.parquet", "trian.parquet"))
for streaming in (True, False):
    try:
        levels(Rows.from_json({**values, "streaming": streaming}), 0, 2)
    except VqtokError as error:
        print(type(error).__name__, str(error)[:60], "no file now" in str(error))
""",
        tmp_path,
    )
    assert lines[0] == ("DataError org/two has several configurations: small, large; set dataset_config to one of them")
    assert lines[1:3] == ["train 5 [11, 12, 13] parquet True", "train 3 [1] parquet True"]
    assert lines[3] == (
        "DataError org/photos holds no parquet, arrow or tar files, and only these can be streamed; leave streaming "
        "out, which downloads it"
    )
    assert lines[4:6] == ["train 4 [1, 2] arrow True", "train 4 [1, 2] webdataset True"]
    assert lines[6].startswith("HubError Dataset 'org/nothing' doesn't exist on the Hub or cannot be accessed")
    assert lines[7].startswith("DataError hf://datasets/org/two@") and lines[7].endswith("True")
    assert lines[8].startswith("HubError hf://datasets/org/two@")
