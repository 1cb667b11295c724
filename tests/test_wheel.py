"""Relume from a wheel, outside any clone: the command, the shipped option files, a training."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from runs import REPO

PACKAGE = ("archs", "core", "datasets", "losses", "options", "schedulers")
FILES = ("__init__.py", "__main__.py", "py.typed", "setup.py", "pyproject.toml", "README.md", "LICENSE", "MANIFEST.in")
PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input")


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which the wheel is installed; what it depends on comes from this interpreter's."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in PACKAGE:
        shutil.copytree(REPO / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FILES:
        shutil.copy(REPO / name, source)
    build = [sys.executable, *PIP, "wheel", ".", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run(build, cwd=source, check=True)
    (wheel,) = folder.glob("relume-*.whl")
    install = [sys.executable, *PIP, "install", "--no-deps", "--target", str(folder / "site"), str(wheel)]
    subprocess.run(install, cwd=folder, check=True)
    shutil.rmtree(source)
    return folder / "site"


@pytest.fixture
def relume(installed: Path, tmp_path: Path):
    """``relume("train", "-opt", "x.yml")``: the installed command, run in an empty folder; its output."""

    def relume(*arguments: str) -> str:
        return run([str(installed / "bin" / "relume"), *arguments], installed, tmp_path)

    return relume


def run(command: list[str], installed: Path, folder: Path) -> str:
    """Run a command with what is installed; its output."""
    environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


SEVERAL = """if True:
    import contextlib, io, json, sys
    import relume
    from relume.core.cli import main
    def said(arguments):
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            code = main(arguments)
        return code, (err if code else out).getvalue()
    commands = [said(arguments) for arguments in json.loads(sys.argv[1])]
    json.dump([relume.__file__, commands], sys.stdout)
"""


@pytest.fixture
def commands(installed: Path, tmp_path: Path):
    """``commands(["check", "x.yml"], ...)``: exit code and output of each, by one process; an error's is what it complains."""

    def commands(*arguments: list[str]) -> list[tuple[int, str]]:
        where, ends = json.loads(run([sys.executable, "-c", SEVERAL, json.dumps(arguments)], installed, tmp_path))
        assert where.startswith(str(installed)), "the test is of the wheel, not of this clone"
        return [(code, said) for code, said in ends]

    return commands


def test_what_needs_no_data(relume, commands, tmp_path: Path) -> None:
    helped = relume("--help")
    assert all(f"\n    {name}" in helped for name in ("train", "test", "check", "list", "describe", "convert"))
    checked, listed, downloads, described, mistaken = commands(
        ["check", "relume:quickstart.yml"],
        ["list", "options"],
        ["download", "--list"],
        ["describe", "-opt", "relume:underwater/laptop/phaseformer.yml"],
        ["check", "options/quickstart.yml"],
    )
    assert checked == (0, "relume:quickstart.yml: valid (RestorationModel, train, val)\n")
    assert listed[0] == 0 and listed[1].startswith("relume:quickstart.yml: ")
    assert downloads[0] == 0 and "BSD-3-Clause" in downloads[1]
    assert described[0] == 0 and "relume:_base_/underwater/" in described[1]
    assert mistaken[0] == 2 and "Did you mean 'relume:quickstart.yml'?" in mistaken[1]
    assert not list(tmp_path.iterdir())


def test_a_training_and_what_becomes_of_its_weights(relume, commands, tmp_path: Path) -> None:
    shorter = ("train:total_iter=2", "val:val_freq=2", "datasets:train:batch_size_per_gpu=1")
    assert "Done in" in relume("train", "-opt", "relume:quickstart.yml", "--force_yml", *shorter)
    (tmp_path / "pickled.pth").write_bytes(b"cos\nsystem\n(Vtouch x\ntR.")
    tested, converted, refused = commands(
        ["test", "-opt", "relume:underwater/test/quickstart.yml"],
        ["convert", "experiments/quickstart/models/net_g_latest.pth", "w.safetensors"],
        ["convert", "pickled.pth", "x.pth"],
    )
    assert tested[0] == 0 and "psnr" in tested[1]
    assert converted[0] == 0 and "tensors" in converted[1]
    assert refused[0] == 2 and "python tools" not in refused[1]


def test_nothing_shipped_sends_people_to_a_clone(installed: Path) -> None:
    for path in (installed / "relume").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "python tools/" not in text and "tools/convert" not in text, path
