"""The package's source files, for tests that read them."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("archs", "core", "datasets", "losses", "schedulers", "tools")


@cache
def modules() -> dict[str, tuple[str, ast.Module]]:
    """Text and tree of every module, by its path."""
    files = [file for room in ROOMS for file in sorted((ROOT / room).rglob("*.py"))]
    texts = {file.relative_to(ROOT).as_posix(): file.read_text(encoding="utf-8") for file in files}
    return {path: (text, ast.parse(text)) for path, text in texts.items()}
