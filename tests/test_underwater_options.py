"""The option files of underwater enhancement: valid, faithful to the trainings that they name, and complete."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import relume
from relume.archs import build_network
from relume.core import options
from relume.core.errors import UserError
from relume.core.models.restoration import RestorationModel
from relume.core.options import counts
from relume.losses import build_loss

FOLDER = Path(relume.__file__).resolve().parent / "options" / "underwater"
FILES = sorted(FOLDER.rglob("*.yml"))
NETWORKS = {"spectroformer": 2_992_892, "agssf1": 2_530_193, "phaseformer": 1_783_800}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(FOLDER)))
def test_every_file_is_valid_and_says_how_to_run_it(path):
    options.load(path)
    header = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    command = f"-opt options/underwater/{path.relative_to(FOLDER).as_posix()}"
    assert command in header or (path.parent.name == "ablation" and "tools/ablation.py" in header)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_is_there_in_every_form(name):
    for form in (f"{name}", f"laptop/{name}", f"test/{name}", f"test/{name}_reference_free"):
        network = build_network(options.load(FOLDER / f"{form}.yml").network_g)
        assert sum(p.numel() for p in network.parameters()) == NETWORKS[name]
    assert (FOLDER / f"ablation/{name}.yml").is_file()
    assert any(p.name.startswith(name) for p in (FOLDER / "paper").glob("*.yml"))


def test_paper_files_state_command_time_and_score():
    for path in (FOLDER / "paper").glob("*.yml"):
        text = path.read_text()
        for line in ("# Command:", "# Expected time:", "# Expected score:"):
            assert line in text, path.name


def trainings():
    return [p for p in FILES if p.parent in (FOLDER, FOLDER / "paper")]


@pytest.mark.parametrize("path", trainings(), ids=lambda p: p.stem)
def test_epochs_are_whole(path):
    """Iterations and the schedule agree with the size of the training set, and the rate never reaches zero before the end."""
    for ranks, batch in ((1, None), (2, 3), (1, 8)):
        opt = options.load(path, [f"datasets:train:batch_size_per_gpu={batch}"] if batch else [])
        size = {"LSUI": 3879, "UIEB": 800}[opt.datasets.train.layout]
        opt = counts.resolved(opt, size, ranks)
        per_epoch = size / (opt.datasets.train.batch_size_per_gpu * ranks)
        schedule = opt.train.scheduler
        assert abs(schedule.iters_per_epoch - per_epoch) <= 0.5
        epochs = opt.train.total_iter / schedule.iters_per_epoch
        whole = schedule.niter + schedule.niter_decay
        assert epochs == (whole + 1 if whole == 550 else whole)
        assert opt.val.val_freq % schedule.iters_per_epoch == 0


@pytest.mark.parametrize("name", NETWORKS)
def test_hyper_parameters_of_the_originals(name):
    train = options.load(FOLDER / f"{name}.yml").train
    assert dict(train.optim_g) == {"type": "Adam", "lr": 1e-3, "betas": (0.5, 0.999)}
    assert train.grad_clip_norm == 1.0 and train.balance == "random"
    assert (train.get("balance_outputs") == "random") == (name == "phaseformer")
    kinds = [type(build_loss({**train[k], **({"weights": "random"} if k == "perceptual_opt" else {})})).__name__
             for k in train if k.endswith("_opt")]  # fmt: skip
    assert kinds == ["CharbonnierLoss", "PerceptualLoss", "GradientLoss", "MSSSIMLoss"]


def test_what_balances_need_is_refused_where_none_learns():
    file = FOLDER / "laptop/phaseformer.yml"
    for given in ("balance_entropy=0.5", "balance_start=random"):
        for modes in ([], ["train:balance=random"]):
            with pytest.raises(
                UserError, match=rf"train\.{given.split('=')[0]}: has no effect where neither balance nor"
            ):
                options.load(file, [f"train:{given}", *modes])
        options.load(file, [f"train:{given}", "train:balance=softmax"])
    options.load(file, ["train:balance_start=random", "train:balance=uncertainty"])


def test_ablations_share_their_budget_and_their_images():
    every = [options.load(p).to_dict() for p in sorted((FOLDER / "ablation").glob("*.yml"))]
    assert len(every) == len(NETWORKS)
    for opt in every:
        assert opt["datasets"] == every[0]["datasets"] and opt["val"] == every[0]["val"]
        assert opt["train"] == every[0]["train"]


PAGE = Path(relume.__file__).resolve().parent / "docs" / "underwater.md"


def test_the_page_names_only_files_that_exist():
    text, root = PAGE.read_text(), PAGE.parents[1]
    for target in re.findall(r"(?:options|tools|tests|datasets)/[\w/]+\.(?:py|yml)", text):
        assert (root / target).is_file(), target
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        assert (PAGE.parent / picture).is_file(), picture


def test_the_page_counts_parameters_right():
    rows = re.findall(r"\| `(\{type: [^`]+\})` \| ([\d,]+) \| ([\d,]+|all) \|", PAGE.read_text())
    assert len(rows) == 6
    for block, total, live in rows:
        network = build_network(yaml.safe_load(block))
        counts = [sum(p.numel() for p in network.parameters() if p.requires_grad or frozen) for frozen in (True, False)]
        assert counts == [int(n.replace(",", "")) for n in (total, total if live == "all" else live)], block


def test_the_pages_example_is_valid():
    (example,) = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    opt = options.load(FOLDER / "laptop/phaseformer.yml").to_dict()
    terms = {"pixel": {"type": "L1Loss"}, "msssim": {"type": "MSSSIMLoss"}}
    train = yaml.safe_load(example)["train"]
    RestorationModel({"g": build_network(opt["network_g"])}, {k: build_loss(v) for k, v in terms.items()}, **train)
    options.check({**opt, "train": {**opt["train"], **{f"{k}_opt": v for k, v in terms.items()}, **train}})
