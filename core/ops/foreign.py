"""Functions of packages with kernels, mamba-ssm and causal-conv1d, where they can be imported.

Importing the top of mamba-ssm runs its language models and its compiled extension, either of which may be missing. Its Triton
kernels need neither, so if that fails they are imported from the package's folder alone.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any


def function(module: str, name: str) -> Callable[..., Any]:
    """A function of a foreign module. Raises whatever importing it raises."""
    try:
        found = importlib.import_module(module)
    except Exception:  # of whatever kind: a missing extension, an incompatible dependency of the language models
        found = _import_beside(module)
    result: Callable[..., Any] = getattr(found, name)
    return result


@functools.cache
def function_or_none(module: str, name: str) -> Callable[..., Any] | None:
    """The same, or None where it cannot be imported for whatever reason."""
    try:
        return function(module, name)
    except Exception:  # a foreign package may fail to import in any way
        return None


def _import_beside(name: str) -> ModuleType:
    """Import a submodule without running its top package's ``__init__``, and leave no trace of having done so on failure."""
    top = name.split(".")[0]
    spec = importlib.util.find_spec(top)
    if spec is None:
        raise ModuleNotFoundError(f"No module named '{top}'", name=top)
    before = set(sys.modules)
    stub = ModuleType(top)
    stub.__path__ = list(spec.submodule_search_locations or ())
    sys.modules[top] = stub
    try:
        return importlib.import_module(name)
    except BaseException:
        for key in set(sys.modules) - before:
            del sys.modules[key]
        raise
    finally:
        sys.modules.pop(top, None)
