"""GenerationModel: a step is what it says it is; ranks, micro-batches and restarts change nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from runs import differences, records, train
from torch import nn

from relume.archs import build_network
from relume.core import options
from relume.core.errors import UserError
from relume.core.models.draws import normal_of, uniform_of
from relume.core.models.generation.matching import BankSample, Matching
from relume.core.models.generation.model import GenerationModel, one_hot
from relume.core.models.restoration import RestorationModel
from relume.core.pipeline import train_pipeline
from relume.datasets import build_dataset
from relume.losses import build_loss

FEATURES = {"type": "random_conv", "width": 4, "levels": 2}
NETWORK = {
    "type": "OneStepGenerator",
    "img_resolution": 8,
    "model_channels": 8,
    "channel_mult": [1, 2],
    "num_blocks": 1,
    "attn_resolutions": [4],
    "dropout": 0.0,
}
FACES = {"type": "ShippedImagesDataset", "source": "faces_and_backgrounds", "resolution": 8}


def settings(**changes: Any) -> dict[str, Any]:
    """Options of a run of a second; `changes` by dotted path with ``__`` for dots."""
    opt: dict[str, Any] = {
        "name": "toy",
        "model_type": "GenerationModel",
        "num_gpu": 0,
        "manual_seed": 3,
        "datasets": {
            "train": {**FACES, "use_hflip": True, "batch_size_per_gpu": 4, "num_worker_per_gpu": 0},
            "val": {"name": "held_out", "type": "NoiseDataset", "num_images": 3, "reference": dict(FACES)},
        },
        "network_g": {**NETWORK, "label_dim": 2},
        "train": {
            "total_iter": 6,
            "ema_halflife": 50,
            "ema_rampup": 0.5,
            "optim_g": {"type": "AdamW", "lr": 1e-3},
            "scheduler": {"type": "WarmupDecayLR", "warmup": 8, "total": 40},
            "features": FEATURES,
            "bank": {"subset": 30, "flips": True},
            "matching": {"fgw_lambda": 0.3, "epsilon": {"start": 0.1, "end": 0.02, "over": 20, "shape": "exponential"}},
            "times": {"stage1_samples": 8, "transition_samples": 8},
            "flow_opt": {"type": "MultiScaleLoss", "criterion": {"type": "PseudoHuberLoss"}},
            "feature_opt": {"type": "FeatureLoss", "loss_weight": 0.1},
            "structure_opt": {"type": "StructureLoss", "loss_weight": 0.1},
            "plan_opt": {"type": "StructureLoss", "loss_weight": 0.1, "against": "plan"},
            "boundary_opt": {"type": "BoundaryLoss", "loss_weight": 0.1},
            "consistency_opt": {"type": "ConsistencyLoss", "loss_weight": 0.5},
        },
        "val": {
            "val_freq": 3,
            "save_grid": 3,
            "metrics": {"kid": {"type": "KID", "features": FEATURES, "subsets": 2, "subset_size": 3}},
        },
        "logger": {"print_freq": 1, "save_checkpoint_freq": 3},
    }
    for path, value in changes.items():
        block = opt
        *parents, last = path.split("__")
        for parent in parents:
            block = block.setdefault(parent, {})
        block[last] = value
    return opt


def fill(net: nn.Module) -> nn.Module:
    """Weights that matter: a fresh generator's last layers are all but zero."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.05 * torch.randn(p.shape, generator=generator))
    return net


def build(losses: dict[str, Any] | None = None, label_dim: int = 2, **own: Any) -> GenerationModel:
    losses = {"flow": {"type": "PseudoHuberLoss"}} if losses is None else losses
    torch.manual_seed(0)
    net = fill(build_network({**NETWORK, "label_dim": label_dim}))
    own.setdefault("features", FEATURES)
    model = GenerationModel({"g": net}, {k: build_loss(b) for k, b in losses.items()}, **own)
    model.prepare(build_dataset(FACES, phase="train"), torch.device("cpu"))
    model.samples_seen = 100_000
    return model


