"""Networks of spandrel as torch.export can follow them for any batch.

Where windows of a picture are put together, their functions find the batch by a division of floats, which is a constant to
torch.export. Here it is whatever is left over, which gives the same.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn


@contextmanager
def traceable(network: nn.Module) -> Iterator[None]:
    """Inside: functions that the modules of a network call are replaced by those of `INSTEAD`."""
    modules = {sys.modules.get(type(part).__module__) for part in network.modules()}
    changed = []
    try:
        for module in modules:
            for name, instead in INSTEAD.items():
                own = getattr(module, name, None)
                if callable(own) and getattr(own, "__module__", "").startswith("spandrel."):
                    changed.append((module, name, own))
                    setattr(module, name, instead(own))
        yield
    finally:
        for module, name, own in changed:
            setattr(module, name, own)


def joined(windows: Tensor, window: tuple[int, int], height: int, width: int) -> Tensor:
    """(B n, ...) of n windows each, channels last, as (B, height, width, C)."""
    down, across = window
    grid = windows.reshape(-1, height // down, width // across, down, across, windows.shape[-1])
    whole: Tensor = grid.transpose(2, 3).reshape(-1, height, width, windows.shape[-1])
    return whole


def window_reverse(own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """For ``window_reverse(windows, size, H, W)``, or ``(windows, (h, w), (H, W))``."""

    def call(windows: Tensor, size: int | Sequence[int], *rest: Any, **options: Any) -> Tensor:
        if len(rest) > 2 or options:  # Uformer's dilation
            return own(windows, size, *rest, **options)
        height, width = rest[0] if len(rest) == 1 else rest
        return joined(windows, (size, size) if isinstance(size, int) else (size[0], size[1]), height, width)

    return call


def windows2img(own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """For ``windows2img(windows, h, w, H, W)``."""

    def call(img_splits_hw: Tensor, H_sp: int, W_sp: int, H: int, W: int) -> Tensor:
        return joined(img_splits_hw, (H_sp, W_sp), H, W)

    return call


INSTEAD = {"window_reverse": window_reverse, "windows2img": windows2img}
"""Names of functions in spandrel's modules, and what makes another of them."""
