"""Several trainings compared: with toy networks here."""

from __future__ import annotations

import pytest
import yaml

from relume.core.imaging.image_io import imread
from relume.tests.runs import options


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Two option files of seconds, to be run in a folder of their own."""
    monkeypatch.chdir(tmp_path)
    paths = []
    for width in (4, 8):
        opt = options(
            f"toy{width}", network_g__width=width, train__total_iter=2, val__save_img=True, val__score_input=True
        )
        paths.append(tmp_path / f"{width}.yml")
        paths[-1].write_text(yaml.safe_dump(opt))
    return [str(p) for p in paths]


def test_table_and_picture(run_tool, files, tmp_path):
    assert run_tool("ablation", [*files, "--out", "docs/x", "--rows", "2"]) == 0
    lines = (tmp_path / "docs" / "x.md").read_text().splitlines()
    header, _, before, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines)
    assert header == ["", "parameters", "score", "CPU minutes"]
    assert before[0] == "input" and float(before[2]) < 0
    assert [row[:2] for row in rows] == [["ToyNet", "231"], ["ToyNet", "459"]]
    assert all(float(row[2]) < 0 for row in rows) and rows[0][2] != rows[1][2]
    picture = imread(tmp_path / "docs" / "x.jpg")
    assert picture.shape[1] >= 4 * 19 and picture.shape[0] >= 2 * 144  # two rows of four images


def test_pictures_need_saved_images(run_tool, files, capsys):
    assert run_tool("ablation", [files[0], "--force_yml", "val:save_img=false"]) == 2
    assert "val.save_img must be on" in capsys.readouterr().err


def test_mistakes_show_before_anything_is_trained(run_tool, files, tmp_path, capsys):
    assert run_tool("ablation", [files[0], str(tmp_path / "gone.yml")]) == 2
    assert "gone.yml: no such file" in capsys.readouterr().err
    assert run_tool("ablation", [files[0], files[0]]) == 2
    assert "the same name" in capsys.readouterr().err
    other = options("other", val__save_img=True, val__metrics={"other": {"type": "toy_score"}})
    (tmp_path / "other.yml").write_text(yaml.safe_dump(other))
    assert run_tool("ablation", [files[0], str(tmp_path / "other.yml")]) == 2
    assert "other.yml: val.metrics must be the same in all files" in capsys.readouterr().err
    assert run_tool("ablation", [*files, "--rows", "0"]) == 2
    assert not (tmp_path / "experiments").exists()
