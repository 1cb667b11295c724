"""``relume degrade``: what training would see, written to files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import yaml

from relume.core.cli import main
from relume.core.imaging.image_io import imwrite, read_pixels

OPTIONS = {
    "name": "x",
    "model_type": "RestorationModel",
    "scale": 2,
    "datasets": {
        "train": {
            "type": "RealESRGANDataset",
            "dataroot_gt": "nowhere",
            "pad_size": 64,
            "gt_size": 48,
            "degradation": {},
        }
    },
    "network_g": {"type": "Spectroformer"},
    "train": {"total_iter": 1, "optim_g": {"type": "Adam"}, "pixel_opt": {"type": "L1Loss"}},
}


@pytest.fixture
def option_file(tmp_path: Path) -> Path:
    rng = np.random.RandomState(0)
    for name in ("a", "s/b"):
        imwrite(tmp_path / "in" / f"{name}.png", rng.rand(70, 80, 3))
    path = tmp_path / "x.yml"
    path.write_text(yaml.safe_dump(OPTIONS))
    return path


def test_it_writes_pairs_and_a_sheet_the_same_again(option_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = option_file.parent
    arguments = ["degrade", "-opt", str(option_file), "-i", str(folder / "in"), "--count", "2", "-o"]
    assert main([*arguments, str(folder / "out")]) == 0
    assert "4 pairs" in capsys.readouterr().out
    assert sorted(p.relative_to(folder / "out").as_posix() for p in (folder / "out").rglob("*.png")) == [
        *(f"{kind}/{name}_{i}.png" for kind in ("gt", "lq") for name in ("a", "s/b") for i in (0, 1)),
        "sheet.png",
    ]
    assert read_pixels(folder / "out" / "lq" / "a_0.png").shape == (24, 24, 3)
    assert read_pixels(folder / "out" / "gt" / "a_0.png").shape == (48, 48, 3)
    assert main([*arguments, str(folder / "again")]) == 0
    assert main([*arguments, str(folder / "other"), "--seed", "5"]) == 0
    lq = [read_pixels(folder / name / "lq" / "a_1.png") for name in ("out", "again", "other")]
    assert np.array_equal(lq[0], lq[1])
    assert not np.array_equal(lq[0], lq[2])


def test_mistakes_are_one_line(option_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = option_file.parent
    arguments = ["degrade", "-opt", str(option_file), "-o", str(folder / "out"), "-i"]
    assert main([*arguments, str(folder / "nothing")]) == 2
    assert "nothing" in capsys.readouterr().err
    assert main([*arguments, str(folder / "in"), "--count", "0"]) == 2
    assert not (folder / "out").exists()
