"""Adversarial training in the engine: kills, ranks, precision, micro-batches, and what options it refuses."""

from __future__ import annotations

import copy
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from runs import differences, options, outcome, records, train, weights

from relume.archs import build_network
from relume.core import options as option_files
from relume.core.errors import UserError
from relume.core.imaging.opencv import cv2
from relume.core.models.adversarial.model import ESRGANModel, SRGANModel
from relume.core.models.adversarial.real import PairMaker, SharpenedTargets
from relume.core.pipeline import test_pipeline as score
from relume.core.pipeline import train_pipeline
from relume.losses import build_loss

VANILLA = {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.1}
UNET = {"type": "UNetDiscriminatorSN", "num_feat": 4}
VGG = {"type": "VGGStyleDiscriminator", "num_feat": 2, "input_size": 16}
PHOTOGRAPHS = {"type": "RealESRGANDataset", "source": "skimage", "batch_size_per_gpu": 1, "num_worker_per_gpu": 0}
WRAPPERS = ("SRGANModel", "ESRGANModel", "RealESRGANModel")


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def adversarial(model: str = "SRGANModel", name: str = "toy", **changes: Any) -> dict[str, Any]:
    """The toy run of `runs.options` against a discriminator."""
    settings: dict[str, Any] = {
        "model_type": model,
        "network_d": UNET,
        "datasets__train__gt_size": 16,
        "train__gan_opt": VANILLA,
        "train__optim_d": {"type": "Adam", "lr": 0.01},
        "train__ema_decay": 0.9,
        **changes,
    }
    return copy.deepcopy(options(name, **settings))


def on_the_fly(folder: Path, model: str, **changes: Any) -> dict[str, Any]:
    """A run on photographs that the model itself degrades."""
    pictures = folder / "photographs"
    pictures.mkdir(exist_ok=True)
    for i in range(6):
        pixels = np.random.default_rng(i).integers(0, 256, (6, 6, 3), np.uint8)
        cv2.imwrite(str(pictures / f"{i}.png"), cv2.resize(pixels, (40, 36), interpolation=cv2.INTER_CUBIC))
    photographs = {"type": "RealESRGANDataset", "dataroot_gt": str(pictures), "pad_size": 32, "use_hflip": True}
    sizes = {"scale": 1, "gt_size": 16, "datasets__train": {**photographs, "batch_size_per_gpu": 2}}
    sizes["datasets__train"]["num_worker_per_gpu"] = 0
    if model != "RealESRNetModel":
        return adversarial(model, **{**sizes, "datasets__train__gt_size": 16, **changes})
    return copy.deepcopy(options("toy", model_type=model, **{**sizes, **changes}))


def checked(opt: dict[str, Any]) -> str:
    """What the checker says of some options."""
    with pytest.raises(UserError) as caught:
        option_files.check(opt)
    return str(caught.value)


