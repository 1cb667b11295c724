"""Images of several sizes, each with a parameter of its own, computed together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .constants import uploaded
from .dispatch import device_obstacle


def in_batches(
    images: Sequence[Tensor], parameters: Sequence[Tensor] | Tensor, work: Callable[[Tensor, Tensor], Tensor]
) -> list[Tensor]:
    """``work(images, parameters)`` of all images (C, h, w) of one size at a time, in the order given.

    Args:
        images: images (C, h, w), of any sizes.
        parameters: parameter of each image.
        work: function of stacks of both; each result depends on its own image and parameter alone.
    """
    sizes: dict[tuple[torch.Size, torch.Size], list[int]] = {}
    for i, image in enumerate(images):
        sizes.setdefault((image.shape, parameters[i].shape), []).append(i)
    results: dict[int, Tensor] = {}
    for places in sizes.values():
        stacks = (torch.stack([values[i] for i in places]) for values in (images, parameters))
        results |= zip(places, work(*stacks), strict=True)
    return [results[i] for i in range(len(images))]


def at_once(images: Sequence[Tensor], work: Callable[[Tensor, Tensor | None], Tensor]) -> list[Tensor]:
    """``work(stack, sizes)`` of all images, in the order given, in one call.

    Args:
        images: images (C, h, w), of any sizes, one at least.
        work: function of (B, C, H, W), in whose upper left corners the images lie, and of their heights and widths, (B, 2)
            int32 there; None where all are of one size. It gives the same shape, and reads nothing beyond an image, where
            numbers are of no meaning, before as after.
    """
    shapes = [tuple(image.shape[1:]) for image in images]
    if len(set(shapes)) == 1:
        return list(work(torch.stack(list(images)), None))
    first = images[0]
    stack = first.new_empty(len(images), len(first), *(max(sides) for sides in zip(*shapes, strict=True)))
    for place, image, (height, width) in zip(stack, images, shapes, strict=True):
        place[:, :height, :width] = image
    results = work(stack, uploaded(torch.tensor(shapes, dtype=torch.int32), first.device))
    return [result[:, :height, :width] for result, (height, width) in zip(results, shapes, strict=True)]


def obstacle_without_gradient(op: str, **tensors: Tensor) -> str | None:
    """Why the fused kernel of `op` cannot take `tensors`, of any shape, or None: it is for float32, without gradients."""
    for name, t in tensors.items():
        if t.dtype != torch.float32:
            return f"it computes in float32, {name} is {str(t.dtype).removeprefix('torch.')}"
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors.values()):
        return "it has no gradient, which is asked for"
    return device_obstacle(op, **tensors)