def batch(n: int = 4, first: int = 0) -> dict[str, torch.Tensor]:
    dataset = build_dataset(FACES, phase="train")
    items = [dataset[i] for i in range(first, first + n)]
    return {
        "gt": torch.stack([i["gt"] for i in items]),
        "label": torch.arange(first, first + n) % 2,
        "seed": torch.arange(first, first + n) + 1000,
    }


def only_update(model: GenerationModel, b: dict[str, torch.Tensor], step: int = 1) -> Any:
    (update,) = model.updates(b, step)
    return update


# ------------------------------------------------------------------ one step
def test_a_step_written_out() -> None:
    losses = {
        "flow": {"type": "PseudoHuberLoss"},
        "feature": {"type": "FeatureLoss", "loss_weight": 0.1},
        "structure": {"type": "StructureLoss"},
        "boundary": {"type": "BoundaryLoss"},
    }
    model = build(losses, matching={"fgw_lambda": 0.3, "epsilon": 0.05, "target": "sample"}, bank={"subset": 40})
    b = batch(8)
    update = only_update(model, b)

    net, extractor, bank = model.networks["g"], model.extractor, model.bank
    assert extractor is not None and bank is not None
    z, u = normal_of(b["seed"].tolist(), 3, 8, 8), uniform_of(b["seed"].tolist(), 3)
    labels = F.one_hot(b["label"], 2).float()
    memory = BankSample(bank, bank.draw(1, 40))
    generated = F.normalize(extractor(net(z, 0.0, labels)), dim=1).detach()
    coupling = Matching(model.matching.options).solve(generated, b["label"], memory, model.matching.settings(100_000))
    rows = [int((coupling.plan[i].cumsum(0) > u[i, 2] * coupling.plan[i].sum()).nonzero()[0]) for i in range(8)]
    target = torch.stack([build_dataset(FACES, phase="train").image(int(memory.rows[j])) for j in rows])
    t = torch.from_numpy(model.times.draw(u[:, :2].numpy(), 100_000)).float()
    assert 0 < (t == 0).sum() < 8, "both kinds are there"
    point = (1 - t.view(-1, 1, 1, 1)) * z + t.view(-1, 1, 1, 1) * target
    made = torch.cat([net(point[i : i + 1], t[i : i + 1], labels[i : i + 1]) for i in range(8)])
    features = F.normalize(extractor(made), dim=1)
    wanted = F.normalize(extractor(target), dim=1)
    d = (made - target).flatten(1)
    k = 0.00054 * 192**0.5
    expected = {
        "l_flow": ((d.square().sum(1) + k * k).sqrt() - k).mean(),
        "l_feature": 0.1 * (1 - (features * wanted).sum(1)).mean(),
        "l_structure": model.losses["structure_opt"](features, wanted),
        "l_boundary": model.losses["boundary_opt"](made, target, t=t, point=point),
    }
    assert update.losses.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(update.losses[name], value, rtol=1e-4, atol=1e-6, msg=name)
    ours = torch.autograd.grad(sum(update.losses.values()), list(net.parameters()))
    theirs = torch.autograd.grad(sum(expected.values()), list(net.parameters()))
    for a, e in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, e, rtol=2e-3, atol=1e-5)
    logs = {k: float(v) for k, v in update.logs.items()}
    assert logs["row_err"] < 1e-4 and logs["col_err"] < 1e-4 and 1 <= logs["perplexity"] <= 40
    assert (logs["epsilon"], logs["fgw_lambda"], logs["kimg"]) == (0.05, 0.3, 100)


