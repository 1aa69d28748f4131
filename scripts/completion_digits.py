"""Do completions of half a digit show the digit that it was? A small classifier says.

    python scripts/completion_digits.py --prior runs/prior [--tokenizer runs/tok/model] [--dataset mnist] [--images 500]

Of each test image the top half is kept and the rest completed by the prior, with its class and without. A small
convolutional network, trained here on the training images for about a minute of one CPU core, is asked what digit it
sees; its agreement with the true class is printed for the originals, for their reconstructions, for the kept half alone
(the rest filled as the encoder sees it) and for all completions, and written to OUT/completion.json. OUT/completion.png
shows for the first images a row each: the original, what is kept, completions with the class, completions without.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from vqtok import VQTokenizer, load_prior
from vqtok.data import ImageDataset, MaskedImage, image_grid, masked_image, open_splits, to_pixels
from vqtok.data.loading import sampled_rows
from vqtok.priors import PriorBinding, complete_codes
from vqtok.priors.completion import preprocessing
from vqtok_cli.mistakes import mistakes_in_one_line

ROWS = 16  # of the sheet


def classifier(channels: int, classes: int) -> nn.Module:
    """Pixels (B, C, H, W) -> logits (B, classes); three convolutions, each halving, and a mean over positions."""
    widths = (channels, 16, 32, 64)
    layers: list[nn.Module] = []
    for before, after in zip(widths, widths[1:], strict=False):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * widths[-1], classes))


def train(images: ImageDataset, classes: int, steps: int) -> nn.Module:
    """A classifier of the images of a split."""
    model = classifier(images.num_channels, classes)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=steps)
    random = torch.Generator().manual_seed(0)
    for _ in range(steps):
        batch = images.__getitems__(torch.randint(len(images), (128,), generator=random).tolist())
        optimizer.zero_grad()
        F.cross_entropy(model(to_pixels(batch["pixels"])), batch["labels"]).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def agreement(model: nn.Module, images: list[Image.Image], labels: Tensor) -> float:
    """Share of images that the classifier gives their label."""
    arrays = np.stack([np.atleast_3d(np.asarray(image)) for image in images])
    seen = torch.cat([model(part) for part in to_pixels(torch.from_numpy(arrays).permute(0, 3, 1, 2)).split(500)])
    return (seen.argmax(dim=1) == labels).double().mean().item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prior", required=True, help="folder, run folder or Hub id")
    parser.add_argument("--tokenizer", help="by default the one that the prior names")
    parser.add_argument("--dataset", default="mnist-mini", help="with labels, those of the prior")
    parser.add_argument("--images", type=int, default=500, help="test images")
    parser.add_argument("--completions", type=int, default=4, help="of each image, with its class and without")
    parser.add_argument("--keep", default="top:0.5")
    parser.add_argument("--candidates", type=int, default=8, help="where kept codes follow sampled ones")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--classifier-steps", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/completion"))
    given = parser.parse_args()

    prior = load_prior(given.prior)
    binding = PriorBinding.from_config(prior.config)
    tokenizer = VQTokenizer.from_pretrained(given.tokenizer or binding.tokenizer)
    binding.check_tokenizer(tokenizer.fingerprint)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    nn.Module.to(tokenizer, device)
    nn.Module.to(prior, device)
    form = preprocessing(tokenizer)
    fit = {"image_size": form["size"], "num_channels": form["num_channels"], "resample": form["resample"]}
    train_images, test_images = (ImageDataset(source, **fit) for source in open_splits(given.dataset))
    if test_images.labels is None or test_images.source.label_names != binding.label_names:
        parser.error(f"the classes of {given.dataset} are not those of the prior: {binding.label_names}")

    torch.manual_seed(given.seed)
    judge = train(train_images, binding.num_classes, given.classifier_steps)
    batch = test_images.__getitems__(sampled_rows(len(test_images), given.images))
    pixels, labels = batch["pixels"], batch["labels"]
    parts = [masked_image(image.numpy(), keep=given.keep, **form) for image in pixels]
    kept = torch.from_numpy(parts[0].positions(binding.grid))
    codes = tokenizer.tokenize([part.filled for part in parts])
    repeated = labels.repeat_interleave(given.completions)
    completed = {
        name: tokenizer.detokenize(
            complete_codes(
                prior,
                codes.repeat_interleave(given.completions, dim=0),
                kept,
                labels=known,
                temperature=given.temperature,
                candidates=given.candidates,
                seed=given.seed,
                batch_size=256,
            )
        )
        for name, known in (("with class", repeated.tolist()), ("without class", None))
    }
    originals = [part.image for part in parts]
    figures = {
        "originals": agreement(judge, originals, labels),
        "reconstructions": agreement(judge, tokenizer.detokenize(tokenizer.tokenize(originals)), labels),
        "kept half, filled": agreement(judge, [part.filled for part in parts], labels),
        **{f"completions {name}": agreement(judge, images, repeated) for name, images in completed.items()},
    }
    given.out.mkdir(parents=True, exist_ok=True)
    said = {**vars(given), "out": str(given.out), "images": len(parts), "agreement": figures}
    (given.out / "completion.json").write_text(json.dumps(said, indent=2) + "\n")
    sheet(parts, completed, given.completions).save(given.out / "completion.png")
    for name, share in figures.items():
        print(f"{name:26} {share:.3f}")
    print(f"{given.out / 'completion.png'} shows the first {min(ROWS, len(parts))} of {len(parts)} images")


def sheet(parts: list[MaskedImage], completed: dict[str, list[Image.Image]], count: int) -> Image.Image:
    """A row for each of the first images."""
    shown = []
    for number, part in enumerate(parts[:ROWS]):
        shown += [part.image, part.shown()]
        for images in completed.values():
            shown += images[number * count : (number + 1) * count]
    return image_grid(shown, columns=2 + len(completed) * count, gap=2, scale=max(1, 56 // max(parts[0].image.size)))


if __name__ == "__main__":
    with mistakes_in_one_line():
        main()
