"""What docstrings say about options: the first sentence of a component, and the ``Args`` of its constructor."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable
from typing import Any

HEADING = re.compile(r"(Args|Arguments|Parameters|Attributes):\s*$")
LIKE = re.compile(r"\b[Aa]rguments\b[^.]*?`([A-Za-z_]\w*)`")
"""``Arguments as of `calculate_psnr`.``: what is not described here is described there."""
SEE = re.compile(r"[Ss]ee (`(?P<whose>[A-Za-z_]\w*)`|there)(, as what follows)?\.?")
"""An argument that is described elsewhere, under the same name; ``there`` is where the one before it is."""
ENTRY = re.compile(r"(?P<names>\w+(, \w+)*)\s*(\([^)]*\))?\s*:\s*(?P<text>.*)")


def summary(target: Callable[..., Any]) -> str:
    """The first paragraph of a docstring, on one line."""
    paragraph = (inspect.getdoc(target) or "").split("\n\n", 1)[0]
    return " ".join(paragraph.split())


def facts(target: Callable[..., Any]) -> str:
    """The paragraph of a metric's docstring that begins with ``Paper:``, on one line; empty where there is none."""
    paragraphs = (inspect.getdoc(target) or "").split("\n\n")
    return next((" ".join(p.split()) for p in paragraphs if p.lstrip().startswith("Paper:")), "")


def arguments(target: Callable[..., Any]) -> dict[str, str]:
    """Descriptions by parameter name. A class also has those of its bases, where it says nothing itself; and a docstring
    that says whose arguments these are, in backquotes, has those.

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
        for name, description in _seen(_section(inspect.cleandoc(text)), target).items() if text else ():
            found.setdefault(name, description)
        for like in LIKE.findall(" ".join((text or "").split())):
            other = _named(like, target)
            for name, description in arguments(other).items() if other is not None and other is not target else ():
                found.setdefault(name, description)
    return found


def _seen(section: dict[str, str], target: Callable[..., Any]) -> dict[str, str]:
    """A section whose entries that only point elsewhere say what stands there."""
    other, found = None, dict(section)
    for name, text in section.items():
        pointer = SEE.fullmatch(text)
        if pointer and pointer["whose"]:
            other = _named(pointer["whose"], target)
        if pointer and other is not None and other is not target:
            found[name] = arguments(other).get(name) or (summary(other) if inspect.isclass(other) else text)
    return found


def _named(name: str, target: Callable[..., Any]) -> Callable[..., Any] | None:
    """What a docstring of `target` calls `name`: something of its module, or of a module from which that imports."""
    here = vars(inspect.getmodule(target))
    near = [sys.modules.get(str(getattr(value, "__module__", None))) for value in here.values() if callable(value)]
    spaces = [here, *(vars(module) for module in near if module is not None)]
    return next((space[name] for space in spaces if callable(space.get(name))), None)


def _section(text: str) -> dict[str, str]:
    """The entries of a Google-style ``Args`` section."""
    lines = iter(text.splitlines())
    margin = next((len(line) - len(line.lstrip()) for line in lines if HEADING.fullmatch(line.strip())), None)
    if margin is None:
        return {}
    found: dict[str, str] = {}
    depth: int | None = None
    names: list[str] = []
    for line in lines:
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        if indent <= margin:
            break
        depth = indent if depth is None else depth
        entry = ENTRY.fullmatch(line.strip()) if indent == depth else None
        if entry:
            names = entry["names"].split(", ")
            found.update(dict.fromkeys(names, entry["text"]))
        elif names:
            found.update(dict.fromkeys(names, f"{found[names[0]]} {line.strip()}".strip()))
    return found
