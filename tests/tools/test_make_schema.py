"""Writing the JSON Schema."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Tool = Callable[[str], ModuleType]


def test_plugins_are_included(tool: Tool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = tmp_path / "schema_plugin.py"
    plugin.write_text(
        "from relume.losses import LOSSES\n@LOSSES.register()\nclass SchemaLoss:\n"
        "    '''Of the plugin.'''\n    def __init__(self, weight: float): pass\n"
    )
    path = tmp_path / "schema.json"
    assert tool("make_schema").main([str(plugin), "-o", str(path)]) == 0
    assert capsys.readouterr().out == f"wrote {path}\n"
    definitions = json.loads(path.read_text())["$defs"]
    assert definitions["loss.SchemaLoss"]["description"] == "Of the plugin."
    assert "SchemaLoss" in definitions["loss"]["properties"]["type"]["enum"]


def test_mistakes(tool: Tool, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool("make_schema").main(["nowhere.py"]) == 2
    assert tool("make_schema").main(["-o", str(tmp_path / "no" / "folder.json")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("nowhere.py: no such file: ")
    assert second == f"{tmp_path / 'no' / 'folder.json'}: cannot be written: No such file or directory"
