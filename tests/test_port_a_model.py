"""The page "port a BasicSR model in 20 lines": its three models train, and give what is expected of them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import REPO, options

from relume.core.models.base import model_class
from relume.core.options.plugins import import_plugin
from relume.core.pipeline import train_pipeline

PAGE = (REPO / "docs" / "port_a_model.md").read_text(encoding="utf-8")
FILES = {m[1]: m[0] for m in re.finditer(r"# (\w+\.py)\n.*?(?=^```)", PAGE, re.MULTILINE | re.DOTALL)}
NETS = """
import torch
from torch import nn


class TwoStages(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x):
        coarse = x + self.first(x)
        return coarse, coarse + self.second(coarse)


class Judge(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 1, 3)

    def forward(self, x):
        return self.conv(x)
"""
ADAM = {"type": "Adam", "lr": 1e-3}
MODELS: dict[str, dict[str, Any]] = {
    "PaddedModel": {"train__pixel_opt": {"type": "L1Loss"}},
    "TwoStageModel": {
        "network_g": {"type": "TwoStages"},
        "train__pixel_opt": {"type": "L1Loss"},
        "train__edge_opt": {"type": "MSELoss"},
        "train__coarse_weight": 0.25,
    },
    "SmallGANModel": {
        "network_d": {"type": "Judge"},
        "train__optim_d": ADAM,
        "train__pixel_opt": {"type": "L1Loss"},
        "train__gan_opt": {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1},
    },
}


def test_the_page_has_three_models_of_20_lines() -> None:
    assert len(FILES) == 3
    for text in FILES.values():
        body = text[text.index("@MODELS.register()") :]
        assert len([line for line in body.splitlines() if line.strip()]) <= 20


@pytest.mark.parametrize("name", MODELS)
def test_they_train(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets.py").write_text(NETS)
    for file, text in FILES.items():
        (tmp_path / file).write_text(text)
    plugins = [str(REPO / "tests" / "toy.py"), "nets.py", *FILES]
    changes = {"train__total_iter": 2, "val__val_freq": 2, "logger__save_checkpoint_freq": 2, **MODELS[name]}
    opt = options("ported", model_type=name, plugins=plugins, **changes)
    assert train_pipeline(opt)["held_out"]["score"] < 0
    saved = {p.name for p in (tmp_path / "experiments/ported/models").glob("*_2.pth")}
    assert saved == ({"net_g_2.pth", "net_d_2.pth"} if name == "SmallGANModel" else {"net_g_2.pth"})


def test_padding_sees_multiples_and_gives_the_whole_image(tmp_path: Path) -> None:
    (tmp_path / "padded_model.py").write_text(FILES["padded_model.py"])
    import_plugin("padded_model.py", tmp_path)
    seen: list[torch.Size] = []

    class Net(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen.append(x.shape[-2:])
            return x.repeat_interleave(2, -1).repeat_interleave(2, -2)

    x = torch.rand(1, 3, 17, 30)
    output = model_class("PaddedModel")({"g": Net()}, {}).predict({"lq": x})["output"]
    assert seen == [(32, 32)] and torch.equal(output[..., ::2, ::2], x) and output.shape[-2:] == (34, 60)
