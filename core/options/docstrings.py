"""What docstrings say about options: the first sentence of a component, and the ``Args`` of its constructor."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

HEADING = re.compile(r"(Args|Arguments|Parameters):\s*$")
ENTRY = re.compile(r"(?P<name>\w+)\s*(\([^)]*\))?\s*:\s*(?P<text>.*)")


def summary(target: Callable[..., Any]) -> str:
    """The first paragraph of a docstring, on one line."""
    paragraph = (inspect.getdoc(target) or "").split("\n\n", 1)[0]
    return " ".join(paragraph.split())


def arguments(target: Callable[..., Any]) -> dict[str, str]:
    """Descriptions by parameter name. A class also has those of its bases, where it says nothing itself.

    >>> def resize(size):
    ...     '''Resize.
    ...
    ...     Args:
    ...         size: side of the square,
    ...             in pixels.
    ...     '''
    >>> arguments(resize)
    {'size': 'side of the square, in pixels.'}
    """
    sources: list[Any] = [target]
    if inspect.isclass(target):
        sources = [part for cls in target.__mro__ if cls is not object for part in (cls, cls.__dict__.get("__init__"))]
    found: dict[str, str] = {}
    for source in sources:
        text = getattr(source, "__doc__", None)
        for name, description in _section(inspect.cleandoc(text)).items() if text else ():
            found.setdefault(name, description)
    return found


def _section(text: str) -> dict[str, str]:
    """The entries of a Google-style ``Args`` section."""
    lines = iter(text.splitlines())
    margin = next((len(line) - len(line.lstrip()) for line in lines if HEADING.fullmatch(line.strip())), None)
    if margin is None:
        return {}
    found: dict[str, str] = {}
    depth, name = None, ""
    for line in lines:
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        if indent <= margin:
            break
        depth = indent if depth is None else depth
        entry = ENTRY.fullmatch(line.strip()) if indent == depth else None
        if entry:
            name = entry["name"]
            found[name] = entry["text"]
        elif name:
            found[name] = f"{found[name]} {line.strip()}".strip()
    return found
