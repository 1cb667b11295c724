"""Discriminators against the originals, over a sequence of passes, and what they refuse."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from adversarial import near
from torch import Tensor

from relume.archs import build_network
from relume.archs.discriminators.spectral import SpectralConv2d
from relume.core.errors import UserError

KINDS = [
    "vgg128", "vgg256", "unet_skip", "unet_noskip", "kair_patch_spectral", "kair_patch_other", "kair_patch_plain",
    "trainner_patch_sn", "trainner_multiscale_sn", "pix2pix_nlayer", "pix2pixhd_multiscale", "pix2pixhd_features", "hifacegan",
]  # fmt: skip


def tensors(value):
    return [value] if isinstance(value, Tensor) else [t for part in value for t in tensors(part)]


@pytest.fixture(scope="module")
def cases(golden):
    return {c["name"]: c for c in torch.load(golden("adversarial/discriminators.pt"), weights_only=True)["cases"]}


@pytest.mark.parametrize("name", KINDS)
def test_passes_gradients_and_buffers_are_the_originals(name, cases):
    case = cases[name]
    network = build_network({"type": case["type"], **case["config"]})
    network.load_state_dict(case["state_dict"], strict=True)
    assert sum(p.numel() for p in network.parameters()) == case["parameters"]
    inputs = case.get("inputs") or [
        F.interpolate(x, size=case["input_size"], mode="bilinear", align_corners=False) for x in case["coarse"]
    ]
    for number, step in enumerate(case["sequence"]):
        network.train(step["mode"] == "train")
        x = inputs[step["input"]].clone().requires_grad_()
        outputs = tensors(network(x))
        for found, wanted in zip(outputs, step["outputs"], strict=True):
            near(found, wanted, case["rtol"], f"pass {number}")
        if "cotangents" in step:
            network.zero_grad()
            torch.stack([(y * c).sum() for y, c in zip(outputs, step["cotangents"], strict=True)]).sum().backward()
            assert x.grad is not None
            near(x.grad.flatten()[:: case["stride"]], step["input_grad"], case["grad_rtol"])
            for key, wanted in step["param_grads"].items():
                gradient = network.get_parameter(key).grad
                assert gradient is not None
                near(gradient, wanted, case["grad_rtol"], key)
        for key, wanted in step.get("buffers_after", {}).items():
            found = network.state_dict()[key]
            if wanted.dtype == torch.int64:
                assert found == wanted
            else:
                near(found, wanted, 1e-4, key)


def dino(**options):
    pytest.importorskip("timm")
    return build_network(
        {"type": "DINODiscriminator", "backbone": "test_vit", "weights": "random", "blocks": [1, 3], **options}
    )


def test_dino_judges_every_patch_through_a_frozen_network():
    network = dino()
    x = torch.rand(2, 3, 64, 40, requires_grad=True)
    logits = network(x)
    assert logits.shape == (2, 2 * 4 * 2)  # 40 pixels are two patches of 16, rounded
    logits.mean().backward()
    assert x.grad is not None
    assert x.grad.any()
    assert all(p.grad is not None and p.grad.any() for p in network.parameters() if p.dim() > 1)
    assert {name.split(".")[0] for name in network.state_dict()} == {"heads"}
    assert not network.train().network.training
    assert all(not p.requires_grad and p.grad is None for p in network.network.parameters())
    # The backbone is the same wherever it is built, and images are independent of each other.
    twin = dino()
    twin.load_state_dict(network.state_dict())
    with torch.no_grad():
        whole = network.eval()(x)
        torch.testing.assert_close(twin.eval()(x), whole)
        torch.testing.assert_close(network(x[1:]), whole[1:])
        assert dino(input_size=32)(x).shape == (2, 2 * 3 * 2)


def test_dino_sees_the_tokens_of_its_blocks(tmp_path):
    """Heads on what forward hooks of timm's own network catch; the backbone's weights come from a file with more in it."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(3)
    peer = timm.create_model("test_vit", dynamic_img_size=True).eval()
    torch.save(peer.state_dict(), tmp_path / "vit.pth")
    network = dino(weights=str(tmp_path / "vit.pth")).eval()
    caught = []
    for i in (1, 3):
        peer.blocks[i].register_forward_hook(lambda module, inputs, output: caught.append(output[:, 1:]))
    x = torch.rand(1, 3, 48, 32)
    with torch.no_grad():
        peer((x - network.mean) / network.std)
        wanted = torch.cat([head(tokens) for head, tokens in zip(network.heads, caught, strict=True)], 1)
        torch.testing.assert_close(network(x), wanted)


