"""Losses of one-step generation against the original's float64 values and gradients, and what was mended against it."""

from __future__ import annotations

import pytest
import torch

from relume.core.errors import UserError
from relume.losses import build_loss
from relume.losses.generation.flow import pseudo_huber, snr_weights
from relume.losses.ot import targets
from relume.losses.ot.costs import euclidean


@pytest.fixture(scope="module")
def stored(golden):
    return torch.load(golden("generation/losses.pt"), weights_only=True)


class Check:
    """Compares values and gradients with those of the stored cases."""

    def __init__(self, stored):
        self.stored = stored

    def inputs(self, case):
        return {k: v.clone().requires_grad_(k in case["grad_wrt"]) for k, v in self.stored["inputs"].items()}

    def cases(self, name):
        found = [c for c in self.stored["cases"] if c["name"] == name]
        assert found
        return found

    def __call__(self, name, value_of):
        for case in self.cases(name):
            x = self.inputs(case)
            value, share = value_of(case["params"], x)
            value = value * share
            torch.testing.assert_close(value, case["value"], rtol=1e-10, atol=1e-12)
            grads = torch.autograd.grad(value, [x[k] for k in case["grad_wrt"]])
            for found, expected in zip(grads, case["grads"], strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)


@pytest.fixture
def check(stored):
    return Check(stored)


def loss(kind, **options):
    return build_loss({"type": kind, **options})


def test_pseudo_huber(check):
    def value(p, x):
        if p["weighted"]:
            k = p["c"] * (x["gen"][0].numel() ** 0.5 if p["scale_by_dim"] else 1)
            return (x["weight"] * pseudo_huber(x["gen"] - x["tgt"], k)).mean(), 1
        return loss("PseudoHuberLoss", c=p["c"], scale=p["scale_by_dim"])(x["gen"], x["tgt"]), 1

    check("pseudo_huber", value)
    check("pseudo_huber_2d", lambda p, x: (loss("PseudoHuberLoss", c=p["c"])(x["feat_gen"], x["feat_tgt"]), 1))


def test_multi_scale(check):
    def of(criterion):
        return lambda p, x: (
            loss("MultiScaleLoss", scales=p["scales"], criterion=criterion(p))(x["gen"], x["tgt"]),
            1,
        )

    check("multiscale", of(lambda p: {"type": "PseudoHuberLoss", "c": p["c"]}))
    check("multiscale_mse", of(lambda p: {"type": "MSELoss"}))


def test_first_flow_loss(check):
    def value(p, x):
        options = {"norm": p["loss_type"], "c": p["huber_c"], "scale": False}
        return loss("PseudoHuberLoss", **options)(x["gen"], x["tgt"]), 1

    check("flow_matching_v1", value)


def test_features(check):
    check("feature_cosine", lambda p, x: (loss("FeatureLoss")(x["feat_gen"], x["feat_tgt"]), 1))
    check("feature_l2", lambda p, x: (loss("FeatureLoss", metric="l2")(x["feat_gen"], x["feat_tgt"]), 1))


def matched(x):
    return x["feat_mem"][targets.argmax(x["coupling"])]


def test_structure(check):
    check(
        "structure",
        lambda p, x: (loss("StructureLoss", normalize=p["normalize"])(x["feat_gen"], matched(x)), 1),
    )


def boundary(p, x, c=None):
    """Our loss averages over samples at the ends only; the original divided by all four, and compared with noise."""
    metric = "huber" if p["loss_type"] == "huber" else "l2"
    ours = loss("BoundaryLoss", ends=p["boundary_type"], metric=metric, c=p["huber_c"])
    there = {"both": 2, "start": 1, "end": 1}[p["boundary_type"]]
    return ours(x["gen"], x["tgt"], t=x["t"], point=x["noise"]), there / 4


def test_boundary(check):
    check("boundary", boundary)


def test_boundary_without_samples_at_an_end_is_a_zero_tensor(stored):
    x = stored["inputs"]
    value = loss("BoundaryLoss")(x["gen"].clone().requires_grad_(), x["tgt"], t=torch.full((4,), 0.5), point=x["noise"])
    assert isinstance(value, torch.Tensor) and value.item() == 0
    value.backward()


