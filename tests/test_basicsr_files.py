"""BasicSR's option files and those of its forks run as they are, folders and sizes aside; weights travel both ways."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import basicsr_files
import cv2
import lmdb
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from basicsr_files import (
    EDSR_MX2,
    MSRRESNET_X4,
    NAFNET_SIDD,
    RESTORMER_DENOISING,
    RESTORMER_DERAINING,
    RRDBNET_PSNR_X4,
    TEST_EDSR_LX4,
    TEST_MSRRESNET_X4,
    TEST_MSRRESNET_X4_WITHOUT_TRUTH,
)
from runs import records, weights
from torch import Tensor, nn

from relume.archs import build_network
from relume.core import options
from relume.core.cli import main
from relume.core.errors import EXIT_USER_ERROR
from relume.core.imaging.image_io import imwrite

MSRRESNET = "001_MSRResNet_x4_f64b16_DIV2K_1000k_B16G1_wandb"
PUBLISHED = {  # parameters in millions, as the papers or the repositories give them
    "MSRRESNET_X4": 1.518,
    "EDSR_MX2": 1.370,
    "RRDBNET_PSNR_X4": 16.698,
    "NAFNET_SIDD": 29.16,
    "RESTORMER_DERAINING": 26.13,
    "RESTORMER_DENOISING": 26.11,
    "TEST_MSRRESNET_X4": 1.518,
    "TEST_EDSR_LX4": 43.09,
}


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# ------------------------------------------------------------------ data where the files look for it
def image(index: int, size: tuple[int, int]) -> Tensor:
    """Smooth and colourful, so that a network has something to learn."""
    y, x = torch.meshgrid(torch.linspace(0, 3, size[0]), torch.linspace(0, 3, size[1]), indexing="ij")
    return torch.stack([(y + index).sin(), (x * y).cos(), (x - index).sin()]) * 0.4 + 0.5


def folder(path: str, names: Sequence[str], size: tuple[int, int], template: str = "{}") -> None:
    for i, name in enumerate(names):
        imwrite(f"{path}/{template.format(name)}.png", image(i, size))


def scaled_pairs(gt: str, lq: str, scale: int, template: str = "{}", size: int = 48) -> None:
    names = ["a", "b", "c"]
    folder(gt, names, (size, size))
    folder(lq, names, (size // scale, size // scale), template)


def database(path: str, names: Sequence[str], size: tuple[int, int]) -> None:
    """As BasicSR's scripts write them: PNG bytes by name, sizes in meta_info.txt."""
    Path(path).mkdir(parents=True)
    environment = lmdb.open(path, map_size=2**24)
    with environment.begin(write=True) as transaction:
        for i, name in enumerate(names):
            pixels = image(i, size).mul(255).round().permute(1, 2, 0).numpy().astype(np.uint8)[..., ::-1]
            transaction.put(name.encode(), cv2.imencode(".png", pixels)[1].tobytes())
    environment.close()
    lines = "".join(f"{n}.png ({size[0]},{size[1]},3) 1\n" for n in names)
    (Path(path) / "meta_info.txt").write_text(lines)


def run(command: str, text: str, *force_yml: str, expected: int = 0) -> None:
    Path("x.yml").write_text(text)
    arguments = ["-opt", "x.yml", "--force_yml", *force_yml] if force_yml else ["-opt", "x.yml"]
    assert main([command, *arguments]) == expected


SHORT = (
    "train:total_iter=4",
    "val:val_freq=2",
    "logger:print_freq=1",
    "logger:save_checkpoint_freq=2",
    "datasets:train:num_worker_per_gpu=0",
    "datasets:train:batch_size_per_gpu=2",
)


def lasting(name: str, *metrics: str) -> list[dict[str, Any]]:
    """What a run of four iterations leaves behind, wherever BasicSR's users look for it; the lines of iterations."""
    root = Path("experiments") / name
    for key in ("2", "4", "latest", "best"):
        assert (root / f"models/net_g_{key}.pth").exists()
    assert (root / "training_states/4.state").exists() and list((root / "..").glob(f"{name}/train_{name}_*.log"))
    assert list(Path("tb_logger", name).glob("events*"))
    lines = records(root)
    assert all(set(metrics) == r["metrics"].keys() for r in lines if "metrics" in r)
    steps = [r for r in lines if "lr" in r]
    assert [r["iter"] for r in steps] == [1, 2, 3, 4] and all(np.isfinite(r["l_pix"]) for r in steps)
    return steps


