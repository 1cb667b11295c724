"""A plug-in of pytest: how far the networks are from their originals, as a table after the tests that compare them.

``PYTHONPATH=tests pytest -n 0 -p differences tests/archs -k "golden or original or value_and_gradient"``

Prints for each test the largest difference of outputs, and of gradients, over the largest value of the original's tensor (or
over 1e-3, if that is more: some gradients are sums that cancel). It looks at what the tests' own comparisons are given.
"""

from __future__ import annotations

import linecache
import sys
from collections import defaultdict
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

COMPARE = {"zoo_cases": "near", "originals": "within", "test_hybrid": "differ", "test_mamba2": "near"}
"""Modules with a comparison of their own, whose first arguments are what was found and what the original has."""
LEAST = 1e-3
_worst: dict[str, dict[str, float]] = defaultdict(dict)
_running = ""


def _of_gradient(frame: FrameType | None) -> bool:
    """Whether one of the three innermost calls stands on a line about gradients."""
    for _ in range(3):
        if frame is None:
            return False
        if "grad" in linecache.getline(frame.f_code.co_filename, frame.f_lineno):
            return True
        frame = frame.f_back
    return False


def _note(found: Any, expected: Any, frame: FrameType | None) -> None:
    tensors = isinstance(found, Tensor) and isinstance(expected, Tensor) and found.shape == expected.shape
    if not tensors or not expected.is_floating_point() or not expected.numel():
        return
    theirs = expected.detach().double()
    difference = (found.detach().double() - theirs).abs().max() / theirs.abs().max().clamp_min(LEAST)
    kind = "gradients" if _of_gradient(frame) else "outputs"
    _worst[_running][kind] = max(_worst[_running].get(kind, 0.0), float(difference))


def _watch(module: ModuleType, name: str) -> None:
    compare: Callable[..., Any] = getattr(module, name)
    if hasattr(compare, "watched"):
        return

    def watching(found: Any, expected: Any, *arguments: Any, **options: Any) -> Any:
        _note(found, expected, sys._getframe(1))
        return compare(found, expected, *arguments, **options)

    watching.watched = True  # type: ignore[attr-defined]
    setattr(module, name, watching)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Watch the comparisons of what is imported by now."""
    global _running
    _running = item.nodeid
    _watch(torch.testing, "assert_close")
    for name, module in list(sys.modules.items()):
        if (compare := COMPARE.get(name.rsplit(".", 1)[-1])) is not None and hasattr(module, compare):
            _watch(module, compare)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print the table."""
    terminalreporter.section("largest differences, over the largest value")
    for test, worst in _worst.items():
        shown = ", ".join(f"{kind} {worst[kind]:.1e}" for kind in ("outputs", "gradients") if kind in worst)
        terminalreporter.line(f"{test.removeprefix('tests/')}: {shown}")
