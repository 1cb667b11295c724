"""Make docs/quickstart.ipynb of docs/quickstart_notebook.py: ``python tools/make_notebook.py``. A test fails when it is old."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parents[1] / "docs"
SOURCE, NOTEBOOK = DOCS / "quickstart_notebook.py", DOCS / "quickstart.ipynb"
CELL = re.compile(r"^# %%( \[markdown\])?\n", re.MULTILINE)


def cells(text: str) -> list[dict[str, Any]]:
    """The cells of a script in the percent format, as nbformat 4.5 has them."""
    found = []
    parts = CELL.split(text)[1:]
    for number, (markdown, body) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
        lines = body.strip().splitlines()
        if markdown:
            lines = [re.sub(r"^# ?", "", line) for line in lines]
        source = [f"{line}\n" for line in lines[:-1]] + lines[-1:]
        cell: dict[str, Any] = {"cell_type": "markdown" if markdown else "code", "id": f"cell-{number}", "metadata": {}}
        found.append({**cell, **({} if markdown else {"execution_count": None, "outputs": []}), "source": source})
    return found


def notebook() -> str:
    """The notebook as JSON."""
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    content = {
        "cells": cells(SOURCE.read_text(encoding="utf-8")),
        "metadata": {"kernelspec": kernel, "language_info": {"name": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(notebook(), encoding="utf-8")
    print(f"wrote {NOTEBOOK}")
