"""The option files of one-step generation: valid, faithful to the report, and complete."""

from __future__ import annotations

from pathlib import Path

import pytest

import relume
from relume.archs import build_network
from relume.core import options
from relume.core.models.generation.matching import Matching, MatchingOptions
from relume.losses import build_loss

FOLDER = Path(relume.__file__).resolve().parent / "options" / "generation"
FILES = sorted(p for p in FOLDER.rglob("*.yml") if "test" not in p.parts)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(FOLDER)))
def test_every_file_is_valid_and_says_how_to_run_it(path):
    opt = options.load(path)
    header = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    assert f"-opt options/generation/{path.relative_to(FOLDER).as_posix()}" in header
    for key in [k for k in opt.train if k.endswith("_opt") and k != "lpips_opt"]:
        build_loss(opt.train[key])


def test_the_report_done_right():
    opt = options.load(FOLDER / "cifar10.yml")
    assert sum(p.numel() for p in build_network(opt.network_g).parameters()) == 61_805_827
    batch = opt.datasets.train.batch_size_per_gpu * opt.train.accumulate
    assert batch == 256 and 100_000 <= opt.train.total_iter * batch < 100_256
    assert opt.train.scheduler.total == 100_000 and opt.train.ema_halflife == 500_000
    assert options.load(FOLDER / "cifar10_ddp.yml").train.matching.scope == "global"


def test_the_counters_of_the_report():
    opt = options.load(FOLDER / "cifar10_legacy.yml")
    found = Matching(MatchingOptions(**opt.train.matching)).settings(opt.train.total_iter)
    assert found.fgw_lambda == 0.125 and round(found.epsilon, 3) == 0.087
    rate = opt.train.optim_g.lr * (opt.train.total_iter - 1) / opt.train.scheduler.warmup
    assert rate == pytest.approx(3.124e-5) and opt.train.scheduler.unit == "iterations" and opt.train.legacy_schedule


def test_ablations_differ_in_their_matching_or_in_one_loss():
    default = options.load(FOLDER / "faces.yml").to_dict()["train"]["matching"]
    every = [options.load(p).to_dict() for p in sorted((FOLDER / "ablation").glob("*.yml"))]
    assert len(every) == 9
    for opt in every:
        added = {k: opt["train"].pop(k) for k in ("consistency_opt", "structure_opt") if k in opt["train"]}
        assert len(added) + (opt["train"].pop("matching") != default) == (opt["name"] != "faces_sample"), opt["name"]
        opt.pop("name")
        assert opt == every[0]