def test_consistency(check):
    def value(p, x):
        gap = check.stored["consistency_s"] - x["t"]
        return loss("ConsistencyLoss", c=p["huber_c"])(x["gen"], x["tgt"], gap=gap), 1

    check("consistency", value)


OF_THE_ORIGINAL = {"truncated_snr": "clipped_snr", "min_snr": "min_snr_noise"}
"""Weights that are not what their names mean in the papers, by the original's names: what they are called here."""


def test_noise_weights(stored):
    sigma = stored["inputs"]["t"] * stored["flow_sigma_data"]  # the original's noise level
    for kind, expected in stored["adaptive_weights"].items():
        name = kind.removesuffix("_gamma5_f32")
        name = OF_THE_ORIGINAL.get(name, name)
        found = snr_weights(sigma, stored["flow_sigma_data"], name)
        torch.testing.assert_close(
            found.to(expected.dtype), expected, rtol=1e-6 if "f32" in kind else 1e-10, atol=1e-12
        )


def test_totals(stored):
    for case in stored["totals"]:
        x = {k: v.clone() for k, v in stored["inputs"].items()}
        x["gen"].requires_grad_()
        x["feat_gen"].requires_grad_()
        options = case["kwargs"]
        c = options["huber_c"]
        # The original weighs by noise unless it looks at several scales.
        weighting = options.get("weighting_type", "snr")
        weighting = OF_THE_ORIGINAL.get(weighting, weighting)
        weights = snr_weights(x["t"] * stored["flow_sigma_data"], stored["flow_sigma_data"], weighting)
        flow = (weights * pseudo_huber(x["gen"] - x["tgt"], c * x["gen"][0].numel() ** 0.5)).mean()
        if options.get("use_multiscale", True):
            criterion = {"type": "PseudoHuberLoss", "c": c}
            flow = loss("MultiScaleLoss", criterion=criterion)(x["gen"], x["tgt"])
        feature = loss("FeatureLoss", loss_weight=options.get("feature_loss_weight", 0.1))
        found = {"flow_loss": flow, "feature_loss": feature(x["feat_gen"], x["feat_tgt"])}
        if options["use_boundary"]:
            value, share = boundary({"loss_type": "huber", "boundary_type": "both", "huber_c": c}, x)
            found["boundary_loss"] = options.get("boundary_weight", 0.1) * value * share
        if options["use_structure"]:
            weight = options.get("structure_weight", 0.1)
            found["structure_loss"] = loss("StructureLoss", loss_weight=weight)(x["feat_gen"], matched(x))
        for name, value in found.items():
            torch.testing.assert_close(value, case["losses"][name], rtol=1e-10, atol=1e-12, msg=name)
        total = torch.stack(list(found.values())).sum()
        torch.testing.assert_close(total, case["losses"]["total_loss"], rtol=1e-10, atol=0)
        for key in ("gen", "feat_gen"):
            (grad,) = torch.autograd.grad(total, x[key], retain_graph=True)
            torch.testing.assert_close(grad, case[f"grad_{key}"], rtol=1e-9, atol=1e-10)


def test_structures_of_a_plan_with_one_entry_per_row_are_those_of_the_targets(stored):
    x = stored["inputs"]
    chosen = torch.zeros_like(x["coupling"]).scatter(1, x["coupling"].argmax(1, keepdim=True), 0.25)
    expected = targets.expected_distances(chosen, euclidean(x["feat_mem"]))
    found = loss("StructureLoss", against="plan")(x["feat_gen"], matched(x), distances=expected)
    torch.testing.assert_close(found, loss("StructureLoss")(x["feat_gen"], matched(x)), rtol=1e-10, atol=1e-12)


def test_consistency_at_several_scales(stored):
    x = stored["inputs"]
    criterion = {"type": "ConsistencyLoss", "offset": -0.2}
    scaled = loss("MultiScaleLoss", criterion=criterion, scales=[1])
    gap = scaled.gaps(x["t"])
    assert torch.equal(gap, -0.2 * x["t"]) and scaled.context == ("gap",)
    torch.testing.assert_close(scaled(x["gen"], x["tgt"], gap=gap), loss("ConsistencyLoss")(x["gen"], x["tgt"], gap))


