"""Degradations: what turns a good photograph into one as it comes from the internet.

The operators, faithful to the public training code (`kernels`, `filters`, `jpeg`, `engines`), and recipes made of them: the
second-order chain of Real-ESRGAN (`second_order`) and lists of registered operations (`operations`). A recipe is written once,
against an `engines.Engine`: OpenCV and real codecs in the loading processes, or tensors on any device. Whatever is random comes
from `draws.Draws`, which depends on the sample's seed alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..registry import Registry

DEGRADATIONS = Registry("degradation", "relume.core.degradations")


def build_degradation(opt: Mapping[str, Any]) -> Any:
    """Build the operation that ``opt = {type: name, **options}`` describes. `opt` is not modified.

    Raises:
        UserError: unknown type, unknown, missing or wrong option.
    """
    return DEGRADATIONS.build(opt)


__all__ = ["DEGRADATIONS", "build_degradation"]
