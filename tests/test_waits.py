"""A training step brings nothing from the device to Python: counted for every kind of system that ships."""

from __future__ import annotations

import copy
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import REPO, differences, options
from waits import counted

from relume.core.options import load
from relume.core.pipeline import train_pipeline
from relume.core.trainer import Trainer

TOY = REPO / "tests" / "toy.py"
FRESH = ["path:pretrain_network_g=null"]
SYSTEMS = {
    "quickstart": ["train:ema_decay=0.9"],
    "underwater/laptop/phaseformer": ["train:grad_clip_norm=1.0"],
    "realsr/quickstart": [],
    "hdr/small/s2": [*FRESH, "path:pretrain_network_S1=null"],
    "vfi/laptop/phase1": [],
    "vfi/laptop/phase2": FRESH,
    "generation/faces": [],
    "hdr/small/s1": [],
    "video/quickstart": [],
    "underwater/laptop/agssf1": [],
    "underwater/laptop/spectroformer": [],
}
SLOW = ("underwater/laptop/agssf1", "underwater/laptop/spectroformer")
"""Further networks of a model whose step is counted anyway."""
SMALL = ["num_gpu=0", "datasets:train:batch_size_per_gpu=1", "datasets:train:num_worker_per_gpu=0"]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


class Enough(Exception):
    """Ends a run."""


def waits(monkeypatch: pytest.MonkeyPatch, opt: Any, steps: int = 2) -> Counter[str]:
    """What the first steps of a run wait for."""
    found: Counter[str] = Counter()

    def fit(self: Trainer) -> None:
        for _ in range(steps):
            self.iteration += 1
            with counted() as seen:
                self.step()
            found.update(seen)
        raise Enough

    monkeypatch.setattr(Trainer, "fit", fit)
    with pytest.raises(Enough):
        train_pipeline(opt)
    return found


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_step_waits_for_nothing(system: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if system in SLOW and "RELUME_SLOW_TESTS" not in os.environ:
        pytest.skip("slow; set RELUME_SLOW_TESTS=1")
    changes = [*SMALL, *SYSTEMS[system]]
    if "generation" in system:
        changes = ["datasets:train:batch_size_per_gpu=4" if "batch" in c else c for c in changes]
    assert waits(monkeypatch, load(REPO / f"options/{system}.yml", changes)) == {}


def test_nor_does_a_tolerance_that_the_device_looks_at(monkeypatch: pytest.MonkeyPatch) -> None:
    small = ["datasets:train:batch_size_per_gpu=4" if "batch" in c else c for c in SMALL]
    changes = ["train:matching:tol=1e-4", "train:matching:stop_on=device"]
    assert waits(monkeypatch, load(REPO / "options/generation/faces.yml", [*small, *changes])) == {}


def test_nor_does_one_that_degrades_on_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    changes = ["datasets:train:degradation=null", "gt_size=64", "noise_fields=device"]
    small = ["num_gpu=0", "datasets:train:batch_size_per_gpu=4", "datasets:train:num_worker_per_gpu=0"]
    opt = load(REPO / "options/realsr/quickstart.yml", ["model_type=RealESRGANModel", *changes, *small])
    assert waits(monkeypatch, opt) == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"train__amp": "fp16"},
        {"train__optim_g": {"type": "SGD", "lr": 0.1, "momentum": 0.9}},
        {"train__accumulate": 2, "train__grad_clip_value": 0.1},
        {"train__pixel_opt": {"type": "LaplacianLoss", "levels": 2}},
    ],
)
def test_nor_does_any_precision_optimizer_or_loss(changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    assert waits(monkeypatch, options(**changes)) == {}


def test_what_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.tensor([1.0, 2.0])
    with counted() as seen:
        for look in (
            lambda: x.sum().item(),
            lambda: bool(x[0] > 0),
            lambda: float(x[0]),
            lambda: x[x > 1],
            lambda: x.tolist(),
            lambda: torch.equal(x, x),
            lambda: x.unique(),
            lambda: [0, 1][x[0].int()],
            lambda: x.numpy(),
        ):
            before = sum(seen.values())
            look()
            assert sum(seen.values()) > before
    with counted() as seen:
        torch.where(x > 1, x, 0).sum()
    assert not seen


def test_a_skipped_step_leaves_every_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []

    def fit(self: Trainer) -> None:
        def everything() -> Any:
            parts, average = self.parts, self.parts.ema
            assert average is not None
            state = [parts.networks["g"].state_dict(), average.networks["g"].state_dict()]
            return copy.deepcopy([*state, parts.optimizers["g"].state_dict()["state"]])

        for i in range(1, 13):
            before, self.iteration = everything(), i
            scalars = self.step()
            bad = not torch.as_tensor(scalars["l_pix"]).isfinite()
            said.append(bad)
            if i > 1:
                assert (differences(before, everything()) == []) is bad
        raise Enough

    monkeypatch.setattr(Trainer, "fit", fit)
    with pytest.raises(Enough):
        train_pipeline(options(datasets__train__poison=3, train__ema_decay=0.9, train__max_nonfinite=20))
    assert 2 <= sum(said) < 10
