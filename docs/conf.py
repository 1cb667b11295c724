"""Sphinx's settings: `make docs` builds the site of docs/*.md, of the docstrings and of the options into build/docs."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "tools"))

import citations
import make_reference

project = "Relume"
author = "Relume developers"
copyright = "Relume developers"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton", "sphinxcontrib.bibtex"]
bibtex_bibfiles = ["references.bib"]

html_theme = "furo"
html_title = "Relume"
html_static_path = ["_static"]
html_css_files = ["site.css"]
templates_path: list[str] = []

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

suppress_warnings = ["ref.python"]  # a class that a package takes from its module has two addresses
default_role = "code"  # docstrings put names between single backticks
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": True}
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # attributes of dataclasses are documented once

make_reference.write(Path(__file__).parent)
PAPERS = citations.papers((Path(__file__).parent / "references.bib").read_text(encoding="utf-8"))


def cited(match: re.Match[str]) -> str:
    """A paper that a docstring names, and the link to its entry."""
    key = citations.key_of(match, PAPERS)
    return f"{match[0]} :cite:p:`{key}`" if key else match[0]


def to_rst(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    """Docstrings are written to be read in a terminal: here their Markdown tables become lists of cells that
    reStructuredText knows, and ``|x|`` and ``*shape`` are kept from meaning substitutions and emphasis."""
    found: list[str] = []
    for line in lines:
        row = re.fullmatch(r"(\s*)\|(.*)\|\s*", line)
        if row is None:
            parts = re.split(r"(``.*?``|`.*?`)", line)
            parts[::2] = [
                re.sub(r"\||(?<![\w*])\*(?=\w)", r"\\\g<0>", citations.NAMED.sub(cited, part)) for part in parts[::2]
            ]
            found.append("".join(parts))
            continue
        indent, cells = row.group(1), re.split(r"(?<!\\)\|", row.group(2))
        if set(row.group(2)) <= set("-: |"):
            continue
        if not found or ".. list-table::" not in "".join(found[-40:]) or not found[-1].startswith(f"{indent}     "):
            found += [f"{indent}.. list-table::", f"{indent}   :header-rows: 1", ""]
        marks = ["* -", *["  -"] * (len(cells) - 1)]
        found += [f"{indent}   {mark} {cell.strip()}" for mark, cell in zip(marks, cells, strict=True)]
    lines[:] = found


def setup(app: Any) -> None:
    """Connect what Sphinx asks an extension for."""
    app.connect("autodoc-process-docstring", to_rst, priority=100)
