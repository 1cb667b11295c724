"""spandrel's architectures behind the look-up: each one on the list is trained two steps, in tiny settings."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from waits import counted

from relume.archs import ARCHS, build_network, zoo
from relume.archs.zoo import table
from relume.core import options
from relume.core.errors import UserError
from relume.core.runtime.step_graph import Watch

SWIN = {"embed_dim": 12, "depths": [2], "num_heads": [2], "window_size": 8, "upscale": 2, "upsampler": "pixelshuffle"}
SPLIT = {"embed_dim": 32, "depth": [2], "num_heads": [2], "split_size": [4, 4], "upscale": 2, "img_size": 16}
LEVELS = {"num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1}
TINY: dict[str, tuple[dict[str, Any], int]] = {
    "ATD": ({**SWIN, "category_size": 16, "num_tokens": 8, "reducted_dim": 4, "use_checkpoint": False}, 16),
    "AdaCodeSRNet_Contrast": ({"codebook_params": [[32, 16, 16]], "gt_resolution": 64}, 64),
    "CIDNet": ({"channels": [8, 8, 16, 24], "heads": [1, 2, 2, 2]}, 16),
    "CRAFT": ({"embed_dim": 32, "depths": [1], "num_heads": [2], "upscale": 2, "img_size": 64}, 32),
    "DAT": ({**SPLIT, "expansion_factor": 2}, 16),
    "DCTLSA": ({"nf": 10, "num_head": 2, "upscale": 2}, 16),
    "DITN_Real": ({"dim": 12, "ITL_blocks": 1, "SAL_blocks": 1, "upscale": 2}, 16),
    "DnCNN": ({"in_nc": 3, "out_nc": 3, "nc": 8, "nb": 3}, 16),
    "DRCT": ({**SWIN, "gc": 4, "compress_ratio": 3}, 16),
    "DRUNet": ({"in_nc": 3, "out_nc": 3, "nc": [4, 8, 8, 8], "nb": 1}, 16),
    "FBCNN": ({"nb": 1}, 16),
    "FDAT": ({"scale": 2, "embed_dim": 12, "num_groups": 1, "depth_per_group": 2, "num_heads": 2, "mid_dim": 8}, 16),
    "FeMaSRNet": ({"codebook_params": [[32, 16, 16]], "scale_factor": 1, "use_semantic_loss": True}, 64),
    "GFPGANv1Clean": (
        {"out_size": 32, "num_style_feat": 8, "channel_multiplier": 1, "narrow": 0.25, "num_mlp": 2},
        32,
    ),
    "GRL": (
        {
            "embed_dim": 12,
            "upscale": 2,
            "upsampler": "pixelshuffledirect",
            "depths": [2],
            "num_heads_window": [2],
            "num_heads_stripe": [2],
            "img_size": 16,
        },
        16,
    ),
    "HAT": ({**SWIN, "squeeze_factor": 4, "img_size": 16}, 16),
    "IPT": ({"patch_size": 24, "n_feats": 4, "num_heads": 2, "num_layers": 1, "scale": [2]}, 24),
    "KBNet_l": ({**LEVELS, "dim": 24}, 16),
    "KBNet_s": ({"width": 8, "middle_blk_num": 1, "enc_blk_nums": [1], "dec_blk_nums": [1]}, 16),
    "LaMa": ({}, 32),
    "M3SNet": ({"width": 8, "enc_blk_nums": [1, 1, 1, 1]}, 32),
    "MIRNet_v2": ({"n_feat": 16, "n_MRB": 1, "n_RRG": 4, "scale": 1}, 16),
    "MixDehazeNet": ({"embed_dims": [8, 16, 16, 16, 8], "depths": [1, 1, 1, 1, 1]}, 64),
    "MMRRDBNet_test": (
        {
            "num_in_ch": 3,
            "num_out_ch": 3,
            "num_feat": 8,
            "num_block": 1,
            "num_grow_ch": 4,
            "num_feats": [4, 4, 4, 4],
            "num_blocks": [1, 1, 1, 1],
        },
        32,
    ),
    "MoESR": ({"scale": 2, "dim": 8, "n_blocks": 1, "n_block": 1, "expansion_factor": 2.0}, 16),
    "MoSR": ({"upscale": 2, "n_block": 1, "dim": 8}, 16),
    "MPRNet": ({"n_feat": 8, "scale_unetfeats": 4, "scale_orsnetfeats": 4, "num_cab": 1}, 16),
    "OmniSR": ({"num_feat": 16, "up_scale": 2, "block_script_name": "OSA"}, 16),
    "PLKSR": ({"dim": 8, "n_blocks": 1, "upscaling_factor": 2, "ccm_type": "DCCM", "kernel_size": 5}, 16),
    "RealPLKSR": ({"dim": 8, "n_blocks": 1, "upscaling_factor": 2, "kernel_size": 5, "upsampler": "dysample"}, 16),
    "RestoreFormer": (
        {
            "n_embed": 16,
            "embed_dim": 32,
            "ch": 32,
            "ch_mult": [1, 2],
            "num_res_blocks": 1,
            "attn_resolutions": [16],
            "resolution": 32,
            "z_channels": 32,
        },
        32,
    ),
    "RetinexFormer": ({"n_feat": 8, "stage": 1}, 16),
    "RGT": (SPLIT, 16),
    "SAFMN": ({"dim": 8, "n_blocks": 1, "upscaling_factor": 2}, 16),
    "SAFMN_BCIE": ({"dim": 8, "n_blocks": 1, "num_layers": 1, "upscaling_factor": 2}, 32),
    "SCUNet": ({"config": [1, 1, 1, 1, 1, 1, 1], "dim": 64}, 64),
    "SeemoRe": ({"scale": 2, "num_experts": 2, "num_layers": 1, "embedding_dim": 8}, 16),
    "SPAN": ({"num_in_ch": 3, "num_out_ch": 3, "feature_channels": 8, "upscale": 2}, 16),
    "SpandrelRCAN": ({"scale": 2, "n_resgroups": 1, "n_resblocks": 1, "n_feats": 16}, 16),
    "SwiftSRGAN": ({"num_channels": 8, "num_blocks": 1, "upscale_factor": 2}, 16),
    "Swin2SR": ({**SWIN, "img_size": 16}, 16),
    "SwinIR": ({**SWIN, "img_size": 16}, 16),
    "Uformer": ({"embed_dim": 4, "depths": [1] * 9, "num_heads": [1] * 9, "img_size": 128}, 128),
    "UpCunet2x": ({}, 32),
    "UpCunet2x_fast": ({}, 64),
    "UpCunet3x": ({}, 32),
    "UpCunet4x": ({}, 32),
    "fftformer": ({**LEVELS, "dim": 8}, 32),
}
TOO_LARGE = {"CodeFormer": "94 M parameters at 512 x 512", "DDColor": "a ConvNeXt of 200 M parameters"}
SLOW = {"FBCNN", "LaMa", "MixDehazeNet", "SCUNet", "Uformer", "UpCunet2x", "UpCunet2x_fast", "UpCunet3x", "UpCunet4x"}
SLOW |= {"AdaCodeSRNet_Contrast", "FeMaSRNet", "KBNet_l", "RestoreFormer", "GFPGANv1Clean", "fftformer"}
# OmniSR's layer normalisation reads its saved tensors under a name of old.
pytestmark = pytest.mark.filterwarnings("ignore:'saved_variables' is deprecated")
slow = pytest.mark.skipif("RELUME_SLOW_TESTS" not in os.environ, reason="slow; set RELUME_SLOW_TESTS=1")


@pytest.fixture(scope="module", autouse=True)
def _spandrel() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import spandrel  # noqa: F401


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    return build_network({"type": name, **TINY[name][0]})


def images(name: str, count: int = 2) -> list[Tensor]:
    """What the network is called with: an image, and a mask for the one that fills holes."""
    size = TINY[name][1]
    generator = torch.Generator().manual_seed(1)
    channels = [3, 1] if name == "LaMa" else [3]
    return [torch.rand(count, c, size, size, generator=generator) for c in channels]


def outputs(net: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
    found = net(*inputs)
    return [found] if isinstance(found, Tensor) else list(found)


@pytest.mark.parametrize("name", [pytest.param(n, marks=slow) if n in SLOW else n for n in zoo.names()])
def test_two_steps(name: str) -> None:
    row = zoo.rows()[name]
    if name in TOO_LARGE:
        pytest.skip(TOO_LARGE[name])
    if row.untrainable:
        assert "not trained here: " in zoo.about(name)
        return
    net, inputs = built(name), images(name)
    before = [x.clone() for x in inputs]
    trained = {k: p for k, p in net.named_parameters() if p.requires_grad}
    optimizer = torch.optim.Adam(trained.values(), 1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        made = outputs(net.train(), inputs)
        torch.stack([y.square().mean() for y in made]).sum().backward()
        without = [k for k, p in trained.items() if p.grad is None]
        assert not without, "DistributedDataParallel would wait for these"
        assert all(p.grad.isfinite().all() for p in trained.values())
        optimizer.step()
    assert all(torch.equal(x, y) for x, y in zip(inputs, before, strict=True))  # the batch is the caller's
    assert not [k for part in net.modules() for k, v in vars(part).items() if isinstance(v, Tensor)]  # all move with it

    net.eval()
    factor = made[0].shape[-1] // inputs[0].shape[-1]
    with torch.no_grad():
        one = outputs(net, [x[:1] for x in inputs])[0]
        again = outputs(net, [x[:1] for x in inputs])[0]
        twin = copy.deepcopy(net)
        other = built(name)
        other.load_state_dict(net.state_dict(), strict=True)
        assert one.shape[-1] == factor * inputs[0].shape[-1] and torch.equal(one, again)
        assert torch.equal(one, outputs(twin, [x[:1] for x in inputs])[0])
        assert torch.equal(one, outputs(other.eval(), [x[:1] for x in inputs])[0])


def test_every_name_has_settings_or_a_reason() -> None:
    every = {**table.ROWS, **table.EXTRA}
    assert {n for n, row in every.items() if not row.untrainable} == {*TINY, *TOO_LARGE}


def test_every_option_is_described() -> None:
    from relume.core.options import reference

    for name in zoo.names():
        keys = reference.component("archs", name)
        without = [k.name for k in keys if not k.text or "see the original" in k.text]
        assert not without, f"{name}: {without}"


# ------------------------------------------------------------------ names
def test_names_are_found_in_any_case_after_our_own() -> None:
    assert ARCHS.get("swinir") is ARCHS.get("SwinIR") and ARCHS.get("ATD_light") is ARCHS.get("ATD")
    assert ARCHS.get("RCAN").__module__ == "relume.archs.rcan"
    assert "HAT" in ARCHS.library_names() and "HAT" not in ARCHS.names()


def test_listing_and_suggesting_imports_nothing() -> None:
    code = (
        "import sys\nfrom relume.archs import ARCHS\nfrom relume.core.cli import main\n"
        "main(['list', 'archs'])\nmain(['explain', 'NAFNet'])\nmain(['explain', 'ema_decay'])\nARCHS.unknown('SwinIRR')\n"
        "assert not {'spandrel', 'pytorch_optimizer', 'torch._dynamo'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "    SwinIR (spandrel; Apache-2.0)\n" in done.stdout
    assert "GFPGANv1Clean (spandrel; Apache-2.0, with parts under NVIDIA's non-commercial licence" in done.stdout


def test_restrictive_licences_are_for_whoever_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zoo, "has_extra", lambda: False)
    said = ARCHS.unknown("MAT")
    assert "pip install spandrel_extra_arches" in said and "CC-BY-NC-4.0" in said
    assert "MAT" not in zoo.names()


# ------------------------------------------------------------------ options
def test_the_forks_defaults_and_ignored_options() -> None:
    parameters = ARCHS.parameters("DRCT")
    assert parameters["upscale"].default == 2 and parameters["embed_dim"].default == 96
    assert parameters["squeeze_factor"].default is None
    assert ARCHS.parameters("SwinIR")["qkv_bias"].annotation is bool
    assert "norm_layer" not in ARCHS.parameters("SwinIR")


def test_options_that_cannot_be() -> None:
    with pytest.raises(UserError, match=r"^unknown key 'embed_dims' in SwinIR\. Did you mean 'embed_dim'\?"):
        build_network({"type": "SwinIR", "embed_dims": 12})
    with pytest.raises(UserError, match=r"^RealPLKSR: in_ch is 3 in spandrel, and cannot be 4$"):
        build_network({"type": "RealPLKSR", "in_ch": 4})
    with pytest.raises(UserError, match=r"^SwinIR: cannot be built with these options \(\w+Error: "):
        build_network({"type": "SwinIR", **SWIN, "upscale": 5})


# ------------------------------------------------------------------ what had to be mended
def test_span_is_the_same_after_an_evaluation_in_between() -> None:
    net, (x,) = built("SPAN"), images("SPAN")
    assert not any(p.requires_grad for n, p in net.named_parameters() if ".eval_conv." in n)
    trained = {k: v.clone() for k, v in net.state_dict().items() if ".eval_conv." not in k}
    made = net.train()(x)
    net.eval()(x)
    assert torch.equal(made, net.train()(x)) and all(torch.equal(net.state_dict()[k], v) for k, v in trained.items())


def test_seemore_takes_batches() -> None:
    net, (x,) = built("SeemoRe").eval(), images("SeemoRe", 3)
    with torch.no_grad():
        assert torch.equal(net(x), torch.cat([net(x[i : i + 1]) for i in range(3)]))


def test_craft_pads_no_more_than_needed() -> None:
    net = built("CRAFT").eval()
    seen: list[torch.Size] = []
    net.conv_first.register_forward_pre_hook(lambda _, x: seen.append(x[0].shape[-2:]))
    with torch.no_grad():
        for height, width in ((32, 48), (31, 50)):
            assert net(torch.rand(1, 3, height, width)).shape[-2:] == (2 * height, 2 * width)
    assert [tuple(s) for s in seen] == [(32, 48), (32, 64)]


def test_rgt_starts_as_in_the_original() -> None:
    linear = [m.weight for m in built("RGT").modules() if isinstance(m, nn.Linear) and m.weight.numel() > 200]
    assert linear and all(0.01 < w.std() < 0.03 for w in linear)


def test_tables_of_another_training_size_are_rebuilt() -> None:
    small, large = (build_network({"type": "SwinIR", **SWIN, "img_size": size}) for size in (16, 24))
    assert any(small.state_dict()[k].shape != v.shape for k, v in large.state_dict().items())
    large.load_state_dict(small.state_dict(), strict=True)
    x = torch.rand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(small.eval()(x), large.eval()(x))


@pytest.mark.parametrize(("height", "width"), [(16, 16), (8, 8), (24, 8), (17, 30)], ids=str)
def test_swinir_is_what_spandrels_own_class_computes(height: int, width: int) -> None:
    net = built("SwinIR").double()
    theirs = type(net)(**{**SWIN, "img_size": 16, "depths": [2]}).double()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.2 * torch.randn_like(p))
    theirs.load_state_dict(net.state_dict(), strict=True)
    x = torch.rand(2, 3, height, width, dtype=torch.float64)
    found, expected = net.eval()(x), theirs.eval()(x)
    assert found.shape == expected.shape and (found - expected).abs().max() < 1e-12
    (found**2).sum().backward(), (expected**2).sum().backward()
    for mine, other in zip(net.parameters(), theirs.parameters(), strict=True):
        assert (mine.grad - other.grad).abs().max() < 1e-10 * other.grad.abs().max()


@pytest.mark.parametrize("gated", [False, True])
def test_cidnets_colours_are_those_of_spandrels_own_class_without_a_wait(gated: bool) -> None:
    """Also of grey and black pixels, and of those with two largest channels; and so are the gradients."""
    net = built("CIDNet").double()
    theirs = type(net)(**TINY["CIDNet"][0]).double()
    theirs.load_state_dict(net.state_dict(), strict=True)
    for one in (net, theirs):
        one.trans.gated = one.trans.gated2 = gated
        one.trans.alpha = 0.8
    image = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    image[0, 1, 0] = image[0, 0, 0]
    image[0, 2, 1] = image[0, 0, 1] = 0.9
    image[0, :, 2] = image[0, :1, 2]
    image[1, :, 3] = 0
    theirs.trans.HVIT(image)  # keeps the exponent for the way back
    for way, x in (("HVIT", image), ("PHVIT", 2.4 * torch.rand(2, 3, 16, 16, dtype=torch.float64) - 1.2)):
        x.requires_grad_()
        found, expected = getattr(net.trans, way)(x), getattr(theirs.trans, way)(x)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)
        weight = torch.cos(torch.arange(found.numel(), dtype=torch.float64)).view_as(found)
        gradients = [torch.autograd.grad((y * weight).sum(), x)[0] for y in (found, expected)]
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)
    before = copy.deepcopy(net)  # whose methods are its own
    net.trans.density_k.data.fill_(0.5)
    assert torch.equal(before.trans.PHVIT(x), found) and not torch.equal(net.trans.PHVIT(x), found)
    with counted() as waits, Watch(image.device) as watch:
        net(image).square().mean().backward()
    assert not waits and watch.found is None


# ------------------------------------------------------------------ what `relume check` says
CHECKED = """
name: x
model_type: SRModel
scale: 2
num_gpu: 0
datasets:
  train: {{name: a, type: PairedImageDataset, dataroot_gt: a, dataroot_lq: a, gt_size: 64, batch_size_per_gpu: 1}}
