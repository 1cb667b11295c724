"""CONTRIBUTING's rule of headings: a function of more than 25 lines has comments that say what its parts do."""

from __future__ import annotations

import ast

import pytest
from sources import ROOMS, modules

LONGEST = 25
"""Lines of a body, without its docstring, that need no heading."""


def bare(function: ast.FunctionDef, lines: list[str]) -> bool:
    """Whether a body is longer than `LONGEST` and has no comment on a line of its own.

    >>> long = ["def f():", *["    x = 1"] * 26]
    >>> [bare(ast.parse("\\n".join(t)).body[0], t) for t in (long, long[:20], [*long[:9], "    # Why.", *long[9:]])]
    [True, False, False]
    """
    first, *rest = function.body
    documented = ast.get_docstring(function) is not None
    if documented and not rest:
        return False
    begin = (first.end_lineno or first.lineno) if documented else first.lineno - 1
    comments = any(line.lstrip().startswith("#") for line in lines[function.lineno : function.end_lineno])
    return len(lines[begin : function.end_lineno]) > LONGEST and not comments


@pytest.mark.parametrize("room", ROOMS)
def test_long_functions_have_headings(room: str) -> None:
    found = [
        f"{path}:{node.lineno}: {node.name}"
        for path, (text, tree) in modules().items()
        if path.startswith(f"{room}/")
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and bare(node, text.splitlines())
    ]
    assert not found, "say in a comment what each part does, or why:\n" + "\n".join(found)
