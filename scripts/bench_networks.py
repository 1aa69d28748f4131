"""How fast are the encoder and the decoder of a VQGAN, in how much memory, and how near is that to the bare products?

    python scripts/bench_networks.py [--size 256] [--batch-size 2] [--rounds 5] [--only inference training memory]
    python scripts/bench_networks.py --compile --batch-size 16      # on a GPU: bfloat16 by autocast, share of the peak

`llamagen-f16` beside the VQModel of diffusers of the same shape and with the same weights; that both give the same is
checked before anything is timed. In turn, so that the noise of the machine falls on all alike, medians printed, and
medians of the ratios of one round:

    vqtok               in channels_last, as a tokenizer runs it
    diffusers           as it is loaded
    diffusers, last     in channels_last
    products            the same convolutions and attention's matrix products alone, in channels_last, without norms and
                        activations; of the doublings with a convolution, what vqtok multiplies

Inference is a forward pass without gradients, training forward and backward, each for the encoder and for the decoder.
Memory is the most that one call holds beyond what was held before, each in a process of its own; the last lines are a
training step of encoder and decoder together with and without gradient checkpointing.
"""

from __future__ import annotations

import argparse
import ctypes
import math
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from vqtok.convert.others import diffusers_parts
from vqtok.networks import build_networks
from vqtok.networks.vqgan.blocks import AttentionBlock, Upsample

try:
    from diffusers import VQModel
except ImportError:
    sys.exit("the networks are compared with diffusers: pip install diffusers")

LAST = torch.channels_last
FASTER, SHARE_OF_PEAK, MEMORY_CUT = 1.15, 0.4, 0.5  # the aims
CODES, DIM = 16384, 8
PEAKS = {"B200": 2250, "H100 PCIe": 756, "H100": 989, "H200": 989, "A100": 312, "L40S": 362, "L4": 121, "4090": 165}
"""Dense bfloat16 TFLOP/s that NVIDIA's data sheets give, by a part of the device's name."""

Call = Callable[[], object]
Product = tuple[str, tuple[int, ...], tuple[int, ...], int, int]  # kind, input, weight, stride, padding


class Autoencoder(nn.Module):
    """An encoder and a decoder, whoever wrote them."""

    def __init__(self, encoder: nn.Module, decoder: nn.Module) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, pixels: Tensor) -> Tensor:
        reconstruction: Tensor = self.decoder(self.encoder(pixels))
        return reconstruction


def networks() -> dict[str, Autoencoder]:
    """Ours and that of diffusers, with the same weights."""
    torch.manual_seed(0)
    theirs = VQModel(
        down_block_types=("DownEncoderBlock2D",) * 4 + ("AttnDownEncoderBlock2D",),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 128, 256, 256, 512),
        layers_per_block=2,
        latent_channels=256,
        vq_embed_dim=DIM,
        num_vq_embeddings=CODES,
    )
    parts = diffusers_parts(dict(theirs.state_dict()), theirs.config)
    ours = Autoencoder(*build_networks("llamagen-f16", num_channels=3, code_dim=DIM))
    ours.load_state_dict({name: each for name, each in parts.tensors.items() if not name.startswith("quantizer.")})
    return {
        "vqtok": ours,
        "diffusers": Autoencoder(
            nn.Sequential(theirs.encoder, theirs.quant_conv), nn.Sequential(theirs.post_quant_conv, theirs.decoder)
        ),
    }


def order(whose: str) -> torch.memory_format:
    return torch.contiguous_format if whose == "diffusers" else LAST


def prepared(whose: str, device: str) -> Autoencoder:
    """The network of one of the contestants, in its order of memory."""
    return networks()[whose.partition(",")[0]].to(device).to(memory_format=order(whose))


def inputs(whose: str, args: argparse.Namespace, device: str) -> dict[str, Tensor]:
    """What encoder and decoder are given."""
    torch.manual_seed(0)
    grid = args.size // 16
    given = {
        "encoder": torch.rand(args.batch_size, 3, args.size, args.size) * 2 - 1,
        "decoder": torch.randn(args.batch_size, DIM, grid, grid),
    }
    return {part: tensor.to(device, memory_format=order(whose)) for part, tensor in given.items()}


