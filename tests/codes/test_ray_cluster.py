"""A cluster of Ray makes the bytes that one process makes, whatever it loses meanwhile."""

from __future__ import annotations

import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from tests.codes.crashing import OPTIONS, crash_decoders, save_images, tokenize_without
from tests.written_codes import contents
from vqtok.codes import ray_cluster, read_bad_images, tokenize_images
from vqtok.codes.plan import Shard
from vqtok.codes.schedule import Schedule
from vqtok.codes.workers import WorkerOptions
from vqtok.errors import ConfigurationError, DataError
from vqtok.tokenizer import VQTokenizer

if sys.platform == "win32":
    pytest.skip("clusters of several nodes on one machine need Linux or macOS", allow_module_level=True)
ray = pytest.importorskip("ray")
pytestmark = pytest.mark.filterwarnings("default")  # Ray's own are not ours to mend

NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A head that does no work, and two nodes with a core each, whose processes crash where images say so."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        crash_decoders(tmp_path_factory.mktemp("cluster") / "site", patch)
        made = Cluster(initialize_head=True, head_node_args={**NODE, "num_cpus": 0, "include_dashboard": False})
        try:
            for _ in range(2):
                made.add_node(**NODE)
            yield made
        finally:
            ray.shutdown()
            made.shutdown()


@pytest.fixture
def on_ray(cluster: Any) -> dict[str, Any]:
    return {**OPTIONS, "executor": "ray", "ray_address": cluster.address}


def receipts(out: Path) -> int:
    return len(list(out.glob("receipts/*/*.json")))


def when(find: Callable[[], list[psutil.Process]], do: Callable[[psutil.Process], object]) -> threading.Thread:
    """Do something in a thread with the first process that is found."""

    def wait() -> None:
        while not (found := find()):
            time.sleep(0.02)
        do(found[0])

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def at_work(node: Any) -> list[psutil.Process]:
    """The actors of a node that are making a shard; their processes are called so."""
    below = psutil.Process(node.all_processes["raylet"][0].process.pid).children(recursive=True)
    return [each for each in below if each.is_running() and "_Worker.do" in each.name() + "".join(each.cmdline())]


def same_as_in_one_process(images: Path, tokenizer: VQTokenizer, out: Path) -> bool:
    tokenize_images(images, tokenizer, out.parent / "one" / out.name, **OPTIONS)
    return contents(out) == contents(out.parent / "one" / out.name)


