"""DiffIR's option files and those of its HDR fork run as they are, folders and sizes aside, one stage after the other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffir_files
import numpy as np
import pytest
import torch
from runs import records, weights

from relume.archs import build_network
from relume.core import options
from relume.core.cli import main
from relume.core.imaging.image_io import imwrite
from relume.datasets.camera import Curve, format_prompt

SIZES = {"STAGE_1": 26_742_206, "STAGE_2": 26_911_934, "HDR": 26_742_206, "RECOVER": 26_742_206}
SHORT = (
    "train:total_iter=4",
    "val:val_freq=4",
    "logger:print_freq=1",
    "datasets:train:num_worker_per_gpu=0",
    "datasets:val:num_worker_per_gpu=0",
)
STAGES = (
    "datasets:train:mini_batch_sizes=[3,2,2,1,1,1]",
    "datasets:train:iters=[1,1,1,1,1,1]",
    "datasets:train:gt_sizes=[8,8,16,16,24,32]",
    "datasets:train:gt_size=32",
)


def small(*networks: str) -> list[str]:
    settings = ("dim=4", "num_blocks=[1,1,1,1]", "num_refinement_blocks=1", "heads=[1,1,2,2]", "n_encoder_res=0")
    return [f"network_{network}:{s}" for network in networks for s in settings]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def run(text: str, *force_yml: str) -> None:
    Path("x.yml").write_text(text)
    assert main(["train", "-opt", "x.yml", "--force_yml", *SHORT, *force_yml]) == 0


def steps(name: str) -> list[dict[str, Any]]:
    return [r for r in records(Path("experiments") / name) if "lr" in r]


def pictures(folder: str, count: int, size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for i in range(count):
        imwrite(f"{folder}/{i}.png", torch.from_numpy(rng.random((3, *size), np.float32)))


@pytest.mark.parametrize("name", SIZES)
def test_files_are_valid_as_they_are_and_give_the_published_networks(name: str) -> None:
    Path("x.yml").write_text(getattr(diffir_files, name))
    opt = options.load("x.yml")
    with torch.device("meta"):
        assert sum(p.numel() for p in build_network(opt.network_g).parameters()) == SIZES[name]
    assert options.check(opt) == opt


def test_stage_2_follows_stage_1() -> None:
    for kind in ("target", "input"):
        pictures(f"motion_deblur/train_crops/{kind}_crops", 4, (33, 38))
        pictures(f"motion_deblur/val/GoPro/{kind}_crops", 1, (19, 26))
    run(diffir_files.STAGE_1, *STAGES, *small("g"))
    assert [r["lr"] for r in steps("train_DiffIRS1")] == [[pytest.approx(2e-4, rel=1e-6)]] * 4
    first = weights(Path("experiments/train_DiffIRS1"), "latest")["params_ema"]

    changes = ("encoder_iter=3", "lr_decay_encoder=2", "lr_decay_sr=1", "lr_sr=1e-4")
    run(
        diffir_files.STAGE_2,
        *STAGES,
        *small("g", "S1"),
        *(f"train:{c}" for c in changes),
        "logger:save_checkpoint_freq=2",
    )
    lines = steps("train_DiffIRS2")
    assert [r["lr"][0] for r in lines] == pytest.approx([2e-4, 2e-5, 1e-4, 5e-5])
    assert ["l_pix" in r for r in lines] == [False, False, True, True]
    alone = weights(Path("experiments/train_DiffIRS2"), 2)["params"]
    assert all(torch.equal(v, first[k]) for k, v in alone.items() if k.startswith("G.")), "the restorer is stage 1's"
    assert any(
        "metrics" in r and np.isfinite(r["metrics"]["psnr"]) for r in records(Path("experiments/train_DiffIRS2"))
    )


def hdr_pictures(recover: bool) -> None:
    """Radiance, pictures of it, the gains and exponents of their cameras, and estimates, where the files look for them."""
    rng = np.random.default_rng(0)
    for phase, names in (("train", "abcde"), ("val", "f")):
        root = Path(f"AIM_ITM_TRAIN/{phase}_hdr")
        for folder in ("jpg", "hdr", "dgain_info", *(["hdr_recover"] if recover else [])):
            (root / folder).mkdir(parents=True)
        for name in names:
            radiance = 1000 * rng.random((30, 44, 3), np.float32) ** 4
            curve = Curve(float(rng.uniform(1, 4)), 2.2)
            picture = curve.develop(radiance, 1000.0).transpose(2, 0, 1)
            imwrite(root / "hdr" / f"{name}.hdr", radiance)
            imwrite(root / "jpg" / f"{name}.jpg", torch.from_numpy(picture.astype(np.float32)))
            (root / "dgain_info" / f"{name}.txt").write_text(format_prompt(curve))
            if recover:
                np.save(
                    root / "hdr_recover" / f"{name}_log_hdr.npy", 1000 * np.log1p(radiance[None]) / np.log(1001 + 1e-6)
                )


@pytest.mark.parametrize("name", ["HDR", "RECOVER"])
def test_the_hdr_forks_files_train(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    hdr_pictures(recover=name == "RECOVER")
    settings = ("batch_size_per_gpu=2", "gt_size=32")
    run(
        getattr(diffir_files, name),
        *small("g"),
        *(f"datasets:train:{x}" for x in settings),
        "train:perceptual_opt:weights=random",
    )
    root = Path("experiments") / options.load("x.yml").name
    lines = [r for r in records(root) if "lr" in r]
    assert all({"l_pix", "l_percep"} <= r.keys() and np.isfinite(r["l_pix"]) for r in lines)
    # The warm-up hides the schedule's own ramp, and rises to the same 2e-4.
    assert [r["lr"][0] for r in lines] == pytest.approx([2e-4 * i / 2000 for i in range(1, 5)])
    (scores,) = (r["metrics"] for r in records(root) if "metrics" in r)
    assert scores.keys() == {"psnr"} and np.isfinite(scores["psnr"])
    assert ("sees the ground truth" in capsys.readouterr().out) == (name == "HDR")
