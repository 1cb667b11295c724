"""What is asked of datasets, losses, networks and loaders is declared on their bases, with a default and a meaning."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
import torch
from runs import REPO

from relume.core.annotations import declared
from relume.core.inference.network import NetworkTraits
from relume.core.inference.tiling import size_multiple
from relume.datasets.base import DatasetTraits, ImageDataset, LoaderTraits
from relume.losses.base import LossTraits

TRAITS = {c.__name__: c for c in (DatasetTraits, LoaderTraits, LossTraits, NetworkTraits)}
COMPONENT = re.compile(
    r"^(self\.)?(\w*_)?(datasets?|loss(es)?|nets?|networks?|loaders?|criterion|reference|arch)\b", re.IGNORECASE
)
"""Expressions that mean a component; an index or an attribute may follow."""
FOREIGN = {
    ("core/features/libraries.py", "pretrained_cfg"),  # timm's networks
    ("core/inference/tiling.py", "training"),  # torch's own, where the network is one
    ("core/inference/network.py", "module"),  # what torch's wrappers call the network inside
    ("core/inference/tiling.py", "size_multiple"),  # whether to look inside a wrapper for it
    ("losses/pretrained.py", "shape"),  # an entry of a file of weights
}
"""By file and name: literal names asked of what looks like a component and is none, or is no matter of defaults."""


def sources() -> list[Path]:
    folders = ("archs", "core", "datasets", "losses", "schedulers", "tools")
    return sorted(path for folder in folders for path in (REPO / folder).rglob("*.py"))


def calls(path: Path, *names: str) -> list[ast.Call]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        n for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id in names
    ]


def undeclared(path: Path) -> list[str]:
    """Literal names that a file asks of components by getattr or hasattr."""
    where = path.relative_to(REPO).as_posix() if path.is_relative_to(REPO) else path.name
    found = []
    for call in calls(path, "getattr", "hasattr"):
        name = call.args[1].value if isinstance(call.args[1], ast.Constant) else None
        if name and COMPONENT.match(ast.unparse(call.args[0])) and (where, name) not in FOREIGN:
            found.append(f"{where}:{call.lineno}: {ast.unparse(call)}")
    return found


def test_components_are_asked_through_declared_alone() -> None:
    assert [line for path in sources() for line in undeclared(path)] == []


def test_that_test_finds_what_it_is_for(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text('getattr(dataset, "a", 0)\nhasattr(self.losses[k], "b")\ngetattr(torch, "c")\nhasattr(net, "d")\n')
    assert [line.split(": ")[1] for line in undeclared(file)] == [
        "getattr(dataset, 'a', 0)", "hasattr(self.losses[k], 'b')", "hasattr(net, 'd')",
    ]  # fmt: skip


def test_every_name_asked_for_is_declared_and_every_declared_name_is_asked_for() -> None:
    asked: dict[str, set[str]] = {name: set() for name in TRAITS}
    for path in sources():
        text = path.read_text(encoding="utf-8")
        for call in calls(path, "declared"):
            traits = ast.unparse(call.args[2])
            if isinstance(call.args[1], ast.Constant):
                assert hasattr(TRAITS[traits], call.args[1].value), f"{path}:{call.lineno}"
                asked[traits].add(call.args[1].value)
            else:  # a variable over names that stand in the same file
                asked[traits] |= {n for n in vars(TRAITS[traits]) if f'"{n}"' in text}
        for call in calls(path, "network_trait"):  # `declared`, also of a network that is wrapped
            if isinstance(call.args[1], ast.Constant):
                asked["NetworkTraits"].add(call.args[1].value)
    for name, traits in TRAITS.items():
        assert {n for n in vars(traits) if not n.startswith("_")} == asked[name], name


def test_every_declaration_has_a_meaning() -> None:
    for traits in TRAITS.values():
        body = ast.parse(inspect.getsource(traits)).body[0]
        assert isinstance(body, ast.ClassDef)
        for statement, following in zip(body.body, [*body.body[1:], None], strict=True):
            if isinstance(statement, ast.AnnAssign):
                said = isinstance(following, ast.Expr) and isinstance(following.value, ast.Constant)
                assert said, f"{traits.__name__}.{ast.unparse(statement.target)}"
            elif isinstance(statement, ast.FunctionDef):
                assert ast.get_docstring(statement), f"{traits.__name__}.{statement.name}"


def test_the_components_answer_goes_before_the_default() -> None:
    class Own:
        gt_size = 48

        def result_path(self, index: int) -> str:
            return f"{index}.png"

    assert declared(Own(), "gt_size", DatasetTraits) == 48 and declared(object(), "gt_size", DatasetTraits) == 0
    assert declared(Own(), "result_path", DatasetTraits)(3) == "3.png"
    assert declared(object(), "result_path", DatasetTraits)(3) is None
    assert declared(torch.nn.L1Loss(), "logs", LossTraits)() == {}
    assert declared(ImageDataset(), "require_patch", DatasetTraits)(8) is None
    with pytest.raises(AttributeError):
        declared(Own(), "undeclared", DatasetTraits)


def test_a_size_multiple_is_found_inside_wrappers() -> None:
    class Wrapper(torch.nn.Module):
        def __init__(self, module: torch.nn.Module) -> None:
            super().__init__()
            self.module = module

    net = torch.nn.Conv2d(3, 3, 3)
    assert size_multiple(Wrapper(net)) == 1
    net.size_multiple = 4
    assert size_multiple(Wrapper(Wrapper(net))) == 4
    assert size_multiple(lambda x: x) == 1
