"""The option files of adversarial training on degraded photographs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import relume
from relume.core import options
from relume.core.models.base import model_class
from relume.losses import build_loss

FOLDER = Path(relume.__file__).resolve().parent / "options" / "realsr"


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.yml")), ids=lambda p: p.name)
def test_every_file_is_valid_and_says_how_to_run_it(path: Path) -> None:
    assert options.load(path).model_type
    assert f"relume train -opt options/realsr/{path.relative_to(FOLDER).as_posix()}" in path.read_text()


def test_the_generator_is_trained_alone_at_first() -> None:
    networks = {"g": nn.Conv2d(3, 3, 3, padding=1), "d": nn.Conv2d(3, 1, 3)}
    losses = {"pixel": build_loss({"type": "L1Loss"}), "gan": build_loss({"type": "GANLoss", "gan_type": "vanilla"})}
    model = model_class("SRGANModel")(networks, losses, net_g_pretrain_iters=2)  # type: ignore[call-arg]
    batch = {"lq": torch.rand(2, 3, 8, 8), "gt": torch.rand(2, 3, 8, 8)}
    asked = {step: [(u.optimizer, list(u.losses)) for u in model.updates(batch, step)] for step in (2, 3)}
    assert asked[2] == [("g", ["l_g_pix"])]
    assert asked[3] == [("g", ["l_g_pix", "l_g_gan"]), ("d", ["l_d_real", "l_d_fake"])]
