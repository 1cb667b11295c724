"""CONTRIBUTING's rule of names, for those that other modules import: each is defined once, or means the same in each."""

from __future__ import annotations

import ast
from collections import defaultdict

from sources import modules

SHARED = {
    "INPUT": "the same ending, which reports read without importing what evaluates",
    "backward": "what an operator's file gives its registration",
    "forward": "what an operator's file gives its registration",
    "fused": "the kernel of the operator after which its file is named",
    "fuses": "whether the operator of that file would run its kernel",
    "scan_chunks": "the scan of a state-space layer, Mamba's or Mamba-2's",
    "scan_operator": "the scan of a state-space layer, Mamba's or Mamba-2's",
}
"""Names that several modules define for others, and the meaning that they share. `core.compat` has BasicSR's names."""


def dotted(path: str) -> str:
    """The name of a module within the package."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def source(node: ast.ImportFrom, path: str) -> str:
    """The module that an import names, as `dotted` writes it."""
    if not node.level:
        return (node.module or "").removeprefix("relume.")
    package = path.split("/")[: -node.level]
    return ".".join([*package, *([node.module] if node.module else [])])


def test_imported_names_have_one_meaning() -> None:
    ours = {dotted(path): tree for path, (_, tree) in modules().items() if not path.startswith("core/compat/")}
    defined: dict[str, set[str]] = {}
    for name, tree in ours.items():
        targets = [t for n in tree.body for t in (n.targets if isinstance(n, ast.Assign) else [n])]
        defined[name] = {getattr(t, "name", None) or getattr(getattr(t, "target", t), "id", "") for t in targets}
    imported: dict[str, set[str]] = defaultdict(set)
    for path, (_, tree) in modules().items():
        if not path.startswith("core/compat/"):
            for node in ast.walk(tree):
                for alias in node.names if isinstance(node, ast.ImportFrom) else ():
                    if alias.name in defined.get(source(node, path), ()):
                        imported[alias.name].add(source(node, path))
    several = {name: sorted(places) for name, places in imported.items() if len(places) > 1}
    found = [f"{name}: {', '.join(places)}" for name, places in sorted(several.items()) if name not in SHARED]
    assert not found, "other modules import this name from each; rename one:\n" + "\n".join(found)
    assert set(SHARED) <= set(several), "no longer defined twice; take them out of SHARED"
