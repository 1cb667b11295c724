"""Training states and weights that do not fit: one line that names what, exit code 2, and nothing lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from runs import options, weights
from runs import train as run_in_processes
from torch import nn

from relume.core import changes
from relume.core.changes import Verdict, verdict
from relume.core.cli import main
from relume.core.errors import UserError
from relume.core.files import reading
from relume.core.runtime import checkpoint, training_state
from relume.core.runtime.checkpoint import Checkpoints, load_weights
from relume.core.runtime.state import load_optimizer_state
from relume.losses import build_loss


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def train(opt: dict[str, Any], capsys: Any, *arguments: str) -> tuple[int, str, str]:
    Path("o.yml").write_text(yaml.safe_dump(opt))
    capsys.readouterr()
    code = main(["train", "-opt", "o.yml", *arguments])
    printed = capsys.readouterr()
    assert "Traceback" not in printed.out + printed.err
    return code, printed.out, printed.err


def short(total: int = 2, **changed: Any) -> dict[str, Any]:
    opt = options(train__total_iter=total, val__val_freq=None, logger__save_checkpoint_freq=2)
    for path, value in changed.items():
        block = opt
        *parents, last = path.split("__")
        for parent in parents:
            block = block.setdefault(parent, {})
        block[last] = value
    return opt


# ------------------------------------------------------------------ what changed since the checkpoint
REFUSED = {
    "another optimizer": (
        {"train__optim_g": {"type": "RMSprop", "lr": 0.01}},
        "optim_g.type: it was Adam and is RMSprop",
    ),
    "Adafactor": ({"train__optim_g": {"type": "Adafactor", "lr": 0.01}}, "it was Adam and is Adafactor"),
    "AdamW": ({"train__optim_g__type": "AdamW"}, "it was Adam and is AdamW"),
    "amsgrad": ({"train__optim_g__amsgrad": True}, "train.optim_g.amsgrad: it was absent and is True"),
    "scale": ({"scale": 2}, "scale: it was 1 and is 2"),
}
ALLOWED = {
    "rate": ({"train__optim_g__lr": 0.02}, "train.optim_g.lr: was 0.01, is 0.02"),
    "schedule": ({"train__scheduler": {"type": "MultiStepLR", "milestones": [3]}}, "train.scheduler.type: was Cosine"),
    "average begins": ({"train__ema_decay": 0.9}, "train.ema_decay: was 0.0, is 0.9"),
    "batch": ({"datasets__train__batch_size_per_gpu": 3}, "datasets.train.batch_size_per_gpu: was 2, is 3"),
    "seed": ({"manual_seed": 8}, "manual_seed: was 7, is 8"),
    "clipping": ({"train__grad_clip_norm": 1.0}, "train.grad_clip_norm: was absent, is 1.0"),
    "validation": ({"val__val_freq": 2}, ""),
    "logging": ({"logger__print_freq": 7}, ""),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_changes_that_a_training_cannot_go_on_with(kind, capsys):
    changed, message = REFUSED[kind]
    assert train(short(), capsys)[0] == 0
    before = {p: p.read_bytes() for p in Path("experiments/toy").rglob("*.*") if p.is_file() and p.suffix != ".log"}
    code, _, err = train(short(4, **changed), capsys, "--auto_resume")
    assert code == 2 and "2.state: cannot be continued with another" in err and message in err
    assert {p: p.read_bytes() for p in before} == before


@pytest.mark.parametrize("kind", ALLOWED)
def test_changes_that_a_training_goes_on_with(kind, capsys):
    changed, message = ALLOWED[kind]
    assert train(short(), capsys)[0] == 0
    code, out, err = train(short(4, **changed), capsys, "--auto_resume")
    assert code == 0, err
    assert "changed since the checkpoint: train.total_iter: was 2, is 4" in out
    assert (f"changed since the checkpoint: {message}" in out) if message else out.count("changed since") == 1
    state = torch.load("experiments/toy/training_states/4.state", weights_only=True)
    assert state["iter"] == 4 and ("params_ema" in weights(Path("experiments/toy"), 4)) == (kind == "average begins")


def test_an_average_may_end(capsys):
    assert train(short(train__ema_decay=0.9), capsys)[0] == 0
    code, out, _ = train(short(4), capsys, "--auto_resume")
    assert code == 0 and "train.ema_decay: was 0.9, is 0.0" in out


def test_a_state_that_does_not_say_its_options_is_compared_by_what_it_holds(capsys):
    assert train(short(), capsys)[0] == 0
    path = Path("experiments/toy/training_states/2.state")
    state = torch.load(path, weights_only=True)
    del state["options"]
    rewrite(path, state)
    for optimizer, message in (
        ({"type": "RMSprop", "lr": 0.01}, "RMSprop has"),
        ({"type": "Adam", "lr": 0.01, "amsgrad": True}, "amsgrad was False and is True"),
    ):
        code, _, err = train(short(4, train__optim_g=optimizer), capsys, "--auto_resume")
        assert code == 2 and "2.state: does not fit these options" in err and message in err
    assert train(short(4), capsys, "--auto_resume")[0] == 0


def test_every_option_has_a_rule_and_sections_hold_for_what_is_in_them():
    assert verdict("path.pretrain_network_g", "a", "b") is Verdict.ALLOWED
    assert verdict("datasets.val_2.dataroot", "a", "b") is Verdict.ALLOWED
    assert verdict("datasets.train.dataroot_gt", "a", "b") is Verdict.NOTED
    assert verdict("network_d.type", "a", "b") is Verdict.REFUSED
    assert verdict("train.optim_d.momentum", 0.9, 0.8) is Verdict.NOTED
    assert verdict("train.optim_d.momentum", 0.9, 0.0) is Verdict.REFUSED
    assert verdict("train.optim_d.nesterov", False, True) is Verdict.REFUSED
    assert verdict("train.pixel_opt.type", "L1Loss", "MSELoss") is Verdict.NOTED
    assert changes.rule_of("anything.else").options == ("*",)


# ------------------------------------------------------------------ damaged states
def rewrite(path: Path, state: Any) -> None:
    """Replace a training state, and its checksum."""
    checkpoint.save(path, state)
    manifest = path.with_suffix(".sha256")
    lines = [line for line in manifest.read_text().splitlines() if not line.endswith(path.name)]
    manifest.write_text("\n".join([*lines, f"{reading.checksum(path)}  {path.name}"]) + "\n")


VALUES = {
    "iter": [None, "2", -1, 2.5, True, []],
    "epoch": [None, "0", -3],
    "position": [None, "x", -1, 0.5],
    "world_size": [None, 0],
    "optimizers": [None, [], "Adam", {"g": None}, {"g": {}}, {"g": {"state": None, "param_groups": []}}, {3: {}}, {}],
    "schedulers": [
        None,
        "cosine",
        {"g": None},
        {"g": {}},
        {"g": {"last_epoch": -5}},
        {"g": {"last_epoch": 10**12}},
        {},
    ],
    "scaler": [None, 3],
    "model": [None, "x", []],
    "best": [
        None,
        [],
        {"held_out": None},
        {"held_out": {"score": 3}},
        {"held_out": {"score": {"value": "x", "iter": 1}}},
    ],
    "results": [None, {"held_out": 3}, {"held_out": {"score": None}}],
    "nonfinite": [None, -1, "0"],
    "pending_validation": [None, 1, "no"],
    "seed": [None, -2, "7"],
    "options": [None, 3, []],
}


def test_parts_of_a_state_that_are_not_what_they_must_be(capsys):
    assert train(short(), capsys)[0] == 0
    path = Path("experiments/toy/training_states/2.state")
    good = torch.load(path, weights_only=True)
    for key, values in VALUES.items():
        for value in values:
            rewrite(path, {**good, key: value})
            code, _, err = train(short(4), capsys, "--auto_resume")
            assert code == 2 and "2.state" in err and "\n" not in err.strip(), (key, value, err)
    for key in training_state.SCHEMA:
        rewrite(path, {k: v for k, v in good.items() if k != key})
        code, _, err = train(short(4), capsys, "--auto_resume")
        assert code == 2 and "lacks" in err, (key, err)
    for state in (None, [], "state", torch.zeros(3), {}):
        rewrite(path, state)
        assert train(short(4), capsys, "--auto_resume")[0] == 2
    rewrite(path, good)
    assert train(short(4), capsys, "--auto_resume")[0] == 0


@pytest.mark.parametrize("value", [None, torch.zeros(3), "x", 5.0])
def test_what_an_optimizer_remembers_has_its_parameters_shape(value):
    network = nn.Linear(2, 4)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    load_optimizer_state({"g": network}, torch.optim.Adam(network.parameters()), state)
    state["state"][0] = {**state["state"][0], "exp_avg": value}
    if value is not None:
        with pytest.raises(ValueError, match="exp_avg of parameter 0 is"):
            load_optimizer_state({"g": network}, torch.optim.Adam(network.parameters()), state)


# ------------------------------------------------------------------ weights of another kind
WEIGHTS = {
    "complex": lambda w: w.to(torch.complex64),
    "integers": lambda w: w.to(torch.int32),
    "bytes": lambda w: w.to(torch.uint8),
    "truth": lambda w: w > 0,
    "sparse": lambda w: w.to_sparse(),
    "compressed rows": lambda w: w.to_sparse_csr(),
    "quantised": lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8),
    "a list": lambda w: w.tolist(),
    "a number": lambda w: 3.5,
    "nothing": lambda w: None,
    "NaN": lambda w: w.log(),
    "infinite": lambda w: w / 0,
    "beyond float32": lambda w: w.double() * 1e300,
}


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning", "ignore:.*quantiz.*", "ignore:TypedStorage")
@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights_of_another_kind_are_refused(kind, strict, tmp_path):
    network = nn.Linear(2, 4)
    before = network.weight.clone()
    try:
        state = {"weight": WEIGHTS[kind](torch.randn(4, 2)), "bias": torch.zeros(4)}
    except (RuntimeError, AttributeError, NotImplementedError) as e:
        pytest.skip(f"this torch makes no such tensor: {e}")
    checkpoint.save(tmp_path / "w.pth", {"params": state})
    with pytest.raises(
        UserError,
        match=r"w\.pth: (weight is .+, and in the network a tensor of float32|weight has NaN or infinite|cannot be read)",
    ):
        load_weights(network, tmp_path / "w.pth", strict=strict)
    assert torch.equal(network.weight, before)


def test_what_is_infinite_in_the_network_itself_may_be_so_in_a_file(tmp_path):
    class Masked(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))

    checkpoint.save(tmp_path / "w.pth", {"params": Masked().state_dict()})
    load_weights(Masked(), tmp_path / "w.pth")


@pytest.mark.parametrize("kind", ["NaN", "complex", "integers"])
def test_what_looks_at_images_has_no_such_weights(kind, tmp_path):
    first = {f"features.0.{k}": torch.ones(s) for k, s in (("weight", (64, 3, 3, 3)), ("bias", (64,)))}
    first["features.0.weight"] = WEIGHTS[kind](-first["features.0.weight"])
    torch.save(first, tmp_path / "vgg.pth")
    with pytest.raises(UserError, match=r"vgg\.pth: features\.0\.weight (is a tensor of|has NaN)"):
        build_loss({"type": "PerceptualLoss", "layer_weights": {"conv1_1": 1}, "weights": str(tmp_path / "vgg.pth")})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_the_same_kind(dtype, tmp_path):
    network = nn.Linear(2, 4)
    checkpoint.save(tmp_path / "w.pth", {"params": {"weight": torch.ones(4, 2, dtype=dtype), "bias": torch.ones(4)}})
    load_weights(network, tmp_path / "w.pth")
    assert torch.equal(network.weight, torch.ones(4, 2))


@pytest.mark.parametrize(
    "content", [[1, 2], "text", torch.zeros(3), None, {"params": [1]}, {"params": None}, {"params": 3}]
)
def test_files_that_hold_no_weights(content, tmp_path):
    checkpoint.save(tmp_path / "w.pth", content)
    with pytest.raises(UserError, match=r"w\.pth: "):
        load_weights(nn.Linear(2, 4), tmp_path / "w.pth")


@pytest.mark.parametrize("at", [0, 1, 100, 400, 900])
def test_files_that_are_cut_or_full_of_noise(at, tmp_path):
    path = tmp_path / "w.pth"
    checkpoint.save(path, {"params": nn.Linear(2, 4).state_dict()})
    data = path.read_bytes()
    random = np.random.RandomState(at)
    for damaged in (data[:at], data[:at] + random.bytes(len(data) - at), random.bytes(at + 1)):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"w\.pth: "):
            load_weights(nn.Linear(2, 4), path)


# ------------------------------------------------------------------ files and folders
@pytest.mark.parametrize("place", ["experiments/toy", "tb_logger/toy", "experiments"])
def test_files_where_folders_are_needed_stay_and_are_named(place, capsys):
    path = Path(place)
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")
    for arguments in ([], ["--auto_resume"]):
        code, _, err = train(short(), capsys, *arguments)
        assert code == 2 and place in err and len(err.splitlines()) == 1, err
    assert path.read_text() == "mine"


@pytest.mark.skipif("RELUME_SLOW_TESTS" not in os.environ, reason="slow; set RELUME_SLOW_TESTS=1")
def test_every_rank_refuses_weights_that_are_none(tmp_path):
    torch.save({"params": {"body.0.weight": torch.full((8, 3, 3, 3), torch.nan)}}, tmp_path / "w.pth")
    opt = short(path={"pretrain_network_g": str(tmp_path / "w.pth"), "strict_load_g": False})
    done = run_in_processes(tmp_path / "run", opt, ranks=2)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert all("w.pth: body.0.weight has NaN or infinite values" in line for line in done.stderr.splitlines())


def test_folders_that_cannot_be_opened_are_not_synced(tmp_path, monkeypatch):
    real = os.open

    def refuse(path, *arguments, **keywords):
        if os.path.isdir(path):
            raise PermissionError(13, "Permission denied", str(path))
        return real(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", refuse)
    checkpoint.save(tmp_path / "x/w.pth", {"a": 1})
    assert checkpoint.load(tmp_path / "x/w.pth") == {"a": 1}


def test_what_killed_runs_left_is_swept(tmp_path):
    left = [".net_g_5.pth.123.tmp", ".abc.123.tmp"]
    folders = [tmp_path, tmp_path / "models", tmp_path / "training_states", tmp_path / "visualization/set/a"]
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        for name in left:
            (folder / name).touch()
        (folder / "mine.tmp.png").touch()
    Checkpoints(tmp_path).save(3, {"g": {"params": {}}}, {"iter": 3})
    assert not list(tmp_path.rglob(".*"))
    assert len(list(tmp_path.rglob("mine.tmp.png"))) == len(folders)


def test_the_page_has_the_rules():
    page = (Path(changes.__file__).parents[1] / "docs" / "resuming.md").read_text(encoding="utf-8")
    for rule in changes.RULES:
        assert f"| {', '.join(f'`{o}`' for o in rule.options)} | {rule.verdict.value} | {rule.why} |" in page
