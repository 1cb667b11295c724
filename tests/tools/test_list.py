"""What is registered, listed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

Tool = Callable[[str], ModuleType]


def test_one_line_each(tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    assert tool("list").main(["losses", "models"]) == 0
    losses, models = capsys.readouterr().out.split("\n\n")
    heading, *lines = losses.splitlines()
    assert heading == f"losses ({len(lines)})"
    assert "  L1Loss(loss_weight=1.0, reduction='mean')" in lines
    assert [line.split("(")[0] for line in lines] == sorted(line.split("(")[0] for line in lines)
    assert "(also ImageCleanModel, ImageRestorationModel, SRModel)" in models


def test_everything(tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    module = tool("list")
    assert module.main([]) == 0
    headings = [block.split(" ", 1)[0] for block in capsys.readouterr().out.split("\n\n")]
    assert headings == list(module.FAMILIES)


def test_plugins_and_what_cannot_be_imported(
    tool: Tool, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = tmp_path / "listed_plugin.py"
    plugin.write_text(
        "from relume.losses import LOSSES\n@LOSSES.register()\nclass ListedLoss:\n"
        "    def __init__(self, weight: float, power: int = 2): pass\n"
    )
    module = tool("list")
    monkeypatch.setitem(
        module.LOSSES._unimportable, "relume.losses.exotic", ModuleNotFoundError("No module named 'exotic'")
    )
    assert module.main(["losses", "--plugins", str(plugin)]) == 0
    output = capsys.readouterr().out
    assert "  ListedLoss(weight, power=2)\n" in output
    assert "  not available: relume.losses.exotic (No module named 'exotic')\n" in output


def test_mistakes(tool: Tool, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        tool("list").main(["loses"])
    assert caught.value.code == 2
    assert "no family is called 'loses'. Did you mean 'losses'?" in capsys.readouterr().err
    assert tool("list").main(["--plugins", "nowhere.py"]) == 2
    assert capsys.readouterr().err.startswith("nowhere.py: no such file: ")
