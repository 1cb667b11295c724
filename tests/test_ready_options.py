"""The files for restoration and super-resolution: of the published sizes, runnable, and trained for two iterations."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import records

import relume
from relume.archs import build_network
from relume.core import options
from relume.core.imaging.image_io import imwrite
from relume.core.models.base import model_class
from relume.core.pipeline import train_pipeline

ROOT = Path(relume.__file__).resolve().parent
FILES = sorted(p for room in ("restoration", "sr") for p in (ROOT / "options" / room).rglob("*.yml"))
LAPTOP = [p for p in FILES if p.parent.name == "laptop"]
PARAMETERS = {
    "restoration/denoising/nafnet": 29_159_715,
    "restoration/denoising/restormer": 26_111_668,
    "restoration/denoising/hinet": 88_669_702,
    "restoration/denoising/mambair": 26_779_480,
    "restoration/deblurring/nafnet": 17_111_907,
    "restoration/deblurring/restormer": 26_126_644,
    "restoration/deblurring/hinet": 88_668_806,
    "restoration/deraining/hinet": 88_669_702,
    "sr/x2/msrresnet": 1_369_859,
    "sr/x4/msrresnet": 1_517_571,
    "sr/x2/edsr": 40_729_603,
    "sr/x4/edsr": 43_089_923,
    "sr/x4/rrdbnet": 16_697_987,
    "sr/x4/mambair": 20_569_575,
    "sr/x4/mambairv2_light": 789_680,
    "sr/x2/swinir": 11_752_487,
    "sr/x4/swinir": 11_900_199,
}
"""Of the published networks."""
QUICK = (
    "restoration/denoising/nafnet.yml",
    "restoration/deraining/restormer.yml",
    "restoration/deraining/hinet.yml",
    "restoration/low_light/laptop/nafnet.yml",
    "sr/x4/mambairv2_light.yml",
    "sr/x2/laptop/edsr.yml",
)
"""Files that are trained for two iterations in every run of the tests: each network, data set and schedule once."""
SLOW = bool(os.environ.get("RELUME_SLOW_TESTS"))


def short(path: Path) -> str:
    return path.relative_to(ROOT / "options").as_posix()


@pytest.mark.parametrize("path", FILES, ids=short)
def test_every_file_says_how_to_run_it_and_is_valid(path: Path) -> None:
    text = path.read_text()
    assert f"relume train -opt options/{short(path)}" in text
    opt = options.load(path)
    assert opt.name == "_".join([*path.relative_to(ROOT / "options").parts[1:-1], path.stem]).replace(
        f"laptop_{path.stem}", f"{path.stem}_laptop"
    ).replace(f"x2_{path.stem}", f"{path.stem}_x2").replace(f"x4_{path.stem}", f"{path.stem}_x4")
    assert path not in LAPTOP or (opt.datasets.train.source == "skimage" and opt.train.total_iter <= 1000)


@pytest.mark.parametrize("name", PARAMETERS)
def test_networks_have_the_published_size(name: str) -> None:
    block = options.load(ROOT / "options" / f"{name}.yml").network_g
    place = contextlib.nullcontext() if block["type"] == "SwinIR" else torch.device("meta")
    with place:  # spandrel's networks compute while they are built, for which they need numbers
        network = build_network(block)
    assert sum(p.numel() for p in network.parameters()) == PARAMETERS[name]


def test_every_network_has_a_file_for_a_laptop() -> None:
    whole = {short(p) for p in FILES if p not in LAPTOP}
    assert whole == {short(p).replace("laptop/", "") for p in LAPTOP}


def write_pairs(folder: Path, scale: int, size: int) -> None:
    """Two pairs for training and one for validation, where the files look for them."""
    rng = np.random.RandomState(0)
    for part, count in (("train", 2), ("val", 1)):
        for i in range(count):
            gt = rng.randint(0, 256, (size, size, 3), np.uint8)
            imwrite(folder / f"data/{part}/gt/{i}.png", gt)
            imwrite(folder / f"data/{part}/lq/{i}.png", np.ascontiguousarray(gt[::scale, ::scale]))


def narrow(block: dict[str, Any]) -> dict[str, Any]:
    """A network's block with few channels and blocks, everything else as it is."""
    few = {"width": 8, "dim": 12, "wf": 4, "num_feat": 8, "num_grow_ch": 4, "embed_dim": 32, "depth": 3, "num_block": 1}
    few |= {"num_refinement_blocks": 1, "window_size": 8, "inner_rank": 4, "num_tokens": 8, "d_state": 2}
    few |= {"middle_blk_num": 1, "heads": [1, 1, 2, 2], "img_size": 8}
    if block["type"] == "MambaIRUNet":  # whose channel attention needs 30 channels
        few["dim"] = 32
    small = {k: few.get(k, v) for k, v in block.items()}
    for key in ("enc_blk_nums", "dec_blk_nums"):
        if key in block:
            small[key] = [1] * len(block[key])
    if "num_blocks" in block:
        small["num_blocks"] = [1, 1, 1, 1]
    if "depths" in block:
        small["depths"] = [1]
    if "num_heads" in block:
        small["num_heads"] = [2]
    return small


def cut_down(path: Path) -> dict[str, Any]:
    """The options of a file with tiny patches and networks: everything else is as in the file."""
    values = options.load(path).to_dict()
    train, scale = values["datasets"]["train"], values["scale"]
    patch = 32 * scale if scale > 1 else 64
    train |= {"gt_size": patch, "batch_size_per_gpu": 1, "num_worker_per_gpu": 0}
    if train.get("source"):
        train |= {"pad_size": patch, "renditions": 1}
        values["datasets"]["val"] |= {"renditions": 1, "shorter_side": 32}
    if train.get("gt_sizes"):
        train |= {"gt_sizes": [patch // 2, patch], "iters": [1, 1], "mini_batch_sizes": [2, 1]}
    values["datasets"]["val"] |= {"num_worker_per_gpu": 0}
    values["network_g"] = narrow(values["network_g"])
    values["train"]["total_iter"] = 2
    values["val"] |= {"val_freq": 2}
    values["logger"] |= {"print_freq": 1, "save_checkpoint_freq": 2, "use_tb_logger": False}
    return values


@pytest.mark.parametrize("path", FILES, ids=short)
def test_every_file_trains_two_iterations(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not SLOW and short(path) not in QUICK:
        pytest.skip("with RELUME_SLOW_TESTS=1")
    monkeypatch.chdir(tmp_path)
    values = cut_down(path)
    write_pairs(tmp_path, values["scale"], 64 if values["scale"] == 1 else 32 * values["scale"])
    train_pipeline(options.check(values))
    written = records(Path("experiments") / values["name"])
    assert [r["iter"] for r in written if "lr" in r] == [1, 2]
    (scored,) = [r["metrics"] for r in written if "metrics" in r]
    assert all(np.isfinite(v) for v in scored.values()) and {"psnr", "ssim"} <= set(scored)
    assert model_class(values["model_type"]).__name__ == "RestorationModel"
    if SLOW:
        train_pipeline(options.check({**values, "name": "again"}))
        first, again = (
            torch.load(f"experiments/{name}/models/net_g_2.pth", weights_only=True)["params"]
            for name in (values["name"], "again")
        )
        assert all(torch.equal(v, again[k]) for k, v in first.items())


PAGES = [ROOT / "docs" / name for name in ("restoration.md", "sr.md")]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_the_pages_name_only_what_exists(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"options/[\w/]+\.yml", text):
        assert (ROOT / target).is_file(), target
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        assert (page.parent / picture).is_file(), picture
