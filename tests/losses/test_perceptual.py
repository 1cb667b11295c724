"""VGG losses against the originals, and how the network is kept."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from adversarial import near, procedural

from relume.core.errors import UserError
from relume.losses import build_loss
from relume.losses.vgg import VGGFeatures, layer_names

SMALL = {"type": "PerceptualLoss", "layer_weights": {"relu2_2": 1.0}}


@pytest.fixture(scope="session")
def underwater_vgg(vgg_file, recipe):
    r = recipe("underwater/golden_recipe.py")

    def fill(key, shape):
        return (math.sqrt(2) if key.endswith("weight") else 0.1) * r.fill(key, shape, 5)

    return {"vgg19": vgg_file("vgg19", "conv5_4", fill), "vgg16": vgg_file("vgg16", "relu4_3", fill)}


@pytest.mark.parametrize(
    ("key", "opt"),
    [
        ("vgg19_to34_l1", {"layer_weights": {"conv5_4": 1}, "use_input_norm": False}),
        ("vgg19_to15_l1", {"layer_weights": {"relu3_3": 1}, "use_input_norm": False}),
        (
            "vgg16_4blocks_imagenetnorm_224",
            {
                "layer_weights": dict.fromkeys(("relu1_2", "relu2_2", "relu3_3", "relu4_3"), 1),
                "vgg_type": "vgg16",
                "resize": 224,
            },
        ),
    ],
)
def test_spectroformer_values_and_gradients(key, opt, golden, agrees, underwater_vgg):
    d = torch.load(golden("underwater/loss_vgg.pt"), weights_only=True)
    loss = build_loss({"type": "PerceptualLoss", "weights": underwater_vgg[opt.get("vgg_type", "vgg19")], **opt})
    agrees(loss, d["x"], d["y"], d[key])


@pytest.fixture(scope="session")
def hdr_vgg(vgg_file, recipe, golden):
    d = torch.load(golden("hdr/perceptual_recipe_vgg.pt"), weights_only=True)
    r = recipe("hdr/recipe.py")
    return vgg_file("vgg19", "conv5_4", lambda key, shape: r.recipe_tensor(key, shape, d["config"]["seed"]))


@pytest.mark.parametrize("criterion", ["l1", "l2", "fro"])
def test_basicsr_values_and_gradients(criterion, golden, hdr_vgg):
    d = torch.load(golden("hdr/perceptual_recipe_vgg.pt"), weights_only=True)
    opt = {"layer_weights": d["config"]["layer_weights"], "criterion": criterion, "range_norm": criterion == "l2"}
    loss = build_loss(
        {"type": "PerceptualLoss", "perceptual_weight": 0.3, "style_weight": 0.5, "weights": hdr_vgg, **opt}
    )
    pred = d["input"]["pred"].clone().requires_grad_()
    terms = loss(pred, d["input"]["target"])
    expected = d["output"][criterion]
    for term in ("percep", "style"):
        assert terms[term].item() == pytest.approx(float(expected[term]), rel=1e-4)
    (terms["percep"] + terms["style"]).backward()
    torch.testing.assert_close(pred.grad, expected["grad"], rtol=1e-3, atol=1e-4 * float(expected["grad"].abs().max()))


def test_the_block_of_the_hdr_option_file(golden, hdr_vgg):
    d = torch.load(golden("hdr/perceptual_recipe_vgg.pt"), weights_only=True)
    opt = {
        "layer_weights": d["config"]["layer_weights"],
        "perceptual_weight": 0.3,
        "style_weight": 0,
        "criterion": "l1",
    }
    loss = build_loss({"type": "PerceptualLoss", "weights": hdr_vgg, "range_norm": False, **opt})
    value = loss(d["input"]["pred"], d["input"]["target"])  # alone: a style of no weight is not computed
    assert value.item() == pytest.approx(float(d["output"]["hdr_option"]["percep"]), rel=1e-4)


def test_features_are_those_of_a_plain_network(small_vgg_file, images):
    network = VGGFeatures("vgg19", ["conv1_1", "relu1_1", "pool1", "conv2_1"], "it", small_vgg_file)
    f = network.features
    x = images((1, 3, 8, 10))[0]
    conv = torch.nn.functional.conv2d(x, f[0].weight, f[0].bias, padding=1)
    relu = conv.clamp(min=0)
    deep = torch.nn.functional.conv2d(relu, f[2].weight, f[2].bias, padding=1).clamp(min=0)
    pool = deep.view(1, 64, 4, 2, 5, 2).amax(dim=(3, 5))
    last = torch.nn.functional.conv2d(pool, f[5].weight, f[5].bias, padding=1)
    got = network(x)
    assert list(got) == ["conv1_1", "relu1_1", "pool1", "conv2_1"]
    for name, expected in zip(got, (conv, relu, pool, last), strict=True):
        torch.testing.assert_close(got[name], expected)


@pytest.mark.parametrize("vgg_type", ["vgg16", "vgg19"])
def test_layers_and_weights_are_where_torchvision_has_them(vgg_type):
    import torchvision

    with torch.device("meta"):
        theirs = getattr(torchvision.models, vgg_type)(weights=None)
    kinds = {torch.nn.Conv2d: "conv", torch.nn.ReLU: "relu", torch.nn.MaxPool2d: "pool"}
    assert [n[:4] for n in layer_names(vgg_type)] == [kinds[type(layer)] for layer in theirs.features]
    shapes = {k: v.shape for k, v in theirs.state_dict().items() if k.startswith("features.")}
    ours = VGGFeatures(vgg_type, ["pool5"], "it", "random").state_dict()
    assert {k: v.shape for k, v in ours.items()} == shapes


def test_nothing_beyond_the_deepest_layer_is_built(small_vgg_file):
    loss = build_loss({**SMALL, "weights": small_vgg_file})
    assert loss.network.names[-1] == "relu2_2"
    assert len(loss.network.features) == 9


def test_style_and_percep_are_returned_as_asked(small_vgg_file, images):
    def terms(**opt):
        return build_loss({**SMALL, "weights": small_vgg_file, **opt})(*images((1, 3, 16, 16)))

    plain, both = terms(), terms(style_weight=2.0)
    assert isinstance(plain, torch.Tensor) and plain.ndim == 0
    assert list(both) == ["percep", "style"] and float(both["percep"]) == float(plain)
    only = terms(style_weight=1.0, perceptual_weight=0.0)
    assert list(only) == ["style"] and float(both["style"]) == pytest.approx(2 * float(only["style"]))


def test_range_norm_and_gray(small_vgg_file, images):
    pred, target = images((1, 1, 16, 16))
    options = {**SMALL, "weights": small_vgg_file}
    expected = build_loss(options)(pred.expand(-1, 3, -1, -1), target.expand(-1, 3, -1, -1))
    assert torch.equal(build_loss(options)(pred, target), expected)
    signed = build_loss({**options, "range_norm": True})(2 * pred - 1, 2 * target - 1)
    assert float(signed) == pytest.approx(float(expected), rel=1e-5)


def test_the_network_stays_frozen_evaluating_and_out_of_checkpoints(small_vgg_file, images):
    loss = build_loss({**SMALL, "weights": small_vgg_file}).train()
    assert not loss.network.training and not any(p.requires_grad for p in loss.network.parameters())
    assert list(loss.state_dict()) == list(loss.parameters()) == list(loss.children()) == []
    pred, target = images((1, 3, 16, 16))
    target.requires_grad_()
    loss(pred.requires_grad_(), target).backward()
    assert pred.grad is not None and target.grad is None
    assert all(p.grad is None for p in loss.network.parameters())


def test_moves_and_copies_take_the_network_along(small_vgg_file):
    loss = build_loss({**SMALL, "weights": small_vgg_file})
    holder = torch.nn.ModuleDict({"perceptual_opt": loss})
    twin = copy.deepcopy(holder)
    holder.to("meta")
    assert {p.device.type for p in loss.network.parameters()} == {"meta"}
    assert {p.device.type for p in twin["perceptual_opt"].network.parameters()} == {"cpu"}


def test_a_given_file_needs_no_torchvision(small_vgg_file, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "torchvision.models", None)
    build_loss({**SMALL, "weights": small_vgg_file})
    with pytest.raises(UserError, match="PerceptualLoss needs torchvision"):
        build_loss(SMALL)


@pytest.mark.parametrize(
    ("opt", "words"),
    [
        ({"layer_weights": {"conv5_5": 1}}, "vgg19 has no layer 'conv5_5'. Accepted: "),
        ({"layer_weights": {"conv3_4": 1}, "vgg_type": "vgg16"}, "vgg16 has no layer 'conv3_4'"),
        ({"layer_weights": {}}, "layer_weights is empty"),
        ({"vgg_type": "vgg18"}, "vgg_type cannot be 'vgg18'"),
        ({"criterion": "l3"}, "criterion cannot be 'l3'"),
        ({"perceptual_weight": 0}, "leave the loss out"),
    ],
)
def test_impossible_options(opt, words):
    with pytest.raises(UserError) as e:
        build_loss({**SMALL, "weights": "random", **opt})
    assert words in str(e.value) and "\n" not in str(e.value)


def test_images_that_do_not_fit(images):
    loss = build_loss({**SMALL, "layer_weights": {"conv2_1": 1}, "weights": "random"})
    loss(*images((1, 3, 2, 2)))
    with pytest.raises(UserError, match="images of 1x4 are too small for conv2_1, which needs 2 pixels"):
        loss(*images((1, 3, 1, 4)))
    with pytest.raises(UserError, match="1 or 3 channels, these have 4"):
        loss(*images((1, 4, 8, 8)))


def test_the_adversarial_wrappers_losses_are_basicsrs(golden, tmp_path):
    """Five layers at once, style, other norms and criteria."""
    cases = torch.load(golden("adversarial/perceptual.pt"), weights_only=True)["cases"]
    for case in cases:
        torch.save(procedural(case["procedural"]), tmp_path / "vgg19.pth")
        loss = build_loss({"type": "PerceptualLoss", **case["config"], "weights": str(tmp_path / "vgg19.pth")})
        x, gt = case["inputs"]
        x = x.clone().requires_grad_()
        found = loss(x, gt)
        terms = found if isinstance(found, dict) else {"percep": found}
        for name in ("percep", "style"):
            assert (name in terms) == (case[name] is not None), case["name"]
            if name in terms:
                near(terms[name], case[name], 1e-4, f"{case['name']} {name}")
        near(torch.autograd.grad(torch.stack(list(terms.values())).sum(), x)[0], case["input_grad"], 2e-3, case["name"])
