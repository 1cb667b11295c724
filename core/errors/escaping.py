"""The one place where text that came from outside comes to mean nothing but itself, in terminals, tables and pages."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import Literal

from .text import printable

Form = Literal["terminal", "markdown", "html", "latex", "csv"]
LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "_": r"\_", "%": r"\%", "&": r"\&", "#": r"\#", "$": r"\$",
    "^": r"\textasciicircum{}", "~": r"\textasciitilde{}", "<": r"\textless{}", ">": r"\textgreater{}",
}  # fmt: skip
FORMULA = re.compile(r"[=+@\t\r-](?!\d*\.?\d+(?:[eE][-+]?\d+)?$)")
"""How a spreadsheet knows a formula, which may start programs; numbers are none."""


def escaped(text: object, form: Form) -> str:
    r"""Text that came from outside (names, values, messages of libraries) on one line, as `form` shows it as it is.

    >>> escaped("a|b\n<i>", "markdown"), escaped("<i>&", "html")
    ('a\\|b\\\\n&lt;i&gt;', '&lt;i&gt;&amp;')
    >>> escaped("50%_{a}", "latex"), escaped("=HYPERLINK(1)", "csv")
    ('50\\%\\_\\{a\\}', "'=HYPERLINK(1)")
    """
    shown = printable(text)
    if form == "markdown":
        shown = re.sub(r"([\\|`*~\[\]]|(?<![^\W_])_|_(?![^\W_]))", r"\\\1", shown)  # within words '_' means nothing
        return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    if form == "html":
        return html.escape(shown)
    if form == "latex":
        return "".join(LATEX.get(c, c) for c in shown)
    if form == "csv" and FORMULA.match(shown):
        return f"'{shown}"
    return shown


def table_row(cells: Iterable[object]) -> str:
    """A row of a Markdown table, of plain cells."""
    return f"| {' | '.join(escaped(cell, 'markdown') for cell in cells)} |"
