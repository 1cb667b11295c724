"""Relume from a wheel, outside any clone: the command, the shipped option files, a training."""

from __future__ import annotations

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
    """``relume("check", "x.yml")``: the installed command, run in an empty folder; its output."""

    def relume(*arguments: str, expected: int = 0) -> str:
        environment = {**os.environ, "PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
        command = [str(installed / "bin" / "relume"), *arguments]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600)
        assert done.returncode == expected, done.stdout + done.stderr
        return done.stdout if expected == 0 else done.stderr

    return relume


def test_what_needs_no_data(relume, installed: Path, tmp_path: Path) -> None:
    helped = relume("--help")
    assert all(f"\n    {name}" in helped for name in ("train", "test", "check", "list", "describe", "convert"))
    assert relume("check", "relume:quickstart.yml") == "relume:quickstart.yml: valid (RestorationModel, train, val)\n"
    assert relume("list", "options").startswith("relume:quickstart.yml: ")
    assert "BSD-3-Clause" in relume("download", "--list")
    assert "relume:_base_/underwater/" in relume("describe", "-opt", "relume:underwater/laptop/phaseformer.yml")
    assert "Did you mean 'relume:quickstart.yml'?" in relume("check", "options/quickstart.yml", expected=2)
    assert not list(tmp_path.iterdir())
    where = "import relume; print(relume.__file__)"
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    found = subprocess.run([sys.executable, "-c", where], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.startswith(str(installed)), "the test is of the wheel, not of this clone"


def test_a_training_and_what_becomes_of_its_weights(relume, tmp_path: Path) -> None:
    shorter = ("train:total_iter=2", "val:val_freq=2", "datasets:train:batch_size_per_gpu=1")
    assert "Done in" in relume("train", "-opt", "relume:quickstart.yml", "--force_yml", *shorter)
    assert "psnr" in relume("test", "-opt", "relume:underwater/test/quickstart.yml")
    weights = "experiments/quickstart/models/net_g_latest.pth"
    assert "tensors" in relume("convert", weights, "w.safetensors")
    (tmp_path / "pickled.pth").write_bytes(b"cos\nsystem\n(Vtouch x\ntR.")
    assert "python tools" not in relume("convert", "pickled.pth", "x.pth", expected=2)


def test_nothing_shipped_sends_people_to_a_clone(installed: Path) -> None:
    for path in (installed / "relume").rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        assert "python tools/" not in text and "tools/convert" not in text, path