# ------------------------------------------------------------------ kills and ranks
@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("SRGANModel", {"network_d": VGG, "train__accumulate": 2, "train__amp": "bf16"}),
        ("ESRGANModel", {"train__net_d_iters": 2, "train__amp": "fp16"}),
        ("RealESRNetModel", {"train__use_moa": True, "train__ema_decay": 0.9}),
        (
            "RealESRGANModel",
            {"train__ldl_opt": {"type": "L1Loss"}, "train__r1_reg_weight": 1.0, "train__net_d_reg_every": 2},
        ),
    ],
)
def test_killed_and_resumed_equals_uninterrupted(model: str, changes: dict[str, Any], tmp_path: Path) -> None:
    opt = on_the_fly(tmp_path, model, **changes) if model.startswith("Real") else adversarial(model, **changes)
    straight = train(tmp_path / "straight", opt)
    assert straight.returncode == 0, straight.stderr
    # The loss is called by micro-batch, and where the generator is due.
    visit = (
        "loss:15" if changes.get("train__accumulate") else "loss:4" if changes.get("train__net_d_iters") else "loss:8"
    )
    killed = train(tmp_path / "killed", opt, "--auto_resume", env={"RELUME_TEST_ACCIDENT": visit})
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    resumed = train(tmp_path / "killed", opt, "--auto_resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert differences(outcome(tmp_path / "straight"), outcome(tmp_path / "killed")) == []
    for key in ("g", "d") if "network_d" in opt else ("g",):
        ours, theirs = (weights(tmp_path / n / "experiments/toy", 12, key) for n in ("straight", "killed"))
        assert differences(ours, theirs) == []


@pytest.mark.parametrize("model", ["SRGANModel", "ESRGANModel"])
def test_two_ranks_equal_one(model: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "network_d": VGG,
        "network_g__dropout": 0.0,
        "train__sync_bn": True,
        "train__total_iter": 4,
        "train__optim_g": {"type": "SGD", "lr": 0.05},
        "train__optim_d": {"type": "SGD", "lr": 0.05},
        "train__r1_reg_weight": 0.1,
        "train__net_d_reg_every": 2,
        "datasets__train__batch_size_per_gpu": 4,
    }
    train_pipeline(adversarial(model, **changes))
    done = train(tmp_path / "two", adversarial(model, **{**changes, "datasets__train__batch_size_per_gpu": 2}), ranks=2)
    assert done.returncode == 0, done.stdout + done.stderr
    roots = [tmp_path / "experiments/toy", tmp_path / "two/experiments/toy"]
    for key in ("g", "d"):
        a, b = (weights(root, 4, key) for root in roots)
        for entry in a:
            for name, tensor in a[entry].items():
                torch.testing.assert_close(b[entry][name], tensor, rtol=1e-4, atol=1e-5, msg=f"{key} {entry} {name}")
    for mine, theirs in zip(*(records(root) for root in roots), strict=True):
        for name in mine.keys() & {
            "l_pix",
            "l_g_gan",
            "l_d_real",
            "l_d_fake",
            "out_d_real",
            "grad_norm",
            "grad_norm_d",
        }:
            assert mine[name] == pytest.approx(theirs[name], rel=1e-3, abs=1e-6), name


@pytest.mark.parametrize("model", ["RealESRNetModel", "RealESRGANModel"])
def test_two_ranks_degrade_what_one_does(model: str, tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        "network_g__dropout": 0.0,
        "network_g__norm": False,
        "train__total_iter": 3,
        "train__optim_g": {"type": "SGD", "lr": 0.05},
        "val__val_freq": None,
    }
    if model == "RealESRGANModel":
        changes["train__optim_d"] = {"type": "SGD", "lr": 0.05}
    opt = on_the_fly(tmp_path, model, **changes)
    done = train(tmp_path / "two", opt, ranks=2)
    assert done.returncode == 0, done.stdout + done.stderr
    opt["datasets"]["train"]["batch_size_per_gpu"] = 4
    train_pipeline(opt)
    for key in ("g", "d") if "network_d" in opt else ("g",):
        a, b = (weights(tmp_path / n / "experiments/toy", 3, key)["params"] for n in (".", "two"))
        for name, tensor in a.items():
            torch.testing.assert_close(b[name], tensor, rtol=1e-4, atol=1e-5, msg=f"{key} {name}")


def test_buffers_of_a_discriminator_are_not_written_over_between_its_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = {}

    def wrap(network: Any, device: Any, find_unused: bool, broadcast_buffers: bool, compression: None) -> Any:
        asked[type(network).__name__] = broadcast_buffers
        return network

    monkeypatch.setattr("relume.core.runtime.parallel.wrap", wrap)
    train_pipeline(adversarial(train__total_iter=1))
    assert asked == {"ToyNet": True, "UNetDiscriminatorSN": False}


# ------------------------------------------------------------------ precision and the log
@pytest.mark.parametrize("model", WRAPPERS)
def test_mixed_precision_stays_close_to_float32(model: str) -> None:
    small = {"network_g__dropout": 0.0, "train__total_iter": 3, "val__val_freq": None, "train__optim_d__lr": 1e-3}
    train_pipeline(adversarial(model, "full", **small))
    for amp in ("bf16", "fp16"):
        train_pipeline(adversarial(model, amp, **small, train__amp=amp))
        full, mixed = (records(Path("experiments") / n)[:3] for n in ("full", amp))
        for exact, found in zip(full, mixed, strict=True):
            for name in exact.keys() & {"l_g_pix", "l_d_real", "l_d_fake"}:
                assert found[name] == pytest.approx(exact[name], rel=0.05), name
        state = torch.load(f"experiments/{amp}/training_states/3.state", weights_only=True)
        assert [bool(state["scaler"][k]) for k in ("g", "d")] == [amp == "fp16"] * 2


def test_the_log_shows_the_generator_also_where_it_rests() -> None:
    train_pipeline(
        adversarial(train__net_d_iters=2, train__net_d_init_iters=3, train__total_iter=6, train__optim_g__lr=0.003)
    )
    steps = [r for r in records(Path("experiments/toy")) if "metrics" not in r]
    assert [("l_g_gan" in r, "grad_norm" in r, "grad_norm_d" in r) for r in steps] == [
        (i in (4, 6), i in (4, 6), True) for i in range(1, 7)
    ]
    assert steps[0]["lr"] == [0.003]
    for r in steps:
        of_d = sum(v for k, v in r.items() if k.startswith("l_d_"))
        assert r["l_total_d"] == pytest.approx(of_d, rel=1e-5)
        if "l_total" in r:
            assert r["l_total"] == pytest.approx(sum(v for k, v in r.items() if k.startswith("l_g_")), rel=1e-5)


def test_training_pictures_are_of_the_pairs_that_are_made() -> None:
    train_pipeline(adversarial(train__net_d_iters=2, train__total_iter=2, logger__train_image_freq=1))
    found = sorted(p.name for p in Path("experiments/toy/visualization/training").glob("*.png"))
    assert found == ["1.png", "2.png"]


def test_a_step_that_is_not_finite_leaves_both_networks_as_they_were() -> None:
    opt = adversarial(datasets__train__poison=0, train__max_nonfinite=20, train__total_iter=6)
    train_pipeline(opt)
    for key in ("g", "d"):
        for tensor in weights(Path("experiments/toy"), 6, key)["params"].values():
            assert tensor.isfinite().all()


# ------------------------------------------------------------------ one step
def model_of(kind: type[SRGANModel] = SRGANModel, **settings: Any) -> SRGANModel:
    torch.manual_seed(0)
    networks = {"g": torch.nn.Conv2d(3, 3, 3, padding=1), "d": build_network(UNET)}
    return kind(networks, {"pixel": build_loss({"type": "L1Loss"}), "gan": build_loss(VANILLA)}, **settings)


def batch() -> dict[str, Any]:
    torch.manual_seed(1)
    return {"lq": torch.rand(2, 3, 16, 16), "gt": torch.rand(2, 3, 16, 16)}


@pytest.mark.parametrize("kind", [SRGANModel, ESRGANModel])
def test_the_discriminator_moves_the_generator_and_not_the_other_way_round(kind: type[SRGANModel]) -> None:
    model = model_of(kind)
    g, d = model.networks["g"], model.networks["d"]
    updates = model.updates(batch(), 1)
    first = next(updates)
    gradient = torch.autograd.grad(first.losses["l_g_gan"], list(g.parameters()), retain_graph=True)
    assert all(p.any() for p in gradient)
    first.losses["l_g_gan"].backward()
    assert all(p.grad is None for p in d.parameters())
    g.zero_grad()
    second = next(updates)
    torch.stack(list(second.losses.values())).sum().backward()
    assert all(p.grad is None for p in g.parameters())
    assert all(p.grad is not None for p in d.parameters())
    assert next(updates, None) is None


def test_a_step_that_is_broken_off_leaves_the_discriminator_trainable() -> None:
    model = model_of()
    updates = model.updates(batch(), 1)
    next(updates)
    assert not any(p.requires_grad for p in model.networks["d"].parameters())
    del updates
    assert all(p.requires_grad for p in model.networks["d"].parameters())


def test_penalties_are_asked_for_when_they_are_due() -> None:
    model = model_of(r1_reg_weight=2.0, net_d_reg_every=3, gp_weight=10.0)
    names = [set(list(model.updates(batch(), step))[-1].losses) for step in (2, 3)]
    assert names == [{"l_d_real", "l_d_fake", "l_d_gp"}, {"l_d_real", "l_d_fake", "l_d_gp", "l_d_r1"}]


def test_features_are_matched_and_inputs_judged_beside() -> None:
    torch.manual_seed(0)
    networks = {
        "g": torch.nn.Conv2d(3, 3, 3, padding=1),
        "d": build_network({"type": "HiFaceGANDiscriminator", "num_feat": 4, "n_layers_d": 2}),
    }
    losses = {
        "pixel": build_loss({"type": "L1Loss"}),
        "gan": build_loss({"type": "MultiScaleGANLoss", "gan_type": "hinge"}),
        "gan_feat": build_loss({"type": "GANFeatLoss"}),
    }
    updates = list(SRGANModel(networks, losses).updates(batch(), 1))
    assert list(updates[0].losses) == ["l_g_pix", "l_g_gan", "l_g_feat"]
    assert all(v.isfinite() for u in updates for v in u.losses.values())


# ------------------------------------------------------------------ options
def test_testing_asks_for_no_discriminator() -> None:
    train_pipeline(adversarial(train__total_iter=1))
    opt = adversarial(path__pretrain_network_g="experiments/toy/models/net_g_latest.pth", name="test")
    assert "held_out" in score(opt)


@pytest.mark.parametrize(
    ("changes", "place", "text"),
    [
        (
            {"model_type": "RealESRGANModel", "datasets__train": PHOTOGRAPHS, "gt_size": 20, "scale": 1},
            "network_d",
            "multiples of 8",
        ),
        *[
            ({"datasets__train": {**PHOTOGRAPHS, key: value}}, f"datasets.train.{key}", text)
            for key, value, text in (
                ("kernel_prob", [0.5] * 6, "sum to 1"),
                ("kernel_prob2", [1.0], "probabilities for the 6 entries"),
                ("blur_kernel_size", 20, "odd"),
                ("kernel_range", [8, 21], "odd"),
                ("degradation", {"jpeg_range": [0, 90]}, "from 1 to 100"),
                ("degradation", {"jpeg_range2": [30, 101]}, "from 1 to 100"),
                ("degradation", {"resize_prob2": [0.5, 0.5, 0.5]}, "sum to 1"),
                ("degradations", [{"type": "compress", "quality": [0, 50]}], "from 1 to 100"),
                ("degradations", [{"type": "blur", "size": [4, 9]}], "odd"),
                (
                    "degradations",
                    [{"type": "compress", "codec": ["jpeg", "webp"], "codec_prob": [0.5, 0.6]}],
                    "sum to 1",
                ),
            )
        ],
        (
            {"train__net_d_init_iters": 2, "train__net_g_pretrain_iters": 3},
            "train.net_d_init_iters",
            "2 has no effect within the 3 iterations of net_g_pretrain_iters",
        ),
        ({"train__use_moa": True, "train__moa_probs": [0.5, 0.2, 0.2, 0.2]}, "train.moa_probs", "sum to 1"),
        ({"train__use_moa": True, "train__moa_probs": [0.5, 0.5]}, "train.moa_probs", "4 entries of moa_augs"),
        ({"train__use_moa": True, "datasets__train__batch_size_per_gpu": 1}, "train.use_moa", "no effect"),
        ({"train__net_d_reg_every": 4}, "train.net_d_reg_every", "no effect without r1_reg_weight"),
        ({"network_d": {**UNET}, "datasets__train__gt_size": 12}, "network_d", "multiples of 8"),
        ({"network_d": {**VGG, "input_size": 64}}, "network_d", "takes 64x64"),
        ({"network_d": {"type": "DINODiscriminator"}}, "network_d", "needs the weights"),
        ({"network_d": {"type": "DINODiscriminator", "weights": "none.pth", "blocks": [12]}}, "network_d", "blocks"),
        ({"train__optim_d": None}, "train", "optim_d"),
        ({"network_d": None}, "train", "network_d"),
        ({"train__gan_opt": None}, "train", "gan_opt"),
        ({"train__gan_opt": {"type": "L1Loss"}}, "train.gan_opt.type", "no adversarial loss"),
        ({"train__gan_opt__gan_type": "wgan"}, "train.gan_opt.gan_type", "gp_weight"),
        ({"train__gan_opt__gan_type": "hinge", "model_type": "ESRGANModel"}, "train.gan_opt.gan_type", "always 0"),
        ({"train__ema_decay": 0, "train__ldl_opt": {"type": "L1Loss"}}, "train.ldl_opt", "ema_decay"),
        ({"train__pixel_opt": None}, "train", "pixel_opt"),
        (
            {"model_type": "RestorationModel", "network_d": None, "train__optim_d": None},
            "train.gan_opt",
            "discriminator",
        ),
        ({"model_type": "RealESRGANModel", "l1_gt_usm": 3}, "l1_gt_usm", "true or false"),
        ({"model_type": "RealESRGANModel", "jpeg_range": [0, 101]}, "jpeg_range", "100"),
        ({"model_type": "RealESRGANModel", "resize_prob": [0.2, 0.2, 0.2]}, "resize_prob", "1"),
        ({"model_type": "RealESRGANModel", "noise_fields": "gpu"}, "noise_fields", "device"),
        ({"l1_gt_usm": True}, "l1_gt_usm", "unknown key"),
    ],
)
def test_mistakes_are_found_before_training(changes: dict[str, Any], place: str, text: str) -> None:
    opt = adversarial(**changes)
    opt = {k: v for k, v in opt.items() if v is not None}
    opt["train"] = {k: v for k, v in opt["train"].items() if v is not None}
    said = checked(opt)
    assert said.startswith(place)
    assert text in said
    assert len(said.splitlines()) == 1


def test_what_is_asked_at_the_top_level_reaches_the_model() -> None:
    keys = SharpenedTargets(jpeg_table="standard", noise_fields="device")
    engine = PairMaker(keys).engine
    assert (engine.jpeg.standard, engine.fields) == (True, "device")
    opt = adversarial("RealESRGANModel", train__total_iter=2, l1_gt_usm=False, percep_gt_usm=False)
    train_pipeline(opt)
    plain = adversarial("SRGANModel", "plain", train__total_iter=2)
    train_pipeline(plain)
    a, b = (records(Path("experiments") / n)[0] for n in ("toy", "plain"))
    assert a["l_g_pix"] == b["l_g_pix"]
    train_pipeline(adversarial("RealESRGANModel", "sharp", train__total_iter=2))
    assert records(Path("experiments/sharp"))[0]["l_g_pix"] != a["l_g_pix"]
