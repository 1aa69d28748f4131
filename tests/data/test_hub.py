"""A dataset over real HTTP, through the real client, against a Hub of the tests' own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import datasets
import pyarrow.parquet as pq
from datasets import Dataset, Features
from PIL import Image

from tests.hub_server import HubServer

ROOT = Path(__file__).resolve().parents[2]
CLIENT = """
import datasets
from huggingface_hub import HfApi
from vqtok.data import open_splits, open_images, image_array
from vqtok.errors import HubError

datasets.disable_progress_bars()
api = HfApi()
api.create_repo("org/images", repo_type="dataset")
api.upload_folder(repo_id="org/images", repo_type="dataset", folder_path="data", path_in_repo="data")
train, test = open_splits("org/images")
print(len(train), len(test), train.image_column, train.resolved)
print([int(image_array(image.content, num_channels=1, size=(1, 1))[0, 0, 0]) for image in train.stored(range(4))])
print(train.revision == api.dataset_info("org/images").sha)
for name, revision in (("org/nothing", None), ("org/images", "nowhere")):
    try:
        open_images(name, revision=revision)
    except HubError as error:
        print(error)
"""


def run_client(client: str, folder: Path, *arguments: str) -> list[str]:
    """What a client of a Hub prints, line by line, in a process of its own."""
    with HubServer({"hf_alice": "alice"}, {"org": ["alice"]}) as hub:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= hub.client_environment("hf_alice", folder / "home") | {"PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-c", client, *arguments]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_dataset_on_the_hub_is_read_and_its_commit_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split, count in (("train", 4), ("test", 2)):
        images = {"image": [Image.new("L", (4, 4), level) for level in range(count)]}
        rows = Dataset.from_dict(images, features=Features({"image": datasets.Image()}))
        rows.to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    assert run_client(CLIENT, tmp_path) == [
        "4 2 image org/images",
        "[0, 1, 2, 3]",
        "True",
        "Dataset 'org/nothing' doesn't exist on the Hub or cannot be accessed; there is no folder of that name either.",
        "Revision 'nowhere' doesn't exist for dataset 'org/images' on the Hub.",
    ]


FORMS = """
import datasets
from huggingface_hub import HfApi
from vqtok.data import open_all, read_images
from vqtok.errors import DataError

datasets.disable_progress_bars()
api = HfApi()
for name in ("photos", "hostile", "two"):
    api.create_repo(f"org/{name}", repo_type="dataset")
    api.upload_folder(repo_id=f"org/{name}", repo_type="dataset", folder_path=name)

def show(name, **options):
    source = open_all(name, **options)["train"]
    pixels, _, broken = read_images(source, range(len(source)), image_size=(1, 1), num_channels=1)
    print(pixels.ravel().tolist(), [str(error) for error in broken.values()])

show("org/photos")
show("org/hostile")
show("org/two", config="large")
try:
    open_all("org/two")
except DataError as error:
    print(error)
"""


def test_files_of_a_hub_dataset_are_read_from_its_cache_and_no_others(tmp_path: Path) -> None:
    private = tmp_path / "private.png"
    Image.new("L", (4, 4), 99).save(private)
    (tmp_path / "photos" / "train").mkdir(parents=True)
    for level in (10, 20):
        Image.new("L", (4, 4), level).save(tmp_path / "photos" / "train" / f"{level}.png")
    rows = Dataset.from_dict(
        {"image": [{"bytes": None, "path": str(private)}, {"bytes": None, "path": "../../../private.png"}]},
        features=Features({"image": datasets.Image(decode=False)}),
    )
    (tmp_path / "hostile").mkdir()
    pq.write_table(rows.data.table, tmp_path / "hostile" / "train.parquet")  # to_parquet would put the files in
    for name, level in (("small", 1), ("large", 2)):
        (tmp_path / "two" / name).mkdir(parents=True)
        Dataset.from_dict(
            {"image": [Image.new("L", (4, 4), level)]}, features=Features({"image": datasets.Image()})
        ).to_parquet(tmp_path / "two" / name / "train.parquet")
    configs = "".join(f"- config_name: {name}\n  data_files: {name}/*.parquet\n" for name in ("small", "large"))
    (tmp_path / "two" / "README.md").write_text(f"---\nconfigs:\n{configs}---\n")
    lines = run_client(FORMS, tmp_path)
    assert lines[0] == "[10, 20] []" and lines[2] == "[2] []"
    assert lines[1].startswith("[] [") and lines[1].count("leads out of the dataset's own folder") == 2
    assert lines[3] == "org/two has several configurations: small, large; set dataset_config to one of them"


COMMITS = """
import os, subprocess, sys
from huggingface_hub import HfApi

