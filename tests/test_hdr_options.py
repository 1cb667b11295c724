"""The option files of HDR reconstruction: valid, faithful to the trainings that they name, and complete."""

from __future__ import annotations

from pathlib import Path

import diffir_files
import pytest
import torch

import relume
from relume.archs import build_network
from relume.core import options
from relume.core.building.networks import build_model
from relume.core.errors import UserError

FOLDER = Path(relume.__file__).resolve().parent / "options" / "hdr"
FILES = sorted(FOLDER.rglob("*.yml"))
SIZES = {"DiffIRS1": 26_742_206, "DiffIRS2": 26_911_934}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(FOLDER)))
def test_every_file_is_valid_says_how_to_run_it_and_has_the_published_network(path: Path) -> None:
    opt = options.load(path)
    header = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    program = "test.py" if "test" in path.relative_to(FOLDER).as_posix() else "train.py"
    assert f"{program} -opt options/hdr/{path.relative_to(FOLDER).as_posix()}" in header
    with torch.device("meta"):
        sizes = {k: sum(p.numel() for p in build_network(b).parameters()) for k, b in opt.items() if "network_" in k}
    if path.parent.name != "small":
        assert sizes == {k: SIZES[opt[k].type] for k in sizes}
    if "network_S1" in sizes:
        same = [
            {k: v for k, v in opt[n].items() if k in opt.network_S1 and k != "type"}
            for n in ("network_g", "network_S1")
        ]
        assert same[0] == same[1], "the student's restorer is the teacher's"


@pytest.mark.parametrize("name", ["s1", "s1_recover", "s2", "deblur_s1", "deblur_s2"])
def test_trainings_state_command_time_and_score(name: str) -> None:
    text = (FOLDER / f"{name}.yml").read_text()
    for line in ("# Command:", "# Expected time:", "# Expected score:"):
        assert line in text


@pytest.mark.parametrize(
    ("ours", "original"), [("s1", "HDR"), ("s1_recover", "RECOVER"), ("deblur_s1", "STAGE_1"), ("deblur_s2", "STAGE_2")]
)
def test_hyper_parameters_of_the_originals(ours: str, original: str, tmp_path: Path) -> None:
    (tmp_path / "x.yml").write_text(getattr(diffir_files, original))
    mine, theirs = options.load(FOLDER / f"{ours}.yml"), options.load(tmp_path / "x.yml")
    assert mine.train.ema_decay == theirs.train.ema_decay
    assert mine.train.optim_g.lr == theirs.train.optim_g.lr and mine.train.optim_g.betas == theirs.train.optim_g.betas
    for key in ("mini_batch_sizes", "gt_sizes", "iters"):
        assert mine.datasets.train[key] == theirs.datasets.train[key]
    assert theirs.datasets.train.geometric_augs and mine.datasets.train.geometric_augs
    for key in [k for k in theirs.train if k.endswith("_opt")]:
        assert mine.train[key].items() <= {**theirs.train[key], **mine.train[key]}.items()
        assert all(theirs.train[key].get(k, v) == v for k, v in mine.train[key].items())
    if original == "STAGE_2":
        t = theirs.train
        assert mine.train.encoder_iter == t.encoder_iter and mine.train.total_iter == t.total_iter
        assert (mine.train.optim_e.lr, mine.train.scheduler_e.every, mine.train.scheduler_e.gamma) == (
            *(t.lr_encoder, t.lr_decay_encoder, t.gamma_encoder),
        )
        start = mine.train.scheduler_g
        assert (start.every, start.gamma, start.start) == (t.lr_decay_sr, t.gamma_sr, t.encoder_iter)
    else:
        schedule = {k: v for k, v in theirs.train.scheduler.items() if k != "restart_weights"}  # all 1
        assert mine.train.scheduler == schedule


def test_stage_2_starts_where_stage_1_ends() -> None:
    for stage_1, stage_2 in (("s1", "s2"), ("deblur_s1", "deblur_s2"), ("small/s1", "small/s2")):
        opt = options.load(FOLDER / f"{stage_2}.yml")
        expected = f"experiments/{options.load(FOLDER / f'{stage_1}.yml').name}/models/net_g_latest.pth"
        assert opt.path.pretrain_network_g == opt.path.pretrain_network_S1 == expected
        assert opt.path.param_key_g == "params_ema" and opt.path.strict_load_g is False


def test_what_stage_1_lacks_is_one_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    teacher = build_network(options.load(FOLDER / "small/s1.yml").network_g).state_dict()
    torch.save({"params_ema": teacher}, tmp_path / "s1.pth")
    paths = [f"path:pretrain_network_{k}={tmp_path / 's1.pth'}" for k in ("g", "S1")]
    opt = options.load(FOLDER / "small/s2.yml", paths)
    with caplog.at_level("INFO", "relume"):
        _, networks = build_model(opt, torch.device("cpu"), for_training=True)
        assert not [r for r in caplog.records if r.levelname == "WARNING"]
        (said,) = (r.getMessage() for r in caplog.records if "as expected" in r.getMessage())
        assert (
            "32 tensors start as initialised (condition, denoise, diffusion), 16 of the file are not used (E)" in said
        )
        shared = [k for k in networks["g"].state_dict() if k in teacher]
        del teacher[shared[0]]
        torch.save({"params_ema": teacher}, tmp_path / "s1.pth")
        opt = options.load(FOLDER / "small/s2.yml", [paths[0], "path:pretrain_network_S1=~"])
        build_model(opt, torch.device("cpu"), for_training=True)
    assert [r.getMessage() for r in caplog.records if r.levelname == "WARNING"][:1] == [
        f"network_g: not loaded: missing {shared[0]}"
    ]


def test_what_trains_nothing_is_refused() -> None:
    path = FOLDER / "small" / "s2.yml"
    options.load(path, ["train:encoder_iter=1", "train:optim_e=~", "train:scheduler_e=~"])
    with pytest.raises(UserError, match=r"train\.optim_e: has no effect where no iteration is below encoder_iter"):
        options.load(path, ["train:encoder_iter=0"])
