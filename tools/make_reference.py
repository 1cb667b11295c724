"""Write the reference pages of the site: the option file's keys, the components of each family, and the API.

``python tools/make_reference.py FOLDER`` writes ``FOLDER/reference/*.md`` and ``FOLDER/api/*.md``; `make docs` does it before
it builds the site. The pages are made of what Relume knows of itself, and are not kept in the repository.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from relume.core.models import MODELS
from relume.core.options import docstrings, reference
from relume.core.options.reference import FAMILIES, SECTIONS, Key

TITLES = {
    "archs": "Architectures",
    "datasets": "Data sets",
    "losses": "Losses",
    "optimizers": "Optimizers",
    "schedulers": "Schedulers",
    "metrics": "Metrics",
}
PACKAGES = {
    "relume.core.load": "Weights to functions",
    "relume.core.registry": "Registries",
    "relume.core.annotations": "What components declare",
    "relume.core.pipeline": "From options to a training",
    "relume.core.trainer": "The training loop",
    "relume.core.evaluation": "Validation and test",
    "relume.core.models": "Tasks",
    "relume.archs": "Architectures",
    "relume.losses": "Losses",
    "relume.datasets": "Data sets",
    "relume.schedulers": "Schedulers",
    "relume.core.metrics": "Metrics",
    "relume.core.features": "Feature extractors",
    "relume.core.degradations": "Degradations",
    "relume.core.inference": "Tiles, windows, self-ensemble",
    "relume.core.imaging": "Reading and writing pictures and clips",
    "relume.core.ops": "Fused operations",
    "relume.core.use": "Pictures and clips through trained weights",
}
"""Packages and modules of the API pages, in the order of the index."""


def write(folder: Path) -> list[Path]:
    """Write all pages below `folder`, and return their paths. A page that would not change is left alone."""
    pages = {"reference/options": options(), "reference/models": models(), "api/index": index()}
    pages |= {f"reference/{family}": components(family) for family in FAMILIES}
    pages |= {f"api/{package}": api(package) for package in PACKAGES}
    written = []
    for name, lines in pages.items():
        path, text = folder / f"{name}.md", "\n".join(lines) + "\n"
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.write_text(text, encoding="utf-8")
        written.append(path)
    return written


def index() -> Iterator[str]:
    """The API's front page."""
    yield from (
        "# API",
        "",
        "What Python code imports. Option files need none of it: see the [keys](../reference/options.md).",
        "",
    )
    yield from ("```{toctree}", ":maxdepth: 1", "", *PACKAGES, "```")


def api(package: str) -> Iterator[str]:
    """A page of the API: a package and its public modules, documented by autodoc."""
    yield f"# {PACKAGES[package]}"
    path = getattr(importlib.import_module(package), "__path__", [])
    inside = sorted(module.name for module in pkgutil.walk_packages(path, f"{package}."))
    for module in [package, *(name for name in inside if is_public(name))]:
        yield from ("", f"## {module}", "", "```{eval-rst}", f".. automodule:: {module}", "```")


def options() -> Iterator[str]:
    """The page of the option file: its sections and their keys."""
    yield from ("# Keys of an option file", "")
    yield "`relume explain KEY` prints an entry of this page, `relume template NETWORK` writes a file with every key."
    yield from ("", "## Top level", "", *table(reference.section("")))
    for name, cls in SECTIONS.items():
        yield from ("", f"## {name}", "", escaped(docstrings.summary(cls)), "", *table(reference.section(name)))


def models() -> Iterator[str]:
    """The page of `model_type`: what each brings to ``train`` and ``val``."""
    yield from ("# Tasks: model_type", "")
    yield "Each model wrapper brings keys of its own to `train` and `val`, besides those of [every option file](options.md)."
    for name in MODELS:
        yield from ("", f"## {name}", "", escaped(docstrings.summary(MODELS.get(name))))
        for section in ("train", "val"):
            keys = reference.model_keys(name, section)
            yield from ("", f"Keys of `{section}`:", "", *table(keys)) if keys else ()


def components(family: str) -> Iterator[str]:
    """The page of a family: our own members with their options, then the names that a library brings."""
    registry, place = FAMILIES[family]
    yield from (f"# {TITLES[family]}", "")
    yield f"A block with `type: NAME` at `{place}` takes these. `relume list {family}` prints their names."
    for name in registry:
        keys, member = reference.component(family, name), registry.get(name)
        yield from ("", f"## {name}", "", escaped(docstrings.summary(member)), "", *table(keys))
    foreign = [name for name in registry.library_names() if name not in set(registry)]
    if foreign:
        yield from ("", "## From libraries", "", ", ".join(f"`{name}`" for name in foreign) + ".")


def is_public(module: str) -> bool:
    """Whether a module has entries of its own: not where its package has a function of the same name."""
    parent, _, name = module.rpartition(".")
    return "._" not in module and not callable(getattr(importlib.import_module(parent), name, None))


def table(keys: Iterable[Key]) -> Iterator[str]:
    """A Markdown table of keys: name, kind of value, default, meaning."""
    rows = [f"| `{key.name}` | {escaped(key.kind)} | {default(key)} | {escaped(key.text)} |" for key in keys]
    if rows:
        yield from ("| key | value | default | meaning |", "|---|---|---|---|", *rows)
    else:
        yield "No options."


def escaped(text: str) -> str:
    """`text` on one line, as a cell of a Markdown table may have it; double backquotes of docstrings become single ones."""
    return " ".join(text.replace("``", "`").replace("|", r"\|").replace("<", r"\<").split())


def default(key: Key) -> str:
    """A default as code; nothing where there is none, or where it is a block that has an entry of its own."""
    if key.place in SECTIONS or key.parameter.required:
        return "required" if key.parameter.required else ""
    return f"`{key.default}`".replace("|", r"\|")


if __name__ == "__main__":
    for page in write(Path(sys.argv[1])):
        print(page)
