"""core/models/interpolation.py: losses, phases, inference against the original's numbers, and whole runs."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from filling import fill, image, waves
from runs import differences, options, outcome, records, train, weights
from torch import Tensor, nn

from relume.archs import build_network
from relume.archs.vfi.flow import backwarp
from relume.core.errors import UserError
from relume.core.inference.tiling import Inference
from relume.core.models.base import Batch
from relume.core.models.interpolation import InterpolationModel
from relume.core.options import check
from relume.core.runtime import checkpoint
from relume.losses import build_loss

SMALL: dict[str, Any] = {
    "F": 8,
    "window_size": 2,
    "depths": [1, 1, 1],
    "mlp_ratios": [1, 1, 1],
    "mamba": {"d_state": 4, "headdim": 8},
    "flow_c": [4, 4, 4],
    "drop_path": 0.0,
}
FLOW: dict[str, Any] = {"type": "FlowSmoothnessLoss", "loss_weight": 0.1}


def network(**changes: Any) -> nn.Module:
    return fill(build_network({"type": "HybridVFI", **SMALL, **changes}))


def model(net: nn.Module | None = None, losses: dict[str, Any] | None = None, **settings: Any) -> InterpolationModel:
    built = {name: build_loss(block) for name, block in (losses or {}).items()}
    return InterpolationModel({"g": net or network()}, built, **settings)


def batch(size: tuple[int, int] = (16, 24), count: int = 2) -> Batch:
    images: Batch = {name: image(name, count, 3, *size) for name in ("img0", "img1", "gt")}
    return {**images, "timestep": torch.tensor([0.25, 0.5][:count])}


# ------------------------------------------------------------------ one step
def test_losses_look_at_the_frame_or_at_the_flow() -> None:
    net, given = network(use_flow=True).train(), batch()
    (update,) = model(net, {"pixel": {"type": "L1Loss"}, "flow_smooth": FLOW}).updates(given, 1)
    pred, flow = net(torch.cat([given["img0"], given["img1"]], 1), given["timestep"])
    assert list(update.losses) == ["l_pix", "l_flow_smooth"]
    torch.testing.assert_close(update.losses["l_pix"], (pred - given["gt"]).abs().mean())
    torch.testing.assert_close(update.losses["l_flow_smooth"], build_loss(FLOW)(flow, given["img0"]))


def test_image_losses_look_at_warped_frames_too() -> None:
    net, given = network(use_flow=True).train(), batch()
    losses = {"pixel": {"type": "L1Loss"}, "l2": {"type": "MSELoss"}, "flow_smooth": FLOW}
    (update,) = model(net, losses, warp_weight=0.5).updates(given, 1)
    flow = net(torch.cat([given["img0"], given["img1"]], 1), given["timestep"])[1]
    errors = [backwarp(given[k], f) - given["gt"] for k, f in (("img0", flow[:, :2]), ("img1", flow[:, 2:]))]
    expected = sum(0.25 * (e.abs().mean() + e.square().mean()) for e in errors)
    assert list(update.losses) == ["l_pix", "l_l2", "l_flow_smooth", "l_warp"]
    torch.testing.assert_close(update.losses["l_warp"], expected)
    with pytest.raises(UserError, match=r"train\.warp_weight: network_g estimates no flow"):
        next(model(losses={"pixel": {"type": "L1Loss"}}, warp_weight=0.5).updates(given, 1))


def test_a_loss_on_flow_needs_flow() -> None:
    with pytest.raises(UserError, match=r"train\.flow_smooth_opt: network_g estimates no flow"):
        next(model(losses={"flow_smooth": FLOW}).updates(batch(), 1))


def test_any_network_of_six_channels_will_do() -> None:
    class Blend(nn.Module):
        def forward(self, x: Tensor, timestep: Tensor | float) -> Tensor:
            return torch.lerp(x[:, :3], x[:, 3:], torch.as_tensor(timestep).view(-1, 1, 1, 1))

    blend, given = model(Blend(), {"pixel": {"type": "L1Loss"}}), batch()
    del given["timestep"]
    middle = (given["img0"] + given["img1"]) / 2
    torch.testing.assert_close(blend.predict(given)["output"], middle)
    torch.testing.assert_close(blend.baselines(given)["input"], middle)
    (update,) = blend.updates(given, 1)
    torch.testing.assert_close(update.losses["l_pix"], (middle - given["gt"]).abs().mean())
    with pytest.raises(UserError, match="Blend has no part called 'backbone'"):
        model(Blend(), freeze_backbone=1)


def test_what_to_beat_is_the_blend_at_the_time_and_the_nearer_frame() -> None:
    given = batch()
    expected = [given["img0"][i] * (1 - t) + given["img1"][i] * t for i, t in enumerate((0.25, 0.5))]
    torch.testing.assert_close(model().baselines(given)["input"], torch.stack(expected))
    assert torch.equal(model().baselines(given)["copy"], given["img0"])
    given["timestep"] = torch.tensor([0.25, 0.75])
    assert torch.equal(model().baselines(given)["copy"], torch.stack([given["img0"][0], given["img1"][1]]))


def test_gradients_in_training_are_not_cut_off_by_a_clamp() -> None:
    net, given = network(), batch()
    with torch.no_grad():
        net.refine.conv_last[1].bias[:3] += 4  # far too bright
    x = torch.cat([given["img0"], given["img1"]], 1)
    assert net.eval()(x)[0].max() == 1
    assert net.train()(x)[0].max() > 1


# ------------------------------------------------------------------ phases
def test_phase_two_begins_with_the_residual_of_phase_one(tmp_path: Path) -> None:
    first, second = network(), network(use_flow=True)
    torch.save({"params": first.state_dict()}, tmp_path / "phase1.pth")
    new = checkpoint.load_weights(second, tmp_path / "phase1.pth", grow=True)
    assert {line.split()[1].split(".")[0] for line in new} == {"flow_estimator", "context0", "context1"}
    x = image("x", 2, 6, 16, 24)
    features = first.backbone(x[:, :3], x[:, 3:])
    contexts = [[waves(f"{i}{k}", tuple(f.shape)).float() for k, f in enumerate(features)] for i in range(2)]
    for found, expected in zip(second.refine(features, contexts), first.refine(features), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    for found, expected in zip(second.backbone(x[:, :3], x[:, 3:]), features, strict=True):
        assert torch.equal(found, expected)


def test_a_frozen_backbone_gets_no_gradient_until_its_time() -> None:
    net = network(use_flow=True)
    wrapper = model(net, {"pixel": {"type": "L1Loss"}}, freeze_backbone=2, iters_per_epoch=3)
    wrapper.begin(1)
    assert not any(p.requires_grad for p in net.backbone.parameters())
    for step, trained in ((6, False), (7, True), (8, True)):
        net.zero_grad(set_to_none=True)
        (update,) = wrapper.updates(batch(), step)
        update.losses["l_pix"].backward()
        assert all((p.grad is not None) == trained for p in net.backbone.parameters())
        assert all(p.grad is not None for p in net.flow_estimator.parameters())
    wrapper.begin(6)  # a resume from before the boundary
    assert not any(p.requires_grad for p in net.backbone.parameters())


def test_flow_is_learned_first_by_itself() -> None:
    net, given = network(use_flow=True).train(), batch((16, 32))
    given["flow"] = waves("truth", (2, 4, 16, 32)).float()
    losses = {"pixel": {"type": "L1Loss"}, "flow": {"type": "EndpointErrorLoss"}}
    wrapper = model(net, losses, flow_first=1, freeze_backbone=2, iters_per_epoch=3)
    parts = {"backbone": net.backbone, "flow": net.flow_estimator, "synthesis": net.refine, "context": net.context0}
    for step, trained in ((1, {"flow"}), (3, {"flow"}), (4, set(parts) - {"backbone"}), (7, set(parts))):
        net.zero_grad(set_to_none=True)
        (update,) = wrapper.updates(given, step)
        sum(update.losses.values()).backward()
        assert {k for k, part in parts.items() if any(p.grad is not None for p in part.parameters())} == trained
        if step <= 3:
            frames = torch.cat([given["img0"], given["img1"]], 1)
            pred, flow = net(frames, given["timestep"], warp_only=True)
            torch.testing.assert_close(update.losses["l_pix"], (pred - given["gt"]).abs().mean())
            expected = (flow - given["flow"]).unflatten(1, (2, 2)).square().sum(2).sqrt().mean()
            torch.testing.assert_close(update.losses["l_flow"], expected)
            warped = backwarp(given["img0"], flow[:, :2]), backwarp(given["img1"], flow[:, 2:])
            assert (pred >= torch.minimum(*warped) - 1e-6).all() and (pred <= torch.maximum(*warped) + 1e-6).all()


@pytest.mark.parametrize("settings", [{}, {"flow_first": 1}, {"warp_weight": 1.0}])
def test_flow_that_hardly_learns_is_said(settings: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    losses = {"pixel": {"type": "L1Loss"}}
    model(network(use_flow=True), losses, **settings)
    assert ("vfi/phase2_flow_first.yml" in caplog.text) == (not settings)
    caplog.clear()
    model(network(), losses)
    model(network(use_flow=True))
    assert not caplog.text, "no flow to learn, or nothing to learn"


def test_what_nothing_looks_at_is_said(caplog: pytest.LogCaptureFixture) -> None:
    model(network(), iters_per_epoch=3, flow_scale=0.5)
    assert "train.iters_per_epoch has no effect: there is no flow_first" in caplog.text
    assert "val.flow_scale has no effect: network_g has no flow estimator" in caplog.text
    caplog.clear()
    model(network(use_flow=True), iters_per_epoch=3, freeze_backbone=1, flow_scale=0.5)
    assert "no effect" not in caplog.text


def test_flow_that_is_not_there_is_one_line() -> None:
    with pytest.raises(UserError, match=r"train\.flow_first: HybridVFI has no part called 'flow_estimator'"):
        model(network(), flow_first=1)
    with pytest.raises(UserError, match="warp_only needs the flow"):
        network()(torch.zeros(1, 6, 16, 16), warp_only=True)
    with pytest.raises(UserError, match=r"train\.flow_opt: the training set gives no flow .* with_flow: true"):
        list(model(network(use_flow=True), {"flow": {"type": "EndpointErrorLoss"}}).updates(batch(), 1))


# ------------------------------------------------------------------ inference
def test_inference_of_the_original(golden: Any) -> None:
    """Padding and both forms of test-time augmentation, through the wrapper."""
    compared = 0
    for case in torch.load(golden("vfi/model_gated_attn_only.pt"), weights_only=True)["cases"]:
        config = {k: v for k, v in case["config"].items() if k not in ("loss", "salt", "weights")}
        net = build_network({"type": "HybridVFI", **config}).eval()
        net.load_state_dict(case["state_dict"])
        img0, img1 = case["input"]["inference"].chunk(2, 1)
        for tta, key in (("none", "inference"), ("hflip", "inference_fast_tta"), ("dihedral", "inference_tta8")):
            if key in case["output"]:
                with torch.no_grad():
                    output = model(net, tta=tta).predict({"img0": img0, "img1": img1})["output"]
                assert (output - case["output"][key]).abs().max() < 2e-5 * case["output"][key].abs().max()
                compared += 1
    assert compared == 3


@torch.no_grad()
def test_inference_with_frames_upside_down() -> None:
    net, given = network(use_flow=True).eval(), batch((32, 64))
    x = torch.cat([given["img0"], given["img1"]], 1)
    turned = torch.rot90(net(torch.rot90(x, 2, (2, 3)), given["timestep"])[0], -2, (2, 3))
    output = model(net, tta="rot180").predict(given)["output"]
    torch.testing.assert_close(output, (net(x, given["timestep"])[0] + turned) / 2)
    with pytest.raises(UserError, match=r"'rto180'. Did you mean 'rot180'\?"):
        model(net, tta="rto180").predict(given)


@pytest.mark.parametrize("size", [(1, 1), (35, 13)])
@torch.no_grad()
def test_any_size_whole_and_in_tiles(size: tuple[int, int]) -> None:
    given = batch(size, 1)
    attention = {"backbone_mode": "gated_attn_only"}
    for net in (network(**attention), network(**attention, use_flow=True, window_size=3)):
        wrapper = model(net.eval(), tta="hflip")
        assert wrapper.predict(given)["output"].shape == (1, 3, *size)
        wrapper.inference = Inference(tile=net.size_multiple, overlap=0)
        assert wrapper.predict(given)["output"].shape == (1, 3, *size)


@torch.no_grad()
def test_times_are_reached_by_halving() -> None:
    net, given = network(use_flow=True).eval(), {**batch(), "timestep": torch.full((2,), 0.75)}

    def middle(a: Tensor, b: Tensor) -> Tensor:
        return model(net).predict({"img0": a, "img1": b})["output"]

    expected = middle(middle(given["img0"], given["img1"]), given["img1"])
    halved = model(net, recursive=True)
    torch.testing.assert_close(halved.predict(given)["output"], expected)
    assert not torch.allclose(model(net).predict(given)["output"], expected, atol=1e-3)
    with pytest.raises(UserError, match=r"val\.recursive: a batch of frames at different times"):
        halved.predict({**given, "timestep": torch.tensor([0.5, 0.25])})


@torch.no_grad()
def test_flow_at_half_size() -> None:
    """Estimated on small frames, doubled in size and length; the frames are warped as they are."""
    net, given = network(use_flow=True).eval(), batch((32, 64))
    x = torch.cat([given["img0"], given["img1"]], 1)
    small = F.interpolate(x, scale_factor=0.5, mode="bilinear")
    expected = 2 * F.interpolate(net(small, given["timestep"])[1], scale_factor=2, mode="bilinear")
    pred, flow = net(x, given["timestep"], flow_scale=0.5)
    torch.testing.assert_close(flow, expected)
    assert not torch.allclose(pred, net(x, given["timestep"])[0], atol=1e-3)
    torch.testing.assert_close(model(net, flow_scale=0.5).predict(given)["output"], pred)
    assert net(x, 0.5, flow_scale=0.3)[1].shape == (2, 4, 32, 64)  # 9.6 x 19.2, so 16 x 16


@torch.no_grad()
def test_channels_in_the_order_of_the_weights() -> None:
    x = image("x", 1, 6, 16, 16)
    bgr = torch.cat([x[:, :3].flip(1), x[:, 3:].flip(1)], 1)
    for changes in ({}, {"use_flow": True}):
        net = network(**changes).eval()
        swapped = network(**changes, channel_order="bgr").eval()
        torch.testing.assert_close(swapped(x)[0], net(bgr)[0].flip(1))


# ------------------------------------------------------------------ whole runs
def run(**changes: Any) -> dict[str, Any]:
    opt = options(
        model_type="InterpolationModel",
        datasets__train__type="ToyTriplets",
        datasets__val={"name": "held_out", "type": "ToyTriplets", "length": 2, "num_worker_per_gpu": 0},
        network_g={"type": "HybridVFI", **SMALL, "use_flow": True, "backbone_mode": "gated_attn_only"},
        train__optim_g={
            "type": "AdamW",
            "lr": 1e-3,
            "eps": 1e-2,  # else noise decides the direction of what has hardly any gradient
            "param_groups": [{"params": "^backbone", "lr_scale": 0.1}],
        },
        train__scheduler={"type": "WarmupCosineLR", "total_steps": 8, "warmup_steps": 2},
        train__total_iter=8,
        train__flow_first=1,
        train__freeze_backbone=2,
        train__iters_per_epoch=2,
        train__ema_decay=0.9,
        train__grad_clip_norm=1.0,
        train__flow_smooth_opt=FLOW,
        logger__save_checkpoint_freq=3,
    )
    for path, value in changes.items():
        block = opt
        *parents, last = path.split("__")
        for parent in parents:
            block = block[parent]
        block[last] = value
    return opt


def test_killed_and_resumed_across_the_unfreezing_equals_uninterrupted(
    tmp_path: Path, straight: dict[str, Any]
) -> None:
    accident = {"RELUME_TEST_ACCIDENT": "loss:5"}
    for _ in range(2):  # resumed at iteration 3, when the backbone is frozen, and at 6, when all is trained
        killed = train(tmp_path, run(), "--auto_resume", env=accident)
        assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    resumed = train(tmp_path, run(), "--auto_resume")
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    assert differences(straight, outcome(tmp_path, iteration=8)) == []


@pytest.fixture(scope="module")
def straight(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("straight")
    done = train(folder, run())
    assert done.returncode == 0, done.stdout + done.stderr
    root = folder / "experiments/toy"
    before, after = weights(root, 3)["params"], weights(root, 8)["params"]
    initial = {k: v for k, v in before.items() if k.startswith("backbone.")}
    assert "Trained, up to iteration 2: flow_estimator\n" in done.stdout
    assert "Trained, up to iteration 4: context0, context1, flow_estimator, refine\n" in done.stdout
    assert "Trained from now on: all\n" in done.stdout
    assert any(not torch.equal(v, after[k]) for k, v in initial.items())
    steps = [r for r in records(root) if "lr" in r]
    assert all({"l_pix", "l_flow_smooth", "grad_norm"} <= r.keys() for r in steps)
    return outcome(folder, iteration=8)


def test_two_ranks_equal_one_before_and_after_the_unfreezing(tmp_path: Path, straight: dict[str, Any]) -> None:
    two = run(datasets__train__batch_size_per_gpu=1)
    done = train(tmp_path, two, ranks=2)
    assert done.returncode == 0, done.stdout + done.stderr
    found = outcome(tmp_path, iteration=8)
    for key in ("params", "params_ema"):
        for name, expected in straight["weights"][key].items():
            torch.testing.assert_close(found["weights"][key][name], expected, rtol=1e-3, atol=1e-5, msg=name)


def test_two_phases_accumulation_and_half_precision(tmp_path: Path) -> None:
    first = run(train__total_iter=2, train__flow_first=0, train__freeze_backbone=0)
    first["network_g"] = {"type": "HybridVFI", **SMALL}
    del first["train"]["flow_smooth_opt"]
    assert train(tmp_path, {**first, "val": {**first["val"], "score_input": True}}).returncode == 0
    root = tmp_path / "experiments/toy"
    (scores,) = [r["metrics"] for r in records(root) if "metrics" in r]
    assert list(scores) == ["score", "score_input", "score_copy"]
    second = run(
        name="phase2",
        path={"pretrain_network_g": "experiments/toy/models/net_g_best.pth", "grow_network_g": True},
        train__amp="bf16",
        train__accumulate=2,
        train__total_iter=3,
    )
    second["network_g"]["backbone_mode"] = "hybrid"
    second["val"].update(tta="hflip", flow_scale=0.5)
    done = train(tmp_path, second)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "of its tensors are new and start as initialised" in done.stdout
    one, two = weights(root, "best")["params"], weights(tmp_path / "experiments/phase2", 3)["params"]
    for name, tensor in one.items():
        if name.startswith("backbone."):
            assert torch.equal(tensor, two[name])
    assert all(torch.isfinite(t).all() for t in two.values())


def test_options_of_inference_stand_under_val() -> None:
    opt = run()
    opt["val"]["tta"] = "hflip"
    assert check(opt).val.tta == "hflip"
    with pytest.raises(UserError, match=r"val\.tta: expected one of .*Did you mean 'hflip'"):
        check({**opt, "val": {**opt["val"], "tta": "hflipp"}})
    with pytest.raises(UserError, match="unknown key 'tta' in train"):
        check({**opt, "train": {**opt["train"], "tta": "hflip"}})
    with pytest.raises(UserError, match="unknown key 'tta' in val"):
        check({**options(), "val": {"tta": "hflip"}})


def test_an_evaluation_scores_flow(tmp_path: Path) -> None:
    net = network(use_flow=True).eval()
    size = (18, 21)  # of which neither side is the network's multiple
    given = batch(size, 2)
    flow = model(net).flow(given)
    assert flow is not None and flow.shape == (2, 4, *size) and flow.abs().sum() > 0
    from relume.core.evaluation import Evaluator

    for true, expected in ((flow + torch.tensor([3.0, 4.0, 0, 0])[:, None, None], 2.5), (None, None)):
        evaluator = Evaluator(
            loaders={"set": [{**given, **({} if true is None else {"flow": true}), "index": torch.tensor([0, 1])}]},
            metrics={"psnr": {"type": "calculate_psnr"}, "epe": {"type": "calculate_epe"}},
            folder=tmp_path,
            device=torch.device("cpu"),
            image_name=lambda *_: "x",
            forgiving=True,
        )
        with torch.no_grad():
            scores = evaluator.run(model(net), 1)["set"]
        assert scores.get("epe") == (expected and pytest.approx(expected, rel=1e-5)) and scores["psnr"] > 0
    assert model(network().eval()).flow(given) is None
