"""Final values and where they came from, as a table."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relume.core.cli import main
from relume.core.commands import describe
from relume.core.options import resolve, shipped

TEXT = """\
name: described
model_type: RestorationModel
network_g: {type: MSRResNet, num_feat: 8}
datasets: {test: {type: SingleImageDataset, dataroot_lq: images}}
"""


@pytest.fixture()
def option_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.yml").write_text(TEXT)
    return "x.yml"


def test_rows(option_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", option_file, "--force_yml", "val:tile=64", "scale=4"]) == 0
    lines, left = capsys.readouterr().out.split("\n\n")
    lines = lines.splitlines()
    rows = {key: rest.split(maxsplit=1) for key, rest in (line.split(maxsplit=1) for line in lines)}
    assert rows["name"] == ["described", "x.yml:1"]
    assert rows["network_g.num_feat"] == ["8", "x.yml:3"]
    assert rows["network_g.num_block"] == ["16", "default"]
    assert rows["val.tile"] == ["64", "--force_yml val:tile=64"]
    assert rows["path.ignore_resume_networks"] == ["[]", "default"]
    assert rows["train"] == ["null", "default"]
    assert int(left.split()[0]) > 10 and left.endswith(" more keys have their defaults; --all shows them\n")
    assert not {"val.tile_pad", "val.compile", "val.amp", "datasets.test.timeout", "data.max_pixels"} & set(rows)
    assert len({line.index(line.split(maxsplit=1)[1]) for line in lines}) == 1, "the values stand in one column"


def test_mistakes(option_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", option_file, "--force_yml", "scale=four"]) == 2
    output = capsys.readouterr()
    assert output.err == "--force_yml scale=four: scale: expected an integer, got the string 'four'\n"
    assert output.out == ""


def test_values_are_yaml_on_one_line() -> None:
    spelled = describe.spelled
    assert spelled("off") == "'off'" and spelled(None) == "null" and spelled(5e-4) == "0.0005"
    assert spelled({"a": [1, (2, Path("b"))]}) == "{a: [1, [2, b]]}"
    assert spelled("x" * 300) == "x" * 300
    assert spelled(int) == "<class 'int'>"


def test_only_what_is_set(option_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", option_file, "--set-only"]) == 0
    shown = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    names = ["name", "model_type", "network_g.type", "network_g.num_feat"]
    assert sorted(shown) == sorted([*names, "datasets.test.type", "datasets.test.dataroot_lq"])


def test_all_and_what_is_short(option_file: str, capsys: pytest.CaptureFixture[str]) -> None:
    pages = []
    for extent in ([], ["--all"], ["--set-only"]):
        assert main(["describe", option_file, *extent]) == 0
        pages.append([line.split()[0] for line in capsys.readouterr().out.split("\n\n")[0].splitlines()])
    usual, every, given = map(set, pages)
    assert given < usual < every and len(every) == len(pages[1]) and "val.tile" in every - usual
    with pytest.raises(SystemExit):
        main(["describe", option_file, "--all", "--set-only"])


LONGEST = ["generation/test/cifar10_legacy", "vfi/test/moving_photographs", "sr/x4/edsr"]
SHIPPED = [name for name in shipped.names() if not name.startswith(shipped.BLOCKS)]


@pytest.mark.parametrize(
    "name", SHIPPED if os.environ.get("RELUME_SLOW_TESTS") else [f"relume:{n}.yml" for n in LONGEST]
)
def test_a_shipped_file_is_short_enough_to_read(name: str) -> None:
    assert sum(describe.matters(row, set_only=False) for row in resolve(name).rows()) <= 150
