"""Running a network for video on a clip: tiled and padded as images are, in windows of time where the whole does not fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
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
        run: function that gives as many frames as it is given, (B, t, C, H, W) -> (B, t, C, H', W').
        clip: (B, T, C, H, W).
        window: most frames at a time; None for all.
        overlap: frames that neighbouring windows share.

    Raises:
        UserError: windows that do not go on.
    """
    if window is None or clip.shape[1] <= window:
        return run(clip)
    return torch.cat(list(streamed(run, clip.split(1, 1), window, overlap)), 1)


def streamed(
    run: Callable[[Tensor], Tensor],
    frames: Iterable[Tensor],
    window: int,
    overlap: int,
    is_cut: Callable[[Tensor, Tensor], bool] = lambda before, after: False,
) -> Iterator[Tensor]:
    """As `in_windows`, of frames (B, 1, C, H, W) that come one after the other: results in order, some frames at a time.

    No more than two windows of frames are held, however long the clip is. No window reaches across a cut.

    Args:
        run, window, overlap: see `in_windows`.
        frames: frames of the clip.
        is_cut: whether another scene begins with the second of two frames.

    Raises:
        UserError: windows that do not go on.
    """
    refuse_overlap(window, overlap)
    held: list[Tensor] = []  # the last frames of the scene
    start = done = 0  # where in them the next window begins, and how many have results
    for frame in frames:
        if held and is_cut(held[-1], frame):
            yield _ending(run, held, window, done)
            held, start, done = [], 0, 0
        if len(held) == start + window:  # and this is not the scene's last window
            until = len(held) - overlap // 2  # half of what is shared with the next window is that one's
            yield run(torch.cat(held[start:], 1))[:, done - start : until - start]
            held, start, done = held[start:], window - overlap, until - start
        held.append(frame)
    if held:
        yield _ending(run, held, window, done)


State = Any
Step = Callable[[Tensor, State, int], tuple[Tensor, State]]
"""``step(part, state, count)``: the first `count` results of some frames (B, t, C, H, W), and the state after those."""


def carried(
    step: Step,
    frames: Iterable[Tensor],
    window: int,
    overlap: int,
    is_cut: Callable[[Tensor, Tensor], bool] = lambda before, after: False,
) -> Iterator[Tensor]:
    """`streamed` for a recurrent network: frames (B, 1, C, H, W); its state goes from window to window, and ends at a cut.

    What came before is then known however long ago it was; of what comes after, each frame has `overlap` frames at least.

    Args:
        step: a part of the clip, see `NetworkTraits.continued`; the state is None where a scene begins.
        frames, window, overlap, is_cut: see `streamed`.

    Raises:
        UserError: windows that do not go on.
    """
    refuse_overlap(window, overlap)
    held: list[Tensor] = []
    state: State = None
    for frame in frames:
        if held and is_cut(held[-1], frame):
            yield step(torch.cat(held, 1), state, len(held))[0]
            held, state = [], None
        if len(held) == window:
            results, state = step(torch.cat(held, 1), state, window - overlap)
            yield results
            held = held[window - overlap :]
        held.append(frame)
    if held:
        yield step(torch.cat(held, 1), state, len(held))[0]


def continued_by(
    step: Step, clip: Tensor, state: State, count: int, window: int | None, overlap: int
) -> tuple[Tensor, State]:
    """The first `count` results of a clip, and the state after them, in windows as those of `carried`.

    Args:
        step, window, overlap: see `carried`; without `window` all frames at a time.
        clip: (B, T, C, H, W), of one scene; frames from `count` on are only looked at.
        state: what is known of the frames before; None where the scene begins.
        count: number of results, from 1 to T.

    Raises:
        UserError: windows that do not go on.
    """
    if window is None or clip.shape[1] <= window:
        return step(clip, state, count)
    refuse_overlap(window, overlap)
    results: list[Tensor] = []
    start = 0
    while start < count:
        ends = start + window >= clip.shape[1]
        answered = count - start if ends else min(window - overlap, count - start)
        made, state = step(clip[:, start : start + window], state, answered)
        results.append(made)
        start += answered
    return torch.cat(results, 1), state


def lengthened(run: Callable[[Tensor], Tensor], least: int) -> Callable[[Tensor], Tensor]:
    """`run` for clips (B, T, C, H, W) of fewer than `least` frames too: the last one is repeated, and its extra results
    dropped.
    """

    def longer(clip: Tensor) -> Tensor:
        absent = least - clip.shape[1]
        if absent <= 0:
            return run(clip)
        return run(torch.cat([clip, clip[:, -1:].expand(-1, absent, -1, -1, -1)], 1))[:, : clip.shape[1]]

    return longer


def refuse_overlap(window: int, overlap: int) -> None:
    """Refuse windows that do not go on.

    Raises:
        UserError: they do not.
    """
    if not 0 <= overlap < window:
        raise UserError(f"val.window_overlap: {overlap} must be less than val.window_frames {window}")


def _ending(run: Callable[[Tensor], Tensor], held: list[Tensor], window: int, done: int) -> Tensor:
    """What is left of a scene, from its last window, which is as long as the others where the scene is."""
    start = max(len(held) - window, 0)
    return run(torch.cat(held[start:], 1))[:, done - start :]
