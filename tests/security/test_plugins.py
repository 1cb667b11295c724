"""Whose Python runs: the user's own, with a line that says so; a stranger's only where the user says that it may."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from runs import options

from relume.core.cli import main
from relume.core.options import OptionError, dump, load
from relume.core.options import check as checked
from relume.core.runtime import checkpoint

COMMANDS = {
    "check": ["check", "FILE"],
    "train": ["train", "-opt", "FILE", "--check"],
    "convert": ["convert", "w.pth", "out.pth", "-opt", "FILE"],
    "sweep": ["sweep", "-opt", "FILE", "manual_seed=0,1", "--dry-run"],
}


@pytest.fixture
def stranger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder from elsewhere with an option file, and a plug-in that leaves the marker ``ran``."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.delenv("RELUME_TRUST_PLUGINS", raising=False)
    folder = tmp_path / "stranger"
    folder.mkdir()
    marker = str(tmp_path / "ran")
    (folder / "evil.py").write_text(f"import pathlib; pathlib.Path({marker!r}).touch()\n")
    opt: dict[str, Any] = {**options(), "plugins": [*options()["plugins"], "evil.py"]}
    (folder / "x.yml").write_text(yaml.safe_dump(opt))
    torch.save({"a": torch.zeros(1)}, "w.pth")
    return folder


def ran(folder: Path) -> bool:
    return (folder.parent / "ran").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_a_strangers_plugin_does_not_run(command: str, stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(stranger / "x.yml") if a == "FILE" else a for a in COMMANDS[command]]
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert not ran(stranger)
    assert "evil.py was not run" in printed.err and "--trust_plugins" in printed.err and "x.yml:" in printed.err


def test_a_base_from_elsewhere_is_asked_about_too(stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yml").write_text(f"_base_: {stranger}/x.yml\nname: mine\n")
    assert main(["check", "mine.yml"]) == 2 and not ran(stranger)
    assert "evil.py was not run" in capsys.readouterr().err
    with pytest.raises(OptionError, match="was not run"):  # as Python code that loads it is
        load("mine.yml")
    assert not ran(stranger)


@pytest.mark.parametrize("way", ["flag", "file", "folder", "several", "python"])
def test_it_runs_where_the_user_says_so(
    way: str, stranger: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    named = {"file": stranger / "evil.py", "folder": stranger, "several": os.pathsep.join(["/nowhere", str(stranger)])}
    if way in named:
        monkeypatch.setenv("RELUME_TRUST_PLUGINS", str(named[way]))
    if way == "file":  # the toy, which the file names as well, is trusted by its own folder
        toy = Path(options()["plugins"][0])
        monkeypatch.setenv("RELUME_TRUST_PLUGINS", os.pathsep.join([str(stranger / "evil.py"), str(toy)]))
    if way == "python":
        load(stranger / "x.yml")
    else:
        assert main(["check", str(stranger / "x.yml"), *(["--trust_plugins"] if way == "flag" else [])]) == 0
        assert f"running {stranger / 'evil.py'}" in capsys.readouterr().out
    assert ran(stranger)
    assert way in named or "RELUME_TRUST_PLUGINS" not in os.environ


def test_own_files_name_plugins_from_anywhere_and_say_so(stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.yml").write_text(
        yaml.safe_dump({**options(), "plugins": [*options()["plugins"], str(stranger / "evil.py")]})
    )
    assert main(["check", "mine.yml"]) == 0 and ran(stranger)
    assert f"running {stranger / 'evil.py'}" in capsys.readouterr().out


def test_what_is_forced_on_the_command_line_is_the_users_own(
    stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("mine.yml").write_text(yaml.safe_dump(options()))
    force = f"plugins=[{options()['plugins'][0]}, {stranger / 'evil.py'}]"
    assert main(["check", "mine.yml", "--force_yml", force]) == 0 and ran(stranger)
    assert f"running {stranger / 'evil.py'}" in capsys.readouterr().out


def test_a_bundle_runs_nothing_unasked(stranger: Path, capsys: pytest.CaptureFixture[str]) -> None:
    opt = dump({**checked(options()).to_dict(), "plugins": [str(stranger / "evil.py"), *options()["plugins"]]})
    parts = {"iteration": 1, "seed": 0, "rank": 0, "batches": [], "networks": {}, "losses": []}
    checkpoint.save(Path("nonfinite_1_rank0.pt"), {"options": opt, **parts})
    assert main(["replay", "nonfinite_1_rank0.pt"]) == 2 and not ran(stranger)
    error = capsys.readouterr().err
    assert str(stranger / "evil.py") in error and "--plugins" in error
    assert main(["replay", "nonfinite_1_rank0.pt", "--plugins"]) == 0 and ran(stranger)


@pytest.mark.parametrize("text", ["[", "a: &a [*a]", "x", "&a [1]", 5], ids=str)
def test_damaged_options_of_a_bundle_are_one_line(
    text: Any, stranger: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts = {"iteration": 1, "seed": 0, "rank": 0, "batches": [], "networks": {}, "losses": []}
    checkpoint.save(Path("b.pt"), {"options": text, **parts})
    assert main(["replay", "b.pt"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


COMPONENTS = """
import pathlib, torch
pathlib.Path({marker!r}).touch()
from relume.losses import LOSSES

