"""DiffIR against the original's numbers, block by block and whole, against the formulas, and what it promises besides."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import reference_diffir as reference
import torch
import torch.nn.functional as F
from filling import fill, image, waves
from torch import Tensor, nn

from relume.archs import build_network
from relume.archs.diffir import PriorExtraction
from relume.archs.latent_diffusion import Denoiser, Diffusion, beta_schedule
from relume.archs.restormer import (
    Attention,
    Downsample,
    FeedForward,
    LayerNorm,
    TransformerBlock,
    Upsample,
)
from relume.core.errors import UserError
from relume.core.ops.pixelwise import channels, pixels

Golden = Callable[[str], Path]
Recipe = Callable[[str], ModuleType]
TINY = {"dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 1, 2, 2], "n_encoder_res": 1}
HDR = {"n_encoder_res": 5, "num_blocks": [3, 5, 6, 6], "ffn_expansion_factor": 2}
S2_BUFFERS = 12
S2_ALIASES = 36


def load(golden: Golden, name: str) -> dict[str, Any]:
    return torch.load(golden(f"hdr/{name}.pt"), weights_only=True)


def same(found: Tensor, expected: Tensor, atol: float = 1e-5) -> None:
    """Equal within `atol`, times the largest value where that is above 1."""
    torch.testing.assert_close(found, expected, rtol=0, atol=atol * max(1.0, expected.abs().max().item()))


def same_norms(network: nn.Module, expected: dict[str, float], rel: float = 1e-4) -> None:
    norms = {k: p.grad.norm().item() for k, p in network.named_parameters() if p.grad is not None}
    assert norms.keys() == expected.keys()
    for name, norm in expected.items():
        assert norms[name] == pytest.approx(norm, rel=rel, abs=1e-5), name


# ---------------------------------------------------------------------------------------------------- components
class OnPlanes(nn.Module):
    """A modulated component as the original calls it: planes in and out, no norm before it."""

    def __init__(self, component: Attention | FeedForward) -> None:
        super().__init__()
        self.component = component

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        scale, shift = self.component.modulation(z)
        return channels(self.component(pixels(x * scale[:, :, None, None] + shift[:, :, None, None])))


class NormOnPlanes(nn.Module):
    def __init__(self, norm: LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return channels(self.norm(pixels(x)))


class EachStep(nn.Module):
    """A denoiser on samples at different steps."""

    def __init__(self, denoiser: Denoiser, t: list[int]) -> None:
        super().__init__()
        self.denoiser, self.t = denoiser, t

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        return torch.cat([self.denoiser(x[i : i + 1], t, c[i : i + 1]) for i, t in enumerate(self.t)])


def component(name: str, c: dict[str, Any]) -> tuple[nn.Module, nn.Module]:
    """What has the original's parameter names, and what has its arguments."""
    if name.startswith("layernorm"):
        part = LayerNorm(c["dim"], c["LayerNorm_type"])
        return part, NormOnPlanes(part)
    if name == "dmta":
        part = Attention(c["dim"], c["num_heads"], c["bias"], prior=256)
        return part, OnPlanes(part)
    if name == "dgfn":
        part = FeedForward(c["dim"], c["ffn_expansion_factor"], c["bias"], prior=256)
        return part, OnPlanes(part)
    if name == "denoise":
        part = Denoiser(4 * c["n_feats"], c["n_denoise_res"], c["timesteps"])
        return part, EachStep(part, c["t"])
    if name == "block":
        heads, expansion = c["num_heads"], c["ffn_expansion_factor"]
        part = TransformerBlock(c["dim"], heads, expansion, c["bias"], c["LayerNorm_type"], prior=256)
    elif name == "cpen_s1":
        part = PriorExtraction((3, 3), c["n_feats"], c["n_encoder_res"], (4, 4))
    elif name == "cpen_s2":
        part = PriorExtraction((3,), c["n_feats"], c["n_encoder_res"], (4,))
    else:
        part = {"downsample": Downsample, "upsample": Upsample}[name](c["n_feat"])
    return part, part