@pytest.mark.parametrize("case", [0, 1])
def test_head_of_lpips(stored, case):
    """The lpips package's own heads on given activations: what LPIPSLoss runs after its trunk."""
    import lpips

    from relume.losses.lpips import build_lpips

    expected = stored["lpips_head"][case]
    network = build_lpips("test", expected["net"], "random")
    total = torch.zeros(2, 1, 1, 1)
    for level, (a, b) in enumerate(zip(expected["feats0"], expected["feats1"], strict=True)):
        difference = (lpips.normalize_tensor(a) - lpips.normalize_tensor(b)) ** 2
        head = network.get_submodule(f"lin{level}")
        assert torch.equal(head.get_submodule("model")[1].weight.flatten(), expected["lin_weights"][level])
        total = total + lpips.spatial_average(head.eval()(difference), keepdim=True)
    torch.testing.assert_close(total.flatten(), expected["value_per_image"], rtol=1e-6, atol=1e-6)
    scaling = network.get_submodule("scaling_layer")
    torch.testing.assert_close(scaling.shift.flatten(), expected["shift"])
    torch.testing.assert_close(scaling.scale.flatten(), expected["scale"])


def test_lpips_has_gradients_outside_the_range():
    """The original clamped to [-1, 1] first, where pixels beyond get none."""
    loss_ = loss("LPIPSLoss", net="squeeze", range_norm=True, weights="random")
    x = torch.full((1, 3, 32, 32), 1.5) + torch.linspace(0, 1, 32)
    x.requires_grad_()
    loss_(x, torch.zeros(1, 3, 32, 32)).backward()
    assert (x.grad.abs().sum(1) > 0).float().mean() > 0.5


def test_mistakes_are_one_line():
    a = torch.zeros(2, 3, 6, 6)
    for run, message in (
        (lambda: loss("MultiScaleLoss", criterion={"type": "L1Loss"}, scales=[4])(a, a), "6x6 have no blocks of 4"),
        (lambda: loss("PseudoHuberLoss", weighting="snr")(a, a), "needs the time"),
        (lambda: loss("PseudoHuberLoss", weighting="nsr"), "Did you mean 'snr'"),
        (
            lambda: loss("StructureLoss", against="plan")(a[:, 0, 0], a[:, 0, 0]),
            "needs the distances that a plan expects",
        ),
    ):
        with pytest.raises(UserError, match=message) as caught:
            run()
        assert "\n" not in str(caught.value)


def test_values_are_pinned():
    """The same numbers without the original's files."""
    from filling import waves

    x, y = waves("gen", (4, 3, 8, 8)), waves("tgt", (4, 3, 8, 8))
    f, g = waves("feat", (4, 12)), waves("feat tgt", (4, 12))
    t = torch.tensor([0.0005, 0.3, 0.995, 0.7], dtype=torch.float64)
    found = {
        "huber": loss("PseudoHuberLoss")(x, y),
        "snr": loss("PseudoHuberLoss", weighting="snr")(x, y, t=t),
        "scales": loss("MultiScaleLoss", criterion={"type": "PseudoHuberLoss"})(x, y),
        "feature": loss("FeatureLoss")(f, g),
        "structure": loss("StructureLoss")(f, g),
        "plan": loss("StructureLoss", against="plan")(f, g, distances=(g @ g.t()).square()),
        "boundary": loss("BoundaryLoss")(x, y, t=t, point=0.5 * x),
        "consistency": loss("ConsistencyLoss")(x, y, gap=0.1 * t),
    }
    assert {k: float(v) for k, v in found.items()} == pytest.approx(PINNED, rel=1e-6)


PINNED = {
    "huber": 13.194094,
    "snr": 13.203082,
    "scales": 5.5524335,
    "feature": 0.69730662,
    "structure": 0.0015994017,
    "plan": 0.495086,
    "boundary": 9.0329974,
    "consistency": 13.179327,
}
