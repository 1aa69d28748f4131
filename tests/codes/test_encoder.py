from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.codes.images import make_mixed_folder
from tests.written_codes import contents
from vqtok.codes import tokenize_images
from vqtok.codes.encoder import Encoder
from vqtok.tokenizer import VQTokenizer


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def threads_of_a_new_thread() -> int:
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(torch.get_num_threads()))
    thread.start()
    thread.join()
    return found[0]


def test_batches_are_worked_on_by_one_core_each(tiny_tokenizer: VQTokenizer, threads: int) -> None:
    """As many at once as torch has threads, each of which computes alone; afterwards all is as it was."""
    precision = torch.backends.mkldnn.matmul.fp32_precision
    all_here = threading.Barrier(threads, timeout=30)

    def work(_: int) -> int:
        all_here.wait()
        return torch.get_num_threads()

    with Encoder(tiny_tokenizer).side_by_side() as (pool, number):
        assert number == threads
        assert list(pool.map(work, range(threads))) == [1] * threads
    assert torch.get_num_threads() == threads_of_a_new_thread() == threads
    assert torch.backends.mkldnn.matmul.fp32_precision == precision


def test_threads_do_not_change_a_byte(tmp_path: Path, tiny_tokenizer: VQTokenizer, threads: int) -> None:
    images = make_mixed_folder(tmp_path / "images")
    for number in (threads, 2):
        torch.set_num_threads(number)
        out = tmp_path / str(number) / "codes"
        tokenize_images(images, tiny_tokenizer, out, batch_size=3, shard_rows=17, max_bad_share=1, progress=False)
    assert contents(tmp_path / str(threads) / "codes") == contents(tmp_path / "2" / "codes")


def test_an_error_ends_the_threads(tiny_tokenizer: VQTokenizer, threads: int) -> None:
    with pytest.raises(ZeroDivisionError), Encoder(tiny_tokenizer).side_by_side() as (pool, _):
        pool.submit(lambda: 1 // 0).result()
    assert torch.get_num_threads() == threads_of_a_new_thread() == threads
    for thread in [each for each in threading.enumerate() if "ThreadPoolExecutor" in each.name]:
        thread.join(timeout=10)
        assert not thread.is_alive()


def test_who_ends_early_waits_for_no_batch(tiny_tokenizer: VQTokenizer) -> None:
    under_way, may_end = threading.Event(), threading.Event()

    def work() -> None:
        under_way.set()
        may_end.wait(timeout=30)

    with pytest.raises(KeyboardInterrupt), Encoder(tiny_tokenizer).side_by_side() as (pool, _):
        done = pool.submit(work)
        assert under_way.wait(timeout=30)
        raise KeyboardInterrupt
    assert not done.done()
    may_end.set()
    done.result(timeout=30)


@pytest.mark.gpu
def test_pixels_on_a_gpu_are_those_of_the_processor(tiny_tokenizer: VQTokenizer) -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    here = Encoder(tiny_tokenizer).scaled(torch.from_numpy(pixels))
    there = Encoder(tiny_tokenizer.to("cuda")).scaled(torch.from_numpy(pixels))
    assert torch.equal(there.cpu(), here)
