"""Writing the JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from relume.core.cli import main


def test_plugins_are_included(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = tmp_path / "schema_plugin.py"
    plugin.write_text(
        "from relume.losses import LOSSES\n@LOSSES.register()\nclass SchemaLoss:\n"
        "    '''Of the plugin.'''\n    def __init__(self, weight: float): pass\n"
    )
    path = tmp_path / "schema.json"
    assert main(["schema", str(plugin), "-o", str(path)]) == 0
    assert capsys.readouterr().out == f"wrote {path}\n"
    definitions = json.loads(path.read_text())["$defs"]
    assert definitions["loss.SchemaLoss"]["description"] == "Of the plugin."
    assert "SchemaLoss" in definitions["loss"]["properties"]["type"]["enum"]


def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "nowhere.py"]) == 2
    assert main(["schema", "-o", str(tmp_path / "no" / "folder.json")]) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert first.startswith("nowhere.py: no such file: ")
    assert second == f"{tmp_path / 'no' / 'folder.json'}: cannot be written: No such file or directory"
