"""core/runtime/checkpoint.py: atomic, checksummed, code-free; the newest good one is found whatever happened to newer ones."""

from __future__ import annotations

import os
import pickle
import subprocess
from pathlib import Path

import pytest
import torch
from runs import forked
from torch import nn

from relume.core.errors import UserError
from relume.core.runtime import checkpoint
from relume.core.runtime.checkpoint import Checkpoints


def small_state(value: float) -> dict[str, dict[str, torch.Tensor]]:
    return {"params": {"weight": torch.full((64, 64), value)}}


@pytest.fixture
def three(tmp_path: Path) -> Checkpoints:
    checkpoints = Checkpoints(tmp_path)
    for iteration in (10, 20, 30):
        checkpoints.save(iteration, {"g": small_state(iteration)}, {"iter": iteration})
    return checkpoints


def test_a_checkpoint_round_trips_and_latest_is_the_newest(three: Checkpoints) -> None:
    assert three.iterations() == [10, 20, 30]
    assert three.newest_good() == (30, [])
    for which, value in ((20, 20.0), ("latest", 30.0)):
        assert checkpoint.load(three.network_path("g", which))["params"]["weight"][0, 0] == value


def test_sha256sum_understands_the_manifest(three: Checkpoints) -> None:
    done = subprocess.run(
        ["sha256sum", "-c", "30.sha256"], cwd=three.states, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("victim", ["state", "network"])
@pytest.mark.parametrize("harm", ["flip", "truncate", "remove", "empty"])
def test_harm_to_the_newest_is_named_and_the_one_before_is_used(three: Checkpoints, victim: str, harm: str) -> None:
    path = three.state_path(30) if victim == "state" else three.network_path("g", 30)
    content = bytearray(path.read_bytes())
    if harm == "flip":
        content[len(content) // 2] ^= 1
        path.unlink()  # `latest` is another name of the same file; harm this one only
        path.write_bytes(content)
    elif harm == "truncate":
        os.truncate(path, len(content) // 2)
    elif harm == "empty":
        os.truncate(path, 0)
    else:
        path.unlink()
    newest, problems = three.newest_good()
    assert newest == 20
    assert len(problems) == 1 and str(path) in os.path.normpath(problems[0].split(" is ")[0])


def test_files_without_a_manifest_do_not_count(three: Checkpoints) -> None:
    (three.states / "30.sha256").unlink()
    assert three.newest_good()[0] == 20


def test_keep_prunes_only_old_ones_and_never_best_or_latest(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, {"g": small_state(1)}, {"iter": 1})
    checkpoints.save_best({"g": small_state(1)})
    for iteration in (2, 3, 4):
        checkpoints.save(iteration, {"g": small_state(iteration)}, {"iter": iteration})
    assert checkpoints.iterations() == [3, 4]
    names = sorted(p.name for p in checkpoints.models.iterdir())
    assert names == ["net_g_3.pth", "net_g_4.pth", "net_g_best.pth", "net_g_latest.pth"]
    assert checkpoint.load(checkpoints.network_path("g", "best"))["params"]["weight"][0, 0] == 1


KILLED_WHILE_WRITING = """
import os, sys, torch
from pathlib import Path
from relume.core.runtime import checkpoint
from relume.core.runtime.checkpoint import Checkpoints

def tear(file):  # half of a file, then the power goes
    file.write(b"x" * 1000); file.flush(); os.kill(os.getpid(), 9)

stage, folder = sys.argv[1], Path(sys.argv[2])
real = checkpoint.write_atomically
def write(path, fill):
    doomed = {"network": "net_g_40.pth", "state": "40.state", "manifest": "40.sha256"}[stage]
    return real(path, tear if path.name == doomed else fill)
checkpoint.write_atomically = write
Checkpoints(folder).save(40, {"g": {"params": {"w": torch.zeros(9)}}}, {"iter": 40})
"""


@pytest.mark.parametrize("stage", ["network", "state", "manifest"])
def test_sigkill_during_a_write_leaves_the_last_good_one(three: Checkpoints, stage: str) -> None:
    folder = three.states.parent
    done = forked(["-c", KILLED_WHILE_WRITING, stage, str(folder)], folder, [os.environ])
    assert done.returncode == -9
    assert three.newest_good() == (30, [])
    assert checkpoint.load(three.network_path("g", "latest"))["params"]["weight"][0, 0] == 30
    three.save(50, {"g": small_state(50)}, {"iter": 50})
    assert not list(folder.rglob(".*.tmp")), "what the dead process left behind is cleaned up"


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch /nonexistent/never",)


def test_a_pickle_that_runs_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    with path.open("wb") as file:
        pickle.dump({"params": Bomb()}, file, protocol=2)
    with pytest.raises(UserError, match="never runs code"):
        checkpoint.load(path)
    torch.save(nn.Linear(2, 2), path)
    with pytest.raises(UserError, match="never runs code"):
        checkpoint.load(path)


def test_unreadable_files_are_one_clear_line(tmp_path: Path) -> None:
    path = tmp_path / "net_g_5.pth"
    with pytest.raises(UserError, match="no such file"):
        checkpoint.load(path)
    checkpoint.save(path, small_state(1))
    with pytest.raises(UserError, match=r"no such file\. Did you mean 'net_g_5\.pth'\?"):
        checkpoint.load(tmp_path / "net_g_6.pth")
    os.truncate(path, 100)
    with pytest.raises(UserError, match="torn or not a checkpoint") as caught:
        checkpoint.load(path)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------ weights
@pytest.mark.parametrize("wrapping", ["params", "params_ema", "state_dict", "model_state_dict", "model", None])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod."])
def test_weights_of_other_frameworks_load(tmp_path: Path, wrapping: str | None, prefix: str) -> None:
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    state = {prefix + k: v for k, v in source.state_dict().items()}
    torch.save({wrapping: state} if wrapping else state, tmp_path / "w.pth")
    checkpoint.load_weights(target, tmp_path / "w.pth", param_key=None)
    assert torch.equal(source.weight, target.weight)


def test_weights_that_do_not_fit_are_refused_or_loaded_in_part(tmp_path: Path) -> None:
    source = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 4))
    target = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 5), nn.Linear(5, 1))
    path = tmp_path / "w.pth"
    torch.save({"params": source.state_dict()}, path)
    with pytest.raises(UserError, match=r"does not fit Sequential: missing 2\.weight.*and 1 more$"):
        checkpoint.load_weights(target, path)
    problems = checkpoint.load_weights(target, path, strict=False)
    assert "1.weight: (4, 2) in the file, (5, 2) in the network" in problems
    assert torch.equal(source[0].weight, target[0].weight)


