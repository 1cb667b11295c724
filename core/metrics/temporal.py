"""Scores of a clip's consistency in time: warping error, and tOF.

A clip is a sequence of at least two frames: a tensor (T, C, H, W), an array (T, H, W, C), or (T, C, H, W) with
``input_order: CHW``, or a list of images; see `images` for what an image may be. Optical flow is Farneback's, by OpenCV, of
8-bit gray frames. A score of a clip is the mean over its pairs of neighbouring frames. An evaluation files a pair's score
under its second frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from ..annotations import NonNegative, Positive
from ..errors import UserError
from ..imaging.opencv import cv2
from . import metric
from .images import OVERSHOOT, AnyImage, ColorOrder, InputOrder, has_colours, prepared

Frames = Tensor | np.ndarray | Sequence[AnyImage]

PYRAMID, LEVELS, WINDOW, STEPS, NEIGHBOURS, SIGMA = 0.5, 3, 15, 3, 5, 1.2
"""Constants of Farneback's flow in the evaluation of TecoGAN."""
CONSISTENT = 0.01, 0.5
"""What the squared length of a flow and its way back may be: a share of their squared lengths, and squared pixels."""
BOUNDARY = 0.01, 0.002
"""What the squared gradient of a flow may be: a share of its squared length, and a constant."""


class NothingVisible(UserError):
    """No pixel of a frame is seen in the next one."""


def gray(frame: np.ndarray) -> np.ndarray:
    """(H, W) uint8 of a prepared frame (H, W, C); raises UserError where it is neither gray nor RGB."""
    eight = np.clip(np.rint(frame), 0, 255).astype(np.uint8)
    result: np.ndarray = cv2.cvtColor(eight, cv2.COLOR_RGB2GRAY) if has_colours(frame) else eight[..., 0]
    return result


def flow_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(H, W, 2) float32: where each pixel of the gray image `first` is in `second`, in pixels to the right and down."""
    settings = PYRAMID, LEVELS, WINDOW, STEPS, NEIGHBOURS, SIGMA
    unused = np.zeros((*first.shape, 2), np.float32)  # where the estimate would begin, had we one
    result: np.ndarray = cv2.calcOpticalFlowFarneback(first, second, unused, *settings, 0)
    return result


def sampled(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """An image (H, W, C) where the flow points to, (H, W, C) float32; beyond the ends, the outermost pixels."""
    places = np.indices(flow.shape[:2], np.float32)
    right, down = places[1] + flow[..., 0], places[0] + flow[..., 1]
    moved = cv2.remap(image.astype(np.float32), right, down, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    result: np.ndarray = moved.reshape(image.shape)
    return result


def visible(forward: np.ndarray, backward: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels of the first frame that are in the second, too, and not at the boundary of a motion.

    Ruder et al. (GCPR 2016, section 3.3): the flow to the second frame and that from there lead back, and the flow is smooth.

    Args:
        forward, backward: flow (H, W, 2) from the first frame to the second, and from the second to the first.
    """
    height, width = forward.shape[:2]
    down, right = np.indices((height, width))
    x, y = right + forward[..., 0], down + forward[..., 1]
    inside = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    back = sampled(backward, forward)
    square = (forward**2).sum(-1)
    leads_back = ((forward + back) ** 2).sum(-1) <= CONSISTENT[0] * (square + (back**2).sum(-1)) + CONSISTENT[1]
    across, along = (
        np.diff(forward, axis=axis, append=edge) for axis, edge in ((1, forward[:, -1:]), (0, forward[-1:]))
    )
    smooth = (across**2).sum(-1) + (along**2).sum(-1) <= BOUNDARY[0] * square + BOUNDARY[1]
    result: np.ndarray = inside & leads_back & smooth
    return result


def warping_error(first: np.ndarray, second: np.ndarray, forward: np.ndarray, backward: np.ndarray) -> float:
    """Mean squared difference of a frame and the next one brought back to it, where both show the same.

    Args:
        first, second: frames (H, W, C) in [0, 255]; the difference is that of values in [0, 1].
        forward, backward: flows both ways, see `visible`.

    Raises:
        NothingVisible: no pixel is to be compared.
    """
    mask = visible(forward, backward)
    if not mask.any():
        raise NothingVisible("no pixel of a frame is seen in the next one")
    return float((((first - sampled(second, forward))[mask] / 255.0) ** 2).mean())