# ------------------------------------------------------------------ as they are
@pytest.mark.parametrize("name", sorted(PUBLISHED))
def test_files_are_valid_as_they_are_and_give_the_published_networks(name: str) -> None:
    Path("x.yml").write_text(getattr(basicsr_files, name))
    opt = options.load("x.yml")
    with torch.device("meta"):
        network = build_network(opt.network_g)
    millions = sum(p.numel() for p in network.parameters()) / 1e6
    assert millions == pytest.approx(PUBLISHED[name], abs=0.006)
    assert "train" not in opt.datasets or isinstance(opt.train.optim_g.lr, float)


# ------------------------------------------------------------------ trained, with smaller sizes
def test_msrresnet() -> None:
    scaled_pairs("datasets/DF2K/DIV2K_train_HR_sub", "datasets/DF2K/DIV2K_train_LR_bicubic_X4_sub", 4)
    for name in ("Set5", "Set14"):
        scaled_pairs(f"datasets/{name}/GTmod12", f"datasets/{name}/LRbicx4", 4)
    meta = Path("basicsr/data/meta_info/meta_info_DIV2K800sub_GT.txt")
    meta.parent.mkdir(parents=True)
    meta.write_text("a.png (48,48,3)\nc.png (48,48,3)\n")
    run("train", MSRRESNET_X4, *SHORT, "datasets:train:gt_size=32", "network_g:num_block=2", "network_g:num_feat=8")
    steps = lasting(MSRRESNET, "psnr")  # these pictures are too small for NIQE
    assert [r["lr"] for r in steps] == [[pytest.approx(2e-4, rel=1e-4)]] * 4
    assert {r["dataset"] for r in records(Path("experiments") / MSRRESNET) if "metrics" in r} == {"Set5", "Set14"}
    assert weights(Path("experiments") / MSRRESNET, 4).keys() == {"params", "params_ema"}


def test_edsr() -> None:
    scaled_pairs("datasets/DF2K/DIV2K_train_HR_sub", "datasets/DF2K/DIV2K_train_LR_bicubic_X2_sub", 2)
    scaled_pairs("datasets/Set5/GTmod12", "datasets/Set5/LRbicx2", 2)
    meta = Path("basicsr/data/meta_info/meta_info_DIV2K800sub_GT.txt")
    meta.parent.mkdir(parents=True)
    meta.write_text("a.png (48,48,3)\nb.png (48,48,3)\n")
    sizes = (
        "datasets:train:gt_size=32",
        "network_g:num_block=2",
        "network_g:num_feat=8",
        "train:scheduler:milestones=[2]",
    )
    run("train", EDSR_MX2, *SHORT, *sizes)
    steps = lasting("201_EDSR_Mx2_f64b16_DIV2K_300k_B16G1_wandb", "psnr")
    assert [r["lr"] for r in steps] == [[1e-4], [1e-4], [5e-5], [5e-5]], (
        "the milestone counts steps done, as in BasicSR"
    )


def test_rrdbnet() -> None:
    scaled_pairs("datasets/DF2K/DF2K_train_HR_sub", "datasets/DF2K/DF2K_train_LR_bicubic_X4_sub", 4)
    scaled_pairs("datasets/Set14/GTmod12", "datasets/Set14/LRbicx4", 4)
    sizes = ("datasets:train:gt_size=32", "network_g:num_block=1", "network_g:num_feat=8", "network_g:num_grow_ch=4")
    run("train", RRDBNET_PSNR_X4, *SHORT, *sizes)
    lasting("051_RRDBNet_PSNR_x4_f64b23_DIV2K_1000k_B16G1_wandb", "psnr")


def test_nafnet_from_lmdb() -> None:
    for phase in ("train", "val"):
        for kind in ("gt", "input"):
            database(f"datasets/SIDD/{phase}/{kind}_crops.lmdb", ["a", "b", "c"], (40, 44))
    blocks = ("network_g:enc_blk_nums=[1,1]", "network_g:middle_blk_num=1", "network_g:dec_blk_nums=[1,1]")
    run("train", NAFNET_SIDD, *SHORT, *blocks, "network_g:width=8", "datasets:train:gt_size=32")
    steps = lasting("NAFNet-SIDD-width32", "psnr", "ssim")
    assert steps[0]["l_pix"] < 0, "minus the PSNR"
    assert steps[0]["lr"] == [1e-3]