class EvilNet(torch.nn.Module):
    def __init__(self, dim, depth: int = 4, act="gelu", where=pathlib.Path({marker!r}).touch(), *, bias: bool = True):
        super().__init__()

class Wider(EvilNet):
    pass

@LOSSES.register(name="StrangeLoss", aliases=("OddLoss",))
class _Hidden(torch.nn.Module): ...

@LOSSES.register(aliases=("OddLoss",))
class EvilLoss(torch.nn.Module):
    def __init__(self, loss_weight: float = 1.0, **more):
        pathlib.Path({marker!r}).touch()
"""


@pytest.fixture
def strange(stranger: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (stranger / "evil.py").write_text(COMPONENTS.format(marker=str(stranger.parent / "ran")))
    opt: dict[str, Any] = {**options(), "network_g": {"type": "Wider", "dim": 7}}
    opt["train"]["pixel_opt"] = {"type": "OddLoss", "sharpness": 3}
    (stranger / "x.yml").write_text(yaml.safe_dump({**opt, "plugins": ["evil.py", *opt["plugins"]]}))
    toy = Path(options()["plugins"][0])
    monkeypatch.setenv("RELUME_TRUST_PLUGINS", str(toy))
    return stranger


def test_describe_reads_what_it_may_not_run(strange: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", str(strange / "x.yml")]) == 0 and not ran(strange)
    printed = capsys.readouterr()
    assert "evil.py was read, and not run" in printed.err and "evil.py (read, not run)" in printed.out
    rows = {line.split()[0]: line.split()[1] for line in printed.out.splitlines() if line[:1].isalpha()}
    assert (rows["network_g.dim"], rows["network_g.depth"], rows["network_g.act"]) == ("7", "4", "gelu")
    assert rows["train.pixel_opt.sharpness"] == "3"
    wrong = ["--force_yml", "network_g:dept=3"]
    assert main(["describe", str(strange / "x.yml"), *wrong]) == 2 and not ran(strange)
    assert "unknown key 'dept' in network_g (Wider). Did you mean 'depth'?" in capsys.readouterr().err
    assert main(["check", str(strange / "x.yml")]) == 2 and not ran(strange)
    assert "evil.py was not run" in capsys.readouterr().err


def test_list_schema_and_explain_read_what_they_may_not_run(strange: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plugin = str(strange / "evil.py")
    assert main(["list", "archs", "losses", "--plugins", plugin]) == 0 and not ran(strange)
    printed = capsys.readouterr()
    assert (
        "  EvilNet(dim, depth=4, act='gelu', where=pathlib" in printed.out
        and "  EvilLoss(loss_weight=1.0" in printed.out
    )
    assert "was read, and not run" in printed.err and "--trust_plugins" in printed.err
    assert main(["schema", plugin, "-o", "s.json"]) == 0 and not ran(strange)
    assert "EvilNet" in Path("s.json").read_text()
    assert main(["explain", "EvilNet", "--plugins", plugin]) == 0 and not ran(strange)
    assert "depth" in capsys.readouterr().out
    assert main(["list", "losses", "--plugins", plugin, "--trust_plugins"]) == 0 and ran(strange)


@pytest.mark.parametrize("text", ["def (", "x = " + "(" * 10_000, "\0", "a" * 3_000_000, "class A(" * 200])
def test_text_that_is_no_python_is_one_line(text: str, strange: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (strange / "evil.py").write_text(text)
    assert main(["list", "archs", "--plugins", str(strange / "evil.py")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_what_only_running_would_show_is_said(strange: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (strange / "x.yml").write_text(yaml.safe_dump({**options(), "plugins": ["this_module.of_theirs"]}))
    assert main(["describe", str(strange / "x.yml")]) == 2 and not ran(strange)
    assert "this_module.of_theirs was not run" in capsys.readouterr().err
