"""docs/use.md: every command in it is run, in order, on small files."""

from __future__ import annotations

import re
import shlex
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from runs import REPO

from relume.archs import build_network
from relume.core.cli import main
from relume.core.imaging.video_writer import VideoWriter
from relume.core.options import check, description
from relume.core.runtime import checkpoint

PAGE = REPO / "docs/use.md"
NETWORK = {"type": "MSRResNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "upscale": 2}


def commands() -> list[str]:
    blocks = re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    return [line.removeprefix("relume ") for block in blocks for line in block.splitlines()]


def test_every_command_of_the_page_works(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.manual_seed(0)
    data = {"test": {"type": "SingleImageDataset", "dataroot_lq": "x"}}
    opt = {"name": "x", "model_type": "SRModel", "scale": 2, "network_g": NETWORK, "datasets": data}
    about = description.describe(check(opt))
    checkpoint.save(Path("net_g_best.pth"), {"params": build_network(NETWORK).state_dict(), "relume": about})
    Path("photos").mkdir()
    for name in ("a.png", "b.png", "c.jpg"):
        cv2.imwrite(f"photos/{name}", np.random.RandomState(0).randint(0, 256, (70, 130, 3)).astype(np.uint8))
    Path("list.txt").write_text("photos/a.png\nphotos/b.png\n")
    with VideoWriter(Path("clip.mp4"), Fraction(25)) as video:
        for i in range(5):
            video.write(np.full((32, 48, 3), 40 * i, np.uint8), Fraction(i, 25))
    found = commands()
    assert len(found) == 13
    for command in found:
        assert main(shlex.split(command)) == 0, (command, capsys.readouterr().err)
    made = {p.name for p in tmp_path.rglob("*") if p.is_file()}
    assert {"a_x2.png", "a_x2.tiff", "b_x2.tiff", "clip.mp4", "net.onnx", "net.pt2", "net.safetensors"} <= made
    assert (tmp_path / "restored/c.jpg").is_file() and (tmp_path / "enhanced/clip.mp4").is_file()
    tiles, whole = (cv2.imread(f"{name}.png").astype(int) for name in ("tiles", "whole"))
    assert np.abs(tiles - whole).max() <= 1
