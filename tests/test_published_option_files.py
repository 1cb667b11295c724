"""Option files that the authors of networks publish, cut down, train for two iterations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from conftest import GOLDEN

from relume.core import options
from relume.core.pipeline import train_pipeline
from relume.tools.fuzzing.cut_down import cut_down

FOLDER = GOLDEN.parent / "optionfiles"
PUBLISHED: dict[str, tuple[str, dict[str, Any]]] = {
    "NAFNetLocal": ("megvii-research+NAFNet/GoPro_NAFNet-width64.yml", {}),
    "Baseline": ("megvii-research+NAFNet/SIDD_Baseline-width32.yml", {}),
    "NAFSSR": ("megvii-research+NAFNet/NAFSSR-S_x4.yml", {}),
    "MambaIR": ("csguoh+MambaIR/train_MambaIR_lightSR_x2.yml", {"embed_dim": 30, "depths": [1, 1]}),
    "MambaIRUNet": (
        "csguoh+MambaIR/train_MambaIR_RealDN.yml",
        {"num_blocks": [1, 0, 0, 1], "num_refinement_blocks": 0, "mlp_ratio": 0.5},
    ),
    "MambaIRv2": (
        "csguoh+MambaIR/train_MambaIRv2_SRSmall_x3.yml",
        {"embed_dim": 12, "window_size": 8, "depths": [2], "num_heads": [2]},
    ),
    "RCAN": ("xinntao+EDVR/train_RCAN_x2.yml", {"upscale": 2}),  # where the file has 4 beside a scale of 2
    "SwinIR": ("XPixelGroup+BasicSR/train_SwinIR_SRx2_scratch.yml", {}),
    "ECBSR": ("XPixelGroup+BasicSR/train_ECBSR_x2_m4c16_prelu.yml", {}),
}
"""Of each network one, and what is changed of its block besides what `cut_down` makes narrow."""


SLOW = ("SwinIR",)
"""Whose library takes seconds to be imported."""
slow = pytest.mark.skipif("RELUME_SLOW_TESTS" not in os.environ, reason="slow; set RELUME_SLOW_TESTS=1")


@pytest.mark.parametrize("name", [pytest.param(n, marks=slow) if n in SLOW else n for n in PUBLISHED])
def test_two_iterations(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, changes = FOLDER / PUBLISHED[name][0], PUBLISHED[name][1]
    if not path.exists():
        pytest.skip(f"it is not here: {path}")
    monkeypatch.chdir(tmp_path)
    opt = options.load(path)
    assert opt.network_g["type"] == name
    values = cut_down(opt, tmp_path / "data", 16 * opt.scale)
    values["network_g"].update(changes)
    scores = train_pipeline(options.check(values))
    assert all(-100 < v < 100 for each in scores.values() for v in each.values())
    assert (tmp_path / "experiments/cut/models/net_g_2.pth").is_file()
