"""The objective of HybridVFI's original, term by term and as a whole, through the wrapper that trains with it."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from relume.core.errors import UserError
from relume.core.models.interpolation import InterpolationModel
from relume.losses import build_loss
from relume.losses.vgg import WIDTHS, layer_names

VGG_LAYERS = ("relu2_2", "relu3_4", "relu4_4")


def cases(path: Path) -> list[dict[str, Any]]:
    found = torch.load(path, weights_only=True)["cases"]
    for case in found:
        case["input"] = {k: v.clone().requires_grad_() for k, v in case["input"].items()}
    return list(found)


def near(value: Tensor, expected: Tensor, tolerance: float = 1e-5) -> bool:
    return float((value.detach() - expected).abs().max()) <= tolerance * max(float(expected.abs().max()), 1e-12)


@pytest.fixture(scope="module")
def vgg(tmp_path_factory: pytest.TempPathFactory) -> str:
    """VGG19 up to relu4_4, filled by the stored cases' rule."""
    state, inputs = {}, 3
    names = layer_names("vgg19")
    for i, name in enumerate(names[: 1 + names.index(VGG_LAYERS[-1])]):
        if name.startswith("conv"):
            width = WIDTHS[int(name[4]) - 1]
            for kind, shape in (("weight", (width, inputs, 3, 3)), ("bias", (width,))):
                key = f"features.{i}.{kind}"
                r = np.random.RandomState(zlib.crc32(key.encode()) & 0x7FFFFFFF).standard_normal(shape)
                scale = (2 / (9 * inputs)) ** 0.5 if kind == "weight" else 0.02
                state[key] = torch.from_numpy(r.astype("float32")) * scale
            inputs = width
    path = tmp_path_factory.mktemp("vgg") / "vgg19.pth"
    torch.save(state, path)
    return str(path)


def perceptual(weights: str, factor: float = 1.0) -> dict[str, Any]:
    layers = dict.fromkeys(VGG_LAYERS, 1.0)
    return {"type": "PerceptualLoss", "layer_weights": layers, "perceptual_weight": factor, "weights": weights}


def test_the_layers_are_those_of_the_original() -> None:
    assert [layer_names("vgg19").index(layer) for layer in VGG_LAYERS] == [8, 17, 26]


def test_vgg_of_the_original(golden: Any, vgg: str) -> None:
    (case,) = [c for c in cases(golden("vfi/losses.pt")) if c["config"]["kind"] == "vgg"]
    pred = case["input"]["pred"]
    loss = build_loss(perceptual(vgg))(pred, case["input"]["gt"])
    loss.backward()
    assert near(loss, case["output"]["loss"])
    assert near(pred.grad, case["grad"]["pred"])


def test_charbonnier_of_the_original(golden: Any) -> None:
    found = [c for c in cases(golden("vfi/losses.pt")) if c["config"]["kind"] == "charbonnier"]
    assert len(found) == 3
    for case in found:
        pred = case["input"]["pred"]
        loss = build_loss({"type": "CharbonnierLoss", "eps": case["config"]["eps"]})(pred, case["input"]["gt"])
        loss.backward()
        assert near(loss, case["output"]["loss"])
        assert near(pred.grad, case["grad"]["pred"])


def test_the_whole_objective_of_the_original(golden: Any, vgg: str) -> None:
    (case,) = [c for c in cases(golden("vfi/losses.pt")) if c["config"]["kind"] == "composite"]
    given, config, output = case["input"], case["config"], case["output"]
    blocks = {
        "lap": {"type": "LaplacianLoss", "loss_weight": config["w_lap"]},
        "ter": {"type": "TernaryCensusLoss", "loss_weight": config["w_ter"]},
        "vgg": perceptual(vgg, config["w_vgg"]),
        "flow_smooth": {"type": "FlowSmoothnessLoss", "loss_weight": config["w_flow_smooth"]},
    }

    class Given(nn.Module):
        def forward(self, frames: Tensor, timestep: float) -> tuple[Tensor, Tensor]:
            return given["pred"], given["flow"]

    model = InterpolationModel({"g": Given()}, {k: build_loss(b) for k, b in blocks.items()})
    batch = {"img0": given["img0"].detach(), "img1": given["img0"].detach(), "gt": given["gt"].detach()}
    (update,) = model.updates(batch, 1)
    total = torch.stack(list(update.losses.values())).sum()
    total.backward()
    assert near(total, output["loss_total"])
    for name, term in update.losses.items():
        stem = name.removeprefix("l_")
        assert near(term, config[f"w_{stem}"] * output[f"loss_{stem}"])
    for name, expected in case["grad"].items():
        # Where two VGG features are nearly equal, rounding decides the sign of their difference: 2e-4 from float32 to float64.
        assert near(given[name].grad, expected, 5e-4), name


def test_missing_vgg_weights_are_one_line() -> None:
    with pytest.raises(UserError, match=r"nowhere\.pth") as e:
        build_loss(perceptual("/nowhere.pth"))
    assert "\n" not in str(e.value)
