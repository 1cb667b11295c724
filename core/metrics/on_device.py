"""PSNR, SSIM and the mean absolute error where the images are: on a GPU, of which only the scores are brought to the host.

The numbers are those of the functions that they stand for (`psnr`, `ssim`), in float64, to its last digits. What is not written
here, or what those would refuse, is left to them: other options, a border that leaves nothing, images of four channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from ...datasets.base import Rounding
from ..ops.constants import constant
from ..ops.ssim import plain_similarity
from . import METRICS, metric_options
from .images import LUMA, STEREO
from .psnr import decibels
from .ssim import gaussian_taps

Compute = Callable[[Tensor, Tensor], Tensor]
"""A mean over images (C, H, W) in [0, 255], float64: ()."""
OPTIONS = frozenset({"type", "crop_border", "test_y_channel", "data_range", "engine", "clip", "color_order"})
"""Options that are understood here."""
WINDOW = 11


def holds(image: Tensor) -> bool:
    """Whether an image, of any shape, is on a device with float64, where scoring it saves a transfer."""
    return image.device.type == "cuda"


def scores(
    blocks: Mapping[str, Mapping[str, Any]], output: Tensor, target: Tensor, rounding: Rounding
) -> dict[str, float]:
    """The scores of those of the metrics that are computed here, by name.

    Args:
        blocks: blocks of ``val.metrics`` by name.
        output, target: (1, C, H, W), both finite, made to be in [0, 1].
        rounding: what is rounded to 8 bits, see `scoring.for_metrics`.
    """
    if not holds(output) or output.shape != target.shape or output.device != target.device or output.shape[1] == 4:
        return {}
    wanted = {n: kind for n, b in blocks.items() if (kind := _kind(b)) is not None and _fits(kind, b, output)}
    if not wanted:
        return {}
    try:
        with torch.no_grad(), torch.autocast(output.device.type, enabled=False):
            pair = _values(output, rounding, True), _values(target, rounding, False)
            span = 255.0 if rounding == "8bit" else 1.0
            means = [_mean(kind, blocks[n], span, *pair) for n, kind in wanted.items()]
            found = torch.cat(means).tolist()  # the only wait
    except torch.OutOfMemoryError:  # the host has room
        return {}
    values: dict[str, float] = {}
    for (name, kind), count in zip(wanted.items(), map(len, means), strict=True):
        of_views, found = found[:count], found[count:]
        values[name] = sum(_score(kind, value) for value in of_views) / count
    return values


def _kind(block: Mapping[str, Any]) -> str | None:
    """The function that a block asks for, if it is one of those here, with options that are understood."""
    if set(metric_options(block)) - OPTIONS or block.get("color_order", "rgb") != "rgb":
        return None
    if block.get("engine", "auto") not in ("auto", "own") or "." in block["type"]:
        return None
    name = getattr(METRICS.get(block["type"]), "__name__", None)
    accepted = METRICS.parameters(block["type"])
    return name if name in COMPUTED and set(metric_options(block)) - {"type"} <= set(accepted) else None


def _fits(kind: str, block: Mapping[str, Any], image: Tensor) -> bool:
    border = block.get("crop_border", 0)
    if "clip" in METRICS.parameters(block["type"]) and block.get("data_range"):
        return False
    least = (WINDOW if "ssim" in kind else 1) + 2 * border
    colours = (1, 3, STEREO) if kind in OF_VIEWS else (1, 3)
    has_luma = image.shape[1] in colours or not block.get("test_y_channel")
    return border >= 0 and min(image.shape[-2:]) >= least and has_luma


def _values(image: Tensor, rounding: str, is_output: bool) -> Tensor:
    """What `scoring.for_metrics` gives, (C, H, W), float64: in [0, 255] where all is rounded to 8 bits, else in [0, 1]."""
    clipped = image[0].detach().float().clamp(0, 1)
    if rounding == "8bit":
        return (clipped * 255).round().double()
    return ((clipped * 255).round() / 255 if rounding == "output" and is_output else clipped).double()


def _mean(kind: str, block: Mapping[str, Any], span: float, x: Tensor, y: Tensor) -> Tensor:
    """The mean of each view, (views,), or of all channels together; images are cropped, scaled and reduced to luma first."""
    border, full = block.get("crop_border", 0), block.get("data_range") or span
    pair = []
    for image in (x, y):
        cut = image[:, border : image.shape[1] - border, border : image.shape[2] - border]
        pair.append(cut * (255 / full))
    views = [tuple(p.unflatten(0, (2, 3)).unbind(0)) if len(p) == STEREO and kind in OF_VIEWS else (p,) for p in pair]
    luma = block.get("test_y_channel", False)
    return torch.stack(
        [COMPUTED[kind](*((_luma(a), _luma(b)) if luma else (a, b))) for a, b in zip(*views, strict=True)]
    )


def _luma(rgb: Tensor) -> Tensor:
    """As `images.luma`, rounded where that is."""
    if len(rgb) == 1:
        return rgb
    exact = rgb.float().div(255).double()
    y = torch.tensordot(constant(tuple(LUMA), exact), exact, 1) + 16.0
    rounded: Tensor = ((y / 255).float() * 255).double()[None]
    return rounded


def _similarity(x: Tensor, y: Tensor) -> Tensor:
    """The mean of SSIM's map, channel by channel, so that large images need no more memory than their channels."""
    taps = torch.from_numpy(gaussian_taps(WINDOW // 2, 1.5)).to(x)
    pairs = ((a[None, None], b[None, None]) for a, b in zip(x, y, strict=True))
    return torch.stack([plain_similarity(a, b, taps, 255.0)[0].mean() for a, b in pairs]).mean()


def _square(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).square().mean()


def _absolute(x: Tensor, y: Tensor) -> Tensor:
    return (x - y).abs().mean()


COMPUTED: dict[str, Compute] = {
    "calculate_psnr": _square,
    "calculate_psnr_pt": _square,
    "calculate_psnr_skimage": _square,
    "calculate_mae": _absolute,
    "calculate_ssim": _similarity,
    "calculate_ssim_pt": _similarity,
}
"""What is computed on the device, by the function that it stands for."""
OF_VIEWS = ("calculate_psnr", "calculate_ssim", "calculate_ssim_pt")
"""Metrics that score the two views of six channels one by one."""


def _score(kind: str, mean: float) -> float:
    """The score of a mean, as the function called `kind` has it."""
    if kind == "calculate_psnr_pt":
        return decibels(mean / 255**2 + 1e-8, peak=1.0)
    return decibels(mean) if "psnr" in kind else mean
