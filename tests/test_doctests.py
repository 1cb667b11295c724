"""The examples in docstrings are true, and every module imports on its own without the heavy optional packages."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

ROOMS = ("core", "archs", "losses", "datasets", "schedulers")
MODULES = [
    m.name
    for room in ROOMS
    for m in pkgutil.walk_packages(importlib.import_module(f"relume.{room}").__path__, f"relume.{room}.")
]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_importing_everything_needs_no_heavy_package() -> None:
    heavy = ["torchvision", "lpips", "tensorboard", "mamba_ssm", "skimage", "wandb", "fsspec", "scipy"]
    program = (
        f"import sys, importlib\nfor name in {MODULES!r}: importlib.import_module(name)\n"
        f"print(sorted(m for m in {heavy!r} if m in sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=600)
    assert done.stdout.strip() == "[]"