@pytest.mark.parametrize(
    "name",
    [
        *["layernorm_WithBias", "layernorm_BiasFree", "dmta", "dgfn", "block", "downsample", "upsample"],
        *["cpen_s1", "cpen_s2", "denoise"],
    ],
)
def test_golden_component(golden: Golden, name: str) -> None:
    case = load(golden, name)
    part, call = component(name, case["config"])
    part.load_state_dict(case["state_dict"], strict=True)
    assert list(part.state_dict()) == list(case["state_dict"])
    inputs = {k: v.clone().requires_grad_() for k, v in case["input"].items()}
    y = call(*inputs.values())
    same(y, case["output"])
    (y * case["grad"]["w"]).sum().backward()
    for k, gradient in case["grad"]["inputs"].items():
        same(inputs[k].grad, gradient)
    same_norms(part, case["grad"]["param_norms"])


def test_golden_diffusion(golden: Golden) -> None:
    case = load(golden, "ddpm")
    c = case["config"]
    network = build_network({"type": "DiffIRS2", **TINY, "n_denoise_res": c["n_denoise_res"]})
    network.condition = PriorExtraction((3,), c["n_feats"], c["n_encoder_res"], (4,))
    network.denoise = Denoiser(4 * c["n_feats"], c["n_denoise_res"], c["timesteps"])
    betas = beta_schedule("linear", c["timesteps"], c["linear_start"], c["linear_end"])
    network.diffusion = Diffusion(betas)
    buffers = dict(network.diffusion.named_buffers())
    assert buffers.keys() == case["buffers"].keys()
    for k, values in case["buffers"].items():
        torch.testing.assert_close(buffers[k], values, rtol=1e-6, atol=0)
    problems = network.load_state_dict(case["state_dict"], strict=False)
    assert not problems.unexpected_keys
    assert all(k.startswith("G.") for k in problems.missing_keys)

    lq, z = case["input"]["lq"], case["input"]["ipr"]
    same(network.condition(lq), case["output"]["condition"])
    torch.manual_seed(c["train_seed"])
    _, iterates = network.train()(lq, z, only_prior=True)
    for found, expected in zip(iterates, case["output"]["train_list"], strict=True):
        same(found, expected)
    same(iterates[-1], case["output"]["train_ipr"])
    (iterates[-1] * case["grad"]["w"]).sum().backward()
    same_norms(network, case["grad"]["param_norms"])
    same(network.reverse(lq, case["input"]["noise_eval"])[-1], case["output"]["eval_ipr"])


def test_golden_beta_schedules(golden: Golden) -> None:
    for key, expected in load(golden, "beta_schedules")["output"].items():
        kind, *settings = key.split("|")
        timesteps, start, end = (float(s.split("=")[-1]) for s in settings)
        found = torch.from_numpy(beta_schedule(kind, int(timesteps), start, end))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12, msg=lambda m, key=key: f"{key}: {m}")


# ------------------------------------------------------------------------------------------------ whole networks
def test_golden_stage_1(golden: Golden) -> None:
    golden_file = load(golden, "s1")
    network = build_network({"type": "DiffIRS1", **golden_file["config"]})
    assert list(network.state_dict()) == golden_file["keys"]
    assert sum(p.numel() for p in network.parameters()) == golden_file["n_params"]
    network.load_state_dict(golden_file["state_dict"], strict=True)
    for case in golden_file["cases"]:
        lq, gt = case["input"]["lq"].clone().requires_grad_(), case["input"]["gt"]
        network.zero_grad(set_to_none=True)
        restored, (z,) = network.train()(lq, gt)
        same(restored, case["output"]["train_sr"], 1e-4)
        same(z, case["output"]["train_ipr"], 1e-4)
        loss = F.l1_loss(restored, gt)
        assert loss.item() == pytest.approx(case["loss_l1"], abs=1e-5)
        loss.backward()
        same(lq.grad, case["grad"]["lq"], 1e-5)
        same_norms(network, case["grad"]["param_norms"], rel=1e-3)
        same(network.eval()(lq, gt), case["output"]["eval_sr"], 1e-4)


