"""tools/interpolation_pictures.py: a row for each validation set, and a strip of slow motion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import pytest
import torch
import yaml
from filling import fill
from runs import options

from relume.archs import build_network
from relume.core.options import load

NETWORK: dict[str, Any] = {
    "type": "HybridVFI",
    "F": 8,
    "window_size": 2,
    "depths": [1, 1, 1],
    "backbone_mode": "gated_attn_only",
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two option files whose experiments have weights."""
    monkeypatch.chdir(tmp_path)
    found = []
    for name in ("toy_phase1", "toy_phase2"):
        val = {"name": "held_out", "type": "ToyTriplets", "length": 2, "num_worker_per_gpu": 0}
        opt = options(name, model_type="InterpolationModel", network_g=NETWORK, datasets__val=val)
        folder = tmp_path / "experiments" / name / "models"
        folder.mkdir(parents=True)
        torch.save({"params": fill(build_network(NETWORK)).state_dict()}, folder / "net_g_latest.pth")
        (tmp_path / f"{name}.yml").write_text(yaml.safe_dump(opt))
        found.append(f"{name}.yml")
    return found


def test_both_pictures(run_tool: Any, files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_tool("interpolation_pictures", [*files, "--out", "pictures", "--index", "1"]) == 0
    rows, strip = (cv2.imread(str(tmp_path / "pictures" / f"{n}.jpg")) for n in ("interpolation", "slow_motion"))
    assert rows.shape[1] > 4 * 192 and strip.shape[1] > 9 * 144
    assert "written: pictures/interpolation.jpg" in capsys.readouterr().out


def test_mistakes_are_one_line(run_tool: Any, files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    load(files[0])  # the first time that its plug-in runs, a line says so
    capsys.readouterr()
    assert run_tool("interpolation_pictures", [*files, "--index", "2"]) == 2
    assert capsys.readouterr().err == "--index 2: val has samples 0 to 1\n"
