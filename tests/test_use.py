"""docs/use.md: every command in it is run, in order, on small files, and every piece of Python."""

from __future__ import annotations

import hashlib
import json
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
TEXT = PAGE.read_text(encoding="utf-8")
NETWORK = {"type": "SRVGGNetCompact", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_conv": 2, "upscale": 2}
MINE = {"type": "RRDBNet", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 4, "num_block": 1, "num_grow_ch": 2, "scale": 2}
PUBLIC = {"realesr-general-x4v3": NETWORK, "realesrnet-x4plus": MINE}
"""Small networks under the names that the page has."""
MEASURED = r"\d+\.\d+(e-\d+)?|\b0$|\b\de-\d+"
"""Times, and differences that rounding makes: other ones on every machine."""


def blocks(language: str) -> list[str]:
    found = re.findall(r"^```(\w*)\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)
    return [text for kind, text in found if kind == language]


def commands() -> list[str]:
    return [line.removeprefix("relume ") for block in blocks("console") for line in block.splitlines()]


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with what the page takes for granted; public weights are in the cache already."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RELUME_HOME", str(tmp_path / "home"))
    torch.manual_seed(0)
    data = {"test": {"type": "SingleImageDataset", "dataroot_lq": "x"}}
    opt = {"name": "x", "model_type": "SRModel", "scale": 2, "network_g": NETWORK, "datasets": data}
    about = description.weights_description(check(opt))
    checkpoint.save(Path("net_g_best.pth"), {"params": build_network(NETWORK).state_dict(), "relume": about})
    torch.save(build_network(MINE).state_dict(), "theirs.pth")
    for name, size in {
        "photos/a.png": 1,
        "photos/b.png": 1,
        "photos/c.jpg": 1,
        "small/a.png": 2,
        "small/b.png": 2,
    }.items():
        Path(name).parent.mkdir(exist_ok=True)
        picture = np.random.RandomState(0).randint(0, 256, (72 // size, 136 // size, 3)).astype(np.uint8)
        cv2.imwrite(name, picture)
    Path("list.txt").write_text("photos/a.png\nphotos/b.png\n")
    with VideoWriter(Path("clip.mp4"), Fraction(25)) as video:
        for i in range(5):
            video.write(np.full((32, 48, 3), 40 * i, np.uint8), Fraction(i, 25))
    index = {}
    for name, block in PUBLIC.items():
        file = tmp_path / "home/weights" / f"{name}.pth"
        file.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"params": build_network(block).state_dict()}, file)
        index[name] = {"url": f"https://nowhere.invalid/{name}.pth", "licence": "MIT", "network": block}
        index[name]["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (tmp_path / "home/weights.yml").write_text(json.dumps(index))
    pairs = {"type": "PairedImageDataset", "dataroot_gt": "train/gt", "dataroot_lq": "train/lq", "gt_size": 32}
    for side, folder in (("gt", "photos"), ("lq", "small")):
        Path("train", side).mkdir(parents=True)
        for name in ("a.png", "b.png"):
            Path("train", side, name).write_bytes(Path(folder, name).read_bytes())
    mine = {"name": "mine", "model_type": "SRModel", "scale": 2, "num_gpu": 0, "network_g": MINE, "path": {}}
    mine["datasets"] = {"train": {**pairs, "batch_size_per_gpu": 1, "num_worker_per_gpu": 0}}
    mine["train"] = {"total_iter": 1, "optim_g": {"type": "Adam", "lr": 1e-4}, "pixel_opt": {"type": "L1Loss"}}
    Path("mine.yml").write_text(json.dumps(mine))
    return tmp_path


def test_option_files_of_originals_are_there() -> None:
    named = re.findall(r"relume:(\S+?\.yml)", TEXT)
    assert len(named) >= 9 and not [n for n in named if not (REPO / "options" / n).is_file()]


def test_every_command_of_the_page_works(reader: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("av")
    found = commands()
    assert len(found) == 17 and not blocks("bash")
    said = ""
    for command in found:
        assert main(shlex.split(command)) == 0, (command, capsys.readouterr().err)
        said += capsys.readouterr().out
    made = {p.name for p in reader.rglob("*") if p.is_file()}
    assert {"a_x2.png", "a_x2.tiff", "b_x2.tiff", "clip.mp4", "net.onnx", "net.pt2", "net.safetensors"} <= made
    for result in ("restored/c.jpg", "enhanced/clip.mp4", "converted.png", "restored_x4/b.png"):
        assert (reader / result).is_file(), result
    assert (reader / "experiments/mine/models/net_g_1.pth").is_file()
    tiles, whole = (cv2.imread(f"{name}.png").astype(int) for name in ("tiles", "whole"))
    assert np.abs(tiles - whole).max() <= 1
    lines = {re.sub(MEASURED, "#", line) for line in said.splitlines()}
    for shown in (line for block in blocks("") for line in block.splitlines()):
        assert re.sub(MEASURED, "#", shown) in lines, shown
    image = cv2.imread("photos/a.png")[..., ::-1].copy()
    kept: dict[str, object] = {"picture": image}
    for block in blocks("python"):
        exec(block, kept)  # its results are what a reader has
    assert np.abs(kept["result"][..., ::-1].astype(int) - whole).max() <= 1
    x = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    with torch.no_grad():
        theirs = kept["network"](x)[0].permute(1, 2, 0).numpy() * 255
    assert np.abs(theirs - kept["result"]).max() <= 1
