"""Values that an option cannot have, and weights that no file shall hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import runs
import torch
import yaml

from relume.core import options
from relume.core.errors import EXIT_NONFINITE, UserError
from relume.core.pipeline import train_pipeline

PLUGIN = Path(__file__).with_name("one_gain.py")
ADAM = {"type": "Adam", "lr": 1e-3}


def optimizer(**changes: Any) -> dict[str, Any]:
    return {"train__optim_g": {**ADAM, **changes}}


def scheduler(**block: Any) -> dict[str, Any]:
    return {"train__scheduler": block}


NOT_FINITE = [
    *[optimizer(**{key: f}) for key in ("lr", "eps", "weight_decay") for f in ("nan", "inf", "-inf")],
    optimizer(betas=["nan", 0.99]),
    optimizer(lr=0.001, param_groups=[{"params": "body", "lr": "nan"}]),
    optimizer(lr=0.001, param_groups=[{"params": "body", "lr_scale": "inf"}]),
    {"train__optim_g": {"type": "SGD", "lr": 0.1, "momentum": "inf"}},
    scheduler(type="OneCycleLR", max_lr=0.1, total_steps=20, div_factor="nan"),
    scheduler(type="OneCycleLR", max_lr="inf", total_steps=20),
    scheduler(type="CosineAnnealingRestartLR", periods=[12], restart_weights=["nan"], eta_min=0),
    scheduler(type="CosineAnnealingRestartLR", periods=[12], eta_min="inf"),
    {"train__pixel_opt": {"type": "L1Loss", "loss_weight": "nan"}},
    {"train__pixel_opt": {"type": "CharbonnierLoss", "eps": "inf"}},
    {"train__ema_decay": "nan"},
    {"train__ema_halflife": "inf"},
    {"train__grad_clip_norm": "nan"},
    {"train__grad_clip_norm": "inf"},
    {"val__metrics": {"m": {"type": "calculate_psnr", "data_range": "inf"}}},
]
NEGATIVE = [
    optimizer(lr=-1e-3),
    optimizer(weight_decay=-1),
    {"train__optim_g": {"type": "SGD", "lr": 0.1, "momentum": -0.5}},
    scheduler(type="OneCycleLR", max_lr=0.1, total_steps=20, div_factor=0),
    scheduler(type="ExponentialLR", gamma=-0.5),
    scheduler(type="StepLR", step_size=0),
    {"train__grad_clip_norm": -1.0},
    optimizer(eps=-1e-8),
    optimizer(betas=[0.9, 1.5]),
    optimizer(betas=[-0.1, 0.9]),
    scheduler(type="CosineAnnealingRestartLR", periods=[12], eta_min=-1e-6),
    scheduler(type="CosineAnnealingRestartLR", periods=[12, -1]),
    scheduler(type="CosineAnnealingRestartLR", periods=[12], restart_weights=[-1.0]),
    scheduler(type="CosineAnnealingRestartCyclicLR", periods=[12], eta_mins=[-1e-6]),
    scheduler(type="MultiStepLR", milestones=[4, -2]),
    scheduler(type="StairsLR", every=0),
    scheduler(type="CosineAnnealingWarmupRestarts", first_cycle_steps=12, min_lr=-1e-3),
    *({"datasets__train": {"type": "PairedImageDataset", "dataroot_lq": "x", "gt_size": n}} for n in (0, -16)),
]
REFUSED = {  # by the component itself, which is tried
    "cannot be used: it asks for the loss": {"train__optim_g": {"type": "LBFGS", "lr": 0.1}},
    "cannot be used: it takes sparse": {"train__optim_g": {"type": "SparseAdam", "lr": 0.1}},
    "in-place operation": optimizer(differentiable=True),
    "Nesterov momentum requires": {"train__optim_g": {"type": "SGD", "lr": 0.1, "nesterov": True}},
    "Invalid alpha value": {"train__optim_g": {"type": "RMSprop", "lr": 0.1, "alpha": -1.0}},
    "Invalid beta parameter": optimizer(param_groups=[{"params": "body", "betas": [0.9, 2.0]}]),
    "Invalid learning rate: -3": optimizer(param_groups=[{"params": "body", "lr": -3}]),
    "Invalid weight_decay value": optimizer(param_groups=[{"params": "body", "weight_decay": -1}]),
    "unknown key 'weight_decy' in param_groups": optimizer(param_groups=[{"params": "body", "weight_decy": 0}]),
    "a regular expression": optimizer(param_groups=[{"params": "("}]),
    "1 periods, but 2 restart_weights": scheduler(
        type="CosineAnnealingRestartLR", periods=[9], restart_weights=[1, 0.5]
    ),
    "must be less than total_steps": scheduler(type="WarmupCosineLR", total_steps=9),
    "pct_start": scheduler(type="OneCycleLR", max_lr=0.1, total_steps=9, pct_start=3),
    "Factor should be": scheduler(type="ReduceLROnPlateau", factor=2),
}


def text_of(changes: dict[str, Any], folder: Path) -> Path:
    """An option file in which NaN and infinity are YAML's."""
    text = yaml.safe_dump(runs.options(**changes), sort_keys=False)
    for word in ("nan", "-inf", "inf"):
        text = text.replace(f": {word}\n", f": {word.replace('nan', '.nan').replace('inf', '.inf')}\n")
        text = text.replace(f"- {word}\n", f"- {word.replace('nan', '.nan').replace('inf', '.inf')}\n")
    path = folder / "x.yml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("changes", NOT_FINITE, ids=str)