def test_golden_stage_2(golden: Golden) -> None:
    case = load(golden, "s2")
    network = build_network({"type": "DiffIRS2", **case["config"]})
    assert sum(p.numel() for p in network.parameters()) == case["n_params"]
    network.load_state_dict(case["state_dict"], strict=True)
    lq, z = case["input"]["lq"], case["input"]["ipr_s1"]
    torch.manual_seed(case["seeds"]["train"])
    restored, iterates = network.train()(lq, z)
    same(restored, case["output"]["train_sr"], 1e-4)
    for found, expected in zip(iterates, case["output"]["train_list"], strict=True):
        same(found, expected, 1e-4)
    l_pix, l_abs = F.l1_loss(restored, case["input"]["gt"]), F.l1_loss(iterates[-1], z)
    assert l_pix.item() == pytest.approx(case["loss"]["l_pix"], abs=1e-4)
    assert l_abs.item() == pytest.approx(case["loss"]["l_abs"], abs=1e-4)
    (l_pix + l_abs).backward()
    same_norms(network, case["grad"]["param_norms"], rel=1e-3)
    torch.manual_seed(case["seeds"]["eval"])
    same(network.eval()(lq), case["output"]["eval_sr"], 1e-4)


@torch.no_grad()
def test_golden_stage_1_full_size(golden: Golden, recipe: Recipe) -> None:
    case, make = load(golden, "s1_full_recipe"), recipe("hdr/recipe.py")
    seed, damp = case["weights"]["seed"], case["weights"]["damp"]
    with torch.device("meta"):
        network = build_network({"type": "DiffIRS1", **case["config"]})
    network = make.recipe_fill(network.to_empty(device="cpu"), seed, damp).eval()
    assert sum(p.numel() for p in network.parameters()) == case["n_params"]
    assert list(network.state_dict()) == case["keys"]
    lq, gt = (make.recipe_input(k, case["input"]["shape"], seed) for k in ("lq", "gt"))
    same(network.E(lq, gt), case["output"]["ipr"], 1e-4)
    torch.testing.assert_close(network(lq, gt), case["output"]["eval_sr"], rtol=0, atol=2e-3)


