"""core/models/diffir.py: the originals' trajectories, both phases on one and two ranks, resume across them, and mistakes."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from filling import fill, image
from runs import REPO, differences, records, train, weights
from torch import Tensor

from relume.archs import build_network
from relume.core import options
from relume.core.errors import UserError
from relume.core.imaging.image_io import imread, imwrite
from relume.core.inference.tiling import pad_to_multiple
from relume.core.models import augment, diffir
from relume.core.models.diffir import DiffIRS1HDRModel, DiffIRS1Model, DiffIRS2Model
from relume.core.models.draws import standard_normal
from relume.core.pipeline import test_pipeline as run_test
from relume.core.pipeline import train_pipeline
from relume.datasets import DATASETS
from relume.losses import build_loss

Golden = Callable[[str], Path]
Recipe = Callable[[str], ModuleType]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


# ------------------------------------------------------------------ the originals' trajectories
@DATASETS.register()
class RecordedBatches(torch.utils.data.Dataset):
    """The recorded images, two at a time in training: ``entries`` names a file of ``{phase: {lq, gt}}``."""

    def __init__(self, entries: str, phase: str) -> None:
        images: dict[str, Tensor] = torch.load(entries, weights_only=True)[phase]
        self.images = {k: v.to(torch.get_default_dtype()) for k, v in images.items()}

    def __len__(self) -> int:
        return len(self.images["lq"])

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {k: v[index] for k, v in self.images.items()}


def recorded(case: dict[str, Any], make: ModuleType) -> dict[str, Any]:
    """Options of the recorded run; its images and initial weights are written into the current folder."""
    config, (h, w), seed = case["config"], case["data"]["hw"], case["weights"]["seed"]
    steps, (vh, vw) = config["train"]["total_iter"], case["data"].get("val_hw", (h, w))
    kinds = ("lq", "gt")
    torch.save(
        {
            "train": {k: torch.cat([make.recipe_input(f"{k}{i}", (2, 3, h, w), seed) for i in range(steps)]) for k in kinds},
            "val": {k: make.recipe_input(f"v{k}", (1, 3, vh, vw), seed) for k in kinds},
        },
        "images.pt",
    )  # fmt: skip
    path = {}
    for i, key in enumerate(k for k in ("g", "S1") if f"network_{k}" in config):
        network = make.recipe_fill(build_network(config[f"network_{key}"]), seed + i)
        torch.save({"params_ema": network.state_dict()}, f"{key}.pth")
        path[f"pretrain_network_{key}"] = f"{key}.pth"
    data = {"type": "RecordedBatches", "entries": "images.pt", "num_worker_per_gpu": 0}
    networks = {k: v for k, v in config.items() if k.startswith("network_")}
    return {
        "name": "t",
        "model_type": config["model_type"],
        "num_gpu": 0,
        "datasets": {"train": {**data, "batch_size_per_gpu": 2, "use_shuffle": False}, "val": data},
        **networks,
        "path": {**path, "param_key_g": "params_ema"},  # the teacher's entry follows it
        "train": config["train"],
        "val": {**config["val"], "val_freq": 100},
        "logger": {"print_freq": 1},
    }


@pytest.fixture
def float64() -> Iterator[None]:
    """Adam turns gradients that are nothing but rounding into whole steps, so float32 runs drift apart between machines.

    The plain formulas in float32 leave the recorded losses by 1e-2 within six steps here; in float64 by 3e-5.
    """
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def rerun(
    case: dict[str, Any],
    make: ModuleType,
    model: type[Any],
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, float]:
    """Train as recorded, and compare: losses, final weights and averages, the validation's output. Returns its scores."""
    opt, outputs = recorded(case, make), []
    predict = model.predict

    def watched(self: Any, batch: Any) -> dict[str, Tensor]:
        # The recorded output was made after the scores, for which BasicSR had clamped the ground truth in place.
        outputs.append(predict(self, {**batch, "gt": batch["gt"].clamp(0, 1)})["output"])
        return predict(self, batch)

    monkeypatch.setattr(model, "predict", watched)
    results = train_pipeline(opt)["val"]
    lines = [r for r in records(Path("experiments/t")) if "lr" in r]
    assert len(lines) == len(case["history"])
    for line, expected in zip(lines, case["history"], strict=True):
        losses = {k for k in expected if k.startswith("l_")}
        assert {*losses, "l_total"} == {k for k in line if k.startswith("l_")}
        for key in losses:
            allowed = 1e-4 if line["iter"] < 3 else 1e-3
            assert line[key] == pytest.approx(expected[key], rel=allowed, abs=allowed), (line["iter"], key)
    found = weights(Path("experiments/t"), len(lines))
    for entry, key in (("params", "final"), ("params_ema", "final_ema")):
        for name, tensor in case[f"{key}_tensors"].items():
            if not name.startswith(("diffusion.condition", "diffusion.model")):  # second names, which are not saved
                torch.testing.assert_close(found[entry][name].float(), tensor, rtol=0, atol=5e-4)
        for name, (total, absolute) in case[key].items():
            if name in found[entry]:
                tensor = found[entry][name].double()
                allowed = 5e-4 * tensor.numel()
                assert tensor.sum().item() == pytest.approx(total, abs=allowed), name
                assert tensor.abs().sum().item() == pytest.approx(absolute, abs=allowed), name
    torch.testing.assert_close(outputs[-1].float(), case["val_output_ema"], rtol=0, atol=5e-3)
    return results