@pytest.mark.parametrize("offset", [0.6, -0.6])
def test_consistency_written_out(offset: float) -> None:
    """The averaged generator at another point of each sample's own path teaches the generator, and is not taught by it."""
    losses = {"consistency": {"type": "ConsistencyLoss", "loss_weight": 0.5, "offset": offset}}
    model = build(losses, features=None, matching={"pairing": "random"}, times={"one_step": 0.25})
    net, average = model.networks["g"], fill(build_network({**NETWORK, "label_dim": 2})).eval().requires_grad_(False)
    model.averages = {"g": average}
    model.begin(1)
    b = batch(6)
    found = only_update(model, b).losses
    assert found.keys() == {"l_consistency"}

    z, u = normal_of(b["seed"].tolist(), 3, 8, 8), uniform_of(b["seed"].tolist(), 4)
    t = torch.from_numpy(model.times.draw(u[:, :2].numpy(), 100_000)).float()
    terms, weights = [], []
    for i in range(6):
        s = min(max(float(t[i] + offset * u[i, 3]), 0.0), 1.0)
        image, noise, label = b["gt"][i : i + 1], z[i : i + 1], b["label"][i : i + 1]
        ours = net((1 - t[i]) * noise + t[i] * image, float(t[i]), label)
        with torch.no_grad():
            theirs = average((1 - s) * noise + s * image, s, label)
        k = 0.00054 * 192**0.5
        terms.append(((ours - theirs).square().sum() + k * k).sqrt() - k)
        weights.append(1 / (abs(offset) * float(u[i, 3]) + 1e-3))
    expected = 0.5 * sum(w * d for w, d in zip(weights, terms, strict=True)) / sum(weights)
    torch.testing.assert_close(found["l_consistency"], expected, rtol=1e-4, atol=1e-6)
    ours = torch.autograd.grad(found["l_consistency"], list(net.parameters()))
    theirs = torch.autograd.grad(expected, list(net.parameters()))
    for a, e in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, e, rtol=2e-3, atol=1e-5)
    assert max(g.abs().max() for g in ours) > 0.01


@pytest.mark.parametrize(("target", "scope"), [("sample", "micro"), ("barycentre", "global")])
def test_structure_against_the_whole_plan(target: str, scope: str) -> None:
    """R D R^T, with R the plan's rows and D the distances in the memory, whatever is taken from the plan."""
    losses = {"structure": {"type": "StructureLoss", "against": "plan", "normalize": False}}
    matching = {"fgw_lambda": 0.3, "epsilon": 0.05, "target": target, "scope": scope}
    model = build(losses, matching=matching, bank={"subset": 20}, times={"one_step": 1.0}, label_dim=0)
    b = batch()
    found = only_update(model, b).losses["l_structure"]

    net, extractor, bank = model.networks["g"], model.extractor, model.bank
    assert extractor is not None and bank is not None
    features = F.normalize(extractor(net(normal_of(b["seed"].tolist(), 3, 8, 8))), dim=1)
    memory = BankSample(bank, bank.draw(1, 20))
    plan = (
        Matching(model.matching.options).solve(features.detach(), None, memory, model.matching.settings(100_000)).plan
    )
    rows, columns = plan / plan.sum(1, keepdim=True), memory.features
    expected = torch.zeros(())
    for i in range(4):
        for k in range(4):
            wanted = sum(rows[i, j] * rows[k] @ (columns[j] - columns).norm(dim=1) for j in range(20))
            distance = (features[i] - features[k]).norm() if i != k else 0
            expected = expected + (distance - wanted) ** 2 / 16
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    ours, theirs = (torch.autograd.grad(x, list(net.parameters())) for x in (found, expected))
    for a, e in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, e, rtol=2e-3, atol=1e-6)
    assert max(g.abs().max() for g in ours) > 1e-3


@pytest.mark.parametrize("name", ["feature", "structure"])
def test_feature_losses_reach_the_generator(name: str) -> None:
    """In the original the extractor ran without gradients, and they did nothing."""
    model = build({name: {"type": f"{name.capitalize()}Loss"}})
    only_update(model, batch()).losses[f"l_{name}"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.networks["g"].model.dec.parameters())


