"""What is registered, listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from relume.core.cli import main
from relume.core.commands import list as list_command


def test_one_line_each(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "losses", "models"]) == 0
    losses, models = capsys.readouterr().out.split("\n\n")
    heading, *lines = losses.splitlines()
    assert heading == f"losses ({len(lines)})"
    assert "  L1Loss(loss_weight=1.0, reduction='mean')" in lines
    assert [line.split("(")[0] for line in lines] == sorted(line.split("(")[0] for line in lines)
    assert re.search(r"\(also .*ImageCleanModel, ImageRestorationModel.*SRModel.*\)", models)


def test_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        main(
            [
                "list",
            ]
        )
        == 0
    )
    headings = [block.split(" ", 1)[0] for block in capsys.readouterr().out.split("\n\n")]
    assert headings == list(list_command.FAMILIES)


def test_plugins_and_what_cannot_be_imported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "listed_plugin.py"
    plugin.write_text(
        "from relume.losses import LOSSES\n@LOSSES.register()\nclass ListedLoss:\n"
        "    def __init__(self, weight: float, power: int = 2): pass\n"
    )
    monkeypatch.setitem(
        list_command.LOSSES._unimportable, "relume.losses.exotic", ModuleNotFoundError("No module named 'exotic'")
    )
    assert main(["list", "losses", "--plugins", str(plugin)]) == 0
    output = capsys.readouterr().out
    assert "  ListedLoss(weight, power=2)\n" in output
    assert "  not available: relume.losses.exotic (No module named 'exotic')\n" in output


def test_mistakes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "loses"]) == 2
    assert capsys.readouterr().err.startswith("no family is called 'loses'. Did you mean 'losses'? Known: archs, ")
    assert main(["list", "--plugins", "nowhere.py"]) == 2
    assert capsys.readouterr().err.startswith("nowhere.py: no such file: ")
