"""``relume bench``: counts against direct formulas, ratios, and networks that cannot be measured."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from runs import options
from test_every_arch import tiny
from torch import nn

from relume.core.cli import main
from relume.core.options import check
from relume.core.reports.calls import Call
from relume.core.reports.costs import Setting, cost, counted, macs, peak


@pytest.fixture(autouse=True)
def two_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.yml").write_text(yaml.safe_dump(options("x")))
    Path("y.yml").write_text(yaml.safe_dump(options("y", network_g__width=16)))


def test_two_files_in_turns(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "-opt", "x.yml", "--against", "y.yml", "--sizes", "16", "12x20", "--json", "b.json"]
    assert main([*command, "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    a, b = json.loads(Path("b.json").read_text())["networks"]
    assert (a["parameters"], b["parameters"]) == ((27 + 1 + 2) * 8 + 72 * 3 + 3, (27 + 1 + 2) * 16 + 144 * 3 + 3)
    assert a["costs"][0]["macs"] == 16 * 16 * 2 * 9 * 3 * 8 and b["costs"][1]["macs"] == 12 * 20 * 2 * 9 * 3 * 16
    assert a["val"] == {"height": 17, "width": 19, "macs": 17 * 19 * 2 * 9 * 3 * 8}
    assert all(c["forward"] > 0 and c["step"] > c["forward"] for c in a["costs"])
    assert "(2) / (1)" in out and "2.00" in out and "12 x 20" in out


def test_memory_is_what_is_alive_at_once() -> None:
    x = torch.rand(1, 4, 32, 32)
    one = 4 * 32 * 32 * 4
    assert peak(lambda: x + 1, x.device) == one
    assert peak(lambda: ((x + 1) * 2).relu(), x.device) == 2 * one, "what is used up is gone"
    deep = nn.Sequential(*(nn.Tanh() for _ in range(5)))
    with_gradients = peak(lambda: deep(x.clone().requires_grad_()).sum(), x.device)
    assert with_gradients >= 6 * one, "saved for backward"
    found = cost([Call(nn.Conv2d(4, 4, 3, padding=1), channels=4)], (8, 8), Setting(), x.device)[0]
    assert found.macs == 8 * 8 * 9 * 16 == macs(nn.Conv2d(4, 4, 3, padding=1), torch.rand(1, 4, 8, 8))
    assert found.step_memory is not None and found.step_memory > found.forward_memory > 0


def kind(model: str, name: str, **more: object) -> dict[str, Any]:
    """Options of a network of another kind, and nothing else."""
    return {"name": "k", "model_type": model, "network_g": {"type": name, **tiny(name).options, **more}}


KINDS = {
    "frames": (kind("InterpolationModel", "HybridVFI", backbone_mode="gated_attn_only"), "on two frames", 32),
    "noise": (kind("GenerationModel", "OneStepGenerator"), "on noise of 16 x 16", 16),
    "clips": (kind("VideoModel", "BasicVSR"), "on clips of 5 frames", 12),
    "views": (kind("RestorationModel", "NAFSSR"), "", 12),
    "stage 2": (kind("DiffIRS2Model", "DiffIRS2"), "", 16),
}


@pytest.mark.parametrize("name", KINDS if "RELUME_SLOW_TESTS" in os.environ else ["noise", "views"])
def test_networks_that_take_no_image(name: str) -> None:
    opt, said, side = KINDS[name]
    call = Call.of(check(opt), torch.device("cpu"))
    (found,) = cost([call], (12, 12), Setting(), call.device, until=0)
    assert call.said() == said and (found.height, found.width) == (side, side)
    assert found.step_memory > found.forward_memory > 0 and found.step > 0
    with torch.no_grad():
        assert found.macs == counted(call.network.eval(), call.inputs(12, 12)) > 0, "as in a call that is computed"


def test_what_takes_too_long_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "-opt", "x.yml", "--minutes", "1e-9"]) == 0
    out = capsys.readouterr().out
    assert "64 x 64" in out and "note: 128 x 128 (eager) is left out: about" in out and "17 x 19" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--sizes", "12y"], "--sizes: expected a size such as 128 or 720x1280, got '12y'"),
        (["--minutes", "0"], "--minutes: more than 0"),
        (["--device", "tpu"], "--device: cpu or"),
        (["--against", "none.yml"], "none.yml"),
        (["--force_yml", "network_g:type=PatchGAN"], "network_g"),
    ],
)
def test_bad_input(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "-opt", "x.yml", *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error and "Traceback" not in error
