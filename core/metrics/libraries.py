"""Metrics of other libraries by dotted name: ``type: piq.gmsd``, ``type: torchmetrics.image.VisualInformationFidelity``."""

from __future__ import annotations

import functools
import importlib
import inspect
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..annotations import NonNegative
from ..errors import UserError, did_you_mean, in_one_line, require
from ..registry import MISSING, Parameter, signature
from .images import AnyImage, ColorOrder, nan_without_score, prepared

log = logging.getLogger("relume")
ANY = "<metric>"
"""What stands for a metric's name in listings."""
DataRange = float | tuple[float, float]


class Library(NamedTuple):
    """What is known of a library of metrics.

    Attributes:
        licence: SPDX name.
        takes: ``tensors`` (1, C, H, W) or ``arrays`` (H, W, C), float32, RGB.
        below: the only part of it whose names are metrics of images.
    """

    licence: str
    takes: Literal["tensors", "arrays"] = "tensors"
    below: str = ""


LIBRARIES = {
    "piq": Library("Apache-2.0"),
    "torchmetrics": Library("Apache-2.0"),
    "pytorch_msssim": Library("MIT"),
    "kornia": Library("Apache-2.0", below="metrics"),
    "skimage": Library("BSD-3-Clause", "arrays", "metrics"),
}
"""Libraries whose metrics can be named. An option file names no other code: that is what plug-ins are for."""
RESTRICTED = {
    "pyiqa": "PolyForm Noncommercial and CC BY-NC-SA",
    "IQA_pytorch": "GPL-3.0 in parts",
}
"""Libraries that people ask for, and why these are not named so."""
OF_FEATURES = ("compute_feats",)
OF_SETS = ("InceptionScore", "PerceptualPathLength")
_told: set[str] = set()
_built: dict[tuple[str, str], Any] = {}
"""Objects of classes, by name and options: some load networks."""


def known_metrics() -> Iterable[str]:
    """Forms of the names, for listings."""
    return [".".join(filter(None, (name, library.below, ANY))) for name, library in LIBRARIES.items()]


def metric_from_library(name: str) -> Callable[..., float] | None:
    """The metric with this dotted name, as a function of images like ours; None for names without a dot.

    Raises:
        UserError: the library is not one of `LIBRARIES` or is not installed, has no such metric, or it scores no images.
    """
    top, dot, path = name.partition(".")
    if not dot or not top or not path:
        return None
    if top in RESTRICTED:
        raise UserError(
            f"{name}: {top} is left out for its licence ({RESTRICTED[top]}); a plug-in of yours can call it. "
            f"Dotted names are of {', '.join(LIBRARIES)}"
        )
    if top not in LIBRARIES:
        raise UserError(
            f"{name}: metrics with dotted names are of {', '.join(LIBRARIES)}.{did_you_mean(top, LIBRARIES)} "
            "For code of your own, write a plug-in: docs/own_components.md"
        )
    if path.endswith(ANY):
        return form
    return _metric(name)


def form(img: AnyImage, img2: AnyImage, data_range: DataRange = 1.0, crop_border: NonNegative = 0) -> float:
    """Any metric of that library, with its own options; ``better: lower`` or ``better: higher`` must be given.

    Args:
        img: result.
        img2: ground truth.
        data_range: white of the images that the library is given, black being 0; or both, ``[-1, 1]``.
        crop_border: pixels to ignore on every side.

    Raises:
        UserError: always; a metric of the library is asked for by its own name.
    """
    raise UserError(f"write the metric's name for {ANY}")


@functools.cache
def _metric(name: str) -> Callable[..., float]:
    """The function for a name, whose signature is that of the library's metric and the options of ours."""
    top = name.partition(".")[0]
    target = _find(name, LIBRARIES[top])
    given = _images(name, target)
    own: Mapping[str, Parameter] = {k: p for k, p in signature(target, lenient=True).items() if k not in given}

    # A function like our own metrics, which converts images to the range and kind that the library takes.
    def score(
        img: AnyImage,
        img2: AnyImage | None = None,
        data_range: DataRange | None = None,
        crop_border: int = 0,
        color_order: ColorOrder | None = None,
        **options: Any,
    ) -> float:
        """The score of that library's metric.

        Raises:
            UserError: the library fails.
        """
        images = [image for image in (img, img2) if image is not None]
        black, white = _range(name, data_range, own)
        if "data_range" in own:
            options["data_range"] = (black, white) if black else white
        arrays = [
            (a / 255 * (white - black) + black).astype(np.float32)
            for a in prepared(name, *images, crop_border=crop_border, color_order=color_order)
        ]
        inputs = arrays if LIBRARIES[top].takes == "arrays" else [_tensor(a) for a in arrays]
        try:
            return _number(name, _call(name, target, inputs, options))
        except UserError:
            raise
        except Exception as e:  # a library's own words, of whatever class
            raise UserError(f"{name}: {in_one_line(e)}") from e

    # Its signature and docstring are those that the option checker and `relume explain` read.
    score.__signature__ = _signature(given, own)  # type: ignore[attr-defined]
    score.__annotations__ = {p.name: p.annotation for p in score.__signature__.parameters.values()}  # type: ignore[attr-defined]
    score.__doc__ = f"{(inspect.getdoc(target) or name).strip().splitlines()[0]}\n\n{name}, {LIBRARIES[top].licence}."
    score.__name__ = score.__qualname__ = name
    return nan_without_score(score)


