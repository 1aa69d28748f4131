"""Whatever ends tokenizing, the same call goes on, and at the end the codes are those of a call that nothing ended."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.written_codes import contents
from vqtok.tokenizer import VQTokenizer

KILLING = """
import json, logging, os, random, signal, sys, threading, time
from pathlib import Path
from tqdm import tqdm
from vqtok.codes import tokenize_images
from vqtok.tokenizer import VQTokenizer

logging.disable()
tqdm.set_lock(threading.RLock())  # its own is shared by forks, and a child that is killed with it keeps it for ever
folder, (kind, processes, kills) = Path(sys.argv[1]), map(int, sys.argv[2:5])
tokenizer = VQTokenizer.from_pretrained(folder / "tokenizer")
choose = random.Random(0)

def call(out):
    options = dict(batch_size=4, shard_rows=7, num_processes=processes, max_bad_share=1.0, progress=False)
    return tokenize_images(folder / "images", tokenizer, out, **options)

def start(out):  # nothing runs in this process, whose threads a fork would not have
    child = os.fork()
    if child:
        return child
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(143))
    try:
        call(out)
    except SystemExit as left:
        os._exit(left.code)
    except BaseException as error:
        print(repr(error), file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)

def main():
    began = time.perf_counter()
    assert os.waitpid(start(folder / "whole" / "codes"), 0)[1] == 0
    took = time.perf_counter() - began
    out, killed, hidden = folder / "killed" / "codes", 0, []
    while True:
        child = start(out)
        if killed < kills:
            time.sleep(choose.random() * took)
            os.kill(child, kind)
        status = os.waitpid(child, 0)[1]
        if kind == signal.SIGKILL and processes == 1:
            # Else the next call takes seconds to start another process, and few kills would find it at work.
            (out / ".owner.txt").unlink(missing_ok=True)
        if kind == signal.SIGTERM:
            hidden += [path.name for path in out.rglob(".*")]
        killed += status != 0
        if status == 0 and killed >= kills:
            break
        if status == 0:  # it was quicker
            import shutil
            shutil.rmtree(out)
    print(json.dumps({"killed": killed, "hidden": hidden}))

if __name__ == "__main__":
    main()
"""


@pytest.fixture
def folder(tmp_path: Path, tiny_tokenizer: VQTokenizer) -> Path:
    """Sixty images, some of them broken, and a tokenizer."""
    noise = np.random.default_rng(0)
    for number in range(60):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 11 == 5:
            path.write_bytes(b"no image")
        else:
            Image.fromarray(noise.integers(0, 256, (16, 16), dtype=np.uint8)).save(path)
    tiny_tokenizer.save_pretrained(tmp_path / "tokenizer")
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "processes", "kills"),
    [
        (9, 1, 20),
        (15, 1, 10),
        pytest.param(9, 2, 20, marks=pytest.mark.slow),
        pytest.param(15, 2, 10, marks=pytest.mark.slow),
    ],
)
def test_killed_at_any_moment_it_ends_in_the_same_bytes(folder: Path, kind: int, processes: int, kills: int) -> None:
    script = folder / "killing.py"
    script.write_text(KILLING)
    command = [sys.executable, str(script), str(folder), str(kind), str(processes), str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1200)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["killed"] >= kills and result["hidden"] == []
    whole, killed = contents(folder / "whole" / "codes"), contents(folder / "killed" / "codes")
    assert len([name for name in whole if name.endswith(".arrow") and name.startswith("train")]) == 9
    assert killed == whole