def test_dino_refuses_what_is_not_there(tmp_path):
    torch.save({"cls_token": torch.zeros(1, 1, 3)}, tmp_path / "other.pth")
    for options, text in (
        ({"weights": None}, "needs the weights of test_vit"),
        ({"weights": str(tmp_path / "no.pth")}, "no.pth"),
        ({"weights": str(tmp_path / "other.pth")}, "other.pth"),
        ({"blocks": [40]}, "has blocks 0 to"),
        ({"backbone": "nothing"}, "timm has no model 'nothing'"),
        ({"backbone": "test_resnet"}, "no vision transformer"),
    ):
        with pytest.raises(UserError, match=text):
            dino(**options)


@pytest.mark.parametrize("size", [16, 64, 96, 192])
def test_vgg_takes_every_size_that_ends_in_whole_pixels(size):
    network = build_network({"type": "VGGStyleDiscriminator", "num_feat": 2, "input_size": size})
    assert network(torch.rand(2, 3, size, size)).shape == (2, 1)


@pytest.mark.parametrize("size", [4, 7, 100, 130, 112 + 4])
def test_vgg_refuses_other_sizes(size):
    with pytest.raises(UserError, match="whole pixels"):
        build_network({"type": "VGGStyleDiscriminator", "input_size": size})


@pytest.mark.parametrize(
    ("options", "shape"),
    [
        ({"type": "VGGStyleDiscriminator"}, (2, 3, 96, 96)),
        ({"type": "VGGStyleDiscriminator"}, (2, 3, 128, 120)),
        ({"type": "UNetDiscriminatorSN"}, (1, 3, 36, 32)),
        ({"type": "UNetDiscriminatorSN", "skip_connection": False}, (1, 3, 32, 33)),
        ({"type": "UNetDiscriminatorSN"}, (1, 1, 32, 32)),
        ({"type": "PatchGANDiscriminatorSN"}, (1, 3, 16, 16)),
        ({"type": "NLayerDiscriminator"}, (1, 3, 16, 64)),
        ({"type": "MultiscalePatchGANDiscriminatorSN"}, (1, 3, 32, 32)),
    ],
)
def test_images_that_do_not_fit_are_refused_in_words(options, shape):
    with torch.device("meta"):
        network = build_network(options)
        with pytest.raises(UserError, match=f"{shape[-2]}x{shape[-1]}|{shape[-1]}"):
            network(torch.empty(shape))


def test_spectral_norm_is_that_of_torch():
    torch.manual_seed(0)
    ours = SpectralConv2d(3, 5, 3, padding=1)
    theirs = torch.nn.Conv2d(3, 5, 3, padding=1)
    theirs = torch.nn.utils.spectral_norm(theirs)
    theirs.load_state_dict(ours.state_dict(), strict=True)
    x = torch.rand(2, 3, 8, 8)
    for mode in (True, True, False):
        torch.testing.assert_close(ours.train(mode)(x), theirs.train(mode)(x), rtol=1e-5, atol=1e-6)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)


def test_vectors_of_spectral_norm_stay_exact_under_autocast():
    torch.manual_seed(0)
    network = SpectralConv2d(8, 16, 3, padding=1)
    twin = SpectralConv2d(8, 16, 3, padding=1)
    twin.load_state_dict(network.state_dict())
    x = torch.rand(1, 8, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        network(x)
    twin(x)
    assert torch.equal(network.weight_u, twin.weight_u)
    assert torch.equal(network.weight_v, twin.weight_v)


def test_scales_come_apart_for_the_loss_of_several_scales():
    network = build_network(
        {"type": "MultiscalePatchGANDiscriminatorSN", "ndf": 2, "n_layers": 2, "reduce": "none"}
    ).eval()
    maps = network(torch.rand(1, 3, 64, 64))
    network.reduce = "mean"
    assert len(maps) == 3
    torch.manual_seed(0)
    x = torch.rand(1, 3, 64, 64)
    network.reduce = "none"
    wanted = torch.stack([m.mean() for m in network(x)]).mean()
    network.reduce = "mean"
    torch.testing.assert_close(network(x), wanted)
