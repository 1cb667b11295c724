"""What the text of modules says that they register, read without importing them."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

DECORATED = re.compile(r"^(@.*\n(?:[@ \t)\]#].*\n|\n)*)(?:async[ ]+)?(?:class|def)[ ]+(\w+)", re.MULTILINE)
"""The decorators of a class or function at a module's top level, and its name."""
QUOTED = re.compile(r"""["']([^"'\n]+)["']""")


def names_of(package: str) -> dict[str, list[str]]:
    """What the modules of a package may register, read from their text: modules by name.

    A name is that of a decorated class or function, or any string among its decorators' arguments; that is more than is
    registered, and nothing is imported but the package itself. Empty for what is not a folder.
    """
    root = importlib.import_module(package)
    found: dict[str, list[str]] = {}
    for folder in map(Path, getattr(root, "__path__", ())):
        for path in sorted(folder.rglob("*.py")):
            parts = path.relative_to(folder).with_suffix("").parts
            module = ".".join([package, *(parts[:-1] if parts[-1] == "__init__" else parts)])
            for decorators, name in DECORATED.findall(path.read_text(encoding="utf-8")):
                for word in (name, *QUOTED.findall(decorators)):
                    found.setdefault(word, []).append(module)
    return found


def definition(member: Callable[..., Any]) -> tuple[str, str]:
    """The file and name by which a reloaded module's members are recognised as the same ones."""
    try:
        return inspect.getfile(member), member.__qualname__
    except (TypeError, OSError):  # written at a prompt
        return member.__module__, member.__qualname__
