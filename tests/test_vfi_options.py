"""The option files of frame interpolation: valid, faithful to the training that they name, and complete."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import relume
from relume.archs import build_network
from relume.core import options
from relume.core.options import counts

FOLDER = Path(relume.__file__).resolve().parent / "options" / "vfi"
TRAININGS = sorted(p for p in FOLDER.rglob("*.yml") if p.parent.name != "test")
PER_EPOCH = 51_313 // 4
"""Iterations of an epoch of Vimeo90K's triplets at the original's batch size."""


@pytest.mark.parametrize("path", TRAININGS, ids=lambda p: str(p.relative_to(FOLDER)))
def test_every_file_is_valid_and_says_how_to_run_it(path: Path) -> None:
    opt = options.load(path)
    assert opt.model_type == "InterpolationModel"
    assert f"-opt options/vfi/{path.relative_to(FOLDER).as_posix()}" in path.read_text()
    opt = counts.resolved(opt, 51_313)
    schedule = opt.train.scheduler
    assert (schedule.get("total_steps") or sum(schedule.periods)) == opt.train.total_iter


def parameters(name: str) -> int:
    return sum(p.numel() for p in build_network(options.load(FOLDER / f"{name}.yml").network_g).parameters())


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("phase1", 1_256_064),
        ("phase2", 8_998_923),
        ("phase3", 8_998_923),
        ("ablation/mamba2_only", 993_060),
        ("ablation/gated_attn_only", 843_606),
        ("ablation/mhc", 1_169_690),
        ("ablation/cab", 1_278_106),
        ("ablation/window7", 1_256_064),
    ],
)
def test_networks_have_the_originals_size(name: str, count: int) -> None:
    assert parameters(name) == count


@pytest.mark.parametrize(
    ("name", "epochs", "lr", "frozen"), [("phase1", 300, 2e-4, 0), ("phase2", 200, 1e-4, 50), ("phase3", 100, 5e-5, 0)]
)
def test_phases_are_those_of_the_original(name: str, epochs: int, lr: float, frozen: int) -> None:
    for ranks, batch in ((1, 4), (2, 2), (4, 1)):  # of the original's batch, whatever it is made of
        override = [f"datasets:train:batch_size_per_gpu={batch}"] if name != "phase3" else []
        opt = options.load(FOLDER / f"{name}.yml", override)
        train = counts.resolved(opt, 51_313, ranks if name != "phase3" else 1).train
        assert train.total_iter == epochs * PER_EPOCH
        assert train.scheduler.total_steps == train.total_iter
    assert train.optim_g.type == "AdamW" and train.optim_g.lr == lr and train.optim_g.weight_decay == 1e-4
    assert train.scheduler.warmup_steps == 2000 and train.scheduler.eta_min < lr
    assert train.get("freeze_backbone", 0) == frozen * PER_EPOCH and train.grad_clip_norm == 1.0
    terms = {k.removesuffix("_opt") for k in train if k.endswith("_opt")}
    assert terms == {"lap", "ter", "vgg"} | ({"flow_smooth"} if name != "phase1" else set())


@pytest.mark.parametrize("name", ["phase2", "phase3", "laptop/phase2"])
def test_later_phases_start_from_the_one_before(name: str) -> None:
    opt = options.load(FOLDER / f"{name}.yml")
    before = options.load(FOLDER / f"{name[:-1]}{int(name[-1]) - 1}.yml")
    assert f"experiments/{before.name}/models/net_g_" in opt.path.pretrain_network_g
    assert bool(opt.path.get("grow_network_g")) == (opt.network_g.use_flow != before.network_g.get("use_flow", False))


@pytest.mark.parametrize("path", sorted((FOLDER / "ablation").glob("*.yml")), ids=lambda p: p.stem)
def test_ablations_differ_from_phase_one_in_one_thing(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    assert len(lines) <= 4
    base: dict[str, Any] = options.load(FOLDER / "ablation" / "hybrid.yml").to_dict()
    assert base["train"]["total_epoch"] == 100
    opt: dict[str, Any] = options.load(path).to_dict()
    changed = {k for k in opt if opt[k] != base[k]} - {"name"}
    assert changed in (set(), {"network_g"}, {"train"}, {"network_g", "datasets"})
    if "datasets" in changed:  # patches that the network need not pad
        multiple = build_network(opt["network_g"]).size_multiple
        assert opt["datasets"]["train"]["gt_size"] % multiple == 0


def test_the_curriculum_keeps_four_samples_an_iteration() -> None:
    opt = counts.resolved(options.load(FOLDER / "phase3.yml"), 51_313)
    epoch = counts.Epoch.of(opt, 51_313)
    assert epoch.batch == 4 and not epoch.changes
    assert sum(opt.datasets.train.iters) == opt.train.total_iter == 100 * PER_EPOCH
