"""How fast are the lookup and the quantizer around it, and how much memory do they take?

    python scripts/bench_quantizers.py [--rounds 7] [--sizes 8192x64/512 16384x8/16384] [--memory]

For each size, rows x dimension / codes, in turn so that the noise of the machine falls on all alike, medians printed:

    vqtok      EMAQuantizer: forward and backward in training; forward in evaluation; and its bare lookup
    library    the EMA quantizer of vector-quantize-pytorch with straight-through gradient, likewise
    product    torch.mm(rows, codebook.T) and nothing else: every step of any of them needs it once, and only once,
               since neither quantizer's backward pass has a product
    addmm      torch.addmm for the distances and argmax, whole
    faiss      the exact flat search of faiss-cpu, index filled beforehand

Latents are as a convolution in channels_last leaves them, so that (B, D, h, w) is rows without a copy; the library gets
the same numbers as (B, h*w, D). With a CUDA device everything but faiss runs there,
and the Triton kernel and the plain search are timed apart.

What was tried for few dimensions and many codes, milliseconds at 16384x8/16384 on two cores: addmm and argmax whole 710
to 840; the same compiled by inductor 650, the sum over dimensions fused with argmin 570, and with a bare minimum 530;
least scores by blocks of codes, which every machine has, 125 to 130, of which the product takes 47 and `amin` 28;
faiss, where it is installed, 33 to 53. At 8192x256/8192 the product alone is a fifth to a seventh of the time of the
library, and the whole search takes about as long as the product.
"""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from vector_quantize_pytorch import VectorQuantize

from vqtok.quantizers import EMAQuantizer, lookup_triton, nearest_codes
from vqtok.quantizers.base import from_rows
from vqtok.quantizers.lookup import least_by_rows

Call = Callable[[], object]


@dataclass(frozen=True)
class Size:
    """A problem and what is asked of it: times faster than the library, times as long as the best search."""

    rows: int
    dim: int
    codes: int
    faster: float = 1.0
    within: float = 1.25

    def __str__(self) -> str:
        return f"{self.rows}x{self.dim}/{self.codes}"


GOALS = (
    Size(8192, 64, 512, faster=5),
    Size(8192, 256, 8192, faster=8),
    Size(16384, 8, 16384, faster=25, within=2),
)
MEMORY_GOAL = 64  # MiB beyond what the process held, at the last size


def size_of(text: str) -> Size:
    known = {str(size): size for size in GOALS}
    match = re.fullmatch(r"(\d+)x(\d+)/(\d+)", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"a size is rows x dimension / codes, such as 8192x64/512; got {text!r}")
    rows, dim, codes = map(int, match.groups())
    return known.get(text, Size(rows, dim, codes))


