"""CONTRIBUTING's rules of language, as far as a program can check them: every file's docstrings and comments."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator

import pytest
from sources import ROOMS, modules

PREPOSITIONS = """above after against along among around as at before behind below beside besides between beyond by during for
from in inside into of off on out outside over per since through to toward towards under until up via with within without"""
VERBS = """added answers are asks built called chosen computes decides divides does ends gets gives goes had has have holds is
keeps kept made makes multiplies must puts reads replaces says sends sets shown stands subtracted taken takes tells used wants
was"""
OTHERS = "and but it its likewise or so that their theirs them whose"
NO_BEGINNING = frozenset(" ".join((PREPOSITIONS, VERBS, OTHERS)).split())
"""Words with which no description of an argument begins: it would need the argument's name, or another entry, before it."""

COINED = ("bury", "buried", "deaf", "dearer", "dearest", "denser", "likewise", "robustly", "whoever")
"""Words that the field does not use, or that stand for something which the reader has to look up."""

ENTRY = re.compile(r" {4}(?P<names>\*{0,2}\w+(, \w+)*)(?: \([^)]*\))?: *(?P<text>.*)")
SECTION = re.compile(r"^(?:Args|Attributes):\n(?P<entries>(?:    .*\n|\n)*)", re.MULTILINE)

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def entries(docstring: str) -> Iterator[tuple[str, str]]:
    """Name and description of everything that the sections ``Args`` and ``Attributes`` describe."""
    for section in SECTION.finditer(docstring + "\n"):
        for line in section["entries"].splitlines():
            if entry := ENTRY.fullmatch(line):
                yield entry["names"], entry["text"]


def reads_alone(text: str) -> bool:
    """Whether a description makes sense without what stands before it.

    >>> reads_alone("channels of the image."), reads_alone("of the image."), reads_alone("see `NAFNet`.")
    (True, False, True)
    """
    first = re.match(r"[A-Za-z]+", text)
    return bool(text) and (first is None or first[0].lower() not in NO_BEGINNING)


def constants(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of every docstring that stands after an assignment, in modules and classes."""
    for owner in ast.walk(tree):
        body = owner.body if isinstance(owner, (ast.Module, ast.ClassDef)) else []
        for node, after in itertools.pairwise(body):
            text = after.value if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant) else None
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and text is not None and isinstance(text.value, str):
                yield after.lineno, text.value


def raised(node: ast.AST, caught: bool = False) -> Iterator[ast.Raise]:
    """The errors that a function raises by itself and that leave it, those of functions inside it included."""
    if isinstance(node, ast.Raise) and node.exc is not None and not caught:
        yield node
    for name, value in ast.iter_fields(node):
        handlers = getattr(node, "handlers", []) if name == "body" and isinstance(node, ast.Try) else []
        kinds = {ast.unparse(h.type) if h.type is not None else "BaseException" for h in handlers}
        hidden = caught or not kinds.isdisjoint({"Exception", "BaseException"})
        for child in value if isinstance(value, list) else [value]:
            if isinstance(child, ast.AST):
                yield from raised(child, hidden)


def public(tree: ast.AST) -> Iterator[ast.FunctionDef]:
    """Public functions, and public methods of any class; what is inside a function is its own affair."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef):
            if not node.name.startswith("_"):
                yield node
        else:
            yield from public(node)


@pytest.mark.parametrize("room", ROOMS)
def test_every_entry_of_an_argument_list_reads_alone(room: str) -> None:
    found = [
        f"{path}:{node.lineno}: {name}: {text}"
        for path, (_, tree) in modules().items()
        if path.startswith(f"{room}/")
        for node in ast.walk(tree)
        if isinstance(node, Definition)
        for name, text in entries(ast.get_docstring(node) or "")
        if not reads_alone(text)
    ]
    assert not found, "begin with a noun, as in 'channels of the image':\n" + "\n".join(found)


@pytest.mark.parametrize("room", ROOMS)
def test_every_docstring_of_a_constant_reads_alone(room: str) -> None:
    found = [
        f"{path}:{line}: {text}"
        for path, (_, tree) in modules().items()
        if path.startswith(f"{room}/")
        for line, text in constants(tree)
        if not reads_alone(text)
    ]
    assert not found, "begin with a noun, as in 'Side of a patch':\n" + "\n".join(found)


@pytest.mark.parametrize("room", ROOMS)
def test_public_functions_name_their_errors(room: str) -> None:
    found = [
        f"{path}:{function.lineno}: {function.name}"
        for path, (_, tree) in modules().items()
        if path.startswith(f"{room}/")
        for function in public(tree)
        if "Raises:" not in (ast.get_docstring(function) or "") and any(raised(function))
    ]
    assert not found, "the docstring needs a section 'Raises:', with the error and when:\n" + "\n".join(found)


def test_every_help_of_an_argument_reads_alone() -> None:
    calls = re.compile(r'help=f?"((?:of|at|by|for|from|in|their|to|with) [^"]*)"')
    found = [
        f"{path}: {match[1]}"
        for path, (text, _) in modules().items()
        if path.startswith(("core/commands/", "tools/"))
        for match in calls.finditer(text)
    ]
    assert not found, "begin with a noun, as in 'seed of the noise':\n" + "\n".join(found)


def test_no_coined_words() -> None:
    words = re.compile(rf"\b({'|'.join(COINED)})\b", re.IGNORECASE)
    found = [
        f"{path}:{number}: {line.strip()}"
        for path, (text, _) in modules().items()
        for number, line in enumerate(text.splitlines(), 1)
        if words.search(line)
    ]
    assert not found, "say it in the field's words:\n" + "\n".join(found)


def test_errors_say_when() -> None:
    vague = re.compile(r"^ *\w*(?:Error|Exception|Refused|Wrong): *(?:so|if so|then)?\.?$", re.MULTILINE)
    found = [f"{path}: {match[0].strip()}" for path, (text, _) in modules().items() for match in vague.finditer(text)]
    assert not found, "an entry of 'Raises:' says when the error is raised:\n" + "\n".join(found)


def test_these_checks_find_what_they_look_for() -> None:
    bad = (
        '"""A.\n\nArgs:\n    x: of the image.\n    y, z: channels.\n        of two lines.\n\nReturns:\n    of: it.\n"""'
    )
    assert [(n, reads_alone(t)) for n, t in entries(ast.literal_eval(bad))] == [("x", False), ("y, z", True)]
    code = "def f():\n try:\n  raise A\n except Exception:\n  raise\ndef g():\n def h(): raise B\ndef _i(): raise C"
    assert [f.name for f in public(ast.parse(code)) if any(raised(f))] == ["g"]