network_g: {network}
train:
  amp: {amp}
  total_iter: 10
  optim_g: {{type: Adam, lr: 1e-4}}
  scheduler: {{type: MultiStepLR, milestones: [5]}}
  pixel_opt: {{type: L1Loss}}
"""


def checked(network: str, amp: str, path: Path) -> list[str]:
    path.write_text(CHECKED.format(network=network, amp=amp))
    return [str(note) for note in options.resolve(path).notes]


def test_options_without_effect_and_a_precision_that_is_too_low_are_said(tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    hat = "{type: HAT, upsampler: pixelshuffle, use_checkpoint: %s}"
    said = checked(hat % "true", "fp16", path)
    assert any("network_g: without effect in HAT, as in the original: use_checkpoint" in s for s in said)
    assert any("network_g: HAT overflows in fp16; bf16 has" in s for s in said)
    assert not checked(hat % "false", "bf16", path)
    assert not checked("{type: EDSR, num_in_ch: 3, num_out_ch: 3, upscale: 2}", "fp16", path)
    aura = "{type: AuraSR, dim: 8, image_size: 64, input_image_size: 16}"
    assert any("AuraSR cannot be trained here: a generative" in s for s in checked(aura, "off", path))


@pytest.mark.parametrize(
    ("network", "complaint"),
    [
        (
            "{type: GRL, fairscale_checkpoint: true}",
            "GRL: fairscale_checkpoint is False in spandrel, and cannot be True",
        ),
        ("{type: RealPLKSR, in_ch: 1}", "RealPLKSR: in_ch is 3 in spandrel, and cannot be 1"),
    ],
)
def test_what_a_copy_cannot_do_is_refused_by_check(network: str, complaint: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=complaint):
        checked(network, "off", tmp_path / "x.yml")
