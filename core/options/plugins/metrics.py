"""Metrics of forks: functions of two images, called as BasicSR calls them, that say nothing of themselves."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any

Function = Callable[..., Any]
LOWER = re.compile(r"lpips|dists|niqe|brisque|piqe|fid|kid|mae\b|mse|error|loss|distance|ergas|sam\b", re.IGNORECASE)
"""Metrics whose lower score is the better one, by what they are called."""


def adapted(function: Function) -> Function:
    """A fork's metric as ``metric(img, img2, ...)``; `function` itself where it is that already.

    Old forks call the images ``img1`` and ``img2``, and something else again: the first two parameters without default are the
    images, whatever they are called. The direction that BasicSR assumes where an option file does not say it, higher, is
    assumed but for names that say otherwise; ``assumed`` notes it.
    """
    if inspect.isclass(function) or hasattr(function, "better"):
        return function
    parameters = list(inspect.signature(function).parameters.values())
    first = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)][:2]
    pair = len(first) == 2 and first[1].default is inspect.Parameter.empty and first[1].name != "crop_border"
    names = ("img", "img2")[: 2 if pair else 1]

    @functools.wraps(function)
    def metric(**options: Any) -> float:
        images = [options.pop(name) for name in names]
        return float(function(*images, **options))

    images = [p.replace(name=n, kind=p.KEYWORD_ONLY) for p, n in zip(first, names, strict=False)]
    rest = [p if p.kind is p.VAR_KEYWORD else p.replace(kind=p.KEYWORD_ONLY) for p in parameters[len(names) :]]
    rest = [p for p in rest if p.kind is not p.VAR_POSITIONAL]
    metric.__signature__ = inspect.Signature([*images, *rest])  # type: ignore[attr-defined]
    metric.assumed = "lower" if LOWER.search(function.__name__) else "higher"  # type: ignore[attr-defined]
    return metric
