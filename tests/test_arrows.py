"""Imports go one way: the picture in CONTRIBUTING.md is read, and every import of the package is held against it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import relume

REPO = Path(relume.__file__).resolve().parent
PACKAGE = "relume"
NOT_OURS = {"tests", "docs", "build", "setup.py"}
"""At the repository's top, but neither in the package nor on top of it."""


# ------------------------------------------------------------------ the picture
class Room(NamedTuple):
    """Where a module stands: the number of its line in the picture (0 on top), and whether its neighbours are strangers."""

    name: str
    line: int
    apart: bool


def picture(text: str) -> list[Room]:
    """The rooms in the fenced block after the heading `Arrows`, top line first.

    A room is a package or a module, with dots and without ``relume.``. Rooms on a line are divided by ``|`` when they must not
    import each other, by spaces when they may.
    """
    found = re.search(r"^#+ .*[Aa]rrows.*$.*?^```\w*\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    assert found, "CONTRIBUTING.md has no picture of the arrows: a fenced block under a heading with that word"
    lines = [line for line in found[1].splitlines() if line.strip()]
    return [
        Room(name.removesuffix(".py"), i, "|" in line)
        for i, line in enumerate(lines)
        for name in line.replace("|", " ").split()
    ]


def room_of(module: str, rooms: Iterable[Room]) -> Room | None:
    """The room with the longest name that `module` is, or is in."""
    fitting = [r for r in rooms if f"{module}.".startswith(f"{r.name}.")]
    return max(fitting, key=lambda r: len(r.name), default=None)


# ------------------------------------------------------------------ the imports
class Import(NamedTuple):
    """One import statement."""

    by: str
    of: str
    line: int

    def __str__(self) -> str:
        return f"{self.by}:{self.line} imports {self.of}"


def modules(root: Path) -> dict[str, Path]:
    """The files of a tree by module name, without the package's name; packages are there under theirs."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if parts[0] in NOT_OURS or path.name in NOT_OURS or any(p.startswith(".") for p in parts):
            continue
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts) or PACKAGE] = path
    return found


def imports(module: str, path: Path, known: dict[str, Path]) -> Iterator[Import]:
    """What of `known` a file imports: at its top, in functions, and for type checkers only, all alike.

    An import of ``a.b`` runs ``a`` first, and counts as an import of it too, unless the importing module is in ``a`` itself.
    """
    here = module.split(".") if path.stem == "__init__" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        for target in _targets(node, [] if module == PACKAGE else here):
            parts = target.split(".")
            for end in range(1, len(parts) + 1):
                of = ".".join(parts[:end])
                if of in known and not f"{module}.".startswith(f"{of}."):
                    yield Import(module, of, node.lineno)  # type: ignore[attr-defined]


def _targets(node: ast.AST, here: list[str]) -> Iterator[str]:
    """Names, without the package's, that a statement imports; what is no module among them is not known, and does no harm."""
    if isinstance(node, ast.Import):
        yield from (a.name.removeprefix(f"{PACKAGE}.") for a in node.names if a.name.startswith(f"{PACKAGE}."))
    elif isinstance(node, ast.ImportFrom):
        name = (node.module or "").split(".") if node.module else []
        if node.level:
            name = [*here[: len(here) - node.level + 1], *name]
        elif name[0] == PACKAGE:
            name = name[1:]
        else:
            return
        yield from (".".join([*name, a.name]) for a in node.names)
    elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func) and node.args:
        text = getattr(node.args[0], "value", None)
        if isinstance(text, str) and text.startswith(f"{PACKAGE}."):
            yield text.removeprefix(f"{PACKAGE}.")


def graph(root: Path) -> list[Import]:
    """Every import of one module of the tree by another."""
    known = modules(root)
    return [found for module, path in known.items() for found in imports(module, path, known)]


# ------------------------------------------------------------------ what is wrong
def circle(arrows: Iterable[Import]) -> list[str]:
    """A way from a module back to itself along imports, both ends included; empty if there is none."""
    by: dict[str, set[str]] = {}
    for arrow in arrows:
        by.setdefault(arrow.of, set()).add(arrow.by)
    try:
        TopologicalSorter(by).prepare()
    except CycleError as e:
        way: list[str] = e.args[1]
        return way
    return []


def between_rooms(arrows: Iterable[Import], rooms: list[Room]) -> list[Import]:
    """The imports that leave their room, as of one room by another."""
    pairs = [(room_of(a.by, rooms), room_of(a.of, rooms), a.line) for a in arrows]
    return [Import(by.name, of.name, line) for by, of, line in pairs if by and of and by != of]


def upward(arrows: Iterable[Import], rooms: list[Room]) -> list[str]:
    """Imports that go up in the picture, or to a stranger on the same line."""
    wrong = []
    for arrow in arrows:
        by, of = room_of(arrow.by, rooms), room_of(arrow.of, rooms)
        if by is None or of is None or by == of:
            continue
        if of.line < by.line or (of.line == by.line and by.apart):
            wrong.append(str(arrow))
    return wrong


# ------------------------------------------------------------------ this repository
@pytest.fixture(scope="module")
def rooms() -> list[Room]:
    return picture((REPO / "CONTRIBUTING.md").read_text())


@pytest.fixture(scope="module")
def arrows() -> list[Import]:
    return graph(REPO)