def latents_of(size: Size, device: str) -> Tensor:
    """Normal latents (B, D, h, w) on a grid of 32 x 32 where the rows fill one."""
    side = 32 if size.rows % 1024 == 0 else 1
    rows = torch.randn(size.rows, size.dim, device=device)
    return from_rows(rows, (size.rows // side**2, side, side))


def ours(size: Size, latents: Tensor) -> dict[str, Call]:
    """Training and evaluation of EMAQuantizer, started on these latents."""
    model = EMAQuantizer(codebook_size=size.codes, code_dim=size.dim).to(latents.device)
    model.train()(latents)
    gradient = torch.randn_like(latents)
    leaf = latents.clone().requires_grad_()

    def train() -> None:
        output = model.train()(leaf)
        torch.autograd.backward([output.quantized, output.loss], [gradient, None])
        leaf.grad = None

    @torch.no_grad()
    def evaluate() -> None:
        model.eval()(latents)

    return {"training": train, "evaluation": evaluate}


def library(size: Size, latents: Tensor) -> dict[str, Call]:
    """The same of vector-quantize-pytorch."""
    model = VectorQuantize(
        dim=size.dim, codebook_size=size.codes, decay=0.99, commitment_weight=0.25, rotation_trick=False
    ).to(latents.device)
    sequence = latents.flatten(2).mT
    gradient = torch.randn_like(sequence)
    leaf = sequence.clone().requires_grad_()

    def train() -> None:
        quantized, _, loss = model.train()(leaf)
        torch.autograd.backward([quantized, loss.sum()], [gradient, None])
        leaf.grad = None

    @torch.no_grad()
    def evaluate() -> None:
        model.eval()(sequence)

    return {"training": train, "evaluation": evaluate}


@torch.no_grad()
def searches(size: Size, latents: Tensor) -> dict[str, Call]:
    """What looks up and nothing more."""
    rows = latents.permute(0, 2, 3, 1).reshape(-1, size.dim)
    codebook = torch.randn(size.codes, size.dim, device=rows.device)
    found: dict[str, Call] = {
        "product": lambda: torch.mm(rows, codebook.t()),
        "addmm": lambda: torch.addmm(codebook.square().sum(dim=1), rows, codebook.t(), beta=-1, alpha=2).argmax(dim=1),
        "lookup": lambda: nearest_codes(rows, codebook),
    }
    if rows.device.type == "cuda":
        scaled, offsets = -2 * codebook, codebook.square().sum(dim=1)
        found["plain"] = lambda: least_by_rows(rows, scaled, offsets)
        if lookup_triton.agrees(rows.device):
            found["triton"] = lambda: lookup_triton.least_scores(rows, scaled, offsets)
        return found
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    index, queries = faiss.IndexFlatL2(size.dim), rows.numpy()
    index.add(codebook.numpy())
    return {**found, "faiss": lambda: index.search(queries, 1)}


def seconds(call: Call) -> float:
    began = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - began


def medians(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Milliseconds of each call, timed in turn after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(rounds + 1):
        for name, call in calls.items():
            took = seconds(call)
            if round_ > 0:
                times[name].append(took * 1e3)
    return {name: statistics.median(column) for name, column in times.items()}


def verdict(passed: bool) -> str:
    return "pass" if passed else "MISS"


def time_size(size: Size, rounds: int, device: str) -> None:
    torch.manual_seed(0)
    latents = latents_of(size, device)
    calls = {f"vqtok {mode}": call for mode, call in ours(size, latents).items()}
    calls |= {f"library {mode}": call for mode, call in library(size, latents).items()}
    took = medians(calls | searches(size, latents), rounds)
    print(f"\n{size}")
    for name, value in took.items():
        print(f"  {name:<20} {value:>9.2f} ms")
    for mode in ("training", "evaluation"):
        ratio = took[f"library {mode}"] / took[f"vqtok {mode}"]
        goal = f"at least {size.faster:<5g} {verdict(ratio >= size.faster)}"
        print(f"  {mode + ': library / vqtok':<44} {ratio:>6.1f}  {goal}")
    best = min((name for name in ("addmm", "faiss") if name in took), key=lambda name: took[name])
    for name in ("vqtok evaluation", "lookup"):
        ratio = took[name] / took[best]
        goal = f"at most  {size.within:<5g} {verdict(ratio <= size.within)}"
        print(f"  {name + ' / ' + best:<44} {ratio:>6.2f}  {goal}")


def resident(name: str) -> int:
    """A figure of this process's memory in KiB: VmRSS held now, VmHWM the most held."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"no {name} in /proc/self/status")


def weigh(whose: str, mode: str) -> None:
    """Print the MiB that one call takes at the last size beyond what was held before; its own process."""
    size = GOALS[-1]
    latents = latents_of(size, "cpu")
    # Ours without the forward pass that starts it, which would hold what it needs already.
    call = library(size, latents)[mode] if whose == "library" else fresh(size, latents, mode)
    Path("/proc/self/clear_refs").write_text("5")  # the most held is what is held now
    before = resident("VmRSS")
    call()
    print((resident("VmHWM") - before) / 1024)


def fresh(size: Size, latents: Tensor, mode: str) -> Call:
    model = EMAQuantizer(codebook_size=size.codes, code_dim=size.dim)
    leaf = latents.clone().requires_grad_(mode == "training")

    def run() -> None:
        output = model.train(mode == "training")(leaf)
        if mode == "training":
            torch.autograd.backward([output.quantized, output.loss], [torch.ones_like(latents), None])

    return run


def memory() -> None:
    if not sys.platform.startswith("linux"):
        print("memory is measured on Linux only")
        return
    print(f"\nPeak memory beyond what was held, {GOALS[-1]}, each in a process of its own")
    for mode in ("training", "evaluation"):
        for whose in ("vqtok", "library"):
            command = [sys.executable, __file__, "--weigh", whose, mode]
            taken = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            goal = f"at most {MEMORY_GOAL} {verdict(taken <= MEMORY_GOAL)}" if whose == "vqtok" else ""
            print(f"  {whose + ' ' + mode:<20} {taken:>9.1f} MiB  {goal}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=size_of, nargs="*", default=GOALS, help="rows x dimension / codes")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--memory", action="store_true", help="also measure memory, at 16384x8/16384")
    parser.add_argument("--weigh", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.weigh:
        weigh(*args.weigh)
        return
    device = "cuda" if torch.cuda.is_available() else "cpu"
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, float32, latents in channels_last")
    for size in args.sizes:
        time_size(size, args.rounds, device)
    if args.memory:
        memory()


if __name__ == "__main__":
    main()