STAGES = (
    "datasets:train:mini_batch_sizes=[3,2,2,1,1,1]",
    "datasets:train:iters=[1,1,1,1,1,1]",
    "datasets:train:gt_sizes=[8,8,16,16,24,32]",
    "datasets:train:gt_size=32",
    "network_g:dim=8",
    "network_g:num_blocks=[1,1,1,1]",
    "network_g:num_refinement_blocks=1",
)


def test_restormer_deraining() -> None:
    for phase, name in (("train", "Rain13K"), ("test", "Rain100L")):
        for kind in ("target", "input"):
            folder(f"Deraining/Datasets/{phase}/{name}/{kind}", ["a", "b", "c", "d"], (33, 38))
    run("train", RESTORMER_DERAINING, *SHORT, *STAGES)
    steps = lasting("Deraining_Restormer", "psnr")
    assert steps[0]["lr"] == [3e-4]


def test_restormer_denoising() -> None:
    for place in ("train/DFWB", "test/CBSD68"):
        folder(f"Denoising/Datasets/{place}", ["a", "b", "c", "d"], (33, 38))
    run("train", RESTORMER_DENOISING, *SHORT, *STAGES)
    lasting("GaussianColorDenoising_Restormer", "psnr")
    (last,) = (
        r for r in records(Path("experiments/GaussianColorDenoising_Restormer")) if "metrics" in r and r["iter"] == 4
    )
    assert 15 < last["metrics"]["psnr"] < 25, "noise of 25 grey levels is about 20 dB"


# ------------------------------------------------------------------ tested
class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 8, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(x)))