def test_random_pairing_takes_the_batch() -> None:
    model = build(
        {"flow": {"type": "MSELoss"}},
        features=None,
        matching={"pairing": "random"},
        times={"one_step": 1.0},
        label_dim=0,
    )
    b = batch()
    made = model.networks["g"](normal_of(b["seed"].tolist(), 3, 8, 8))
    torch.testing.assert_close(only_update(model, b).losses["l_flow"], F.mse_loss(made, b["gt"]))
    assert model.bank is None and model.state_dict()["bank"] == ""


def test_global_matching_does_not_depend_on_micro_batches() -> None:
    """One micro-batch of 8, or 4 + 4: the same targets, hence the same mean loss and gradient; matched apart they differ."""

    def gradient(scope: str, sizes: list[int]) -> torch.Tensor:
        model = build(matching={"scope": scope, "epsilon": 0.05, "fgw_lambda": 0.3, "target": "argmax"})
        parts = [batch(n, first) for n, first in zip(sizes, (0, sizes[0]), strict=False)]
        generators = [model.updates(b, 1) for b in parts]
        for generator in generators:
            (sum(next(generator).losses.values()) / len(parts)).backward()
        assert not [u for g in generators for u in g], "one update each"
        return torch.cat([p.grad.flatten() for p in model.networks["g"].parameters()])

    whole, halves = gradient("global", [8]), gradient("global", [4, 4])
    torch.testing.assert_close(whole, halves, rtol=1e-3, atol=1e-5)
    assert (gradient("micro", [8]) - whole).abs().max() < 1e-5
    assert (gradient("micro", [4, 4]) - whole).abs().max() > 1e-3


@pytest.mark.parametrize("target", ["argmax", "sample", "barycentre", "topk", "assignment"])
@pytest.mark.parametrize("labels", ["ignore", "penalty", "same_class"])
def test_every_kind_of_matching_steps(target: str, labels: str) -> None:
    matching = {"target": target, "labels": labels, "structure": "sqeuclidean", "temperature": 0.7, "scope": "global"}
    model = build(matching=matching, bank={"flips": True, "subset": 50})
    assert torch.isfinite(only_update(model, batch()).losses["l_flow"])


def test_schedules_count_samples_or_as_the_report_did() -> None:
    matching = {
        "epsilon": {"start": 0.1, "end": 0.01, "over": 50_000, "shape": "exponential"},
        "fgw_lambda": {"start": 0.1, "end": 0.5, "over": 50_000},
    }
    for legacy, done in ((False, 100_000), (True, 3125)):
        model = build(matching=matching, legacy_schedule=legacy)
        logs = only_update(model, batch(), step=3125).logs
        assert logs["fgw_lambda"] == pytest.approx(min(0.1 + 0.4 * done / 50_000, 0.5))
        assert logs["epsilon"] == pytest.approx(max(0.1 * 0.1 ** (done / 50_000), 0.01))
    assert logs["fgw_lambda"] == 0.125 and round(float(logs["epsilon"]), 3) == 0.087, "the report's figures"


def test_features_that_are_not_finite_give_losses_that_are_not() -> None:
    model = build()
    with torch.no_grad():
        next(model.networks["g"].parameters()).fill_(torch.nan)
    update = only_update(model, batch())
    assert not torch.isfinite(update.losses["l_flow"]), "so the trainer's guard skips the step"