@torch.no_grad()
def test_golden_stage_2_full_size(golden: Golden, recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    case, make = load(golden, "s2_full_recipe"), recipe("hdr/recipe.py")
    seed, damp = case["weights"]["seed"], case["weights"]["damp"]
    network = make.recipe_fill(build_network({"type": "DiffIRS2", **case["config"]}), seed, damp)
    assert sum(p.numel() for p in network.parameters()) == case["n_params"]
    own = list(network.state_dict())
    assert own == [k for k in case["keys"] if not k.startswith(("diffusion.model.", "diffusion.condition."))]
    assert len(case["keys"]) == len(own) + S2_ALIASES
    lq = make.recipe_input("lq", case["input"]["shape"], seed)
    z = make.recipe_input("ipr", (1, 256), seed, -0.5, 0.5)
    noise = make.recipe_input("noise", (1, 256), seed, -1.7, 1.7)
    monkeypatch.setattr(torch, "randn", lambda *_, **__: noise)
    monkeypatch.setattr(torch, "randn_like", lambda *_, **__: noise)
    torch.testing.assert_close(network.eval()(lq), case["output"]["eval_sr"], rtol=0, atol=2e-3)
    restored, iterates = network.train()(lq, z)
    torch.testing.assert_close(restored, case["output"]["train_sr"], rtol=0, atol=2e-3)
    for found, expected in zip(iterates, case["output"]["train_list"], strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=2e-3)


# ------------------------------------------------------------------------------------------------ without goldens
@pytest.mark.parametrize(
    ("name", "options", "count"),
    [
        ("DiffIRS1", HDR, 26_742_206),
        ("DiffIRS2", HDR, 26_911_934),
        ("DiffIRS1", {}, 34_941_044),
        ("DiffIRS2", {}, 35_110_772),
    ],
)
def test_published_sizes(name: str, options: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        network = build_network({"type": name, **options})
    assert sum(p.numel() for p in network.parameters()) == count


VARIANTS = [
    {},
    {"bias": True, "ffn_expansion_factor": 2.3},
    {"LayerNorm_type": "BiasFree", "num_blocks": [1, 2, 1, 1], "n_encoder_res": 0},
    {"scale": 3},
    {"scale": 4},
]


def compare(ours: list[Tensor], theirs: list[Tensor], names: list[str], tolerance: float = 1e-8) -> None:
    for name, a, b in zip(names, ours, theirs, strict=True):
        scale = max(1.0, b.detach().abs().max().item())
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * scale, msg=lambda m, name=name: f"{name}: {m}")


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_stage_1_equals_the_formulas(settings: dict[str, Any]) -> None:
    options = {**TINY, **settings}
    ours = fill(build_network({"type": "DiffIRS1", **options})).double().train()
    theirs = reference.DiffIRS1(**options).double()
    theirs.load_state_dict(ours.state_dict(), strict=True)
    results = []
    for network in (ours, theirs):
        k = settings.get("scale", 1)
        lq, gt = (image(n, 2, 3, 8 * f, 16 * f).double().requires_grad_() for n, f in (("lq", 1), ("gt", k)))
        restored, z = network(lq, gt)
        z = z[0] if isinstance(z, list) else z
        target = (restored * waves("w", tuple(restored.shape))).sum() + z.square().sum()
        results.append([restored, z, *torch.autograd.grad(target, [lq, gt, *network.parameters()])])
    compare(*results, ["image", "z", "lq", "gt", *dict(ours.named_parameters())])


@pytest.mark.parametrize(
    "settings",
    [*VARIANTS, {"timesteps": 1}, {"timesteps": 6, "linear_start": 0.05, "linear_end": 0.8, "n_denoise_res": 3}],
    ids=str,
)
def test_stage_2_equals_the_formulas(settings: dict[str, Any]) -> None:
    options = {**TINY, **settings}
    ours = fill(build_network({"type": "DiffIRS2", **options})).double()
    theirs = reference.DiffIRS2(**options).double()
    theirs.load_state_dict({k: v for k, v in ours.state_dict().items() if "diffusion" not in k}, strict=True)
    lq, z = image("lq", 2, 3, 8, 16).double(), waves("z", (2, 256))
    torch.manual_seed(3)
    noise = torch.randn_like(z)
    torch.manual_seed(3)
    results = []
    for network, (restored, iterates) in ((ours, ours.train()(lq, z)), (theirs, theirs(lq, noise, z))):
        target = (restored * waves("w", tuple(restored.shape))).sum() + iterates[-1].square().sum()
        results.append([restored, *iterates, *torch.autograd.grad(target, list(network.parameters()))])
    names = ["image", *map(str, range(len(iterates))), *dict(ours.named_parameters())]
    compare(*results, names, tolerance=1e-5)  # the original keeps the coefficients in float32
    with torch.no_grad():
        torch.manual_seed(3)
        noise = torch.randn(2, 256).double()
        torch.manual_seed(3)
        torch.testing.assert_close(ours.eval()(lq), theirs(lq, noise)[0], rtol=1e-5, atol=1e-5)


def test_stage_2_draws_one_normal_and_nothing_else() -> None:
    network = build_network({"type": "DiffIRS2", **TINY})
    lq, z = image("lq", 2, 3, 8, 8), waves("z", (2, 256)).float()
    for call in (
        lambda: network.train()(lq, z),
        lambda: network.train()(lq, z, only_prior=True),
        lambda: network.eval()(lq),
    ):
        torch.manual_seed(7)
        call()
        after = torch.rand(3)
        torch.manual_seed(7)
        torch.randn(2, 256)
        assert torch.equal(after, torch.rand(3))


def test_the_prior_alone_is_the_prior_of_the_whole_and_leaves_the_restorer_alone() -> None:
    network = fill(build_network({"type": "DiffIRS2", **TINY})).train()
    lq, z = image("lq", 2, 3, 8, 8), waves("z", (2, 256)).float()
    torch.manual_seed(7)
    whole = network(lq, z)[1]
    torch.manual_seed(7)
    nothing, alone = network(lq, z, only_prior=True)
    assert nothing is None
    assert all(torch.equal(a, b) for a, b in zip(alone, whole, strict=True))
    alone[-1].sum().backward()
    learned = {k.split(".")[0] for k, p in network.named_parameters() if p.grad is not None}
    assert learned == {"condition", "denoise"}


def test_stage_2_saves_each_tensor_once_and_loads_the_originals_aliases() -> None:
    network = fill(build_network({"type": "DiffIRS2", **TINY}))
    own = network.state_dict()
    assert len(own) == len(list(network.parameters())) + S2_BUFFERS
    parts = ("denoise.", "condition.")
    aliases = {f"diffusion.{k.replace('denoise', 'model', 1)}": v for k, v in own.items() if k.startswith(parts)}
    original = {**own, **aliases}
    other = build_network({"type": "DiffIRS2", **TINY})
    other.load_state_dict(original, strict=True)
    assert set(original) == set(own) | set(aliases), "what is loaded is left as it was"
    assert all(torch.equal(v, own[k]) for k, v in other.state_dict().items())
    wrapper = nn.Sequential(build_network({"type": "DiffIRS2", **TINY}))
    wrapper.load_state_dict({f"0.{k}": v for k, v in original.items()}, strict=True)


def test_stage_2_starts_from_stage_1() -> None:
    teacher = fill(build_network({"type": "DiffIRS1", **TINY}))
    network = build_network({"type": "DiffIRS2", **TINY})
    problems = network.load_state_dict(teacher.state_dict(), strict=False)
    assert all(k.startswith("E.") for k in problems.unexpected_keys)
    assert all(k.startswith(("condition.", "denoise.", "diffusion.")) for k in problems.missing_keys)
    assert all(torch.equal(p, network.G.state_dict()[k]) for k, p in teacher.G.state_dict().items())


def test_a_zero_prior_leaves_the_residuals_only() -> None:
    block = fill(TransformerBlock(8, 2, 2.0, True, "WithBias", prior=256))
    for p in (block.attn.project_out, block.ffn.project_out, block.attn.qkv_dwconv, block.ffn.dwconv):
        nn.init.zeros_(p.bias)
    nn.init.zeros_(block.ffn.project_in.bias)
    nn.init.zeros_(block.attn.qkv.bias)
    x = image("x", 2, 8, 4, 6)
    torch.testing.assert_close(block(x, torch.zeros(2, 256)), x)


@pytest.mark.parametrize("name", ["DiffIRS1", "DiffIRS2"])
def test_checkpointing_changes_no_bit(name: str) -> None:
    lq = image("lq", 1, 3, 8, 8)
    second = image("gt", 1, 3, 8, 8) if name == "DiffIRS1" else waves("z", (1, 256)).float()
    gradients = []
    for frugal in (False, True):
        network = fill(build_network({"type": name, **TINY, "use_checkpoint": frugal})).train()
        torch.manual_seed(0)
        restored, _ = network(lq, second)
        restored.square().sum().backward()
        gradients.append([restored, *(p.grad for p in network.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def kept(network: nn.Module, *inputs: Tensor) -> int:
    """Bytes that a forward pass keeps for the backward pass, parameters not counted."""
    parameters = {p.untyped_storage().data_ptr() for p in network.parameters()}
    storages: dict[int, Any] = {}

    def keep(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in parameters:
            storages[storage.data_ptr()] = storage
        return t

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        outputs = network(*inputs)
    assert outputs
    return sum(storage.nbytes() for storage in storages.values())


def test_keeps_less_than_half_of_what_the_formulas_keep() -> None:
    options = {**TINY, "dim": 16, "heads": [1, 2, 4, 8], "ffn_expansion_factor": 2}
    lq, gt = image("lq", 2, 3, 32, 32), image("gt", 2, 3, 32, 32)
    ours = kept(build_network({"type": "DiffIRS1", **options}).train(), lq, gt)
    assert ours < 0.5 * kept(reference.DiffIRS1(**options), lq, gt)


def test_input_and_output_may_differ_in_channels() -> None:
    options = {**TINY, "inp_channels": 6}
    lq, gt = image("lq", 1, 6, 8, 8), image("gt", 1, 3, 8, 8)
    assert build_network({"type": "DiffIRS1", **options}).eval()(lq, gt).shape == gt.shape
    assert build_network({"type": "DiffIRS2", **options}).eval()(lq).shape == gt.shape


@pytest.mark.parametrize("name", ["DiffIRS1", "DiffIRS2"])
def test_fingerprint(name: str) -> None:
    network = fill(build_network({"type": name, **TINY})).eval()
    lq, gt = image("lq", 1, 3, 16, 24), image("gt", 1, 3, 16, 24)
    with torch.no_grad():
        made = name == "DiffIRS2"
        z = network.reverse(lq, waves("noise", (1, 256)).float())[-1] if made else network.E(lq, gt)
        y = network.G(lq, z)
    found = torch.stack([y[0, 0, 1, 2], y[0, 1, 5, 7], y[0, 2, -1, -1], y.mean(), y.std()])
    expected = {
        "DiffIRS1": [0.82804, 1.32005, 0.34183, 0.57212, 0.73048],
        "DiffIRS2": [0.7728, 1.16336, 0.37962, 0.56965, 0.74602],
    }[name]
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-4)


def test_missing_inputs_are_named() -> None:
    lq = image("lq", 1, 3, 8, 8)
    with pytest.raises(UserError, match="takes its prior from the ground truth"):
        build_network({"type": "DiffIRS1", **TINY})(lq)
    with pytest.raises(UserError, match="trained on the priors of stage 1"):
        build_network({"type": "DiffIRS2", **TINY}).train()(lq)


@pytest.mark.parametrize("name", ["DiffIRS1", "DiffIRS2", "Restormer"])
def test_images_that_do_not_fit_are_named(name: str) -> None:
    options = {k: v for k, v in TINY.items() if name != "Restormer" or k != "n_encoder_res"}
    network = build_network({"type": name, **options}).eval()
    for size, complaint in (
        ((3, 12, 16), "images of 12x16 pixels: this network takes multiples of 8; choose gt_size so"),
        ((4, 8, 8), "images of the shape (1, 4, 8, 8): this network takes (B, 3, H, W)"),
    ):
        lq = torch.zeros(1, *size)
        with pytest.raises(UserError) as caught:
            network(*([lq, lq] if name == "DiffIRS1" else [lq]))
        assert str(caught.value) == complaint


def test_a_ground_truth_of_another_scale_is_named() -> None:
    network = build_network({"type": "DiffIRS1", **TINY, "scale": 2})
    with pytest.raises(UserError, match="of scale 2 needs a ground truth of 16x32; got 8x16"):
        network(image("lq", 1, 3, 8, 16), image("gt", 1, 3, 8, 16))


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"timesteps": 0}, "timesteps is 0"),
        ({"beta_schedule_type": "linaer"}, "no beta schedule is called 'linaer'"),
        ({"heads": [3, 1, 1, 1]}, "does not divide"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError, match=complaint):
        build_network({"type": "DiffIRS2", **TINY, **settings})