class PlainMSRResNet(nn.Module):
    """The network as anyone may write it down in plain PyTorch, its parts named as in public weights; for scale 4."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_first = nn.Conv2d(3, 8, 3, 1, 1)
        self.body = nn.Sequential(Block(), Block())
        self.upconv1, self.upconv2 = nn.Conv2d(8, 32, 3, 1, 1), nn.Conv2d(8, 32, 3, 1, 1)
        self.conv_hr, self.conv_last = nn.Conv2d(8, 8, 3, 1, 1), nn.Conv2d(8, 3, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(F.leaky_relu(self.conv_first(x), 0.1))
        for conv in (self.upconv1, self.upconv2):
            y = F.leaky_relu(F.pixel_shuffle(conv(y), 2), 0.1)
        y = self.conv_last(F.leaky_relu(self.conv_hr(y), 0.1))
        return y + F.interpolate(x, scale_factor=4, mode="bilinear", align_corners=False)


SMALL = ("network_g:num_block=2", "network_g:num_feat=8")


def sets() -> None:
    for name in ("Set5", "Set14"):
        scaled_pairs(f"datasets/{name}/GTmod12", f"datasets/{name}/LRbicx4", 4)
    scaled_pairs("datasets/DIV2K/DIV2K_valid_HR", "datasets/DIV2K/DIV2K_valid_LR_bicubic/X4", 4, "{}x4")


@pytest.mark.parametrize("entry", ["params", "params_ema", None])
def test_weights_of_basicsr_give_their_pictures(entry: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    sets()
    torch.manual_seed(0)
    plain = PlainMSRResNet().eval()
    path = Path("experiments") / MSRRESNET / "models/net_g_1000000.pth"
    path.parent.mkdir(parents=True)
    torch.save({entry: plain.state_dict()} if entry else plain.state_dict(), path)
    run("test", TEST_MSRRESNET_X4, *SMALL, *(["path:param_key_g=params_ema"] if entry == "params_ema" else []))
    pictures = Path("results") / MSRRESNET / "visualization"
    names = {p.relative_to(pictures).as_posix() for p in pictures.rglob("*.png")}
    assert names == {f"{s}/{i}_{MSRRESNET}.png" for s in ("Set5", "Set14") for i in "abc"} | {
        f"DIV2K100/{i}x4_{MSRRESNET}.png" for i in "abc"
    }
    saved = cv2.imread(str(pictures / f"Set5/b_{MSRRESNET}.png"))[..., ::-1].astype(int)
    with torch.no_grad():
        lq = image(1, (12, 12)).mul(255).round() / 255
        expected = plain(lq[None])[0].clamp(0, 1).mul(255).round().permute(1, 2, 0).numpy().astype(int)
    assert np.abs(saved - expected).max() <= 1
    table = capsys.readouterr().out.split("Results\n")[1].splitlines()
    assert table[0].split() == ["dataset", "psnr", "ssim", "params", "M", "ms/image"]
    assert [line.split()[0] for line in table[1:4]] == ["Set5", "Set14", "DIV2K100"]


def test_without_ground_truth() -> None:
    for name in ("Set5", "Set14"):
        folder(f"datasets/{name}/LRbicx4", ["a", "b"], (12, 15))
    path = Path("experiments") / MSRRESNET / "models/net_g_1000000.pth"
    path.parent.mkdir(parents=True)
    torch.save({"params": PlainMSRResNet().state_dict()}, path)
    run("test", TEST_MSRRESNET_X4_WITHOUT_TRUTH, *SMALL)
    picture = cv2.imread(f"results/{MSRRESNET}/visualization/Set14/b_{MSRRESNET}.png")
    assert picture.shape == (48, 60, 3)


def test_edsr_and_a_missing_file_of_weights(capsys: pytest.CaptureFixture[str]) -> None:
    sets()
    run("test", TEST_EDSR_LX4, *SMALL, expected=EXIT_USER_ERROR)
    path = "experiments/pretrained_models/EDSR/EDSR_Lx4_f256b32_DIV2K_official-76ee1c8f.pth"
    said = capsys.readouterr().err
    assert re.fullmatch(rf"x\.yml:\d+:\d+: {re.escape(path)}: no such file\. \(path\.pretrain_network_g\)\n", said)
    network = build_network(
        {"type": "EDSR", "num_in_ch": 3, "num_out_ch": 3, "num_feat": 8, "num_block": 2, "upscale": 4}
    )
    Path(path).parent.mkdir(parents=True)
    torch.save({"params": network.state_dict()}, path)
    run("test", TEST_EDSR_LX4, *SMALL)
    assert Path("results/EDSR_Lx4_f256b32_DIV2K_official/metrics.json").exists()


def test_trained_weights_load_into_plain_pytorch() -> None:
    scaled_pairs("datasets/DF2K/DIV2K_train_HR_sub", "datasets/DF2K/DIV2K_train_LR_bicubic_X4_sub", 4)
    sets()
    without_meta = re.sub(r" +meta_info_file: .*\n", "", MSRRESNET_X4)
    few = ("train:total_iter=2", "val:val_freq=2", "datasets:train:num_worker_per_gpu=0", "datasets:train:gt_size=16")
    run("train", without_meta, *few, "datasets:train:batch_size_per_gpu=1", "train:ema_decay=0.5", *SMALL)
    saved = torch.load(Path("experiments") / MSRRESNET / "models/net_g_latest.pth", weights_only=True)
    outputs = []
    x = torch.rand(1, 3, 8, 8)
    for entry in ("params", "params_ema"):
        plain = PlainMSRResNet().eval()
        plain.load_state_dict(saved[entry], strict=True)
        ours = build_network({"type": "MSRResNet", "num_feat": 8, "num_block": 2, "upscale": 4}).eval()
        ours.load_state_dict(saved[entry])
        with torch.no_grad():
            outputs.append(plain(x))
            torch.testing.assert_close(ours(x), outputs[-1], rtol=1e-4, atol=1e-5)
    assert not torch.equal(*outputs)


# ------------------------------------------------------------------ other words
def test_names_from_before_2021_are_translated_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    old = EDSR_MX2.replace("pretrain_network_g:", "pretrain_model_g:").replace("strict_load_g:", "strict_load:")
    run("check", old)
    said = capsys.readouterr().out
    for word, new in (("pretrain_model_g", "pretrain_network_g"), ("strict_load", "strict_load_g")):
        assert re.search(rf"x\.yml:\d+:\d+: path\.{word}: taken as {new}", said)
