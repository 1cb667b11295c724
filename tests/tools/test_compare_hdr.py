"""tools/compare_hdr.py on the laptop's option files, which are trained for an instant first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from runs import REPO

from relume.core import options
from relume.core.imaging.image_io import imread
from relume.core.pipeline import train_pipeline

FOLDER = REPO / "options" / "hdr" / "small"
SMALLER = (
    "num_gpu=0",
    "datasets:val:shorter_side=32",
    "datasets:val:renditions=1",
    "datasets:val:num_worker_per_gpu=0",
)
SHORTER = (
    "datasets:train:gt_size=16",
    "datasets:train:num_worker_per_gpu=0",
    "train:total_iter=3",
    "val:val_freq=null",
)


@pytest.fixture
def compare_hdr(tool) -> ModuleType:
    return tool("compare_hdr")


def test_the_two_stages_train_and_are_compared(
    compare_hdr: ModuleType,
    run_tool: Callable[..., int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_tool("compare_hdr", ["--force_yml", *SMALLER]) == 2
    assert "experiments/hdr_small_s2/models/net_g_latest.pth: no such file" in capsys.readouterr().err
    train_pipeline(options.load(FOLDER / "s1.yml", [*SMALLER, *SHORTER]))
    train_pipeline(options.load(FOLDER / "s2.yml", [*SMALLER, *SHORTER, "train:encoder_iter=2"]))
    assert run_tool("compare_hdr", ["--out", "t/table", "--show", "0", "1", "--force_yml", *SMALLER]) == 0
    _, rule, *rows = Path("t/table.md").read_text().splitlines()
    assert rule.count("---:") == 5
    labels = [row.split("|")[1].strip() for row in rows]
    assert labels == [*compare_hdr.BASELINES, "DiffIR stage 2", "DiffIR stage 1, which sees the target"]
    best = {label: float(row.split("|")[3]) for label, row in zip(labels, rows, strict=True)}
    assert best["inverse gamma"] > best["inverse gamma, guessed gain"] > best["the picture as it is"]
    height, width = imread("t/table.jpg").shape[:2]
    assert height > 2 * 192 and width > 4 * 192
