"""Several outputs, balanced losses, second ground truths, several scales; and the published trainings."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from relume.archs import build_network
from relume.core.errors import UserError
from relume.core.guard import Guard
from relume.core.models.restoration import RestorationModel
from relume.core.pipeline import train_pipeline
from relume.core.runtime.optimizers import build_optimizer
from relume.core.trainer import Trainer
from relume.core.training.parts import Parts
from relume.losses import build_loss
from relume.losses.vgg import VGGFeatures
from relume.tests import runs


class Outputs(nn.Module):
    """Returns what it was made of, whatever comes in."""

    def __init__(self, *outputs):
        super().__init__()
        self.outputs = nn.ParameterList(outputs)

    def forward(self, x):
        outputs = tuple(p * 1.0 for p in self.outputs)
        return outputs if len(outputs) > 1 else outputs[0]


class Recorder(nn.Module):
    """Remembers what it saw; one output of the same size, or a second of twice the size."""

    size_multiple = 8

    def __init__(self, two=False):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))
        self.two = two
        self.seen = []

    def forward(self, x):
        self.seen.append(x.detach())
        y = self.gain * x
        return (y, y.repeat_interleave(2, -1).repeat_interleave(2, -2)) if self.two else y


class Batches(list):
    """Given batches, one by one."""

    position = 0

    def __next__(self):
        return self.pop(0)

    def micro_batches(self, iteration):
        return 1


def ramp(*shape):
    return torch.linspace(0, 1, math.prod(shape)).reshape(shape)


def losses(**names):
    return {name: build_loss(block) for name, block in names.items()}


L1 = {"type": "L1Loss"}
MSE = {"type": "MSELoss", "loss_weight": 2.0}


def model(net, terms=None, **options):
    return RestorationModel({"g": net}, losses(**(terms or {"pixel": L1})), **options)


def update(m, batch):
    return next(m.updates(batch, 1))


def values(u):
    return {k: float(v.detach()) for k, v in u.losses.items()}


# ------------------------------------------------------------------ targets
def test_every_output_meets_the_ground_truth_at_its_own_size():
    low, high = torch.full((1, 3, 8, 8), 0.25), torch.full((1, 3, 16, 16), 0.75)
    gt = ramp(1, 3, 8, 8)
    u = update(model(Outputs(low, high)), {"lq": gt, "gt": gt})
    doubled = nn.functional.interpolate(gt, scale_factor=2, mode="bilinear", align_corners=False)
    assert values(u) == pytest.approx(
        {"l_1_pix": float((low - gt).abs().mean()), "l_2_pix": float((high - doubled).abs().mean())}
    )


def test_a_second_ground_truth_is_used_where_the_batch_has_one():
    low, high = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 16, 16)
    u = update(model(Outputs(low, high)), {"lq": low, "gt": low + 0.25, "gt_2": high + 0.5})
    assert values(u) == pytest.approx({"l_1_pix": 0.25, "l_2_pix": 0.5})


def test_outputs_have_weights_and_losses_of_their_own():
    low, high = torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 16, 16)
    m = model(
        Outputs(low, high),
        {"pixel": L1, "mse": MSE},
        output_weights=[1.0, 0.5],
        output_losses=[["pixel", "mse"], ["mse"]],
    )
    assert values(update(m, {"lq": low, "gt": low + 0.5})) == pytest.approx(
        {"l_1_pix": 0.5, "l_1_mse": 0.5, "l_2_mse": 0.25}
    )


def test_the_number_of_outputs_must_be_right():
    gt = torch.zeros(1, 3, 8, 8)
    with pytest.raises(UserError, match=r"output_weights has 2 entries, but the network has 1 output"):
        update(model(Outputs(gt), output_weights=[1.0, 1.0]), {"lq": gt, "gt": gt})
    with pytest.raises(UserError, match=r"output_losses has 1 entries, but the network has 2 output"):
        update(model(Outputs(gt, gt), output_losses=[["pixel"]]), {"lq": gt, "gt": gt})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output_losses": [["pixle"]]}, "no loss is called 'pixle'. Did you mean 'pixel'"),
        ({"output_losses": [["pixel"], []]}, "every output needs at least one loss"),
        ({"output_losses": [["mse"]]}, "no output has the loss 'pixel'"),
        ({"balance_outputs": "softmax"}, "needs output_weights"),
        ({"balance": "kendall"}, "mode cannot be 'kendall'"),
        ({"multi_scale": []}, "give positive factors"),
        ({"multi_scale": [1.0, 1e30]}, "give positive factors of at most 64"),
        ({"mixing_augs": {"mixup": True, "beta": 1.0}}, "unknown key 'beta' in train.mixing_augs"),
        ({"mixing_augs": {"mixpu": True}}, "unknown key 'mixpu' in train.mixing_augs. Did you mean 'mixup'"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        model(Recorder(), {"pixel": L1, "mse": MSE}, **options)


def test_a_training_file_can_be_tested_without_its_losses():
    m = RestorationModel({"g": Recorder()}, {}, output_losses=[["pixel"]], balance="softmax")
    assert m.predict({"lq": torch.ones(1, 3, 8, 8)})["output"].shape == (1, 3, 8, 8)


# ------------------------------------------------------------------ balance
def test_the_original_dual_branch_recipe(golden, recipe, tmp_path):
    d = torch.load(golden("underwater/loss_dual_branch.pt"), weights_only=True)
    r = recipe("underwater/golden_recipe.py")
    target = r.smooth_image("dt", d["shape"], d["seed"])
    low = target + r.normal("dl", d["shape"], d["seed"], 0.1)
    doubled = nn.functional.interpolate(target, scale_factor=2, mode="bilinear", align_corners=False)
    high = doubled + r.normal("dh", list(doubled.shape), d["seed"], 0.15)
    shapes = {k: tuple(v.shape) for k, v in VGGFeatures("vgg19", ["conv5_4"], "test", "random").state_dict().items()}
    weights = {k: (2**0.5 if k.endswith("weight") else 0.1) * r.fill(k, s, 5) for k, s in shapes.items()}
    torch.save(weights, tmp_path / "vgg.pth")
    vgg = {"layer_weights": {"conv5_4": 1}, "use_input_norm": False, "weights": str(tmp_path / "vgg.pth")}
    net = Outputs(low, high)
    m = model(
        net,
        {
            "pixel": {"type": "CharbonnierLoss", "eps": 1e-3, "eps_squared": True},
            "perceptual": {"type": "PerceptualLoss", **vgg},
            "gradient": {"type": "GradientLoss"},
            "msssim": {"type": "MSSSIMLoss"},
        },
        balance="random",
        balance_outputs="random",
        output_weights=[1.0, 1.0],
    )
    m.load_state_dict(
        {"losses": {"balance.weights": d["raw4"].flatten(), "balance_outputs.weights": d["raw2"].flatten()}}
    )
    u = update(m, {"lq": target, "gt": target})
    four, two = (d[k].flatten().softmax(dim=0).tolist() for k in ("raw4", "raw2"))
    names = ("pix", "percep", "gradient", "msssim")
    expected = {
        f"l_{o}_{name}": two[o - 1] * four[i] * d["components_L" if o == 1 else "components_H"][i]
        for o in (1, 2)
        for i, name in enumerate(names)
    }
    assert values(u) == pytest.approx(expected, rel=1e-4)
    total = sum(u.losses.values())
    assert total.item() == pytest.approx(d["total"]["value"], rel=1e-5)
    total.backward()
    for output, name in zip(net.outputs, ("L", "H"), strict=True):
        assert float(output.grad.norm()) == pytest.approx(d[f"grad_{name}_norm"], rel=1e-4)
        # Not elementwise: ReLU, max pooling and L1 choose sides by rounding, which differs between CPUs and versions.
        stored = d[f"grad_{name}_stride16"]
        assert (output.grad[..., ::16, ::16] - stored).norm() < 0.01 * stored.norm()
    logged = {k: float(v) for k, v in u.logs.items()}
    expected = {f"w_{n}": p for n, p in zip(("pixel", "perceptual", "gradient", "msssim"), four, strict=True)}
    assert logged == pytest.approx({**expected, "w_output_1": two[0], "w_output_2": two[1]})
    assert "balance.weights" not in [n for n, p in m.named_parameters("g") if p.requires_grad]


def fixed_total(m, batch):
    return sum(values(update(m, batch)).values())


@pytest.mark.parametrize("mode", ["softmax", "uncertainty"])
def test_learned_balances_are_trained_saved_and_logged(mode):
    zero = torch.zeros(1, 3, 8, 8)
    net = Outputs(zero)
    batch = {"lq": zero, "gt": zero + 0.5}
    terms = {"pixel": L1, "mse": {"type": "MSELoss", "loss_weight": 0.1}}
    m = model(net, terms, balance=mode)
    named = dict(m.named_parameters("g"))
    assert named["losses.balance.weights"].requires_grad
    rules = [{"params": "losses", "lr": 0.1}, {"params": "outputs", "lr": 0.0}]
    optimizer = build_optimizer(named.items(), {"type": "Adam", "lr": 0.0, "param_groups": rules})
    for _ in range(150):
        optimizer.zero_grad()
        sum(update(m, batch).losses.values()).backward()
        optimizer.step()
    got = torch.tensor([float(update(m, batch).logs[k]) for k in ("w_pixel", "w_mse")])
    raw = torch.tensor([0.5, 0.1 * 0.25])
    best = 1 / raw if mode == "uncertainty" else (-raw / raw.mean()).softmax(dim=0)
    torch.testing.assert_close(got, best, rtol=0.02, atol=1e-3)
    other = model(Outputs(zero), terms, balance=mode)
    other.load_state_dict(m.state_dict())
    assert values(update(other, batch)) == values(update(m, batch))


def test_uncertainty_of_losses_and_outputs_together_is_bounded():
    """Every loss value is one observation, with the sum of its loss's and its output's log variances."""
    zero = torch.zeros(1, 3, 8, 8)
    m = model(
        Outputs(zero, zero),
        {"pixel": L1, "mse": MSE},
        balance="uncertainty",
        balance_outputs="uncertainty",
        output_weights=[1.0, 1.0],
    )
    s, t = torch.tensor([0.3, -0.2]), torch.tensor([0.5, 0.1])
    m.load_state_dict({"losses": {"balance.weights": s, "balance_outputs.weights": t}})
    batch = {"lq": zero, "gt": zero + 0.5, "gt_2": zero + 0.25}
    raw = {(0, 0): 0.5, (0, 1): 0.5, (1, 0): 0.25, (1, 1): 0.125}  # (output, loss)
    by_hand = sum(math.exp(-t[o] - s[i]) * v + float(t[o] + s[i]) for (o, i), v in raw.items())
    assert fixed_total(m, batch) == pytest.approx(by_hand, rel=1e-5)


def test_fixed_balance_is_the_plain_sum_and_leaves_no_trace():
    gt = ramp(1, 3, 8, 8)
    m = model(Outputs(gt * 0.5), {"pixel": L1, "mse": MSE})
    u = update(m, {"lq": gt, "gt": gt})
    assert values(u) == pytest.approx({"l_pix": float(gt.mean() / 2), "l_mse": float(gt.square().mean() / 2)})
    assert u.logs == {} and m.state_dict() == {"losses": {}}


# ------------------------------------------------------------------ batches changed as a whole
def test_multi_scale_keeps_to_sizes_that_the_network_takes():
    net = Recorder(two=True)
    m = model(net, {"pixel": L1}, multi_scale=[0.8, 1.0, 1.2])
    lq = ramp(2, 3, 40, 48)
    batch = {"lq": lq, "gt": lq, "gt_2": lq.repeat_interleave(2, -1).repeat_interleave(2, -2), "lq_path": ["a", "b"]}
    torch.manual_seed(0)
    worst = max(max(values(update(m, batch)).values()) for _ in range(20))
    assert {tuple(x.shape[-2:]) for x in net.seen} == {(32, 40), (40, 48), (48, 56)}
    assert worst < 0.02  # targets were resized like the input


def test_multi_scale_keeps_the_ratio_of_super_resolution():
    net = nn.Sequential(Recorder(), nn.Upsample(scale_factor=4))
    m = model(net, multi_scale=[0.5])
    u = update(m, {"lq": torch.ones(1, 3, 16, 24), "gt": torch.ones(1, 3, 64, 96)})
    assert tuple(net[0].seen[0].shape[-2:]) == (8, 12) and u.losses["l_pix"].item() == pytest.approx(0, abs=1e-6)


def test_mixup_mixes_inputs_and_all_targets_alike():
    net = Recorder()
    m = model(net, mixing_augs={"mixup": True, "mixup_beta": 1.2, "use_identity": False})
    images = {"lq": torch.eye(4)[:, :, None, None].expand(4, 4, 2, 2)}
    images["gt"], images["gt_2"] = images["lq"] * 2, images["lq"] * 3
    torch.manual_seed(1)
    mixed = m.augmented(images, images)
    assert not torch.equal(mixed["lq"], images["lq"])
    torch.testing.assert_close(mixed["lq"].sum(dim=1), torch.ones(4, 2, 2))
    torch.testing.assert_close(mixed["gt"], 2 * mixed["lq"])
    torch.testing.assert_close(mixed["gt_2"], 3 * mixed["lq"])


# ------------------------------------------------------------------ published trainings
def trained(d, r, folder, arch):
    """The stored steps by our trainer: losses, gradient norms, and the network."""
    net = build_network(arch)
    state = r.fill_state(d["state_spec"], d["state_seed"])
    net.load_state_dict({k: v * (d["state_scale_of_4d_kernels"] if v.dim() == 4 else 1) for k, v in state.items()})
    m = RestorationModel(
        {"g": net},
        losses(
            pixel={"type": "CharbonnierLoss", "eps": 1e-3, "eps_squared": True, "loss_weight": 0.5},
            gradient={"type": "GradientLoss", "loss_weight": 0.5},
        ),
    )
    targets = [r.smooth_image(f"ty{i}", d["batch_shape"], d["state_seed"]) for i in range(d["steps"])]
    parts = Parts(
        model=m,
        networks={"g": net},
        ema=None,
        optimizers={
            "g": build_optimizer(m.named_parameters("g"), {"type": "Adam", "lr": d["lr"], "betas": d["betas"]})
        },
        schedulers={},
        loader=Batches({"lq": 0.7 * y + 0.1, "gt": y} for y in targets),
        evaluator=None,
        checkpoints=None,
        logger=None,
        guard=Guard(1, folder, torch.device("cpu")),
        device=torch.device("cpu"),
    )
    train = {"amp": "off", "accumulate": 1, "grad_clip_norm": d["clip_max_norm"], "grad_clip_value": None}
    trainer = Trainer(parts, {"manual_seed": 0, "train": {**train, "use_grad_clip": False}})
    steps = [trainer.step() for _ in range(d["steps"])]
    final = r.smooth_image("final", (1, 3, 32, 32), d["state_seed"])
    with torch.no_grad():
        output = net(final)
    return SimpleNamespace(
        losses=[float(s["l_pix"] + s["l_gradient"]) for s in steps],
        norms=[float(s["grad_norm"]) for s in steps],
        output=output,
    )


def test_trajectory_of_spectroformer(golden, recipe, tmp_path):
    d = torch.load(golden("underwater/train_trajectory_spectroformer_tiny.pt"), weights_only=True)
    run = trained(d, recipe("underwater/golden_recipe.py"), tmp_path, {"type": "Spectroformer", **d["config"]})
    check(run, d)


def test_trajectory_of_agssf1(golden, recipe, tmp_path):
    d = torch.load(golden("underwater/train_trajectory_agssf1_short.pt"), weights_only=True)
    arch = {"type": "SpectroformerAGSSF", "variant": "agssf1", **d["config"]}
    check(trained(d, recipe("underwater/golden_recipe.py"), tmp_path, arch), d)


def check(run, d):
    assert run.losses == pytest.approx(d["losses"], abs=d["suggested_loss_atol"])
    assert run.norms == pytest.approx(d["grad_norms_before_clip"], rel=d["suggested_norm_rtol"])
    assert (run.output - d["final_output"]).abs().max() <= d["suggested_final_atol"]


# ------------------------------------------------------------------ a whole run
def test_a_run_with_a_learned_balance_logs_saves_and_resumes(tmp_path):
    def train(folder, iterations):
        options = runs.options(
            train__pixel_opt={"type": "L1Loss"},
            train__mse_opt={"type": "MSELoss"},
            train__balance="uncertainty",
            train__multi_scale=[0.75, 1.0],
            train__total_iter=iterations,
            path__experiments_root=str(tmp_path / folder / "experiments"),
        )
        train_pipeline(options, auto_resume=True)

    train("straight", 12)
    train("resumed", 5)
    train("resumed", 12)
    expected, found = (runs.outcome(tmp_path / name) for name in ("straight", "resumed"))
    assert runs.differences(expected["weights"], found["weights"]) == []
    assert runs.differences(expected["state"]["model"], found["state"]["model"]) == []
    weights = expected["state"]["model"]["losses"]["balance.weights"]
    assert weights.abs().min() > 0.01  # log variances start from 0, and their optimizer has moved them
    logged = [r for r in expected["records"] if "w_pixel" in r]
    assert logged[0]["w_pixel"] == pytest.approx(1.0) and logged[-1]["w_pixel"] != logged[0]["w_pixel"]
    assert {"l_pix", "l_mse", "l_balance"} <= logged[-1].keys()


def test_a_network_may_say_which_output_is_the_result():
    network = Outputs(torch.zeros(1, 3, 4, 4), torch.ones(1, 3, 4, 4))
    batch = {"lq": torch.zeros(1, 3, 4, 4)}
    model = RestorationModel({"g": network}, {})
    assert {k: v.mean().item() for k, v in model.predict(batch).items()} == {"output": 0, "output_2": 1}
    network.result_output = -1
    assert {k: v.mean().item() for k, v in model.predict(batch).items()} == {"output_1": 0, "output": 1}
