"""Fixtures that every test may use."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from forking import wait_for_no_disk

import relume

REPO = Path(relume.__file__).resolve().parent
GOLDEN = Path(os.environ.get("RELUME_GOLDEN", REPO.parent / "shared" / "golden"))

wait_for_no_disk()
torch.set_num_threads(1)  # the suite runs in parallel processes; one thread each is fastest and reproducible


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Path]:
    """``golden("hdr/s1.pt")``: the path of a file computed by an original implementation, or skip the test."""

    def find(name: str) -> Path:
        path = GOLDEN / name
        if not path.exists():
            pytest.skip(f"golden tensors are not here: {path} (set RELUME_GOLDEN)")
        return path

    return find


@pytest.fixture(scope="session")
def recipe(golden: Callable[[str], Path]) -> Callable[[str], ModuleType]:
    """``recipe("underwater/golden_recipe.py")``: the module that rebuilds a golden case's weights and inputs."""

    def load(name: str) -> ModuleType:
        spec = importlib.util.spec_from_file_location(Path(name).stem, golden(name))
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load