def test_weights_of_a_smaller_network_grow(tmp_path: Path) -> None:
    """New inputs come after the old ones and count nothing; new layers stay as they are."""
    small = nn.ModuleDict({"conv": nn.Conv2d(2, 4, 3), "up": nn.ConvTranspose2d(2, 3, 2)})
    large = nn.ModuleDict({"conv": nn.Conv2d(5, 4, 3), "up": nn.ConvTranspose2d(4, 3, 2), "new": nn.Linear(2, 2)})
    path, before = tmp_path / "w.pth", large["new"].weight.clone()
    torch.save({"params": small.state_dict()}, path)
    assert checkpoint.load_weights(large, path, grow=True) == ["missing new.weight", "missing new.bias"]
    x = torch.rand(1, 5, 6, 6)
    for name, seen, of in (("conv", x, x[:, :2]), ("up", x[:, :4], x[:, :2])):
        torch.testing.assert_close(large[name](seen), small[name](of))
    assert torch.equal(large["new"].weight, before)
    torch.save(
        nn.ModuleDict({"conv": nn.Conv2d(5, 3, 3)}).state_dict(), path
    )  # fewer outputs: zeros after them are fine
    assert checkpoint.load_weights(large, path, grow=True)
    torch.save(nn.ModuleDict({"conv": nn.Conv2d(6, 4, 3)}).state_dict(), path)
    with pytest.raises(UserError, match=r"conv\.weight: \(4, 6, 3, 3\) in the file, \(4, 5, 3, 3\) in the network"):
        checkpoint.load_weights(large, path, grow=True)
    torch.save(nn.Linear(2, 2).state_dict(), path)
    with pytest.raises(UserError, match="holds nothing of ModuleDict"):
        checkpoint.load_weights(large, path, grow=True)


def test_a_wrong_param_key_lists_what_is_there(tmp_path: Path) -> None:
    torch.save({"params": {}, "params_ema": {}}, tmp_path / "w.pth")
    with pytest.raises(
        UserError, match=r"no entry 'param_ema'. Did you mean 'params_ema'\? It holds: params, params_ema"
    ):
        checkpoint.load_weights(nn.Linear(1, 1), tmp_path / "w.pth", "param_ema")


def test_a_file_of_another_kind_is_not_taken_for_a_pickle(tmp_path):
    for name, data in {"a.png": b"\x89PNG\r\n\x1a\n" + bytes(64), "list.txt": b"photos/a.png\n"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(
            UserError, match=rf"{name}: is no checkpoint, or is torn; files of PyTorch and .safetensors"
        ):
            checkpoint.load(tmp_path / name)