def _find(name: str, library: Library) -> Callable[..., Any]:
    """The class or function of a name. Raises UserError."""
    parts = name.split(".")
    top, inner = parts[0], parts[1:]
    found: Any = require(top, name)
    if library.below and inner[0] != library.below:
        raise UserError(f"{name}: of {top}, only what is in {top}.{library.below} scores images")
    for depth, part in enumerate(inner, start=1):
        module = ".".join(parts[:depth])
        if part.startswith("_") or not part.isidentifier():
            raise UserError(f"{name}: '{part}' is no public name of {module}")
        if not hasattr(found, part) and inspect.ismodule(found):
            try:
                importlib.import_module(f"{module}.{part}")
            except ImportError as e:
                raise UserError(f"{name}: {module} has no '{part}'.{did_you_mean(part, dir(found))}") from e
        found = getattr(found, part, None)
    if not callable(found) or inspect.ismodule(found) or str(getattr(found, "__module__", "")).split(".")[0] != top:
        raise UserError(f"{name}: is not a metric of {top}")
    return found  # type: ignore[no-any-return]


def _images(name: str, target: Callable[..., Any]) -> list[str]:
    """Names of the parameters that are images: one, or two. Raises UserError for what scores something else."""
    if not inspect.isclass(target):
        taker: Callable[..., Any] = target
    elif hasattr(target, "update") and hasattr(target, "compute"):
        taker = target.update
    elif issubclass(target, nn.Module):
        taker = target.forward
    else:
        raise UserError(f"{name}: is a class that is neither a metric of images nor a module")
    parameters = [p for p in inspect.signature(taker).parameters.values() if p.name != "self"]
    required = [p.name for p in parameters if p.default is MISSING and p.kind is p.POSITIONAL_OR_KEYWORD]
    if target.__name__ in OF_SETS or "real" in required or any(hasattr(target, a) for a in OF_FEATURES):
        raise UserError(
            f"{name}: scores sets of images, or features of them; FID, KID, InceptionScore, Precision do that"
        )
    if not required:
        raise UserError(f"{name}: takes no image")
    # A function's third required parameter is an option, data_range of some; a module is given images only.
    given = required[:1] if len(required) > 1 and "range" in required[1] else required[:2]
    if taker is not target and len(required) > 2:
        raise UserError(f"{name}: takes {', '.join(required)}, which is more than two images")
    return given


def _signature(given: Sequence[str], own: Mapping[str, Parameter]) -> inspect.Signature:
    """``(img, img2)`` as they are needed, the options of the library, and ours."""
    keyword = inspect.Parameter.KEYWORD_ONLY
    images = [
        inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=AnyImage)
        for n in ("img", "img2")[: len(given)]
    ]
    ours: dict[str, tuple[Any, Any]] = {
        "data_range": (DataRange | None, None),
        "crop_border": (NonNegative, 0),
        "color_order": (ColorOrder | None, None),
    }
    theirs = [
        inspect.Parameter(p.name, keyword, default=p.default, annotation=p.annotation)
        for p in own.values()
        if p.name not in ours
    ]
    more = [inspect.Parameter(n, keyword, default=d, annotation=a) for n, (a, d) in ours.items()]
    return inspect.Signature([*images, *theirs, *more])


def _range(name: str, data_range: DataRange | None, own: Mapping[str, Parameter]) -> tuple[float, float]:
    """Black and white of what the library is given."""
    if data_range is None:
        default = own["data_range"].default if "data_range" in own else None
        if "data_range" not in own and name not in _told:
            _told.add(name)
            log.info("%s: is given images in [0, 1]; `data_range: 255`, or [-1, 1], gives it others", name)
        data_range = float(default) if isinstance(default, (int, float)) else 1.0
    black, white = (0.0, float(data_range)) if isinstance(data_range, (int, float)) else map(float, data_range)
    if not white > black:
        raise UserError(f"{name}: data_range: white must be above black, got {black:g} and {white:g}")
    return black, white


def _tensor(array: np.ndarray) -> Tensor:
    """(H, W, C) as (1, C, H, W)."""
    return torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))[None]


def _call(name: str, target: Callable[..., Any], inputs: Sequence[Any], options: Mapping[str, Any]) -> Any:
    """What a metric makes of images: a function, an object that collects and computes, or a module."""
    with torch.no_grad():
        if not inspect.isclass(target):
            return target(*inputs, **options)
        key = name, repr(sorted(options.items()))
        if key not in _built:
            _built[key] = target(**options)
            if isinstance(_built[key], nn.Module):
                _built[key].eval()
        built = _built[key]
        if not hasattr(built, "compute"):
            return built(*inputs)
        built.reset()
        built.update(*inputs)
        return built.compute()


def _number(name: str, value: Any) -> float:
    """A score. Raises UserError for what is no single number."""
    array = np.asarray(
        value.detach().cpu() if isinstance(value, Tensor) else value, dtype=object if value is None else None
    )
    if array.dtype.kind not in "fiu" or array.size != 1:
        raise UserError(f"{name}: gives {type(value).__name__} of shape {array.shape}, and not one number for an image")
    return float(array.reshape(()))