def test_nan_and_infinity_are_refused_where_they_stand(changes: dict[str, Any], tmp_path: Path) -> None:
    path = text_of(changes, tmp_path)
    assert ".nan" in path.read_text() or ".inf" in path.read_text()
    with pytest.raises(UserError, match=r"x\.yml:\d+:\d+: .*(finite|must be|a number)"):
        options.load(path)


@pytest.mark.parametrize("changes", NEGATIVE, ids=str)
def test_what_cannot_be_negative_or_zero_is_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"x\.yml:\d+:\d+: .*must be"):
        options.load(text_of(changes, tmp_path))


@pytest.mark.parametrize("message", REFUSED)
def test_what_a_component_refuses_is_known_before_a_training(message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=rf"x\.yml:\d+:\d+: .*{message}"):
        options.load(text_of(REFUSED[message], tmp_path))


def test_what_only_a_training_knows_is_not_tried(tmp_path: Path) -> None:
    for changes in (
        scheduler(type="WarmupCosineLR", total_steps="3 epochs"),
        scheduler(type="CosineAnnealingWarmupRestarts", first_cycle_steps=9, max_lr=[0.1, 0.2, 0.3]),
        optimizer(fused=True, param_groups=[{"params": "body", "lr_scale": 0.1}]),
    ):
        options.load(text_of(changes, tmp_path))


@pytest.mark.parametrize("ema", [0.0, 0.9], ids=["plain", "ema"])
@pytest.mark.parametrize("val", [1, 100], ids=["validated", "saved"])
def test_spoilt_weights_are_never_written(
    val: int, ema: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    opt = runs.options(
        train__total_iter=3,
        train__optim_g={"type": "SGD", "lr": 1e30, "momentum": 0.9},
        train__ema_decay=ema,
        val__val_freq=val,
        logger__save_checkpoint_freq=1,
    )
    opt["train"].pop("scheduler")
    with pytest.raises(UserError) as stopped:
        train_pipeline(opt)
    assert stopped.value.code == EXIT_NONFINITE
    for path in Path("experiments").rglob("*.pth"):
        for key, weights in torch.load(path, weights_only=True).items():
            if key.startswith("params"):
                assert all(torch.isfinite(v).all() for v in weights.values()), path
