"""Images of several sizes, each with a parameter of its own, computed together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .constants import uploaded


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
