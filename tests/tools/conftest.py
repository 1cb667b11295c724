"""The tools are scripts, not modules of the package: tests load them by path."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import pytest

import relume
from relume.core.cli import execute

TOOLS = Path(relume.__file__).resolve().parent / "tools"


@pytest.fixture(scope="session")
def tool() -> Callable[[str], ModuleType]:
    """``tool("ablation")``: the module of tools/ablation.py."""

    def load(name: str) -> ModuleType:
        path = list(sys.path)
        spec = importlib.util.spec_from_file_location(f"tool_{name}", TOOLS / f"{name}.py")
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up there
        spec.loader.exec_module(module)
        sys.path[:] = path
        return module

    return load


@pytest.fixture(scope="session")
def run_tool(tool: Callable[[str], ModuleType]) -> Callable[[str, Sequence[str]], int]:
    """``run_tool("ablation", arguments)``: the exit code of tools/ablation.py."""
    return lambda name, argv: execute(tool(name), argv, f"{name}.py")
