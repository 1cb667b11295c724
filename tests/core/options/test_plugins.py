"""Plugins: how a user's own modules are found, here and in other processes."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import sys
from pathlib import Path

import pytest

from relume.core.errors import UserError
from relume.core.options.plugins import import_plugin, kinds, module_name

CODE = "class Thing:\n    def answer(self):\n        return 42\n"


def answer(thing: object) -> int:
    """Runs in another process."""
    return thing.answer()  # type: ignore[attr-defined]


def test_files_of_one_name_do_not_collide(tmp_path: Path) -> None:
    for i, folder in enumerate(("a", "b")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "same.py").write_text(f"value = {i}\n")
        assert import_plugin(f"{folder}/same.py", tmp_path) == str(tmp_path / folder / "same.py")
    values = [sys.modules[module_name(tmp_path / folder / "same.py")].value for folder in ("a", "b")]
    assert values == [0, 1]


def test_a_plugin_runs_once(tmp_path: Path) -> None:
    (tmp_path / "counts.py").write_text(
        "from pathlib import Path\nwith Path(__file__ + '.log').open('a') as f: f.write('x')\n"
    )
    for _ in range(3):
        import_plugin("counts.py", tmp_path)
    assert (tmp_path / "counts.py.log").read_text() == "x"


def test_objects_of_a_plugin_reach_processes_that_share_no_memory(tmp_path: Path) -> None:
    (tmp_path / "travels.py").write_text(CODE)
    path = Path(import_plugin("travels.py", tmp_path))
    thing = sys.modules[module_name(path)].Thing()
    assert pickle.loads(pickle.dumps(thing)).answer() == 42
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(thing.answer) == 42


def test_modules_by_name(tmp_path: Path) -> None:
    assert import_plugin("json.encoder", tmp_path) == "json.encoder"
    with pytest.raises(UserError, match=r"^json\.nothing: ModuleNotFoundError: No module named 'json.nothing'"):
        import_plugin("json.nothing", tmp_path)


def test_a_plugin_that_lacks_something_says_what(tmp_path: Path) -> None:
    (tmp_path / "lacking.py").write_text("import not_installed_anywhere\n")
    with pytest.raises(UserError) as caught:
        import_plugin("lacking.py", tmp_path)
    needs = "needs the package not_installed_anywhere, which is not installed: pip install not_installed_anywhere"
    assert str(caught.value) == f"lacking.py:1: {needs}"


def test_a_folder_with_links_in_circles_is_searched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.py").write_text("class A: ...")
    (tmp_path / "again").symlink_to(tmp_path)
    (tmp_path / "nowhere.py").symlink_to(tmp_path / "absent")
    os.mkfifo(tmp_path / "pipe.py")
    assert list(kinds.python_files(tmp_path)) == [tmp_path / "a.py"]
    monkeypatch.setattr(kinds, "MOST_ENTRIES", 3)
    with pytest.raises(UserError, match=r"^plugins: .*: more than 3 files and folders"):
        list(kinds.python_files(tmp_path))


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("/dev/zero", "/dev/zero: cannot be imported: a device, not a file"),
        ("/proc/self/mem", "/proc/self/mem: cannot be imported: "),
    ],
)
def test_what_only_looks_like_a_file_is_refused(path: str, line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        import_plugin(path, tmp_path)
    assert str(caught.value).startswith(line)
