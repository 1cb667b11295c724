"""The option files of adversarial training on degraded photographs."""

from __future__ import annotations

import hashlib
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from torch import nn

import relume
from relume.archs import build_network
from relume.core import hub, options
from relume.core.cli import main
from relume.core.imaging.opencv import cv2
from relume.core.models.base import model_class
from relume.losses import build_loss

FOLDER = Path(relume.__file__).resolve().parent / "options" / "realsr"


@pytest.mark.parametrize("path", sorted(FOLDER.rglob("*.yml")), ids=lambda p: p.name)
def test_every_file_is_valid_and_says_how_to_run_it(path: Path) -> None:
    assert options.load(path).model_type
    assert f"relume train -opt options/realsr/{path.relative_to(FOLDER).as_posix()}" in path.read_text()


SMALL = """gt_size=32 datasets:train:pad_size=48 datasets:train:batch_size_per_gpu=2 datasets:train:num_worker_per_gpu=0
network_g:num_feat=4 network_g:num_block=1 network_g:num_grow_ch=4 network_d:num_feat=4 train:total_iter=3
train:net_d_init_iters=1 train:perceptual_opt:weights=random num_gpu=0 logger:use_tb_logger=false"""
"""What makes the recipe small enough for a test."""


def test_fine_tuning_takes_three_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the docs page, on made-up weights under the public ones' name, with params_ema alone as they have it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELUME_HOME", str(tmp_path / "home"))
    block = {
        "type": "RRDBNet",
        "num_in_ch": 3,
        "num_out_ch": 3,
        "num_feat": 4,
        "num_block": 1,
        "num_grow_ch": 4,
        "scale": 4,
    }
    public = hub.entry("realesrgan-x4plus")
    file = tmp_path / "home" / "weights" / public.file
    file.parent.mkdir(parents=True)
    torch.manual_seed(0)
    torch.save({"params_ema": build_network(block).state_dict()}, file)
    own = {"url": public.url, "sha256": hashlib.sha256(file.read_bytes()).hexdigest(), "licence": "none"}
    (tmp_path / "home/weights.yml").write_text(
        yaml.safe_dump({public.name: {**own, "network": block, "entry": "params_ema"}})
    )
    for folder, side in (("photographs", 56), ("old", 12)):
        (tmp_path / folder).mkdir()
        for i in range(2):
            pixels = np.random.default_rng(i).integers(0, 256, (side, side, 3), np.uint8)
            cv2.imwrite(f"{folder}/{i}.png", pixels)
    page = (Path(relume.__file__).resolve().parent / "docs/degradations.md").read_text()
    found = re.search(r"```console\n(relume download .*?)```", page, re.DOTALL)
    assert found
    commands = [shlex.split(line.removeprefix("relume ")) for line in found[1].splitlines()]
    assert [c[0] for c in commands] == ["download", "train", "infer"]
    commands[1][commands[1].index("-opt") + 1] = str(FOLDER / "finetune.yml")
    commands[1] += SMALL.split()
    for command in commands:
        assert main(command) == 0, command
    assert cv2.imread("enlarged/1.png").shape == (48, 48, 3)
    trained = torch.load("experiments/finetuned_x4/models/net_g_latest.pth", weights_only=True)
    before = torch.load(file, weights_only=True)["params_ema"]
    assert any(not torch.equal(trained["params_ema"][k], v) for k, v in before.items())


def test_the_generator_is_trained_alone_at_first() -> None:
    networks = {"g": nn.Conv2d(3, 3, 3, padding=1), "d": nn.Conv2d(3, 1, 3)}
    losses = {"pixel": build_loss({"type": "L1Loss"}), "gan": build_loss({"type": "GANLoss", "gan_type": "vanilla"})}
    model = model_class("SRGANModel")(networks, losses, net_g_pretrain_iters=2)  # type: ignore[call-arg]
    batch = {"lq": torch.rand(2, 3, 8, 8), "gt": torch.rand(2, 3, 8, 8)}
    asked = {step: [(u.optimizer, list(u.losses)) for u in model.updates(batch, step)] for step in (2, 3)}
    assert asked[2] == [("g", ["l_g_pix"])]
    assert asked[3] == [("g", ["l_g_pix", "l_g_gan"]), ("d", ["l_d_real", "l_d_fake"])]
