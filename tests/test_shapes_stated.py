"""Every public function that takes or returns tensors states their shapes: in its docstring, its class's or its base's."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache

import pytest
from sources import ROOMS, modules

FIRST = (
    r"(?:\.\.\.|\d* ?(?:[A-Za-z]\d?|[A-Z]\w)'?(?: [A-Zx*+/-] ?\w*)*|\d+(?: [A-Z]| \+ [\w ]+)?"
    r"|in|out|rows|columns|points|frames|batch|heads|channels"
    r"|inputs|count|taps|streams|levels|samples|windows\^2|rows \* [A-Z]+)"
)
"""The first dimension of a shape: one letter or two, a number, an expression of both, or a common word."""
SHAPE = re.compile(r"(?i:\bscalars?\b|\bshapes?\b)|\(" + FIRST + r"(?:,(?: [\w .*/+^'()-]{1,40}?)?)+\)|\(\)")
"""``(B, C, H, W)``, ``()``, or the words "shape" and "scalar"."""

Member = tuple[ast.ClassDef | None, ast.FunctionDef]


def members(tree: ast.AST, owner: ast.ClassDef | None = None) -> Iterator[Member]:
    """Public functions, and public methods of public classes with their class."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            if not node.name.startswith("_"):
                yield owner, node
        elif isinstance(node, ast.ClassDef):
            if not node.name.startswith("_"):
                yield from members(node, node)
        else:
            yield from members(node, owner)


def takes_tensors(function: ast.FunctionDef) -> bool:
    """Whether an annotation names tensors; torch itself calls the methods of autograd's functions, which have a `ctx`."""
    arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
    if arguments and arguments[0].arg == "ctx":
        return False
    annotations = [a.annotation for a in arguments if a.annotation] + ([function.returns] if function.returns else [])
    return any(re.search(r"\bTensor\b", ast.unparse(annotation)) for annotation in annotations)


@cache
def classes() -> dict[str, ast.ClassDef]:
    """Every class of the package by its name."""
    return {n.name: n for _, tree in modules().values() for n in ast.walk(tree) if isinstance(n, ast.ClassDef)}


def bases(owner: ast.ClassDef) -> Iterator[ast.ClassDef]:
    """The classes here that a class inherits from."""
    for base in owner.bases:
        found = classes().get(ast.unparse(base).split("[")[0].split(".")[-1])
        if found is not None and found is not owner:
            yield found
            yield from bases(found)


def states_shapes(owner: ast.ClassDef | None, function: ast.FunctionDef) -> bool:
    """Whether the docstring states a shape; without one, that of the class or of the method that this one overrides."""
    own = ast.get_docstring(function)
    if own or owner is None:
        return bool(SHAPE.search(own or ""))
    above = list(bases(owner))
    overridden = [m for c in above for m in c.body if isinstance(m, ast.FunctionDef) and m.name == function.name]
    return any(SHAPE.search(ast.get_docstring(node) or "") for node in (owner, *above, *overridden))


@pytest.mark.parametrize("room", ROOMS)
def test_public_functions_of_tensors_state_shapes(room: str) -> None:
    found = [
        f"{path}:{function.lineno}: {function.name}"
        for path, (_, tree) in modules().items()
        if path.startswith(f"{room}/")
        for owner, function in members(tree)
        if takes_tensors(function) and not states_shapes(owner, function)
    ]
    assert not found, "state the shape, as in '(B, C, H, W)', 'a scalar', 'of any shape':\n" + "\n".join(found)


@pytest.mark.parametrize(
    "text", ["(B, C, H, W)", "images (2B, H W, C)", "(n,)", "(..., in)", "a scalar", "of any shape"]
)
def test_shapes_are_recognised(text: str) -> None:
    assert SHAPE.search(text)


@pytest.mark.parametrize("text", ["an image (see there)", "the flow, in pixels", "(lq, gt and prior)", "a batch"])
def test_other_parentheses_are_not_shapes(text: str) -> None:
    assert not SHAPE.search(text)