def test_lost_actors_and_nodes_do_not_change_a_byte(
    tmp_path: Path, tiny_tokenizer: VQTokenizer, cluster: Any, on_ray: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    images, out = save_images(tmp_path / "images", 40, seconds=0.3), tmp_path / "codes"
    before = signal.getsignal(signal.SIGTERM)
    hit, lost = [node for node in cluster.worker_nodes]
    threads = [
        when(lambda: at_work(hit) if receipts(out) >= 4 else [], lambda process: process.kill()),
        when(
            lambda: at_work(lost) if receipts(out) >= 8 else [],
            lambda _: cluster.remove_node(lost, allow_graceful=False),
        ),
    ]
    done = tokenize_images(images, tiny_tokenizer, out, **on_ray)
    for thread in threads:
        thread.join()
    assert signal.getsignal(signal.SIGTERM) is before and not ray.is_initialized()
    cluster.add_node(**NODE)  # for the other tests
    assert (done.made, done.bad) == (20, ())
    assert len([line for line in caplog.messages if line.startswith("an actor of tokenize died")]) >= 2
    assert same_as_in_one_process(images, tiny_tokenizer, out)


def test_an_image_that_crashes_its_decoder_is_left_out(
    tmp_path: Path, tiny_tokenizer: VQTokenizer, on_ray: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, out = save_images(tmp_path / "images", 6, named="crashing"), tmp_path / "codes"
    tokenize_images(images, tiny_tokenizer, out, **on_ray)
    assert read_bad_images(out)["path"].to_pylist() == ["03-crashing.png"]
    tokenize_without(3, images, tiny_tokenizer, tmp_path / "without" / "codes", monkeypatch)
    assert contents(out) == contents(tmp_path / "without" / "codes")


@pytest.mark.slow
def test_a_shard_that_cannot_be_made_is_named(
    tmp_path: Path, tiny_tokenizer: VQTokenizer, on_ray: dict[str, Any]
) -> None:
    images, out = save_images(tmp_path / "images", 6, named="deadly"), tmp_path / "codes"
    with pytest.raises(DataError, match=r"shard train/00001 \(rows 2 to 3\) cannot be made: its worker died 6 times"):
        tokenize_images(images, tiny_tokenizer, out, **on_ray)
    assert not (out / "tokenizer").exists() and not (out / "dataset_dict.json").exists()
    assert receipts(out) >= 1  # that of the shard before; the one after where another actor was free for it
    tokenize_images(images, tiny_tokenizer, out, **OPTIONS)
    assert same_as_in_one_process(images, tiny_tokenizer, out)


class DyingAtStart:
    """What is used of `ray`, with actors that are placed and die when they open the codes folder."""

    exceptions = ray.exceptions

    def remote(self, worker: type) -> DyingAtStart:
        return self

    def options(self, **resources: object) -> SimpleNamespace:
        def call(*given: object) -> SimpleNamespace:
            return SimpleNamespace(start=method("start"), open=method("open"), do=method("do"))

        def method(name: str) -> SimpleNamespace:
            return SimpleNamespace(remote=lambda *given: [name])

        return SimpleNamespace(remote=call)

    def wait(self, busy: list[Any], **options: object) -> tuple[list[Any], list[Any]]:
        return busy[:1], busy[1:]

    def get(self, answer: list[str]) -> None:
        if answer != ["start"]:
            raise ray.exceptions.RayActorError(error_msg=f"it died in {answer[0]}")

    def kill(self, handle: object) -> None:
        return


def test_actors_that_die_before_they_have_work_are_no_fault_of_the_images(tmp_path: Path) -> None:
    cluster = ray_cluster.Cluster(ray=DyingAtStart(), number=2, gpus=0, cpus=1)
    options = WorkerOptions(place=str(tmp_path), tokenizer=None, device="cpu", threads=1, stop_on_error=False)
    shards = [Shard(split="train", index=0, number=1, start=0, stop=4, format="arrow")]
    with pytest.raises(DataError, match=r"^no actor can be started on the Ray cluster: it died in open"):
        list(ray_cluster._Actors(cluster, options).make(Schedule(shards)))


def test_a_connection_that_is_there_is_used_and_left_open(
    tmp_path: Path, tiny_tokenizer: VQTokenizer, cluster: Any, on_ray: dict[str, Any]
) -> None:
    images = save_images(tmp_path / "images", 2)
    ray.init(address=cluster.address, include_dashboard=False, log_to_driver=False)
    try:
        tokenize_images(images, tiny_tokenizer, tmp_path / "codes", **on_ray)
        assert ray.is_initialized()
    finally:
        ray.shutdown()


def test_actors_that_cannot_be_placed_are_an_error(
    tmp_path: Path, tiny_tokenizer: VQTokenizer, on_ray: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_cluster, "PLACED_WITHIN", 2.0)
    images = save_images(tmp_path / "images", 2)
    with pytest.raises(ConfigurationError, match=r"^no actor could be placed .* each asks for a GPU and 1 CPU core.*$"):
        tokenize_images(images, tiny_tokenizer, tmp_path / "codes", **on_ray, ray_device="cuda", num_processes=1)


def test_a_cluster_that_is_not_there_is_one_line(
    tmp_path: Path, tiny_tokenizer: VQTokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    images = save_images(tmp_path / "images", 2)
    with pytest.raises(ConfigurationError, match="^there is no Ray cluster at 'localhost:1'.*ray start --head[^\n]*$"):
        tokenize_images(images, tiny_tokenizer, tmp_path / "codes", executor="ray", ray_address="localhost:1")
    with pytest.raises(ConfigurationError, match="^ray_address belongs to executor ray: leave it out"):
        tokenize_images(images, tiny_tokenizer, tmp_path / "codes", ray_address="auto")
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigurationError, match=re.escape('pip install "vqtok[ray]"')):
        tokenize_images(images, tiny_tokenizer, tmp_path / "codes", executor="ray")
    assert not (tmp_path / "codes").exists()
