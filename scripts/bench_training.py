"""How fast is a training step, and how much of it is the matrix products that it cannot do without?

    python scripts/bench_training.py [--batch-sizes 32 128] [--rounds 20]

A convolution is a matrix product of size (positions) x (inputs of one position) x (outputs), forward once and backward
twice (for its input, but for the first layer's, and for its weights). The bare products of all layers, and of the
lookup, are timed with torch.mm on operands of those sizes, in turn with whole training steps (forward, backward,
clipping, Muon and AdamW) of the tokenizer, so that the noise of the machine falls on both. Medians are printed; the
share is products / step. The products of Muon's own are part of the step and not counted among those, for AdamW does
without.
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from vqtok.tokenizer import VQTokenizer, VQTokenizerConfig
from vqtok.training.config import TokenizerTrainingConfig
from vqtok.training.optimization import build_optimizers

Size = tuple[int, int, int]


def product_sizes(model: VQTokenizer, pixels: Tensor) -> list[Size]:
    """(rows, inner, columns) of every product of a training step on these pixels."""
    sizes: list[Size] = []

    def record(layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        assert isinstance(layer, nn.Conv2d | nn.ConvTranspose2d)
        kernel = math.prod(layer.kernel_size)
        if isinstance(layer, nn.Conv2d):
            rows, inner, columns = output.numel() // output.shape[1], layer.in_channels * kernel, layer.out_channels
        else:  # a product at the positions of its input, scattered afterwards
            rows, inner, columns = (
                inputs[0].numel() // inputs[0].shape[1],
                layer.in_channels,
                layer.out_channels * kernel,
            )
        first = layer is model.encoder[0]
        sizes.extend([(rows, inner, columns), (inner, rows, columns)])
        sizes.extend([] if first else [(rows, columns, inner)])

    layers = [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    hooks = [layer.register_forward_hook(record) for layer in layers]
    with torch.no_grad():
        output = model(pixels)
    for hook in hooks:
        hook.remove()
    rows = output.codes.numel()
    return [*sizes, (rows, model.quantizer.code_dim, model.codebook_size)]


def products(sizes: list[Size]) -> Callable[[], None]:
    operands = [(torch.randn(rows, inner), torch.randn(inner, columns)) for rows, inner, columns in sizes]

    def run() -> None:
        for left, right in operands:
            torch.mm(left, right)

    return run


def training_step(model: VQTokenizer, pixels: Tensor) -> Callable[[], None]:
    config = TokenizerTrainingConfig(out="unused")
    optimizers = build_optimizers(model, config, muon=True)

    def run() -> None:
        loss = model(pixels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return run


def seconds(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[32, 128])
    parser.add_argument("--rounds", type=int, default=20)
    args = parser.parse_args()
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, float32")
    print(f"{'batch':>5}  {'memory format':<13}  {'step ms':>8}  {'products ms':>11}  {'share':>6}  {'images/s':>10}")
    for batch_size in args.batch_sizes:
        for format in (torch.contiguous_format, torch.channels_last):
            torch.manual_seed(0)
            model = VQTokenizer(VQTokenizerConfig()).train().to(memory_format=format)
            pixels = torch.randn(batch_size, 3, 32, 32).clamp(-1, 1)
            step, bare = training_step(model, pixels), products(product_sizes(model, pixels))
            for _ in range(3):
                step(), bare()
            pairs = [(seconds(step), seconds(bare)) for _ in range(args.rounds)]
            took, least = (statistics.median(column) for column in zip(*pairs, strict=True))
            share = statistics.median(product / whole for whole, product in pairs)
            name = "channels_last" if format is torch.channels_last else "contiguous"
            print(
                f"{batch_size:>5}  {name:<13}  {took * 1e3:>8.1f}  {least * 1e3:>11.1f}  {share:>6.0%}  "
                f"{batch_size / took:>10.0f}"
            )


if __name__ == "__main__":
    main()
