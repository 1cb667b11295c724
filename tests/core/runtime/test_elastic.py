"""A run of four nodes that loses one: the others go on with three, from the last checkpoint, by themselves."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from runs import REPO, options

SLOW_LOSS = """
import time
from relume.losses import LOSSES
from relume.tests.toy import ToyLoss

@LOSSES.register()
class SlowLoss(ToyLoss):
    def forward(self, *args):
        time.sleep(0.1)
        return super().forward(*args)
"""
RENDEZVOUS = "last_call_timeout=20,join_timeout=300,keep_alive_interval=3,keep_alive_max_attempt=5"


def node(port: int, folder: Path) -> subprocess.Popen[bytes]:
    """torchrun, as on one of four machines of which three are enough."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nnodes=3:4", "--nproc_per_node=1", "--max_restarts=3"]
    command += ["--rdzv_backend=c10d", f"--rdzv_endpoint=localhost:{port}", f"--rdzv_conf={RENDEZVOUS}"]
    command += [str(REPO / "train.py"), "-opt", "opt.yml", "--launcher", "pytorch", "--auto_resume"]
    with (folder / "log").open("a") as log:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        return subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, env=environment, start_new_session=True)


def listens(port: int) -> bool:
    """Whether anybody takes connections there."""
    with socket.socket() as one:
        return one.connect_ex(("localhost", port)) == 0


def killed(process: subprocess.Popen[bytes]) -> None:
    """As when a machine is gone: torchrun and its rank, which it has put into a session of its own, at once."""
    children = [int(c) for f in Path(f"/proc/{process.pid}/task").glob("*/children") for c in f.read_text().split()]
    for pid in (process.pid, *children):
        os.kill(pid, signal.SIGKILL)
    process.wait()


@pytest.mark.skipif(not os.environ.get("RELUME_SLOW_TESTS"), reason="minutes; set RELUME_SLOW_TESTS=1")
def test_a_node_that_is_gone_leaves_the_others_training(tmp_path: Path) -> None:
    total = 120
    (tmp_path / "slow_loss.py").write_text(SLOW_LOSS)
    opt = options(
        train__total_iter=total, train__pixel_opt={"type": "SlowLoss"}, train__scheduler=None, val__val_freq=None,
        logger__save_checkpoint_freq=10, dist_params__timeout=60,
    )  # fmt: skip
    opt["plugins"].append("slow_loss.py")
    (tmp_path / "opt.yml").write_text(yaml.safe_dump(opt, sort_keys=False))
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    run = tmp_path / "experiments" / "toy"
    nodes = [node(port, tmp_path)]
    until = time.monotonic() + 400
    try:
        while not listens(port):  # the first one holds the meeting point
            assert time.monotonic() < until and nodes[0].poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.2)
        nodes += [node(port, tmp_path) for _ in range(3)]
        while not list((run / "training_states").glob("*.sha256")):
            assert time.monotonic() < until and all(n.poll() is None for n in nodes), (tmp_path / "log").read_text()
            time.sleep(0.2)
        killed(nodes.pop())
        codes = [n.wait(timeout=400) for n in nodes]
    finally:
        for n in nodes:
            if n.poll() is None:
                killed(n)
    log = (tmp_path / "log").read_text()
    assert codes == [0, 0, 0], log
    assert "4 ranks" in log and "3 ranks" in log  # what the batch over all ranks was, and is
    state = torch.load(run / "training_states" / f"{total}.state", weights_only=True)
    assert (state["iter"], state["world_size"]) == (total, 3)
    steps = [json.loads(line)["iter"] for line in (run / "metrics.jsonl").read_text().splitlines() if "l_pix" in line]
    assert steps == list(range(1, total + 1))