def test_no_module_imports_itself_by_way_of_others(arrows: list[Import]) -> None:
    assert circle(arrows) == []


def test_no_room_imports_itself_by_way_of_others(arrows: list[Import], rooms: list[Room]) -> None:
    assert circle(between_rooms(arrows, rooms)) == []


def test_arrows_go_down(arrows: list[Import], rooms: list[Room]) -> None:
    assert upward(arrows, rooms) == []


def test_every_module_has_its_room(rooms: list[Room]) -> None:
    homeless = {m: path for m, path in modules(REPO).items() if room_of(m, rooms) is None}
    assert [m for m, path in homeless.items() if path.read_text()] == []  # an empty __init__.py holds rooms
    names = [r.name for r in rooms]
    assert sorted(set(names)) == sorted(names), "a room stands in one place"


def test_the_top_of_core_holds_the_run_itself() -> None:
    files = [p.name for p in (REPO / "core").glob("*.py") if p.name != "__init__.py"]
    assert len(files) <= 12, files


# ------------------------------------------------------------------ that the tests above can fail
SMALL = """
## Arrows
Some words.
```
tools   run.py
core.top   core.next
left | right
core.low
```
"""


def small(folder: Path, files: dict[str, str]) -> list[Import]:
    """The imports of a made-up tree of packages; ``{"core/low": "import x"}`` writes core/low.py."""
    for name, text in files.items():
        path = (folder / name).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        (path.parent / "__init__.py").touch()
    return graph(folder)


def test_the_picture_is_read() -> None:
    assert picture(SMALL)[1:5] == [
        Room("run", 0, False),
        Room("core.top", 1, False),
        Room("core.next", 1, False),
        Room("left", 2, True),
    ]
    assert room_of("left.deep.module", picture(SMALL)) == Room("left", 2, True)
    assert room_of("leftover", picture(SMALL)) is None
    with pytest.raises(AssertionError, match="no picture"):
        picture("## Arrows\nnothing")


ALLOWED = {
    "run": "from relume.core import top\nimport relume.left.a as a",
    "core/top": "from . import next\nfrom ..left.a import x\nfrom relume.right import b",
    "core/next": "import torch",
    "left/a": "import json\nfrom . import b\nfrom ..core.low import x",
    "left/b": "from __future__ import annotations",
    "right/b": "def f():\n    import relume.core.low",
    "core/low": "from .missing import x",
}


def test_what_the_picture_allows(tmp_path: Path) -> None:
    found = small(tmp_path, ALLOWED)
    assert {(i.by, i.of) for i in found} == {
        ("run", "core"),
        ("run", "core.top"),
        ("run", "left"),
        ("run", "left.a"),
        ("core.top", "core.next"),
        ("core.top", "left"),
        ("core.top", "left.a"),
        ("core.top", "right"),
        ("core.top", "right.b"),
        ("left.a", "left.b"),
        ("left.a", "core"),
        ("left.a", "core.low"),
        ("right.b", "core"),
        ("right.b", "core.low"),
    }
    assert upward(found, picture(SMALL)) == [] and circle(found) == []
    assert circle(between_rooms(found, picture(SMALL))) == []


@pytest.mark.parametrize(
    ("module", "text", "of"),
    [
        ("core/low", "from ..left import a", "left.a"),
        ("core/low", "from relume.left import a", "left.a"),
        ("core/low", "import relume.left.a", "left.a"),
        ("core/low", "class C:\n    def f(self):\n        from ..left.a import x", "left.a"),
        ("core/low", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from ..left import a", "left.a"),
        ("core/low", "import importlib\nimportlib.import_module('relume.left.a')", "left.a"),
        ("right/b", "def f():\n    from .. import left", "left"),
        ("right/b", "from ..left import a", "left.a"),
        ("core/next", "import relume.run", "run"),
    ],
)
def test_an_arrow_that_goes_up_or_across_is_found(tmp_path: Path, module: str, text: str, of: str) -> None:
    found = upward(small(tmp_path, ALLOWED | {module: text}), picture(SMALL))
    line = text.count("\n") + 1
    assert f"{module.replace('/', '.')}:{line} imports {of}" in found


@pytest.mark.parametrize(
    "files",
    [
        {"left/a": "from . import b", "left/b": "def f():\n    from .a import x"},
        {"left/a": "from .b import x", "left/b": "from .c import x", "left/c": "import relume.left.a"},
        {
            "left/__init__": "from . import a",
            "left/a": "from ..core import top",
            "core/top": "from ..left import b",
            "left/b": "",
        },
    ],
    ids=["in a function", "of three", "through a package"],
)
def test_a_circle_is_found(tmp_path: Path, files: dict[str, str]) -> None:
    way = circle(small(tmp_path, files))
    assert len(way) > 2 and way[0] == way[-1]


def test_a_circle_of_rooms_is_found_where_modules_have_none(tmp_path: Path) -> None:
    files = {
        "core/top/a": "from ..next import b",
        "core/next/b": "",
        "core/next/c": "from ..top import d",
        "core/top/d": "",
    }
    found = small(tmp_path, files)
    assert circle(found) == []
    assert circle(between_rooms(found, picture(SMALL)))[1:] in (["core.top", "core.next"], ["core.next", "core.top"])