# ------------------------------------------------------------------ generating
def test_an_image_belongs_to_its_seed_and_class() -> None:
    model = build()
    model.networks["g"].eval()
    with torch.no_grad():
        every = model.predict({"seed": torch.arange(6)})["output"]
        some = model.predict({"seed": torch.tensor([4, 1]), "label": torch.tensor([0, 1])})["output"]
        expected = model.networks["g"](normal_of([4], 3, 8, 8), 0.0, torch.tensor([0]))
        other = model.predict({"seed": torch.tensor([4]), "label": torch.tensor([-1])})["output"]
    torch.testing.assert_close(every[[4, 1]], some, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(some[:1], ((expected + 1) / 2).clamp(0, 1), rtol=1e-4, atol=1e-5)
    assert every.min() >= 0 and every.max() <= 1 and (other - some[:1]).abs().max() > 1e-4
    assert one_hot(torch.tensor([1, -1]), 2).tolist() == [[0, 1], [0, 0]]


# ------------------------------------------------------------------ mistakes
@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"features": None}, "train: matching needs features"),
        (
            {"features": None, "matching": {"pairing": "random"}, "losses": {"f": {"type": "FeatureLoss"}}},
            "f_opt needs",
        ),
        (
            {"matching": {"pairing": "random"}, "losses": {"s": {"type": "StructureLoss", "against": "plan"}}},
            "s_opt is against a plan, which matching.pairing random does not make",
        ),
        ({"label_dim": 1}, "the training set has 2 classes, but network_g.label_dim is 1"),
        (
            {"label_dim": 3},
            "network_g.label_dim is 3, but no training image is of class 2: number classes from 0 without",
        ),
        (
            {"label_dim": 0, "matching": {"labels": "same_class"}},
            "matching.labels: same_class needs classes: network_g.label_",
        ),
        ({"label_dim": 9}, "no training image is of classes 2 and 6 more"),
        ({"times": {"stage1": [0.5, 0.2]}}, r"stage1: \[0.5, 0.2\] is no interval"),
    ],
)
def test_mistakes_are_one_line(own: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        build(**own)
    assert "\n" not in str(caught.value)


def test_other_networks_datasets_batches_and_states() -> None:
    with pytest.raises(UserError, match="Conv2d is no generator"):
        GenerationModel({"g": nn.Conv2d(1, 1, 1)}, {})
    with pytest.raises(UserError, match="c_opt compares with the averaged generator: set ema_halflife, or ema_decay"):
        build({"c": {"type": "ConsistencyLoss"}}).begin(1)
    with pytest.raises(
        UserError, match="b_opt: BoundaryLoss needs t, point of every sample, which RestorationModel does"
    ):
        RestorationModel({"g": nn.Conv2d(1, 1, 1)}, {"b": build_loss({"type": "BoundaryLoss"})})
    model = build()
    with pytest.raises(UserError, match="training images are 3x16x16, but network_g makes 3x8x8"):
        model.prepare(build_dataset({**FACES, "resolution": 16}, phase="train"), torch.device("cpu"))
    with pytest.raises(UserError, match="use NoiseDataset"):
        model.predict({"gt": torch.zeros(1, 3, 8, 8)})
    with pytest.raises(UserError, match=r"network_g\.label_dim is 2, but the training images have no classes"):
        model.prepare(build_dataset({**FACES, "source": "faces"}, phase="train"), torch.device("cpu"))
    other = build(features={"type": "pixel_avgpool", "size": 4})
    with pytest.raises(UserError, match=r"begun with the memory bank 'random_conv-.*these options make 'pixel_avgpool"):
        other.load_state_dict(model.state_dict())
    with pytest.raises(UserError, match="4 generated images are matched at once, but the memory has 3 rows"):
        only_update(build(bank={"subset": 3}), batch())


# ------------------------------------------------------------------ whole runs
def run(folder: Path, opt: dict[str, Any], auto_resume: bool = False) -> dict[str, Any]:
    opt = {**opt, "path": {"experiments_root": str(folder / "experiments")}}
    train_pipeline(options.check(opt), auto_resume=auto_resume)
    root = folder / "experiments/toy"
    state = torch.load(root / "training_states/6.state", weights_only=True) if opt["train"]["total_iter"] == 6 else {}
    weights = torch.load(root / "models/net_g_latest.pth", weights_only=True)
    lines = (root / "metrics.jsonl").read_text().splitlines()
    return {"state": state, "weights": weights, "lines": lines, "root": root}


def test_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    opt = settings(train__accumulate=2, train__bank__cache=str(tmp_path / "bank"))
    whole = run(tmp_path / "whole", opt)
    run(tmp_path / "parts", {**opt, "train": {**opt["train"], "total_iter": 3}})
    parts = run(tmp_path / "parts", opt, auto_resume=True)
    assert differences(whole["weights"], parts["weights"]) == []
    assert differences(whole["state"], parts["state"]) == []
    assert len(list((tmp_path / "bank").iterdir())) == 1, "the features were computed once"
    assert (whole["root"] / "visualization/held_out/grid_6.png").exists()
    assert all(f'"l_{name}"' in whole["lines"][-2] for name in ("structure", "plan", "consistency"))
    assert '"perplexity"' in whole["lines"][-2]


@pytest.mark.parametrize("precision", ["bf16"])
def test_mixed_precision_and_clipping(tmp_path: Path, precision: str) -> None:
    short = settings(train__amp=precision, train__grad_clip_norm=0.5, train__total_iter=2, val__val_freq=None)
    done = run(tmp_path, short)
    assert all(torch.isfinite(v).all() for v in done["weights"]["params"].values())


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    """Under global matching, with a sharded bank; the one rank takes as micro-batches what the two take at once.

    (Structure and boundary losses are statistics of a micro-batch: a batch of eight has others than two of four.)
    """
    common = {"train__matching__scope": "global", "train__bank__shard": True, "val__metrics": {}}
    one = settings(**common, train__accumulate=2)
    two = settings(**common)
    for folder, opt, ranks in (("one", one, 1), ("two", two, 2)):
        done = train(tmp_path / folder, opt, ranks=ranks)
        assert done.returncode == 0, done.stdout + done.stderr
    a, b = (torch.load(tmp_path / f / "experiments/toy/models/net_g_6.pth", weights_only=True) for f in ("one", "two"))
    for key in ("params", "params_ema"):
        for name, tensor in a[key].items():
            torch.testing.assert_close(tensor, b[key][name], rtol=1e-3, atol=2e-5, msg=f"{key} {name}")


@pytest.mark.parametrize("changes", [{"train__bank": {"subset": 30}}, {"train__matching": None, "train__bank": None}])
def test_mirroring_that_would_change_nothing_is_refused(changes: dict[str, Any]) -> None:
    opt = settings(**changes)
    opt["train"] = {k: v for k, v in opt["train"].items() if v is not None}
    with pytest.raises(UserError, match=r"use_hflip: has no effect where images are matched.*bank: \{flips: true\}"):
        options.check(opt)
    options.check({**opt, "train": {**opt["train"], "matching": {"pairing": "random"}}})


def test_what_a_mode_ignores_is_refused() -> None:
    for block, given, otherwise in (
        ("times", {"alpha": 3.0}, {"distribution": "beta"}),
        ("times", {"distribution": "uniform", "std": 2.0}, {"distribution": "logit_normal"}),
        ("matching", {"topk": 3}, {"target": "topk"}),
        ("matching", {"labels": "ignore", "label_penalty": 2.0}, {"labels": "penalty"}),
    ):
        opt = settings()
        opt["train"][block] = {**opt["train"].get(block, {}), **given}
        with pytest.raises(UserError, match=rf"train\.{block}\.{[*given][-1]}: has no effect with \w+: \w+, only with"):
            options.check(opt)
        opt["train"][block] |= otherwise
        options.check(opt)


def test_seconds_per_thousand_images_are_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    opt = settings(train__total_iter=2, train__accumulate=2, logger__print_freq=1, logger__train_image_freq=2)
    train_pipeline(opt)
    lines = [r for r in records(tmp_path / "experiments" / "toy") if "metrics" not in r]
    for line in lines:
        assert line["perf/seconds_per_kimg"] == pytest.approx(1000 * line["perf/time"] / 8, rel=1e-5)
    assert capsys.readouterr().out.count("[s/kimg: ") == 2
    assert (tmp_path / "experiments/toy/visualization/training/2.png").is_file()
