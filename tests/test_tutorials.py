"""docs/tutorials: every command is run, page by page and in order, on small files and with short trainings."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import zlib
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import torchvision
from runs import REPO, forked

from relume.archs import build_network
from relume.core.imaging.video_writer import VideoWriter

PAGES = sorted(p for p in (REPO / "docs/tutorials").glob("*.md") if p.name != "index.md")
SHORTER = [
    "train:total_iter=2",
    "val:val_freq=2",
    "datasets:train:num_worker_per_gpu=0",
    "logger:save_checkpoint_freq=2",
]
"""The tutorials' runs take minutes or days; these take seconds."""
MORE = {
    "super_resolution": ["datasets:train:gt_size=32", "datasets:train:batch_size_per_gpu=1"],
    "denoising": ["datasets:train:gt_size=32", "datasets:train:batch_size_per_gpu=2"],
    "deblurring": ["datasets:train:gt_size=32", "datasets:train:batch_size_per_gpu=2"],
    "generation": ["datasets:train:batch_size_per_gpu=4"],
    "underwater": ["datasets:train:gt_size=176", "datasets:train:batch_size_per_gpu=1"],
}
PUBLIC = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 64, "num_block": 23, "num_grow_ch": 32}
slow = pytest.mark.skipif(not os.environ.get("RELUME_SLOW_TESTS"), reason="minutes: RELUME_SLOW_TESTS=1, make test-all")


def blocks(page: Path) -> list[tuple[str, str]]:
    return re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def picture(path: Path, side: int = 128) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(zlib.crc32("/".join(path.parts[-3:]).encode()))
    coarse = rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC))


def reader(folder: Path, page: Path) -> None:
    """What a reader of `page` has: the pictures that it speaks of, and the files that it shows."""
    for language, text in blocks(page):
        name = re.match(r"# (\w+\.yml)\n", text)
        if language == "yaml" and name:
            (folder / name.group(1)).write_text(text, encoding="utf-8")
    for i in range(4):
        for name in ("photographs", "old", "images"):
            picture(folder / name / f"{i}.png")
        picture(folder / "held_out" / f"{i + 4}.png")
        pairs = ("input", "gt") if page.stem == "underwater" else ("lq", "gt")
        for j, split in enumerate(() if page.stem in ("super_resolution", "hdr") else ("train", "val")):
            for side in pairs:
                picture(folder / "data" / split / side / f"{i + 4 * j}.png", 192)
        for split in ("clips", "held_out") if page.stem == "video" else ():
            for j in range(6):
                picture(folder / split / "gt" / str(i) / f"{j:04}.png", 128)
                picture(folder / split / "lq" / str(i) / f"{j:04}.png", 32)
    with VideoWriter(folder / "clip.mp4", Fraction(25)) as video:
        for i in range(3):
            video.write(np.full((64, 64, 3), 60 * i, np.uint8), Fraction(i, 25))


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_a_page_names_files_and_commands_that_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"relume:([\w/.]+\.yml)", text):
        assert (REPO / "options" / name).exists(), name
    commands = [line for language, text in blocks(page) if language == "bash" for line in text.splitlines()]
    assert commands and all((REPO / f"core/commands/{line.split()[1]}.py").exists() for line in commands), commands


@slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_every_command_of_a_page_runs(page: Path, tmp_path: Path) -> None:
    reader(tmp_path, page)
    home = tmp_path / "home/weights"
    home.mkdir(parents=True)
    if page.stem == "real_world":
        torch.save({"params_ema": build_network(PUBLIC).state_dict()}, home / "RealESRGAN_x4plus.pth")
        about = {"url": "https://nowhere.invalid/RealESRGAN_x4plus.pth", "licence": "BSD-3-Clause", "network": PUBLIC}
        about["sha256"] = hashlib.sha256((home / "RealESRGAN_x4plus.pth").read_bytes()).hexdigest()
        (tmp_path / "home/weights.yml").write_text(json.dumps({"realesrgan-x4plus": about}))
    if page.stem in ("real_world", "underwater"):  # whose perceptual losses download VGG19
        vgg = tmp_path / "torch/hub/checkpoints/vgg19-dcbb9e9d.pth"
        vgg.parent.mkdir(parents=True)
        torch.save({f"features.{k}": v for k, v in torchvision.models.vgg19().features.state_dict().items()}, vgg)
    caches = {"RELUME_HOME": str(tmp_path / "home"), "TORCH_HOME": str(tmp_path / "torch")}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **caches}
    for line in (line for language, text in blocks(page) if language == "bash" for line in text.splitlines()):
        command, _, target = line.partition(" > ")
        words = shlex.split(command)[1:]
        if words[0] == "train" and "--check" not in words:
            words += ["--force_yml", *SHORTER, *(() if "relume:" in line else MORE.get(page.stem, ()))]
        done = forked(["-m", "relume", *words], tmp_path, [environment])
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        if target:
            (tmp_path / target).write_text(done.stdout, encoding="utf-8")
