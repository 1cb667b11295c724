"""The option files that come with Relume: found by name from anywhere, each with its purpose in options/README.md."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from relume.core import options
from relume.core.options import OptionError, shipped

Write = Callable[..., str]


def mistake(path: str) -> str:
    with pytest.raises(OptionError) as caught:
        options.load(path)
    return str(caught.value)


def test_the_readme_lists_every_file_and_no_other() -> None:
    assert sorted(shipped.purposes()) == sorted(shipped.names())
    assert all(len(purpose) > 5 for purpose in shipped.purposes().values())


@pytest.mark.parametrize(
    "name",
    [n for n in shipped.names() if not n.startswith(shipped.BLOCKS)],
)
def test_every_file_loads_by_its_name(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert options.load(name) == options.load(shipped.FOLDER / name.removeprefix(shipped.PREFIX))


def test_old_names_are_one_line_and_the_same_options() -> None:
    moved = {n: p for n, p in shipped.purposes().items() if p.startswith("now `")}
    assert len(moved) == 5
    for name, purpose in moved.items():
        text = shipped.located(name).read_text()
        assert text.startswith("_base_: ") and text.count("\n") == 1
        assert options.load(name) == options.load(shipped.PREFIX + purpose.split("`")[1])


def test_as_a_base_and_in_origins(write: Write) -> None:
    path = write("_base_: relume:underwater/laptop/../laptop/phaseformer.yml\nname: mine\n")
    origins = options.resolve(path).origins
    assert origins["name"].short == "x.yml:2"
    assert origins["model_type"].short.startswith("relume:_base_/underwater/")
    assert not any(".." in place.source for place in origins.values())
    below = write("_base_: [x.yml, relume:_base_/underwater/scores.yml]\nname: other\n", "y.yml")
    assert options.load(below).name == "other"


def test_mistakes_in_names(write: Write) -> None:
    wrong = "relume:underwater/laptop/phasefromer.yml"
    said = f"{wrong}: no option file of this name comes with Relume."
    assert mistake(wrong) == f"{said} Did you mean 'relume:underwater/laptop/phaseformer.yml'? See: relume list options"
    assert f"\nx.yml:1:9: {said} Did you" in mistake(write(f"_base_: {wrong}\n"))
    assert mistake("relume:../../etc/passwd").startswith("relume:../../etc/passwd: no option file of this name")
    assert mistake("relume:underwater").startswith("relume:underwater: a folder, not an option file")
    assert mistake("options/quickstart.yml") == (
        "options/quickstart.yml: no such file. Did you mean 'relume:quickstart.yml'?"
    )


def test_mistakes_in_what_is_built_upon_a_shipped_file(write: Write) -> None:
    path = write("_base_: relume:quickstart.yml\ntrain: {total_itr: 3}\n")
    assert mistake(path).startswith("x.yml:2:9: unknown key 'total_itr' in train. Did you mean 'total_iter'?")
