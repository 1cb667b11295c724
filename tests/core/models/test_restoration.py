"""core/models/restoration.py in whole runs: names, aliases, two outputs, mixtures. (Its parts: test_restoration_outputs.py)"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from runs import REPO, differences, options, records, weights
from torch import nn

from relume.core.errors import UserError
from relume.core.models import MODELS
from relume.core.models.augment import Mixup
from relume.core.models.restoration import RestorationModel
from relume.core.options.plugins import import_plugin, module_name
from relume.core.pipeline import train_pipeline
from relume.losses import build_loss

PLUGINS = [str(REPO / "tests" / name) for name in ("toy.py", "players.py")]
ROOT = Path("experiments/toy")
SGD: dict[str, Any] = {"type": "SGD", "lr": 0.05}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def players() -> ModuleType:
    return sys.modules[module_name(Path(import_plugin(PLUGINS[1], REPO)))]


def two_outputs(**changes: Any) -> dict[str, Any]:
    return options(network_g={"type": "TwoOutputs"}, train__optim_g=dict(SGD), plugins=PLUGINS, **changes)


@pytest.mark.parametrize("name", ["SRModel", "ImageCleanModel", "ImageRestorationModel"])
def test_basicsrs_names_are_the_same_model(name: str) -> None:
    assert MODELS.get(name) is RestorationModel
    train_pipeline(options(model_type=name, train__total_iter=1, val__val_freq=None))
    assert (ROOT / "models/net_g_1.pth").exists()


def test_every_loss_is_logged_under_basicsrs_names() -> None:
    opt = options(train__total_iter=1)
    opt["train"].update(fft_opt={"type": "FFTLoss"}, my_own_opt={"type": "MSELoss", "loss_weight": 0.5})
    train_pipeline(opt)
    assert [k for k in records(ROOT)[0] if k.startswith("l_")] == ["l_pix", "l_fft", "l_my_own", "l_total"]


def test_two_outputs_train_and_the_first_is_the_result() -> None:
    results = train_pipeline(two_outputs(train__pixel_opt={"type": "MSELoss"}, train__optim_g__lr=0.3))
    lines = [r for r in records(ROOT) if "lr" in r]
    assert [k for k in lines[0] if k.startswith("l_")] == ["l_1_pix", "l_2_pix", "l_total"]
    factors = weights(ROOT, 12)["params"]["factors"]
    assert factors[0] > 0.7 and factors[1] > 0.5, "both rise towards one, from a half and a quarter"
    assert lines[-1]["l_1_pix"] < lines[0]["l_1_pix"] and lines[-1]["l_2_pix"] < lines[0]["l_2_pix"]
    assert results["held_out"]["score"] > -60, "the small output is compared with the ground truth of its size"


def test_the_large_output_meets_the_ground_truth_resized(players: ModuleType) -> None:
    net = players.TwoOutputs()
    model = RestorationModel({"g": net}, {"pixel": build_loss({"type": "L1Loss"})}, output_weights=[1.0, 0.25])
    lq, gt = torch.rand(2, 3, 6, 8), torch.rand(2, 3, 6, 8)
    (update,) = list(model.updates({"lq": lq, "gt": gt}, 1))
    resized = nn.functional.interpolate(gt, size=(12, 16), mode="bilinear", align_corners=False)
    large = nn.functional.interpolate(lq, scale_factor=2, mode="nearest")
    assert update.losses["l_1_pix"].item() == pytest.approx((0.5 * lq - gt).abs().mean().item(), rel=1e-5)
    assert update.losses["l_2_pix"].item() == pytest.approx(
        0.25 * (0.25 * large - resized).abs().mean().item(), rel=1e-5
    )
    with torch.no_grad():
        predicted = model.predict({"lq": lq})
    assert {k: v.shape[-2:] for k, v in predicted.items()} == {"output": (6, 8), "output_2": (12, 16)}


def test_an_output_of_no_weight_is_not_trained() -> None:
    train_pipeline(two_outputs(train__output_weights=[1.0, 0.0], train__total_iter=5))
    factors = weights(ROOT, 5)["params"]["factors"]
    assert factors[1] == 0.25 and factors[0] != 0.5


def test_weights_for_another_number_of_outputs_are_a_mistake() -> None:
    with pytest.raises(UserError, match=r"train\.output_weights has 3 entries, but the network has 2 output\(s\)"):
        train_pipeline(two_outputs(train__output_weights=[1.0, 1.0, 1.0]))


# ------------------------------------------------------------------ mixtures
def test_mixtures_are_convex_and_alike_for_input_and_target() -> None:
    lq = torch.rand(6, 3, 4, 4)
    torch.manual_seed(0)
    mixed = Mixup(beta=1.2)({"lq": lq, "gt": 2 * lq})
    torch.testing.assert_close(mixed["gt"], 2 * mixed["lq"])
    assert not torch.equal(mixed["lq"], lq) and torch.allclose(mixed["lq"].mean(), lq.mean())
    samples = [Mixup(use_identity=True)({"lq": lq, "gt": lq})["lq"] for _ in range(100)]
    untouched = sum(torch.equal(s, lq) for s in samples)
    assert 30 < untouched < 70, "identity is as likely as a mixture"


def test_mixing_in_a_run_changes_it_reproducibly() -> None:
    mixing = {"mixup": True, "mixup_beta": 1.2, "use_identity": True}
    for name, augs in (("plain", None), ("off", {**mixing, "mixup": False}), ("one", mixing), ("two", mixing)):
        train_pipeline(options(name, train__mixing_augs=augs, train__total_iter=6))
    final = {n: weights(Path("experiments") / n, 6)["params"] for n in ("plain", "off", "one", "two")}
    assert differences(final["plain"], final["off"]) == [] and differences(final["one"], final["two"]) == []
    assert differences(final["plain"], final["one"]) != []
    with pytest.raises(UserError, match=r"'mixup_bta' in train\.mixing_augs\. Did you mean 'mixup_beta'\?"):
        train_pipeline(options("wrong", train__mixing_augs={"mixup": True, "mixup_bta": 1}))


def test_the_self_ensemble_is_the_mean_over_eight_symmetries() -> None:
    torch.manual_seed(0)
    network = nn.Conv2d(3, 3, 3, padding=1)
    model = RestorationModel({"g": network}, {}, self_ensemble="dihedral")
    x = torch.rand(1, 3, 8, 12)
    expected = torch.zeros_like(x)
    for turns in range(4):
        for flipped in (False, True):
            seen = torch.rot90(x.flip(3) if flipped else x, turns, (2, 3))
            answer = torch.rot90(network(seen), -turns, (2, 3))
            expected += (answer.flip(3) if flipped else answer) / 8
    torch.testing.assert_close(model.predict({"lq": x})["output"], expected)
    with pytest.raises(UserError, match=r"val\.self_ensemble"):
        RestorationModel({"g": network}, {}, self_ensemble="hflip", inputs=["lq", "mask"])


def test_a_network_of_other_inputs_is_refused_before_it_is_called() -> None:
    class Masked(nn.Conv2d):
        def forward(self, lq: torch.Tensor, mask: torch.Tensor, vector: torch.Tensor | None = None) -> torch.Tensor:
            return super().forward(lq)

    network = Masked(3, 3, 3)
    for wrong in (None, ["lq", "a", "b", "c"]):
        with pytest.raises(UserError, match=r"its forward takes lq, mask, vector; name .*inputs: .lq, mask."):
            RestorationModel({"g": network}, {}, inputs=wrong)
    for right in (["lq", "mask"], ["lq", "mask", "prompt"]):
        RestorationModel({"g": network}, {}, inputs=right)


@pytest.mark.parametrize("answer", ["map", "nothing", "list", "dict"])
def test_a_loss_that_gives_no_number_is_one_line(answer: str) -> None:
    class Own(nn.Module):
        def forward(self, pred: torch.Tensor, target: torch.Tensor) -> object:
            values = {"map": (pred - target).abs(), "nothing": None, "list": [pred.mean()], "dict": {"a": 1.0}}
            return values[answer]

    network = nn.Conv2d(3, 3, 3, padding=1)
    model = RestorationModel({"g": network}, {"pixel": Own()})
    batch = {"lq": torch.rand(1, 3, 4, 4), "gt": torch.rand(1, 3, 4, 4)}
    with pytest.raises(UserError, match=r"^train\.pixel_opt: Own returned .*; a loss returns one number"):
        next(model.updates(batch, 1))
    with pytest.raises(UserError, match=r"the samples have no 'gt'\. They have: lq\.$"):
        next(model.updates({"lq": batch["lq"], "seed": torch.zeros(1)}, 1))
