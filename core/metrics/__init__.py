"""Metrics: functions of ``(img, img2)``, or of ``img`` alone, selected by ``type`` in ``val.metrics``.

A metric scores one image and returns a float. What images it takes is said once, in `images`. One that scores a whole set is a
`SetMetric`, a class.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..annotations import setting
from ..errors import UserError
from ..registry import Registry
from .images import nan_without_score
from .libraries import known_metrics, metric_from_library

METRICS = Registry(
    "metric", "relume.core.metrics", runtime=("img", "img2"), library=metric_from_library, library_names=known_metrics
)

IDENTICAL = 100.0
"""dB that the PSNR of an image counts as at most in a mean over images; that of equal images is infinite."""


Direction = Literal["higher", "lower"]
Space = Literal["encoded", "linear", "flow", "clip"]
"""What a metric is given: images as the network sees them, the linear radiance that they stand for, motion in pixels, or
neighbouring frames of a clip as the network sees them."""
M = TypeVar("M", bound=Callable[..., float])


def metric(better: Direction, *aliases: str, space: Space = "encoded", most: float | None = None) -> Callable[[M], M]:
    """Decorator: register a metric under its own name and `aliases`, and note which of two scores is the better one, what
    images it is given, and what a score counts as in a mean at most, where it is unbounded."""

    def register(computed: M) -> M:
        function = nan_without_score(computed)
        function.better = better  # type: ignore[attr-defined]
        function.space = space  # type: ignore[attr-defined]
        function.most = most  # type: ignore[attr-defined]
        METRICS.register(aliases=aliases)(function)
        return function

    return register


@dataclass
class MetricKeys:
    """Keys of a block in ``val.metrics`` besides the metric's own."""

    better: Literal["higher", "lower"] | None = setting(None, "Which is better; the metric itself knows when omitted.")
    space: Literal["encoded", "linear", "flow", "clip"] | None = setting(
        None,
        "What is scored: images as networks see them, linear radiance (HDR), flow, or clips; what suits the metric if omitted.",
    )


EVALUATION_KEYS = tuple(f.name for f in fields(MetricKeys))
"""Keys of a block in ``val.metrics`` that are for the evaluation, and not for the metric."""


class SetMetric:
    """A score of a set of images; a subclass is registered like a function, and built with its block's options.

    The evaluator calls `start`, then `update` for every batch that the model makes, then `compute`; again for the next set.
    """

    better: ClassVar[Direction]

    def check(self, reference: Any, images: int) -> None:
        """Raise `UserError`, before anything is run, if a set of so many images, and this reference, will have no score."""

    def start(self, reference: Any, device: torch.device) -> None:
        """Forget what was seen.

        Args:
            reference: dataset of real images to compare with, the evaluated dataset's ``reference``; None without one.
            device: device of the images to come.

        Raises:
            NotImplementedError: always; subclasses implement it.
        """
        raise NotImplementedError

    def update(self, images: Tensor, indices: Sequence[int]) -> None:
        """See images (B, C, H, W), made to be in [0, 1] and not clipped; `indices` are their numbers in the set.

        Raises:
            NotImplementedError: always; subclasses implement it.
        """
        raise NotImplementedError

    def compute(self) -> dict[str, float]:
        """Scores of all ranks' images together, the same on every rank, by what is added to the metric's name (``""`` once).

        Raises:
            NotImplementedError: always; subclasses implement it.
        """
        raise NotImplementedError


def scores_sets(name: str) -> bool:
    """Whether the metric is a `SetMetric`."""
    member = METRICS.get(name)
    return inspect.isclass(member) and issubclass(member, SetMetric)


def metric_direction(name: str) -> Direction:
    """Whether a "higher" or a "lower" score of the metric is better; "higher" where it does not say (a plugin's).

    Raises:
        UserError: no metric is called `name`, or it is another library's, none of which is asked.
    """
    found = METRICS.get(name)
    if "." in name and not hasattr(found, "better"):
        raise UserError(f"{name}: give better: lower, or better: higher")
    direction: Direction = getattr(found, "better", "higher")
    return direction


def metric_space(name: str) -> Space:
    """What images the metric takes; "encoded" where it does not say (a plugin's).

    Raises:
        UserError: no metric is called `name`.
    """
    space: Space = getattr(METRICS.get(name), "space", "encoded")
    return space


def mean_score(name: str, values: Sequence[float], what: str = "images") -> tuple[float, str]:
    """The mean over images of the scores of the metric `name`, and in words what is special about it (or nothing).

    Also over clips, or validation sets: `what` is their name.

    A score without bound, PSNR of images that are equal, would make every mean of it infinite and hide all others. So PSNR
    counts as `IDENTICAL` at most: a constant, that means of different runs may be compared, and an image that becomes exact
    never lowers a mean. Where all images are equal the mean is infinite, and hides nothing. Of a metric that does not say
    what is most (a plugin's), infinite scores are left out where others are finite. NaN stays NaN.

    Raises:
        UserError: no metric is called `name`.
    """
    scores = np.asarray(values, np.float64)
    infinite = int(np.isinf(scores).sum())
    most: float | None = getattr(METRICS.get(name), "most", None)
    if most is not None and infinite < len(scores):
        said = f"{infinite} of {len(scores)} {what} equal their ground truth and count as {most:g}"
        return float(np.minimum(scores, most).mean()), said if infinite else ""
    if 0 < infinite < len(scores):
        said = f"{infinite} of {len(scores)} scores are infinite and left out of the mean"
        return float(scores[~np.isinf(scores)].mean()), said
    return float(scores.mean()), ""


def calculate_metric(data: Mapping[str, Any], opt: Mapping[str, Any]) -> float:
    """Score one image, as BasicSR's function of this name does.

    Args:
        data: ``{"img": result, "img2": ground truth}``; a metric without reference ignores ``img2``, which may be absent.
            See `images` for the arrays and tensors that are taken, and their value ranges.
        opt: a block of ``val.metrics``: ``{"type": "calculate_psnr", "crop_border": 4, "test_y_channel": True}``. The keys
            that are for the evaluation (`EVALUATION_KEYS`) are ignored. Not modified.

    Raises:
        UserError: unknown metric or option, no ``img2`` for a metric that needs it, or images that cannot be compared.
    """
    if "type" not in opt:
        raise UserError(f"a metric's options need a 'type'; got {dict(opt)!r}.")
    name = opt["type"]
    if scores_sets(name):
        raise UserError(f"{name} scores whole sets of images, not one; list it in val.metrics")
    wanted = METRICS.runtime if needs_reference(name) else ("img",)
    missing = [k for k in wanted if data.get(k) is None]
    if missing:
        raise UserError(f"{name} lacks {' and '.join(missing)} (img is the result, img2 the ground truth).")
    return float(METRICS.build(metric_options(opt), **{k: data[k] for k in wanted}))


def metric_options(block: Mapping[str, Any]) -> dict[str, Any]:
    """A block of ``val.metrics`` without the keys that are for the evaluation."""
    return {k: v for k, v in block.items() if k not in EVALUATION_KEYS}


def needs_reference(name: str) -> bool:
    """Whether a metric is a function of two images."""
    return "img2" in inspect.signature(METRICS.get(name)).parameters
