"""Six steps of adversarial training against the originals: logs, rates, weights, buffers."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from adversarial import near, procedural
from runs import records, weights
from skimage.io import imsave
from torch import Tensor

from relume.core.pipeline import train_pipeline

NAMES = ["srgan_vgg", "srgan_unet_iters", "esrgan_vgg", "esrgan_unet_percep", "realesrgan", "realesrgan_ldl"]


def options(case: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The case's options, completed for a run on its one batch."""
    opt = copy.deepcopy(case["options"])
    for kind in ("lq", "gt"):
        (folder / kind).mkdir()
        for i, image in enumerate(case[kind]):
            imsave(folder / kind / f"{i}.png", image.permute(1, 2, 0).numpy(), check_contrast=False)
    for key, state in case["initial"].items():
        torch.save({"params": state}, folder / f"{key}.pth")
    if case.get("vgg19"):
        torch.save(procedural(case["vgg19"]), folder / "vgg19.pth")
        opt["train"]["perceptual_opt"]["weights"] = str(folder / "vgg19.pth")
    train = {
        "type": "PairedImageDataset",
        "dataroot_lq": str(folder / "lq"),
        "dataroot_gt": str(folder / "gt"),
        "io_backend": {"type": "disk"},
        "gt_size": case["gt"].shape[-1],
        "use_hflip": False,
        "use_rot": False,
        "use_shuffle": False,
        "num_worker_per_gpu": 0,
        "batch_size_per_gpu": len(case["lq"]),
    }
    opt["train"]["total_iter"] = len(case["logs"])
    return {
        **opt,
        "name": case["name"],
        "num_gpu": 0,
        "manual_seed": 0,
        "datasets": {"train": train},
        "path": {
            "pretrain_network_g": str(folder / "g.pth"),
            "pretrain_network_d": str(folder / "d.pth"),
            "experiments_root": str(folder / "experiments"),
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 1000},
    }


@pytest.mark.parametrize("name", NAMES)
def test_training_goes_the_way_of_the_original(name, golden, tmp_path):
    cases = torch.load(golden("adversarial/trajectories.pt"), weights_only=True)["cases"]
    case = next(c for c in cases if c["name"] == name)
    train_pipeline(options(case, tmp_path))
    root = tmp_path / "experiments" / name
    for found, wanted, rates in zip(records(root), case["logs"], case["learning_rates"], strict=False):
        names = {k for k in found if k.startswith(("l_", "out_"))} - {"l_total", "l_total_d"}
        assert names == set(wanted)
        for key, value in wanted.items():
            assert found[key] == pytest.approx(value, rel=case["log_rtol"], abs=case["log_atol"]), key
        assert found["lr"] == [rates[0]]
    last = len(case["logs"])
    g, d = weights(root, last, "g"), weights(root, last, "d")
    final = {"g": g["params"], "g_ema": g["params_ema"], "d": d["params"]}
    for key, wanted in case["final"].items():
        compare(final[key], wanted, case["initial"]["d" if key == "d" else "g"], case, key)


def compare(found: dict[str, Tensor], wanted: dict[str, Tensor], start: dict[str, Tensor], case: Any, key: str) -> None:
    """Distance of the trained weights over the way gone; buffers one by one."""
    off = way = 0.0
    for name, value in wanted.items():
        if value.dtype == torch.int64:
            assert found[name] == value, name
        elif name.endswith(("running_mean", "running_var", "weight_u", "weight_v")):
            near(found[name], value, case["buffer_rtol"], name)
        else:
            off += float((found[name] - value).double().square().sum())
            way += float((value - start[name]).double().square().sum())
    assert off**0.5 <= case["displacement_rtol"][key] * way**0.5
