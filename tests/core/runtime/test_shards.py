"""core/runtime/shards.py: each rank writes its own share; killed and resumed it is the same run; no pickle runs code."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from runs import differences, options, outcome, train
from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

from relume.core.errors import UserError
from relume.core.options import check
from relume.core.pipeline import train_pipeline
from relume.core.runtime import checkpoint
from relume.core.runtime.checkpoint import Checkpoints
from relume.core.runtime.shards import _read, written
from relume.core.runtime.shards_format import METADATA, merged, read_metadata

SHARDED: dict[str, Any] = {
    "train__total_iter": 8, "network_g__dropout": 0.0, "network_g__norm": False,
    "train__strategy": "fsdp", "train__sharded_state": True, "logger__async_save": True,
    "logger__save_checkpoint_freq": 2, "logger__keep_checkpoints": 3,
}  # fmt: skip
ACCIDENT = """
import os, signal
from relume.core.runtime import shards

calls, whole = [], shards.written

def half(folder, tensors):
    calls.append(1)
    if os.environ["RANK"] == "1" and len(calls) == int(os.environ.get("DIES_AT", 0)):
        whole(folder, tensors)
        (folder / ".metadata").unlink()
        data = (folder / "__0_0.distcp").read_bytes()
        (folder / "__0_0.distcp").write_bytes(data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)
    return whole(folder, tensors)

shards.written = half
"""


def memory(folder: Path, iteration: int) -> dict[str, Any]:
    """What the optimizer remembers, read by torch's own tool."""
    dcp_to_torch_save(folder / f"experiments/toy/training_states/{iteration}.dcp", folder / "whole.pt")
    found: dict[str, Any] = torch.load(folder / "whole.pt", weights_only=True)
    return found


def test_killed_while_a_share_is_written_and_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "accident.py").write_text(ACCIDENT)
    opt = options(**SHARDED, val__best={"keep_state": True})
    opt["plugins"].append(str(tmp_path / "accident.py"))
    straight, moved = tmp_path / "straight", tmp_path / "moved"
    assert train(straight, opt, ranks=2).returncode == 0
    killed = train(moved, opt, ranks=2, env={"DIES_AT": "3"})
    assert killed.returncode != 0
    run = moved / "experiments" / "toy"
    last, problems = Checkpoints(run).newest_good()
    assert problems == [] and last is not None and 2 <= last < 8, killed.stderr
    assert list((run / "training_states").glob(".*.tmp")), "what the rank was writing is still there"
    done = train(moved, opt, "--auto_resume", ranks=2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not list((run / "training_states").glob(".*")) and Checkpoints(run).newest_good() == (8, [])
    assert not (run / "training_states/2.dcp").exists() and (run / "training_states/4.dcp").is_dir()
    assert differences(outcome(straight, iteration=8), outcome(moved, iteration=8)) == []
    assert differences(memory(straight, 8), memory(moved, 8)) == []
    assert (run / "training_states/best.dcp/1" / METADATA).is_file() and Checkpoints(run).verify("best") is None
    data = run / "training_states/8.dcp/1/__0_0.distcp"
    data.write_bytes(data.read_bytes()[:-1] + b"x")
    assert Checkpoints(run).newest_good()[0] == 6

    # The same state, whole, in a run of one process: the shares are put together.
    alone = {**SHARDED, "train__strategy": "ddp", "train__sharded_state": False, "logger__async_save": False}
    monkeypatch.chdir(moved)
    train_pipeline(options(**alone, datasets__train__batch_size_per_gpu=4), auto_resume=True)
    assert "Resumed at iteration 6" in "".join(p.read_text() for p in run.glob("train_*.log"))
    whole = torch.load(run / "training_states/8.state", weights_only=True)["optimizers"]["g"]["state"]
    by_name = memory(straight, 8)["optim_g"]["state"]
    for entries, expected in zip(whole.values(), by_name.values(), strict=True):
        for name in ("step", "exp_avg", "exp_avg_sq"):
            torch.testing.assert_close(entries[name], expected[name], rtol=1e-3, atol=1e-6)


class Evil:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        import os

        return os.system, ("touch ran",)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A share of one rank."""
    monkeypatch.chdir(tmp_path)
    tensors = {
        "optim_g": {"state": {"a.weight": {"exp_avg": torch.arange(6.0).reshape(2, 3), "step": torch.tensor(3.0)}}}
    }
    written(tmp_path / "5.dcp" / "0", tensors)
    (tmp_path / "5.dcp" / METADATA).write_bytes(
        pickle.dumps(merged({"0": read_metadata(tmp_path / "5.dcp/0" / METADATA)}))
    )
    return tmp_path / "5.dcp"


def test_what_was_written_is_read(folder: Path) -> None:
    found = _read(folder, "g", None)
    assert torch.equal(found["a.weight"]["exp_avg"], torch.arange(6.0).reshape(2, 3))
    assert found["a.weight"]["step"] == 3


def test_no_pickle_runs_code(folder: Path) -> None:
    path = folder / METADATA
    whole = path.read_bytes()
    found = pickle.loads(whole)
    for spoilt in (
        pickle.dumps(Evil()),
        whole[: len(whole) // 2],
        b"",
        pickle.dumps({"a": 1}),
        pickle.dumps(dcp.metadata.Metadata({"optim_g.state.a": Evil()}, {}, {})),  # type: ignore[dict-item]
    ):
        path.write_bytes(spoilt)
        with pytest.raises(UserError, match=r"metadata: no metadata of a checkpoint") as error:
            _read(folder, "g", None)
        assert "\n" not in str(error.value) and not Path("ran").exists()
    for key, value in (("relative_path", "../../other.distcp"), ("offset", -1), ("length", 10**12)):
        other = pickle.loads(whole)
        setattr(next(iter(other.storage_data.values())), key, value)
        path.write_bytes(pickle.dumps(other))
        with pytest.raises(UserError, match="no metadata"):
            _read(folder, "g", None)
    found.state_dict_metadata["optim_g.state.a.weight.exp_avg"].size = torch.Size([10**6, 10**6])
    found.state_dict_metadata["optim_g.state.a.weight.exp_avg"].chunks[0].sizes = torch.Size([10**6, 10**6])
    path.write_bytes(pickle.dumps(found))
    with pytest.raises(UserError, match="larger than its data"):
        _read(folder, "g", None)


def test_a_torn_share_is_one_line(folder: Path) -> None:
    data = folder / "0/__0_0.distcp"
    whole = data.read_bytes()
    for spoilt in (bytes(len(whole)), pickle.dumps(Evil()).ljust(len(whole), b"\0")):
        data.write_bytes(spoilt)
        with pytest.raises(UserError, match="cannot be read, it is torn") as error:
            _read(folder, "g", None)
        assert "\n" not in str(error.value) and not Path("ran").exists()
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="cannot be read"):
        _read(folder, "g", None)


def test_a_share_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(checkpoint.CannotWrite, match="cannot be written"):
        written(tmp_path / "file" / "0", {})


def test_options() -> None:
    with pytest.raises(UserError, match="sharded_state: is for strategy: fsdp"):
        check(options(train__sharded_state=True))
