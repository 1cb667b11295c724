"""``relume bench``: counts against direct formulas, ratios, and networks that cannot be measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from runs import options
from torch import nn

from relume.core.cli import main
from relume.core.reports.costs import Setting, cost, macs, peak


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
    found = cost([nn.Conv2d(4, 4, 3, padding=1)], [4], (8, 8), Setting(), x.device)[0]
    assert found.macs == 8 * 8 * 9 * 16 == macs(nn.Conv2d(4, 4, 3, padding=1), torch.rand(1, 4, 8, 8))
    assert found.step_memory is not None and found.step_memory > found.forward_memory > 0


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