def products_of(network: nn.Module, given: Tensor) -> Counter[Product]:
    """The products of a forward pass, and how often each is computed."""
    found: Counter[Product] = Counter()

    def record(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        shape = tuple(args[0].shape)
        if isinstance(layer, nn.Conv2d):
            stride, padding = layer.stride[0], layer.padding[0]
            assert isinstance(padding, int)
            found["conv", shape, tuple(layer.weight.shape), stride, padding] += 1
        elif isinstance(layer, AttentionBlock):
            rows, channels = shape[2] * shape[3], shape[1]
            found["matmul", (shape[0], rows, channels), (shape[0], channels, rows), 0, 0] += 1
            found["matmul", (shape[0], rows, rows), (shape[0], rows, channels), 0, 0] += 1
        elif isinstance(layer, Upsample):
            assert layer.how == "nearest"
            found["doubling", shape, (shape[1], shape[1], 4, 4), 2, 1] += 1

    hooks = [layer.register_forward_hook(record) for layer in network.modules()]
    with torch.no_grad():
        network(given)
    for hook in hooks:
        hook.remove()
    return found


def multiply(product: Product, left: Tensor, right: Tensor) -> Tensor:
    kind, _, _, stride, padding = product
    if kind == "matmul":
        return left @ right
    return (F.conv2d if kind == "conv" else F.conv_transpose2d)(left, right, stride=stride, padding=padding)


def operations(products: Counter[Product]) -> int:
    """Floating point operations of products, an addition and a multiplication being two."""
    total = 0
    for (kind, left, right, stride, padding), times in products.items():
        if kind == "conv":
            size = (left[2] + 2 * padding - right[2]) // stride + 1
            each = left[0] * size**2 * math.prod(right)
        elif kind == "doubling":
            each = left[0] * left[2] * left[3] * math.prod(right)
        else:
            each = math.prod(left) * right[2]
        total += 2 * each * times
    return total


def bare(products: Counter[Product], training: bool, args: argparse.Namespace, device: str) -> Call:
    """The products alone; in training with those of the gradients, but for the pixels', which have none."""
    cases = []
    for product, times in products.items():
        left, right = (torch.randn(shape, dtype=args.dtype, device=device) for shape in product[1:3])
        if product[0] != "matmul":
            left, right = left.contiguous(memory_format=LAST), right.contiguous(memory_format=LAST)
        wanted = [right.requires_grad_(training)]
        if product[0] == "matmul" or product[1][1] != 3:
            wanted.append(left.requires_grad_(training))
        with torch.no_grad():
            gradient = torch.ones_like(multiply(product, left, right)) if training else None
        cases += [(product, left, right, wanted, gradient)] * times

    def run() -> None:
        with torch.set_grad_enabled(training):
            for product, left, right, wanted, gradient in cases:
                output = multiply(product, left, right)
                if training:
                    torch.autograd.grad(output, wanted, gradient)

    return run


def autocast(args: argparse.Namespace, device: str) -> AbstractContextManager[Any]:
    return nullcontext() if args.dtype == torch.float32 else torch.autocast(device, args.dtype)


def step(network: nn.Module, given: Tensor, training: bool, args: argparse.Namespace) -> Call:
    """One call of a network: forward, and in training backward, to the input too where it is latents."""
    if not training:

        def infer() -> None:
            with torch.no_grad(), autocast(args, given.device.type):
                network(given)

        return infer
    leaf = given.clone().requires_grad_(given.shape[1] == DIM)

    def train() -> None:
        with autocast(args, given.device.type):
            loss = network(leaf).float().square().mean()
        loss.backward()
        for parameter in (leaf, *network.parameters()):
            parameter.grad = None

    return train


def seconds(call: Call, device: str) -> float:
    """How long a call takes, on a GPU by its own clock."""
    if device == "cpu":
        began = time.perf_counter()
        call()
        return time.perf_counter() - began
    began_event, ended_event = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began_event.record()
    call()
    ended_event.record()
    torch.cuda.synchronize()
    return began_event.elapsed_time(ended_event) / 1e3


def verdict(passed: bool) -> str:
    return "pass" if passed else "MISS"


@torch.no_grad()
def agree(made: dict[str, Autoencoder], given: dict[str, Tensor]) -> None:
    """Say how far the networks are from each other, and stop where it is more than rounding."""
    for part, tensor in given.items():
        wanted = getattr(made["diffusers"], part)(tensor)
        ours = getattr(made["vqtok"], part)(tensor)
        apart = float((ours - wanted).abs().max() / wanted.abs().max())
        print(f"{part}: largest difference {apart:.1e} of the largest value")
        if apart > (1e-4 if tensor.device.type == "cpu" else 1e-2):
            sys.exit("these are not the same networks")


def time_networks(training: bool, args: argparse.Namespace, device: str, made: dict[str, Autoencoder]) -> None:
    mode = "training" if training else "inference"
    given = {whose: inputs(whose, args, device) for whose in made}
    for part in ("encoder", "decoder"):
        products = products_of(getattr(made["vqtok"], part), given["vqtok"][part])
        work = operations(products) * (3 if training else 1)
        calls: dict[str, Call] = {}
        for name, whole in made.items():
            network: Any = getattr(whole, part).train(training)
            network = torch.compile(network) if args.compile else network
            calls[name] = step(network, given[name][part], training, args)
        calls["products"] = bare(products, training, args, device)
        rounds = [{name: seconds(call, device) for name, call in calls.items()} for _ in range(args.rounds + 1)][1:]
        print(f"\n{part}, {mode}: {work / args.batch_size / 1e9:.0f} GFLOP an image")
        for name in calls:
            took = statistics.median(each[name] for each in rounds)
            print(
                f"  {name:<16} {took * 1e3:>9.1f} ms  {args.batch_size / took:>8.2f} images/s  "
                f"{work / took / 1e12:>7.3f} TFLOP/s"
            )
        for name in list(made)[1:]:
            ratio = statistics.median(each[name] / each["vqtok"] for each in rounds)
            print(f"  {name + ' / vqtok':<34} {ratio:>6.2f}  at least {FASTER} {verdict(ratio >= FASTER)}")
        share = statistics.median(each["products"] / each["vqtok"] for each in rounds)
        print(f"  {'products / vqtok':<34} {share:>6.2f}")
        if args.peak_tflops:
            share = work / statistics.median(each["vqtok"] for each in rounds) / args.peak_tflops / 1e12
            print(
                f"  {'share of the peak':<34} {share:>6.2f}  at least {SHARE_OF_PEAK} {verdict(share >= SHARE_OF_PEAK)}"
            )


def resident(name: str) -> int:
    """A figure of this process's memory in KiB: VmRSS held now, VmHWM the most held."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise RuntimeError(f"no {name} in /proc/self/status")


def weigh(args: argparse.Namespace, device: str) -> None:
    """Print the MiB that one call takes beyond what was held before; its own process."""
    whose, part, mode = args.weigh
    whole = prepared(whose, device)
    network: Any = whole if part == "both" else getattr(whole, part)
    if mode == "checkpointing":
        for half in (whole.encoder, whole.decoder):
            half.gradient_checkpointing = True
            half._gradient_checkpointing_func = partial(checkpoint, use_reentrant=False)
    training = mode != "inference"
    given = inputs(whose, args, device)["encoder" if part == "both" else part]
    call = step(network.train(training), given, training, args)
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        call()
        print((torch.cuda.max_memory_allocated() - held) / 2**20)
        return
    ctypes.CDLL(None).malloc_trim(0)  # what building the networks left free is not counted as held
    Path("/proc/self/clear_refs").write_text("5")  # the most held is what is held now
    before = resident("VmRSS")
    call()
    print((resident("VmHWM") - before) / 1024)


def weighed(args: argparse.Namespace, *what: str) -> float:
    command = [sys.executable, __file__, "--size", str(args.size), "--batch-size", str(args.batch_size)]
    command += ["--dtype", str(args.dtype).removeprefix("torch."), "--weigh", *what]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def memory(args: argparse.Namespace, device: str, contestants: list[str]) -> None:
    if device == "cpu" and not sys.platform.startswith("linux"):
        print("memory is measured on Linux only")
        return
    print("\nMost memory of one call beyond what was held before")
    for part in ("encoder", "decoder"):
        for mode in ("inference", "training"):
            for whose in contestants:
                print(f"  {part}, {mode:<9}  {whose:<16} {weighed(args, whose, part, mode):>9.1f} MiB", flush=True)
    plain, less = (weighed(args, "vqtok", "both", mode) for mode in ("training", "checkpointing"))
    print(f"  training step of both, vqtok    {plain:>9.1f} MiB")
    cut = 1 - less / plain
    print(
        f"  with gradient checkpointing     {less:>9.1f} MiB, {cut:.0%} less  at least 50% {verdict(cut >= MEMORY_CUT)}"
    )


def peak_of(device: str) -> float | None:
    if device == "cpu":
        return None
    name = torch.cuda.get_device_name()
    return next((float(peak) for part, peak in PEAKS.items() if part in name), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="pixels a side, divisible by 16")
    parser.add_argument("--batch-size", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=["inference", "training", "memory"])
    parser.add_argument("--compile", action="store_true", help="torch.compile all of them")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], help="by default bfloat16 on a GPU, by autocast")
    parser.add_argument("--peak-tflops", type=float, help="of the device in this type; known for some GPUs in bfloat16")
    parser.add_argument("--weigh", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.size < 16 or args.size % 16:
        parser.error(f"--size must be a multiple of 16, at least 16, got {args.size}")
    for name in ("batch_size", "rounds"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    args.dtype = getattr(torch, args.dtype or ("float32" if device == "cpu" else "bfloat16"))
    if args.weigh:
        weigh(args, device)
        return
    if args.peak_tflops is None and args.dtype == torch.bfloat16:
        args.peak_tflops = peak_of(device)
    print(
        f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, {args.dtype}, batches of "
        f"{args.batch_size} images of {args.size} x {args.size}"
    )
    contestants = ["vqtok", "diffusers", "diffusers, last"]
    asked = args.only or ["inference", "training", "memory"]
    if asked != ["memory"]:
        made = {whose: prepared(whose, device) for whose in contestants}
        agree(made, inputs("vqtok", args, device))
        for mode in ("inference", "training"):
            if mode in asked:
                time_networks(mode == "training", args, device, made)
    if "memory" in asked:
        memory(args, device, contestants)


if __name__ == "__main__":
    main()
