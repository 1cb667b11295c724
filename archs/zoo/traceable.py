"""Networks of spandrel as torch.export can follow them, for any batch and size as far as that is possible.

Where windows of a picture are put together, their functions find the batch by a division of floats, which is a constant to
torch.export. Here it is whatever is left over, which gives the same. Methods that torch.export cannot follow at all, or not for
any size, are replaced by others that give the same too: see `METHODS`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..blocks import continued

SPANDREL = "spandrel."


@contextmanager
def traceable(network: nn.Module) -> Iterator[None]:
    """Inside: functions that the modules of a network call are replaced by those of `INSTEAD`, and methods by `METHODS`."""
    # Find what the network consists of.
    kinds = {type(part) for part in network.modules() if type(part).__module__.startswith(SPANDREL)}
    modules = {sys.modules.get(type(part).__module__) for part in network.modules()}
    changed: list[tuple[Any, str, Any]] = []

    def replace(owner: Any, name: str, instead: Callable[..., Any]) -> None:
        own = getattr(owner, name)
        changed.append((owner, name, own))
        setattr(owner, name, instead(own))

    # Replace functions and methods that torch.export cannot follow, and put them back at the end.
    try:
        for part in network.modules():
            if type(part) in kinds and (type(part).__name__, "update_params") in METHODS:
                part.update_params()  # type: ignore[operator] # which every call does otherwise
        for module in modules:
            for name in INSTEAD:
                own = getattr(module, name, None)
                if callable(own) and getattr(own, "__module__", "").startswith(SPANDREL):
                    replace(module, name, INSTEAD[name])
        for kind in kinds:
            for (of, name), instead in METHODS.items():
                if of in (kind.__name__, qualified(kind)) and name in vars(kind):
                    replace(kind, name, instead)
        yield
    finally:
        for owner, name, own in reversed(changed):
            setattr(owner, name, own)


def qualified(kind: type) -> str:
    """A class's name after that of its module."""
    return f"{kind.__module__.rpartition('.')[2]}.{kind.__name__}"


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
    """For ``windows2img(windows, h, w, H, W)``, which joins windows (B n, h w, C) to a map (B, H, W, C)."""

    def call(img_splits_hw: Tensor, H_sp: int, W_sp: int, H: int, W: int) -> Tensor:
        return joined(img_splits_hw, (H_sp, W_sp), H, W)

    return call


def index_reverse(own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """For ``index_reverse(order)``, whose loop over the batch fixes it: where each place of an order (B, n) went."""

    def call(index: Tensor) -> Tensor:
        place = torch.arange(index.shape[1], device=index.device).expand_as(index)
        return torch.zeros_like(index).scatter(1, index, place)

    return call


INSTEAD = {"window_reverse": window_reverse, "windows2img": windows2img, "index_reverse": index_reverse}
"""Names of functions in spandrel's modules, and what makes another of them."""


def every_expert(own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """SeemoRe: all experts are computed, those that the gate did not choose with weight 0. Shapes are the original's."""

    def call(self: Any, inputs: Tensor, k: Tensor) -> Tensor:
        weights = torch.softmax(self.gate(inputs).float(), 1).to(inputs.dtype)
        chosen, which = torch.topk(weights, self.num_expert)
        weights = torch.zeros_like(weights).scatter(1, which, chosen)
        made = inputs
        for i, expert in enumerate(self.experts):
            made = made + expert(inputs, k) * weights[:, i, None, None, None]
        return made

    return call


def nothing(own: Callable[..., None]) -> Callable[..., None]:
    """SPAN: kernels that follow from others are computed before, not at each call."""
    return lambda self: None


def padded_by_eight(own: Callable[..., Any]) -> Callable[..., Any]:
    """FBCNN: sides are extended to multiples of 8 by repeating the last pixels, as the network would; of any size."""

    def call(self: Any, x: Tensor) -> Any:
        height, width = x.shape[-2:]
        for dim, n in ((-2, height), (-1, width)):
            wanted = (n + 7) // 8 * 8
            x = x.index_select(dim, torch.arange(wanted, device=x.device).clamp(max=n - 1))
        made, quality = own(self, x)
        return made[..., :height, :width], quality

    return call


def with_whole_windows(own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """FDAT: pixels (B, H W, C) are extended by zeros to whole windows and cropped afterwards, also where nothing is missing."""

    def call(self: Any, x: Tensor, H: int, W: int) -> Tensor:
        image = x.unflatten(1, (H, W))
        height, width = ((n + self.ws - 1) // self.ws * self.ws for n in (H, W))  # ONNX rounds quotients below 0 up
        image = nn.functional.pad(image, (0, 0, 0, width - W, 0, height - H))
        made = own(self, image.flatten(1, 2), height, width)
        return made.unflatten(1, (height, width))[:, :H, :W].flatten(1, 2)

    return call


def reflected_to_windows(own: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """DCTLSA: features (B, C, H, W) of any size are extended by reflection to whole windows, as its layers would."""

    def call(self: Any, x: Tensor) -> Tensor:
        height, width = x.shape[-2:]
        x = continued(continued(x, -2, self.window_size), -1, self.window_size)
        return own(self, x)[..., :height, :width]

    return call


METHODS: dict[tuple[str, str], Callable[..., Any]] = {
    ("MoELayer", "forward"): every_expert,
    ("Conv3XC", "update_params"): nothing,
    ("FBCNN", "forward"): padded_by_eight,
    ("FastSpatialWindowAttention", "forward"): with_whole_windows,
    ("dctlsa.BasicLayer", "forward"): reflected_to_windows,
}
"""Classes of spandrel, after their module where the name is a common one, and their methods, and what makes another of them."""