@metric("lower", "warping_error", space="clip")
def calculate_warping_error(
    img: Frames,
    img2: Frames,
    crop_border: NonNegative = 0,
    color_order: ColorOrder | None = None,
    input_order: InputOrder = "HWC",
    data_range: Positive | None = None,
) -> float:
    """Warping error: how much a clip changes along the motion of its ground truth, as a mean square in [0, 1]. Lower is better.

    Paper: Lai et al., ECCV 2018, whose flow is that of FlowNet2. Constants: Farneback's flow as in the evaluation of TecoGAN;
    occlusions by Ruder et al., GCPR 2016: 0.01 and 0.5, 0.01 and 0.002. Input: a clip of gray or RGB frames; integers, or
    floats in [0, 1] or [0, 255]. Least size: 1 pixel a side, 2 frames.

    The mean over pairs of neighbouring frames of ``mean |V_t - warp(V_t+1)|^2`` over the pixels that both show. The motion,
    and what both show, are estimated from the ground truth, so that a clip's own faults do not excuse it. A pair without such
    pixels (a scene cut) is left out. NaN where a frame is not finite.

    Args:
        img: restored clip; see `relume.core.metrics.temporal` for layouts.
        img2: ground truth.
        crop_border: pixels to ignore on every side, of the motion, too.
        color_order: order of three channels; bgr for arrays and rgb for tensors when omitted.
        input_order: layout of arrays.
        data_range: full scale; from the frames when omitted.

    Raises:
        UserError: fewer than two frames, clips that do not fit, or no pair shows the same.
    """

    def of_pair(made: list[np.ndarray], true: list[np.ndarray]) -> float:
        a, b = map(gray, true)
        return warping_error(made[0], made[1], flow_between(a, b), flow_between(b, a))

    return _mean_over_pairs(
        "calculate_warping_error", of_pair, img, img2, crop_border, color_order, input_order, data_range
    )


@metric("lower", "tof", "tOF", space="clip")
def calculate_tof(
    img: Frames,
    img2: Frames,
    crop_border: NonNegative = 0,
    color_order: ColorOrder | None = None,
    input_order: InputOrder = "HWC",
    data_range: Positive | None = None,
) -> float:
    """tOF: how far a clip's motion is from that of its ground truth, in pixels. Lower is better.

    Paper: Chu et al., "Learning temporal coherence via self-supervision for GAN-based video generation" (TecoGAN), TOG 2020.
    Constants: of its code, Farneback's flow with 0.5, 3, 15, 3, 5, 1.2. Input: a clip of gray or RGB frames; integers, or
    floats in [0, 1] or [0, 255]. Least size: 1 pixel a side, 2 frames.

    The mean over pairs of neighbouring frames, and over pixels, of the length of the difference of both flows. Tables print
    ten times that. The original cuts frames to multiples of 32 first, which `crop_border` may do. NaN where a frame is not
    finite. Arguments as of `calculate_warping_error`.
    """

    def of_pair(made: list[np.ndarray], true: list[np.ndarray]) -> float:
        mine, real = (flow_between(*map(gray, pair)) for pair in (made, true))
        return float(np.linalg.norm(mine.astype(np.float64) - real, axis=-1).mean())

    return _mean_over_pairs("calculate_tof", of_pair, img, img2, crop_border, color_order, input_order, data_range)


Pairwise = Callable[[list[np.ndarray], list[np.ndarray]], float]


def _mean_over_pairs(
    owner: str, of_pair: Pairwise, img: Frames, img2: Frames, border: int, colors: Any, layout: Any, data_range: Any
) -> float:
    options = {"crop_border": border, "color_order": colors, "input_order": layout, "data_range": data_range}
    given = _frames(owner, img), _frames(owner, img2)
    if len(given[0]) != len(given[1]):
        raise UserError(f"{owner}: clips of {len(given[0])} and {len(given[1])} frames")
    scores: list[float] = []
    nothing: NothingVisible | None = None
    for first, second in _pairs(owner, given, options):
        try:
            scores.append(of_pair([first[0], second[0]], [first[1], second[1]]))
        except NothingVisible as e:
            nothing = e
    if not scores:
        raise UserError(f"{owner}: {nothing}")
    return float(np.mean(scores))


def _frames(owner: str, clip: Frames) -> list[AnyImage]:
    """The frames of a clip. Raises UserError if it is none."""
    if isinstance(clip, (Tensor, np.ndarray)) and clip.ndim != 4:
        raise UserError(f"{owner}: a clip is (T, H, W, C), of tensors (T, C, H, W); got shape {tuple(clip.shape)}")
    if len(clip) < 2:
        raise UserError(f"{owner}: needs a clip of at least 2 frames, got {len(clip)}")
    return list(clip)


def _pairs(
    owner: str, given: tuple[list[AnyImage], list[AnyImage]], options: dict[str, Any]
) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Neighbouring frames, each prepared with its ground truth, which has one range of values throughout."""
    if options["data_range"] is None:
        options = {**options, "data_range": _range(given[1])}
    before: list[np.ndarray] | None = None
    for images in zip(*given, strict=True):
        frame = prepared(owner, *images, **options)
        if before is not None:
            if before[1].shape != frame[1].shape:
                raise UserError(f"{owner}: frames of one clip have several sizes")
            yield before, frame
        before = frame


def _range(truth: list[AnyImage]) -> float | None:
    """The full scale of a clip of floats, which a dark frame alone does not tell; None where each frame tells its own."""
    if any(not f.is_floating_point() if isinstance(f, Tensor) else np.asarray(f).dtype.kind != "f" for f in truth):
        return None
    largest = max(float(frame.max()) for frame in truth)
    return 255.0 if OVERSHOOT < largest <= 256.0 else None