api = HfApi()
api.create_repo("org/images", repo_type="dataset")
commits = []
for folder in ("old", "new"):
    api.upload_folder(repo_id="org/images", repo_type="dataset", folder_path=folder)
    commits.append(api.dataset_info("org/images").sha)
read = [sys.executable, "-c", sys.argv[1]]
subprocess.run([*read, *commits], check=True)
subprocess.run([*read, *commits, "main", "None"], check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
"""
READ = """
import sys
import tempfile
from pathlib import Path
import datasets
from vqtok.data import open_splits
from vqtok.data.opening import open_rows
from vqtok.errors import HubError

datasets.disable_progress_bars()
for asked in sys.argv[1:]:
    revision = None if asked == "None" else asked
    try:
        train, _ = open_splits("org/images", revision=revision)
        rows = open_rows("org/images", folder=Path(tempfile.mkdtemp()), revision=revision)
        assert train.revision == rows.revision and set(rows.notes) <= set(train.notes)
        told = len(train) + 1, *rows.notes
    except HubError as error:
        told = (str(error),)
    for number, commit in enumerate(sys.argv[1:3]):
        told = tuple(str(part).replace(commit, f"<commit {number}>") for part in told)
    print(*told, sep=" | ", flush=True)
"""


def test_without_a_network_no_other_commit_is_read_than_was_asked_for(tmp_path: Path) -> None:
    """`datasets` reads what it cached last, whichever revision it is told."""
    for folder, count in (("old", 3), ("new", 5)):
        (tmp_path / folder).mkdir()
        images = {"image": [Image.new("L", (4, 4), level) for level in range(count)]}
        rows = Dataset.from_dict(images, features=Features({"image": datasets.Image()}))
        rows.to_parquet(tmp_path / folder / "train.parquet")
    assert run_client(COMMITS, tmp_path, READ) == [
        "3",
        "5",
        "the Hub cannot be reached for org/images at <commit 0>, and the cache has it at <commit 1>: try again with a "
        "network, or ask for that one",
        "5",
        "5 | the Hub is not reached: org/images is read from the cache at <commit 1>, which may not be main",
        "5",
    ]


ARCHIVE = """
import os, subprocess, sys
import datasets
from huggingface_hub import HfApi
from vqtok.data import open_splits

datasets.disable_progress_bars()
if "HF_HUB_OFFLINE" not in os.environ:
    api = HfApi()
    api.create_repo("org/archive", repo_type="dataset")
    api.upload_folder(repo_id="org/archive", repo_type="dataset", folder_path="archive")
train, test = open_splits("org/archive")
print(train.image_column, len(train), len(test), train.record().model_dump_json(), flush=True)
if "HF_HUB_OFFLINE" not in os.environ:
    subprocess.run([sys.executable, "-c", sys.argv[1], ""], check=True, env=os.environ | {"HF_HUB_OFFLINE": "1"})
"""


def test_tar_files_of_the_hub_are_found_in_the_cache_without_a_network(tmp_path: Path) -> None:
    (tmp_path / "archive").mkdir()
    with tarfile.open(tmp_path / "archive" / "train.tar", "w") as archive:
        for level, suffix in enumerate(("png", "jpg", "png")):
            Image.new("L", (4, 4), level).save(tmp_path / f"{level}.{suffix}")
            archive.add(tmp_path / f"{level}.{suffix}", f"{level}.{suffix}")
    online, offline = run_client(ARCHIVE, tmp_path, ARCHIVE)
    assert online == offline and online.startswith("image 2 1 ") and json.loads(online[10:])["revision"]