def test_stage_1_trains_as_the_original(
    float64: None, golden: Golden, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = torch.load(golden("hdr/train_s1.pt"), weights_only=True)
    results = rerun(case, recipe("hdr/recipe.py"), DiffIRS1Model, monkeypatch)
    lines = [r for r in records(Path("experiments/t")) if "lr" in r]
    for line, expected in zip(lines, case["history"], strict=True):
        assert line["lr"] == pytest.approx(expected["lr"], abs=1e-12)
    assert results["psnr"] == pytest.approx(case["val_metrics"]["psnr"], abs=2e-3)
    assert results["ssim"] == pytest.approx(case["val_metrics"]["ssim"], abs=1e-3)


def test_stage_2_trains_as_the_original(
    float64: None, golden: Golden, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    case, make = torch.load(golden("hdr/train_s2.pt"), weights_only=True), recipe("hdr/recipe.py")
    names = iter([*(f"noise{i}" for i in range(len(case["history"]))), "vnoise", "vnoise"])

    def noise(batch: Any, length: int) -> Tensor:
        return make.recipe_input(next(names), (len(batch["lq"]), length), case["weights"]["seed"], -1.7, 1.7)

    monkeypatch.setattr(diffir, "standard_normal", noise)
    rerun(case, make, DiffIRS2Model, monkeypatch)
    lines = [r for r in records(Path("experiments/t")) if "lr" in r]
    for line, expected in zip(lines, case["history"], strict=True):
        first = line["iter"] < case["config"]["train"]["encoder_iter"]
        used = expected["lr_optimizer_e" if first else "lr_optimizer_g"]  # the original logs g's, whichever steps
        assert line["lr"] == [pytest.approx(used, abs=1e-12)]


# ------------------------------------------------------------------ whole runs of our own
TINY = {"dim": 4, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "heads": [1, 1, 2, 2], "n_encoder_res": 0}


def teacher(path: Path) -> None:
    """A stage 1 to learn from."""
    torch.save({"params_ema": fill(build_network({"type": "DiffIRS1", **TINY})).state_dict()}, path)


def stage_2(name: str = "s2", folder: Path = Path(), **changes: Any) -> dict[str, Any]:
    """Options of a run of both phases, three steps each; `changes` go into ``train``."""
    teacher(folder / "s1.pth")
    return {
        "name": name,
        "model_type": "DiffIRS2Model",
        "num_gpu": 0,
        "manual_seed": 5,
        "plugins": [str(REPO / "tests" / "toy.py")],
        "datasets": {
            "train": {"type": "ToyDataset", "length": 8, "batch_size_per_gpu": 4, "num_worker_per_gpu": 0, "gt_size": 16},
            "val": {"type": "ToyDataset", "length": 2, "num_worker_per_gpu": 0, "gt_size": 20},
        },
        "network_g": {"type": "DiffIRS2", **TINY},
        "network_S1": {"type": "DiffIRS1", **TINY},
        "path": {
            "pretrain_network_g": "s1.pth",
            "pretrain_network_S1": "s1.pth",
            "param_key_g": "params_ema",
            "strict_load_g": False,
        },
        "train": {
            "ema_decay": 0.9,
            "total_iter": 6,
            "encoder_iter": 4,
            "optim_g": {"type": "SGD", "lr": 1.0},
            "lr_encoder": 0.1,
            "gamma_encoder": 0.5,
            "lr_decay_encoder": 2,
            "lr_sr": 0.01,
            "gamma_sr": 0.1,
            "lr_decay_sr": 2,
            "pixel_opt": {"type": "L1Loss"},
            "kd_opt": {"type": "KDLoss"},
            **changes,
        },
        "val": {"val_freq": 6, "metrics": {"psnr": {"type": "calculate_psnr"}}},
        "logger": {"print_freq": 1, "save_checkpoint_freq": 1},
    }  # fmt: skip


def test_the_phases_train_what_they_should_at_the_rates_of_the_options() -> None:
    train_pipeline(stage_2())
    root = Path("experiments/s2")
    lines = [r for r in records(root) if "lr" in r]
    assert [r["lr"][0] for r in lines] == pytest.approx([0.1, 0.05, 0.05, 0.01, 0.01, 0.001])
    assert ["l_pix" in r for r in lines] == [False] * 3 + [True] * 3
    assert all({"l_abs_3", "l_kd_3"} <= r.keys() for r in lines)
    files = [weights(root, i)["params"] for i in range(1, 7)]
    start = torch.load("s1.pth", weights_only=True)["params_ema"]
    for i, now in enumerate(files):
        before = files[i - 1] if i else start
        changed = {k.split(".")[0] for k in now if k in before and not torch.equal(now[k], before[k])}
        assert changed >= ({"condition", "denoise"} if i else set())
        assert ("G" in changed) == (i >= 3), "the restorer waits for the second phase"
    saved = {p.name for p in (root / "models").glob("*_6.pth")}
    assert saved == {"net_g_6.pth"}, "the teacher is not saved"


def test_resume_inside_and_across_the_phases_is_exact() -> None:
    train_pipeline(stage_2("straight"))
    for stop in (2, 3):
        train_pipeline(stage_2(f"stop{stop}", total_iter=stop))
        train_pipeline(stage_2(f"stop{stop}"), auto_resume=True)
        ours, theirs = (Path("experiments") / n for n in (f"stop{stop}", "straight"))
        assert differences(weights(ours, 6), weights(theirs, 6)) == []
        states = [torch.load(p / "training_states/6.state", weights_only=True) for p in (ours, theirs)]
        assert differences(*states) == []
        logs = [
            [{k: v for k, v in r.items() if "perf" not in k} for r in records(p) if "lr" in r] for p in (ours, theirs)
        ]
        assert differences(*logs) == []


@pytest.mark.parametrize(
    "strategy",
    [
        "ddp",
        pytest.param(
            "fsdp",
            marks=pytest.mark.skipif("RELUME_SLOW_TESTS" not in os.environ, reason="slow; set RELUME_SLOW_TESTS=1"),
        ),
    ],
)
def test_two_ranks_equal_one_in_both_phases(strategy: str, tmp_path: Path) -> None:
    train_pipeline(stage_2())
    (tmp_path / "two").mkdir()
    opt = stage_2(folder=tmp_path / "two", strategy=strategy)
    opt["datasets"]["train"]["batch_size_per_gpu"] = 2
    done = train(tmp_path / "two", opt, ranks=2)
    assert done.returncode == 0, done.stdout + done.stderr
    roots = [tmp_path / name / "experiments/s2" for name in ("", "two")]
    for i in (3, 6):  # the end of either phase
        a, b = (weights(root, i) for root in roots)
        for entry in a:
            for name, tensor in a[entry].items():
                torch.testing.assert_close(b[entry][name], tensor, rtol=1e-4, atol=1e-5, msg=f"{i} {entry} {name}")
    for mine, theirs in zip(*(records(root) for root in roots), strict=True):
        assert mine.keys() == theirs.keys()
        for key in mine.keys() & {"l_abs_3", "l_pix", "grad_norm"}:
            assert mine[key] == pytest.approx(theirs[key], rel=1e-4)


def test_accumulation_draws_the_same_noise() -> None:
    train_pipeline(stage_2("whole"))
    opt = stage_2("parts", accumulate=2)
    opt["datasets"]["train"]["batch_size_per_gpu"] = 2
    train_pipeline(opt)
    a, b = (weights(Path("experiments") / n, 6)["params"] for n in ("whole", "parts"))
    for name, tensor in a.items():
        torch.testing.assert_close(b[name], tensor, rtol=1e-4, atol=1e-5)


def test_stage_2_is_tested_without_teacher_and_without_ground_truth(said: list[str]) -> None:
    opt = stage_2()
    torch.save({"params_ema": fill(build_network(opt["network_g"])).state_dict()}, "s2.pth")
    Path("s1.pth").unlink()  # the file names it, and nobody asks for it
    opt["path"]["pretrain_network_g"], opt["val"] = "s2.pth", {"save_img": True, "suffix": "out"}
    Path("lq").mkdir()
    for i, (h, w) in enumerate([(13, 21), (8, 8), (40, 3)]):
        imwrite(f"lq/{i}.png", image(str(i), 1, 3, h, w)[0])
    data = {"type": "SingleImageDataset", "dataroot_lq": "lq", "num_worker_per_gpu": 0}
    opt["datasets"] = {"test": {**data, "name": "mine"}}
    run_test(opt)
    found = {p.name: imread(p).shape[:2] for p in Path("results/s2/visualization/mine").glob("*.png")}
    assert found == {"0_out.png": (13, 21), "1_out.png": (8, 8), "2_out.png": (40, 3)}
    first = {p.name: p.read_bytes() for p in Path("results").rglob("*.png")}
    run_test(opt)
    assert first == {p.name: p.read_bytes() for p in Path("results").rglob("*.png")}, "the noise is the image's own"


# ------------------------------------------------------------------ stage 1
@pytest.fixture
def stage_1() -> torch.nn.Module:
    return fill(build_network({"type": "DiffIRS1", **TINY}))


def batch(*keys: str) -> dict[str, Tensor]:
    return {k: image(k, 2, 3, 16, 24) for k in keys}


def test_stage_1_takes_its_prior_from_where_it_says(stage_1: torch.nn.Module) -> None:
    losses = {"pixel": build_loss({"type": "L1Loss"})}
    every = batch("lq", "gt", "gt_recover")
    for kind, source in ((DiffIRS1Model, "gt"), (DiffIRS1HDRModel, "gt_recover")):
        model = kind({"g": stage_1.train()}, losses)
        (update,) = model.updates(every, 1)
        restored, _ = stage_1(every["lq"], every[source])
        assert update.optimizer == "g"
        assert update.losses["l_pix"].item() == pytest.approx((restored - every["gt"]).abs().mean().item())
        stage_1.eval()
        torch.testing.assert_close(model.predict(every)["output"], stage_1(every["lq"], every[source]))
        without = {k: every[k] for k in ("lq", "gt_recover")}
        torch.testing.assert_close(model.predict(without)["output"], stage_1(every["lq"], every["gt_recover"]))


def test_a_teachers_scores_are_called_that_once(stage_1: torch.nn.Module, said: list[str]) -> None:
    model = DiffIRS1Model({"g": stage_1.eval()}, {})
    for _ in range(2):
        model.predict(batch("lq", "gt"))
    assert said == ["DiffIRS1Model sees the ground truth: its scores are a teacher's, an upper bound and no result"]
    DiffIRS1HDRModel({"g": stage_1}, {}).predict(batch("lq", "gt", "gt_recover"))
    assert len(said) == 1


@pytest.mark.parametrize(("kind", "source"), [(DiffIRS1Model, "gt"), (DiffIRS1HDRModel, "gt_recover")])
def test_stage_1_without_a_source_of_its_prior_says_so_in_one_line(
    kind: type[DiffIRS1Model], source: str, stage_1: torch.nn.Module
) -> None:
    with pytest.raises(UserError, match=f"takes its prior from '{source}', which this dataset does not give") as e:
        kind({"g": stage_1.eval()}, {}).predict(batch("lq"))
    assert "\n" not in str(e.value) and "DiffIRS2Model" in str(e.value)


def test_mixtures_reach_input_target_and_source(stage_1: torch.nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    losses = {"pixel": build_loss({"type": "L1Loss"})}
    seen = []
    monkeypatch.setattr(augment.Mixup, "__call__", lambda _, images: seen.append(set(images)) or images)
    list(
        DiffIRS1HDRModel({"g": stage_1.train()}, losses, mixing_augs={"mixup": True}).updates(
            batch("lq", "gt", "gt_recover"), 1
        )
    )
    list(DiffIRS1Model({"g": stage_1.train()}, losses, mixing_augs={"mixup": False}).updates(batch("lq", "gt"), 1))
    assert seen == [{"lq", "gt", "gt_recover"}]


# ------------------------------------------------------------------ noise, mistakes
def test_noise_belongs_to_samples() -> None:
    whole = {"lq": torch.zeros(3, 3, 8, 8), "seed": torch.tensor([5, 2**62 + 1, 7])}
    noise = standard_normal(whole, 256)
    parts = [standard_normal({"lq": whole["lq"][i : i + 1], "seed": whole["seed"][i : i + 1]}, 256) for i in range(3)]
    assert torch.equal(noise, torch.cat(parts)) and len(noise.unique()) > 700
    assert abs(noise.mean()) < 4 / math.sqrt(768) and noise.std() == pytest.approx(1, abs=0.1)
    torch.manual_seed(0)
    expected = torch.randn(3, 256)
    torch.manual_seed(0)
    assert torch.equal(standard_normal({"lq": whole["lq"]}, 256), expected)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"kd_opt": None}, "DiffIRS2Model needs kd_opt: {type: KDLoss}"),
        ({"kd_opt": {"type": "L1Loss"}}, "DiffIRS2Model needs kd_opt: {type: KDLoss}"),
        ({"gamma_sr": None}, "gamma_sr and lr_decay_sr need each other"),
        ({"optim_e": {"type": "Adam", "lr": 1e-3}}, "optim_e and lr_encoder both give a learning rate"),
        ({"scheduler_g": {"type": "LinearLR", "total_iter": 6}}, "scheduler_g and lr_decay_sr both give a schedule"),
        ({"optim_g": None, "optim_e": {"type": "Adam"}, "lr_encoder": None}, "DiffIRS2Model needs optim_g"),
        ({"optim_d": {"type": "Adam"}}, "has no use for 'optim_d'. Accepted: optim_g, optim_e."),
    ],
)
def test_options_that_do_not_fit(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(UserError) as e:
        train_pipeline(stage_2(**changes))
    assert complaint in str(e.value) and "\n" not in str(e.value)


def test_networks_of_the_wrong_stage_are_named() -> None:
    one, two = ({"type": name, **TINY} for name in ("DiffIRS1", "DiffIRS2"))
    with pytest.raises(UserError, match="network_g: this model is for DiffIRS2, not for DiffIRS1"):
        train_pipeline({**stage_2(), "network_g": one})
    with pytest.raises(UserError, match="network_S1: this model is for DiffIRS1, not for DiffIRS2"):
        train_pipeline({**stage_2(), "network_S1": two})
    without = {k: v for k, v in stage_2().items() if k != "network_S1"}
    with pytest.raises(UserError, match="DiffIRS2Model is trained with a teacher, 'network_S1', which is missing"):
        train_pipeline(without)


def test_blocks_may_be_given_instead_of_the_originals_keys() -> None:
    originals = dict.fromkeys(("lr_encoder", "gamma_encoder", "lr_decay_encoder", "lr_sr", "gamma_sr", "lr_decay_sr"))
    blocks = {
        "optim_e": {"type": "SGD", "lr": 0.1},
        "scheduler_e": {"type": "StairsLR", "every": 2, "gamma": 0.5},
        "optim_g": {"type": "SGD", "lr": 0.01},
        "scheduler_g": {"type": "StairsLR", "every": 2, "gamma": 0.1, "start": 4},
    }
    for name, changes in (("keys", {}), ("blocks", {**originals, **blocks})):
        train_pipeline(stage_2(name, **changes))
    a, b = (weights(Path("experiments") / n, 6) for n in ("keys", "blocks"))
    assert differences(a, b) == []


# ------------------------------------------------------------------ super-resolution
SR = """name: sr
model_type: {model}
scale: 4
num_gpu: 0
gt_size: 64
datasets:
  train: {{type: PairedImageDataset, dataroot_gt: gt, dataroot_lq: lq, gt_size: 64, use_hflip: true, num_worker_per_gpu: 0}}
  val_1: {{type: {data}, dataroot_gt: gt, dataroot_lq: lq, num_worker_per_gpu: 0}}
network_g: {{{network}}}
{more}
train:
  total_iter: 2
  optim_g: {{type: Adam, lr: 1e-3}}
  pixel_opt: {{type: L1Loss}}
{train}
val: {{window_size: 8, metrics: {{psnr: {{type: calculate_psnr, crop_border: 4, test_y_channel: true}}}}}}
"""
TINY_SR = "n_encoder_res: 1, dim: 8, num_blocks: [1, 1, 1, 1], num_refinement_blocks: 1, heads: [1, 1, 1, 1]"


def sr_file(
    model: str, network: str, data: str = "PairedImageDataset", more: str = "", train: str = ""
) -> options.Resolved:
    Path("sr.yml").write_text(
        SR.format(model=model, network=f"type: {network}, {TINY_SR}", data=data, more=more, train=train)
    )
    return options.resolve("sr.yml")


def test_the_original_s_files_for_super_resolution_train_and_test() -> None:
    generator = torch.Generator().manual_seed(0)
    for i, (height, width) in enumerate([(17, 21), (16, 24)]):  # of which one is no multiple of 8
        for folder, k in (("lq", 1), ("gt", 4)):
            imwrite(f"{folder}/{i}.png", torch.rand(k * height, k * width, 3, generator=generator).numpy())
    first = sr_file("DiffIRS1Model", "DiffIRS1")
    assert [str(n).partition(": ")[2] for n in first.notes if ".scale" in str(n)] == [
        "network_g.scale: 4, the top level's"
    ]
    scores = train_pipeline(first.options)
    assert math.isfinite(scores["val_1"]["psnr"])
    teacher = (
        f"network_S1: {{type: DiffIRS1, {TINY_SR}}}\npath: {{pretrain_network_S1: experiments/sr/models/net_g_2.pth}}"
    )
    Path("experiments/sr").rename("experiments/first")
    teacher = teacher.replace("experiments/sr", "experiments/first")
    second = sr_file("DiffIRS2Model", "DiffIRS2", more=teacher, train="  kd_opt: {type: KDLoss}")
    assert second.options.networks["S1"]["scale"] == second.options.networks["g"]["scale"] == 4
    scores = train_pipeline(second.options)
    assert math.isfinite(scores["val_1"]["psnr"])


def test_a_teacher_of_larger_images_is_the_same_with_padding_and_tiles() -> None:
    torch.manual_seed(0)
    network = build_network({"type": "DiffIRS1", **yaml.safe_load(f"{{{TINY_SR}}}"), "scale": 2}).eval()
    model = DiffIRS1Model({"g": network}, {})
    lq, gt = torch.rand(1, 3, 16, 24), torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        torch.testing.assert_close(model.predict({"lq": lq, "gt": gt})["output"], network(lq, gt))
        odd = model.predict({"lq": lq[..., :13, :21], "gt": gt[..., :26, :42]})["output"]
        padded = [pad_to_multiple(x, k)[0] for x, k in ((lq[..., :13, :21], 8), (gt[..., :26, :42], 16))]
        torch.testing.assert_close(odd, network(*padded)[..., :26, :42])


def test_a_scale_that_the_data_do_not_have_is_left_out() -> None:
    found = sr_file(
        "DiffIRS2Model",
        "DiffIRS2",
        data="DeblurPairedDataset",
        train="  kd_opt: {type: KDLoss}",
        more=f"network_S1: {{type: DiffIRS1, {TINY_SR}}}",
    )
    assert found.options.scale == 1 and "scale" not in found.options.networks["g"]
    assert any("scale: 1, as the images of DeblurPairedDataset are of one size" in str(n) for n in found.notes)
