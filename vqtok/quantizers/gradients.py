"""How a gradient passes a choice that has none, and a copy that keeps what the backward pass remembers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import normalize

__all__ = ["GRADIENTS", "copy_of", "rotation_trick", "straight_through"]


def straight_through(latents: Tensor, quantized: Tensor) -> Tensor:
    """The value of `quantized` with the gradient of `latents`: z + sg[e - z] (van den Oord et al. 2017, section 3.2).

    Written as sg[e] + (z - sg[z]), whose second term is exactly zero, so that the value is e to the last bit.
    """
    return quantized.detach() + (latents - latents.detach())


def rotation_trick(latents: Tensor, quantized: Tensor) -> Tensor:
    """The value of `quantized` with a gradient turned and scaled as z is onto e: Fifty et al. 2024, arXiv:2410.06424.

    Section 4.2: with R the rotation that takes z / |z| to e / |e|, the gradient is that of (|e| / |z|) R z with the
    factor and R held constant. R = I - 2 r r^T + 2 e' z'^T for unit vectors z', e' and r = (z' + e') / |z' + e'|
    (section 4.3), so that no D x D matrix is made. Shapes: (N, D) both. Where z is 0, no direction passes a gradient.
    """
    with torch.no_grad():
        z, e = normalize(latents, dim=1), normalize(quantized, dim=1)
        middle = normalize(z + e, dim=1)
        length = latents.norm(dim=1, keepdim=True)
        scale = torch.where(length > 0, quantized.norm(dim=1, keepdim=True) / length.clamp(min=1e-12), 0.0)
    along = (latents * middle).sum(dim=1, keepdim=True)
    turned: Tensor = scale * (latents - 2 * along * middle + 2 * (latents * z).sum(dim=1, keepdim=True) * e)
    return quantized.detach() + (turned - turned.detach())


GRADIENTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rotation": rotation_trick,
    "straight-through": straight_through,
}
"""How a gradient passes from what the decoder got to the latents, by name."""


@torch.library.custom_op("vqtok::copy_of", mutates_args=())
def opaque_copy(tensor: Tensor) -> Tensor:
    """A copy that torch.compile takes as it is. Of a clone it would remember the original for the backward pass."""
    return tensor.clone()


@opaque_copy.register_fake
def _(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor)


opaque_copy.register_autograd(lambda _, gradient: gradient)


def copy_of(tensor: Tensor) -> Tensor:
    """A copy, with its gradient, that stays what it is when the original is written to, compiled or not."""
    copied: Tensor = opaque_copy(tensor) if torch.compiler.is_compiling() else tensor.clone()
    return copied
