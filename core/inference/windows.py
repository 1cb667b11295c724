"""Running a network for video on a clip: tiled and padded as images are, in windows of time where the whole does not fit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from .network import network_trait
from .tiling import Inference, size_multiple


class Folded:
    """A network of clips as a function of images whose channels are those of all frames."""

    def __init__(self, network: nn.Module, frames: int) -> None:
        self.network, self.frames = network, frames
        self.size_multiple = size_multiple(network)

    def __call__(self, stacked: Tensor) -> Tensor:
        """(B, T C, H, W) -> (B, T C, H', W'), or (B, C, H', W') from a network that gives one frame."""
        result = self.network(stacked.unflatten(1, (self.frames, -1)))
        result = result if isinstance(result, Tensor) else result[0]
        return result.flatten(1, 2) if result.dim() == 5 else result


def run_clip(inference: Inference, network: nn.Module, clip: Tensor) -> Tensor:
    """What a network makes of a clip (B, T, C, H, W): (B, T, C, H', W'), or one frame (B, C, H', W')."""
    frames, channels = clip.shape[1:3]
    result: Any = inference(Folded(network, frames), clip.flatten(1, 2))
    assert isinstance(result, Tensor)
    gives_one = network_trait(network, "takes_frames") or result.shape[1] != frames * channels
    return result if gives_one else result.unflatten(1, (frames, -1))


def in_windows(run: Callable[[Tensor], Tensor], clip: Tensor, window: int | None, overlap: int) -> Tensor:
    """The frames of a long clip, in windows of time that overlap; each from the window in which it is farthest from the ends.

    Args:
        run: gives as many frames as it is given, (B, t, C, H, W) -> (B, t, C, H', W').
        clip: (B, T, C, H, W).
        window: most frames at a time; None for all.
        overlap: frames that neighbouring windows share.

    Raises:
        UserError: windows that do not go on.
    """
    count = clip.shape[1]
    if window is None or count <= window:
        return run(clip)
    if not 0 <= overlap < window:
        raise UserError(f"val.window_overlap: {overlap} must be less than val.window_frames {window}")
    results, done, start = [], 0, 0
    while done < count:
        start = min(start, count - window)
        end = start + window
        # Half of what is shared with the next window is that one's; the last window has no next.
        until = count if end == count else end - overlap // 2
        made = run(clip[:, start:end])
        results.append(made[:, done - start : until - start])
        done, start = until, start + window - overlap
    return torch.cat(results, 1)
