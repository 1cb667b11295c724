"""The one-step generator and its U-Net against the original implementations, published sizes, and their own definitions."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import reference_generation
import torch
from filling import fill, image, waves
from torch import Tensor, nn

from relume.archs import build_network
from relume.archs.edm_unet import SongUNet, UNetBlock, resample
from relume.archs.onestep_generator import PRECONDITIONINGS, OneStepGenerator
from relume.core.errors import UserError

TINY = {"img_resolution": 8, "model_channels": 8, "channel_mult": [1, 2], "num_blocks": 1, "attn_resolutions": [4]}


def build(**options: Any) -> OneStepGenerator:
    network = build_network({"type": "OneStepGenerator", **TINY, **options})
    assert isinstance(network, OneStepGenerator)
    return network.eval()


def filled(**options: Any) -> OneStepGenerator:
    network = build(**options)
    fill(network)
    return network


def noise(name: str, *shape: int) -> Tensor:
    return 2 * waves(name, shape).float()


# -------------------------------------------------------------------------------- goldens
CASES = [
    "onestep_0",
    "boundary_mask_0",
    "boundary_affine_0",
    "boundary_none_0",
    "report_rev_boundary_mask",
    "report_rev_boundary_subtraction",
    "edm_precond_0",
    "onestep_1",
    "boundary_mask_1",
    "edm_precond_1",
    "songunet_ncsnpp",
    "songunet_skip",
]


def golden_call(case: dict[str, Any]) -> tuple[nn.Module, Callable[..., Tensor], Callable[..., Tensor] | None]:
    """The network of a golden case, the method that the case is the output of, and the one for its velocity."""
    config = dict(case["config"])
    kind = config.pop("boundary_type", "flow")
    if case["name"].startswith("report_rev"):
        kind = f"legacy_{kind}"
    if case["kind"] == "OneStepGenerator":
        kind = "legacy_onestep"
    network = build(**config, preconditioning=kind)
    if case["kind"] == "SongUNet":
        return network.model, network.model, None
    if case["kind"].startswith("EDMPrecond"):
        return network, network.denoise, None
    return network, network, network.velocity


@pytest.mark.parametrize("name", CASES)
def test_original_outputs_and_gradients(name: str, golden: Callable[[str], Path]) -> None:
    stored = torch.load(golden("generation/generator.pt"), weights_only=True)
    case = next(c for c in stored["cases"] if c["name"] == name)
    network, call, velocity = golden_call(case)
    network.load_state_dict({**stored["weights"][case["weights"]], **case["extra_state"]}, strict=True)
    assert sum(p.numel() for p in network.parameters()) == case["num_params"]
    inputs = {k: v for k, v in case["inputs"].items() if k != "x"}
    x = case["inputs"]["x"].clone().requires_grad_()
    output = call(x, **inputs)
    (output * case["w"]).sum().backward()
    close = {"rtol": 1e-4, "atol": 1e-5}
    torch.testing.assert_close(output, case["output"], **close)
    torch.testing.assert_close(x.grad, case["grad_input"], **close)
    parameters = dict(network.named_parameters())
    for key, gradient in case["grad_params"].items():
        torch.testing.assert_close(parameters[key].grad, gradient, **close)
    if "velocity" in case:
        assert velocity is not None
        before_the_end = inputs["t"] < 1  # there, the division by 1e-5 amplifies rounding
        found, expected = velocity(x.detach(), **inputs), case["velocity"]
        torch.testing.assert_close(found[before_the_end], expected[before_the_end], **close)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-2)


@torch.no_grad()
def cosine_fill(network: nn.Module, k0: float) -> None:
    """The rule by which the full-size goldens were filled."""
    for j, (name, p) in enumerate(sorted(network.named_parameters())):
        i = torch.arange(p.numel(), dtype=torch.float64)
        v = torch.cos(0.37 * i * (1 + (j % 7) / 10) + 1.3 * j + k0).reshape(p.shape)
        if p.dim() >= 2:
            v *= math.sqrt(2 / p[0].numel())
        else:
            v = 1 + 0.1 * v if "norm" in name and name.endswith("weight") else 0.1 * v
        p.copy_(v)


@pytest.mark.parametrize("index", range(2))
@torch.no_grad()
def test_originals_at_full_size(index: int, golden: Callable[[str], Path]) -> None:
    stored = torch.load(golden("generation/generator_fullsize.pt"), weights_only=True)
    case = stored["cases"][index]
    network = build_network({"type": "OneStepGenerator", **case["config"], "preconditioning": "affine"}).eval()
    assert {k: list(v.shape) for k, v in network.state_dict().items()} == case["manifest"]
    assert sum(p.numel() for p in network.parameters()) == case["num_params"]
    cosine_fill(network, stored["k0"])
    x, labels = case["x"], case["class_labels"]
    found = {"affine": network(x, t=case["t"], class_labels=labels)}
    network.preconditioning = "legacy_onestep"
    found["onestep"] = network(x, class_labels=labels)
    found["songunet"] = network.model(x, case["noise_labels"], labels)
    for name, output in found.items():
        torch.testing.assert_close(output, case[f"output_{name}"], rtol=0, atol=2e-4)


# -------------------------------------------------------------------------------- without goldens
SETTINGS: dict[str, dict[str, Any]] = {
    "classes, two attentive levels": {
        "img_resolution": 12, "channel_mult": [1, 2, 3], "attn_resolutions": [12, 6], "num_blocks": 2, "label_dim": 4,
    },
    "augmentations, long filter, one level": {"channel_mult": [2], "augment_dim": 5, "resample_filter": [1, 3, 3, 1]},
    "fourier, skip to residual": {
        "embedding_type": "fourier", "channel_mult_noise": 2, "encoder_type": "residual", "decoder_type": "skip",
        "channel_mult": [1, 1, 2], "resample_filter": [1, 3, 3, 1], "channel_mult_emb": 2,
    },
    "skip encoder, grey": {"encoder_type": "skip", "img_channels": 1, "attn_resolutions": [], "resample_filter": [1, 3, 3, 1]},
}  # fmt: skip


@pytest.mark.parametrize("setting", list(SETTINGS))
def test_equals_a_transcription_in_value_and_gradient(setting: str) -> None:
    """At settings and sizes, not square ones too, that the stored outputs do not have."""
    defaults = {"encoder_type": "standard", "decoder_type": "standard", "resample_filter": [1, 1]}
    options = {**defaults, **TINY, **SETTINGS[setting]}
    network = filled(**options).double()
    side, channels = options["img_resolution"], options.get("img_channels", 3)
    x = noise("x", 2, channels, side, 2 * side).double().requires_grad_()
    c_noise = torch.tensor([-0.4, 0.9], dtype=torch.float64)
    labels = torch.eye(4, dtype=torch.float64)[[2, 0]] if "label_dim" in options else None
    augment = waves("augment", (2, 5)) if "augment_dim" in options else None
    p = {**dict(network.model.named_parameters()), **dict(network.model.named_buffers())}
    found = network.model(x, c_noise, labels, augment)
    expected = reference_generation.unet(p, x, c_noise, labels, augment, options)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    inputs, weight = [x, *network.model.parameters()], noise("w", *found.shape)
    gradients = [torch.autograd.grad((y * weight).sum(), inputs) for y in (found, expected)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("kind", ["flow", "affine", "mask", "none", "legacy_onestep"])
def test_preconditionings_by_their_formulas(kind: str) -> None:
    """Around a network that is a known function of what it sees."""
    network = build(preconditioning=kind, sigma_data=0.7).double()
    network.model.forward = lambda x, c_noise, *_: x.sin() + c_noise[:, None, None, None]  # type: ignore[method-assign]
    x, s = noise("x", 3, 3, 8, 8).double(), 0.7
    times = torch.tensor([0.0, 0.3, 0.95], dtype=torch.float64)

    def denoised(y: Tensor, sigma: float, scale: float = 1.0) -> Tensor:
        norm = math.sqrt(sigma**2 + s**2)
        inside = (scale * y / norm).sin() + math.log(sigma) / 4
        return s**2 / norm**2 * y + sigma * s / norm * inside

    for y, t, output, velocity in zip(x, times, network(x, times), network.velocity(x, times), strict=True):
        t = float(t)
        falling = s * (1 - t) + 1e-5
        if kind == "flow":
            expected = denoised(80 * y if t == 0 else y / t, 80 if t == 0 else (1 - t) / t)
            direction = (expected - y) / (1 - t + 1e-5)
        elif kind == "affine":
            expected = denoised(y, falling)
            direction = (expected - y) / (1 - t + 1e-5)
        elif kind == "legacy_onestep":
            expected = denoised(y, s, scale=s)
            direction = (expected - y) / (1 - t + 1e-5)
        else:
            direction = (denoised(y, falling) - y) * (1 - t if kind == "mask" else 1)
            expected = y + (1 - t) * direction
        torch.testing.assert_close(output, expected, rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(velocity, direction, rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"label_dim": 10}, 61_805_827),
        ({}, 61_804_419),
        ({"channel_mult": [2, 2, 2]}, 55_732_739),
        ({"channel_mult": [2, 2, 2], "augment_dim": 9}, 55_733_891),
        ({"channel_mult": [2, 2, 2], "label_dim": 10, "augment_dim": 9}, 55_735_299),
    ],
)
def test_published_sizes(options: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        network = build_network({"type": "OneStepGenerator", "img_resolution": 32, **options})
    assert sum(p.numel() for p in network.parameters()) == count


@torch.no_grad()
def test_fingerprint() -> None:
    network = filled(label_dim=3, encoder_type="residual", resample_filter=[1, 3, 3, 1])
    y = network(noise("z", 2, 3, 8, 8), torch.tensor([0.0, 0.6]), torch.tensor([2, 0]))
    assert y.shape == (2, 3, 8, 8)
    found = [float(v) for v in (y.mean(), y.std(), y[0, 0, 0, 0], y[1, 2, 7, 3])]
    assert found == pytest.approx([0.0208254, 0.716686, 0.147692, -0.376053], rel=2e-4)


def test_flow_sees_the_noise_level_that_the_path_has() -> None:
    network = filled(preconditioning="flow")
    x = noise("x", 3, 3, 8, 8)
    torch.testing.assert_close(network(x), network.denoise(80 * x, 80.0))
    torch.testing.assert_close(network(x, 0.5), network.denoise(2 * x, 1.0))
    torch.testing.assert_close(network(x, 0.004), network.denoise(80 / 0.996 * x, 80.0))
    torch.testing.assert_close(network(x, 0.2), network.denoise(5 * x, 4.0))
    torch.testing.assert_close(network(x, 1.0), network.denoise(x, 0.002))
    together = network(x, torch.tensor([0.0, 0.5, 1.0]))
    torch.testing.assert_close(together, torch.stack([network(x, t)[i] for i, t in enumerate((0.0, 0.5, 1.0))]))


@pytest.mark.parametrize("kind", sorted(PRECONDITIONINGS))
def test_every_preconditioning_is_finite_on_the_whole_path(kind: str) -> None:
    network = filled(preconditioning=kind)
    x = noise("x", 5, 3, 8, 8).requires_grad_()
    t = torch.tensor([0.0, 1e-6, 0.3, 0.999999, 1.0])
    output, velocity = network(x, t), network.velocity(x, t)
    assert output.isfinite().all()
    assert velocity.isfinite().all()
    output.square().mean().backward()
    assert x.grad.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())


def test_velocity_leads_to_the_prediction() -> None:
    x, t = noise("x", 2, 3, 8, 8), 0.3
    for kind in sorted(PRECONDITIONINGS):
        network = filled(preconditioning=kind)
        torch.testing.assert_close(x + (1 - t) * network.velocity(x, t), network(x, t), rtol=1e-4, atol=1e-4)


def test_sampling() -> None:
    network = filled(label_dim=3)
    z, labels = noise("z", 2, 3, 8, 8), torch.tensor([1, 2])
    torch.testing.assert_close(network.sample(z, labels), network(z, class_labels=labels))
    middle = z + (network(z, 0.0, labels) - z) / 2
    torch.testing.assert_close(network.sample(z, labels, steps=2), network(middle, 0.5, labels))
    assert not network.sample(z.requires_grad_(), labels).requires_grad


def test_classes_as_indices_or_one_hot() -> None:
    network = filled(label_dim=3)
    z, labels = noise("z", 2, 3, 8, 8), torch.tensor([2, 0])
    by_index = network(z, class_labels=labels)
    torch.testing.assert_close(by_index, network(z, class_labels=nn.functional.one_hot(labels, 3).float()))
    assert (by_index - network(z, class_labels=labels.flip(0))).abs().max() > 1e-3
    torch.testing.assert_close(network(z), network(z, class_labels=torch.zeros(2, 3)))


def test_label_dropout_hides_whole_labels_in_training_only() -> None:
    network = filled(label_dim=3, label_dropout=1.0, dropout=0.0)
    z, labels = noise("z", 2, 3, 8, 8), torch.tensor([2, 0])
    expected = network(z)
    assert (network(z, class_labels=labels) - expected).abs().max() > 1e-3
    torch.testing.assert_close(network.train()(z, class_labels=labels), expected)


def test_dropout_acts_in_training_only() -> None:
    network, z = filled(dropout=0.5), noise("z", 2, 3, 8, 8)
    torch.testing.assert_close(network(z), filled(dropout=0.0)(z))
    torch.manual_seed(0)
    assert (network.train()(z) - network.eval()(z)).abs().max() > 1e-3


def test_half_precision_keeps_its_islands() -> None:
    network = filled(label_dim=3)
    z, labels = noise("z", 4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    t = torch.tensor([0.0, 0.2, 0.7, 0.99])
    exact, modulation = network(z, t, labels), network.model.embed(t, labels, None)
    with torch.autocast("cpu", torch.bfloat16):
        output = network(z, t, labels)
        assert torch.equal(network.model.embed(t, labels, None), modulation)
    assert output.dtype == torch.float32
    assert (output - exact).norm() < 0.03 * exact.norm()
    assert (output - exact).norm() > 1e-5 * exact.norm(), "the network did not run in half precision"
    output = network.bfloat16()(z, t, labels)
    assert output.dtype == torch.float32
    assert (output - exact).norm() < 0.05 * exact.norm()


def test_norm_statistics_survive_half_precision() -> None:
    norm = build().model.enc["8x8_block0"].norm0
    x = 300 + noise("x", 2, 8, 8, 8)
    expected = norm(x.bfloat16().float())
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(norm(x.bfloat16()).float(), expected, rtol=0.01, atol=0.01)


def test_attention_is_softmax_attention_with_interleaved_planes() -> None:
    qkv = noise("qkv", 2, 12, 3, 5).double()
    q, k, v = (qkv[:, i::3].flatten(2) for i in range(3))
    weights = torch.einsum("bcq,bck->bqk", q, k).div(2).softmax(-1)  # the root of 4 channels
    expected = torch.einsum("bqk,bck->bcq", weights, v).reshape(2, 4, 3, 5)
    torch.testing.assert_close(UNetBlock.attend(qkv), expected)


def test_resampling_filters() -> None:
    x = noise("x", 2, 3, 4, 6)
    box = SongUNet(8, **{k: v for k, v in TINY.items() if k != "img_resolution"}).enc["4x4_down"].conv0.resample_filter
    torch.testing.assert_close(resample(x, box, up=False), nn.functional.avg_pool2d(x, 2))
    torch.testing.assert_close(resample(x, box, up=True), nn.functional.interpolate(x, scale_factor=2))


def test_a_fresh_network_is_nearly_its_skip() -> None:
    """Layers that end a residual branch start near zero, so the denoiser starts as c_skip x."""
    x = noise("x", 2, 3, 8, 8)
    torch.testing.assert_close(build().denoise(x, 0.5), x / 2, rtol=0, atol=1e-2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"preconditioning": "afine"}, r"no preconditioning is called 'afine'\. Did you mean 'affine'\?"),
        ({"img_resolution": 9}, r"img_resolution 9 cannot be halved 1 times"),
        ({"model_channels": 6}, r"18 channels \(of model_channels and channel_mult\)"),
        ({"model_channels": 5}, r"must be an even number from 4 on, not 5"),
        ({"model_channels": 0}, r"model_channels must be at least 1, not 0"),
        ({"channel_mult": []}, r"the number of channel_mult must be at least 1, not 0"),
        ({"channel_mult": [1, 0]}, r"channel_mult must be at least 1, not 0"),
        ({"num_blocks": 0}, r"num_blocks must be at least 1, not 0"),
        ({"label_dim": -1}, r"label_dim must be at least 0, not -1"),
        ({"dropout": 1.5}, r"dropout must be at least 0 and at most 1, not 1\.5"),
        ({"sigma_data": 0.0}, r"sigma_data must be above 0, not 0\.0"),
        ({"encoder_type": "residul"}, r"encoder_type cannot be 'residul'\. Did you mean 'residual'\?"),
        ({"resample_filter": [1, 2, 1]}, r"even number of taps"),
    ],
)
def test_impossible_settings(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(**options)


def test_impossible_inputs() -> None:
    network, z = build(label_dim=3), image("z", 2, 3, 8, 8)
    with pytest.raises(UserError, match=r"class labels of shape \(2, 4\): with label_dim 3"):
        network(z, class_labels=torch.zeros(2, 4))
    with pytest.raises(UserError, match="set augment_dim"):
        network(z, augment_labels=torch.zeros(2, 9))
    with pytest.raises(UserError, match=r"augmentation labels of shape \(2, 8\), not \(2, 9\)"):
        build(augment_dim=9)(z, augment_labels=torch.zeros(2, 8))
    with pytest.raises(UserError, match="steps must be at least 1, not 0"):
        network.sample(z, torch.tensor([0, 1]), 0)
    with pytest.raises(UserError, match="set label_dim"):
        build()(z, class_labels=torch.tensor([0, 1]))
    with pytest.raises(UserError, match="both sides must be multiples of 2"):
        network(image("z", 2, 3, 7, 8))
    with pytest.raises(UserError, match=r"images of shape \(2, 1, 8, 8\), but the network is for \(B, 3, H, W\)"):
        network(z[:, :1])
    with pytest.raises(UserError, match=r"images of shape \(3, 8, 8\)"):
        network.denoise(z[0], 1.0)
    with pytest.raises(
        UserError, match=r"a time or noise level of shape \(3,\); a batch of 2 needs a number or \(2,\)"
    ):
        network(z, torch.zeros(3))
    for labels in (torch.tensor([0, 3]), torch.tensor([-1, 0])):
        with pytest.raises(UserError, match="class labels must be from 0 to 2"):
            network(z, class_labels=labels)
