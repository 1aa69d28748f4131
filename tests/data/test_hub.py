"""A dataset over real HTTP, through the real client, against a Hub of the tests' own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import datasets
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
print([int(image_array(cell["bytes"], num_channels=1, size=(1, 1))[0, 0, 0]) for cell in train.encoded(range(4))])
print(train.revision == api.dataset_info("org/images").sha)
for name, revision in (("org/nothing", None), ("org/images", "nowhere")):
    try:
        open_images(name, revision=revision)
    except HubError as error:
        print(error)
"""


def test_a_data_set_on_the_hub_is_read_and_its_commit_named(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for split, count in (("train", 4), ("test", 2)):
        images = {"image": [Image.new("L", (4, 4), level) for level in range(count)]}
        rows = Dataset.from_dict(images, features=Features({"image": datasets.Image()}))
        rows.to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    with HubServer({"hf_alice": "alice"}, {"org": ["alice"]}) as hub:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= hub.client_environment("hf_alice", tmp_path / "home") | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", CLIENT], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
        )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "4 2 image org/images",
        "[0, 1, 2, 3]",
        "True",
        "Dataset 'org/nothing' doesn't exist on the Hub or cannot be accessed; there is no folder of that name either.",
        "Revision 'nowhere' doesn't exist for dataset 'org/images' on the Hub.",
    ]
