"""core/cli.py: subcommands are found by themselves, help is cheap, every way to end has its exit code."""

from __future__ import annotations

import os
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from runs import REPO

import relume
from relume.core import cli
from relume.core.errors import EXIT_BROKEN_PIPE, EXIT_INTERRUPTED, EXIT_USER_ERROR, UserError

SHIMS = {
    "train": "train",
    "test": "test",
    "tools/convert_weights": "convert",
    "tools/describe": "describe",
    "tools/interpolate": "interpolate",
    "tools/list": "list",
    "tools/make_schema": "schema",
    "tools/prepare_data": "prepare",
    "tools/replay": "replay",
    "tools/sample": "sample",
}


def run(*arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120, **settings)


def a_command(work: Callable[[], None]) -> Any:
    return types.SimpleNamespace(__doc__="Do.", add_arguments=lambda parser: None, run=lambda arguments: work())


def test_every_file_is_a_command_with_a_line_of_help() -> None:
    files = {p.stem for p in (REPO / "core" / "commands").glob("[!_]*.py")}
    found = cli.commands()
    assert set(found) == files >= set(SHIMS.values()) | {"check"}
    assert all(10 < len(line) < 100 and line.endswith(".") for line in found.values()), found


def test_help_and_version_import_next_to_nothing(tmp_path: Path) -> None:
    code = "import sys; from relume.core.cli import main\ntry: main(sys.argv[1:])\n"
    code += "finally: print([m for m in sys.modules if m in {'torch', 'numpy', 'yaml'}])"
    for argument, said in (("--help", "interpolate"), ("--version", f"relume {relume.__version__}")):
        done = run("-c", code, argument, cwd=tmp_path)
        assert done.returncode == 0 and said in done.stdout and done.stdout.endswith("[]\n"), done.stderr


@pytest.mark.parametrize("name", cli.commands())
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main([name, "--help"])
    assert caught.value.code == 0
    out = capsys.readouterr().out
    assert out.startswith(f"usage: relume {name} ") and f"relume {name}" in out.split("\n\n", 1)[1]


def test_wrong_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian", "-opt", "x.yml"]) == EXIT_USER_ERROR
    said = capsys.readouterr().err
    assert said.startswith("relume: there is no command 'trian'. Did you mean 'train'? Commands: ")
    assert said.count("\n") == 1
    for hidden in ("_arguments", "__init__", "../cli", "a.b"):
        assert cli.main([hidden]) == EXIT_USER_ERROR
    assert cli.main([]) == EXIT_USER_ERROR, "nothing was done"
    assert "usage: relume" in capsys.readouterr().err


def test_ways_to_end(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise UserError("what is wrong")

    def interrupt() -> None:
        raise KeyboardInterrupt

    def defect() -> None:
        raise ZeroDivisionError

    assert cli.execute(a_command(lambda: None), [], "x") == 0
    assert cli.execute(a_command(fail), [], "x") == EXIT_USER_ERROR
    assert capsys.readouterr().err == "what is wrong\n"
    assert cli.execute(a_command(interrupt), [], "x") == EXIT_INTERRUPTED
    assert capsys.readouterr().err == "interrupted\n"
    with pytest.raises(ZeroDivisionError):
        cli.execute(a_command(defect), [], "x")


def test_a_reader_that_stops_is_no_traceback(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "relume", "list", "schedulers"], stdout=writing, stderr=subprocess.PIPE, cwd=tmp_path
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (EXIT_BROKEN_PIPE, b"")


def test_other_broken_pipes_are_not_hidden(capfd: pytest.CaptureFixture[str]) -> None:
    def elsewhere() -> None:
        raise BrokenPipeError("a worker's")

    with capfd.disabled(), pytest.raises(BrokenPipeError, match="a worker's"):
        cli.execute(a_command(elsewhere), [], "x")


@pytest.mark.parametrize("script", SHIMS)
def test_scripts_are_the_commands_under_their_own_names(script: str, tmp_path: Path) -> None:
    text = (REPO / f"{script}.py").read_text()
    assert len(text.splitlines()) < 8 and f'script(__file__, "{SHIMS[script]}")' in text
    done = run(str(REPO / f"{script}.py"), "--help", cwd=tmp_path)
    assert done.returncode == 0 and done.stdout.startswith(f"usage: {Path(script).name}.py "), done.stderr


def test_a_scripts_folder_shadows_nothing(tmp_path: Path) -> None:
    (tmp_path / "datasets.py").write_text("raise RuntimeError('shadowed')")
    program = "from relume.core.cli import script\nimport sys, types\n"
    program += "def run(a):\n    import importlib.util\n    print(importlib.util.find_spec('datasets'))\n"
    program += "m = types.SimpleNamespace(__doc__='', add_arguments=lambda p: None, run=run)\nscript(__file__, m)\n"
    (tmp_path / "program.py").write_text(program)
    done = run(str(tmp_path / "program.py"), cwd=REPO.parent)
    assert done.returncode == 0 and str(tmp_path) not in done.stdout, done.stderr


def test_check_is_what_train_and_test_do_with_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "wrong.yml"
    wrong.write_text("_base_: relume:quickstart.yml\ntrain: {total_itr: 1}\n")
    for path, code in (("relume:quickstart.yml", 0), (str(wrong), EXIT_USER_ERROR)):
        said = []
        for arguments in (["check", path], ["check", "-opt", path], ["train", "-opt", path, "--check"]):
            assert cli.main(arguments) == code
            said.append(capsys.readouterr())
        assert said[0] == said[1] == said[2]


def test_keys_given_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    twice = tmp_path / "twice.yml"
    twice.write_text("_base_: relume:quickstart.yml\nscale: 2\nscale: 1\n")
    assert cli.main(["check", str(twice)]) == EXIT_USER_ERROR
    assert "twice.yml:3:1: the key 'scale' is given twice: 2 on line 2, 1 here" in capsys.readouterr().err
    assert cli.main(["check", str(twice), "--allow_duplicate_keys"]) == 0
    assert "note: " in (out := capsys.readouterr().out) and "twice.yml:3:1: the key 'scale' is given twice" in out
