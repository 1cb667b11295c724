"""core/runtime/zero.py: an optimizer whose memory is divided among ranks takes the same steps, and is saved as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import options, train

from relume.core.errors import UserError
from relume.core.options import check
from relume.core.pipeline import train_pipeline
from relume.core.runtime import zero

SHORT: dict[str, Any] = {
    "train__total_iter": 6, "logger__save_checkpoint_freq": 2, "val__val_freq": None, "network_g__dropout": 0.0,
    "network_g__norm": False,
    "train__optim_g": {"type": "AdamW", "lr": 0.01, "param_groups": [{"params": "bias", "lr_scale": 0.5}]},
}  # fmt: skip


def test_killed_and_resumed_it_is_the_run_of_one_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, divided = tmp_path / "whole", tmp_path / "divided"
    whole.mkdir()
    monkeypatch.chdir(whole)
    alone = options(**SHORT, datasets__train__batch_size_per_gpu=4)
    train_pipeline(alone)
    opt = options(**SHORT, train__zero_optimizer=True)
    killed = train(divided, opt, ranks=2, env={"RELUME_TEST_ACCIDENT": "loss:5", "RELUME_TEST_RANK": "1"})
    assert killed.returncode != 0
    done = train(divided, opt, "--auto_resume", ranks=2)
    assert done.returncode == 0 and "Resumed at iteration 4" in done.stdout, done.stdout + done.stderr
    a, b = (torch.load(f / "experiments/toy/training_states/6.state", weights_only=True) for f in (whole, divided))
    ours, theirs = a["optimizers"]["g"], b["optimizers"]["g"]
    assert ours["param_groups"] == theirs["param_groups"] and ours["state"].keys() == theirs["state"].keys()
    for key, entries in ours["state"].items():
        for name, value in entries.items():
            torch.testing.assert_close(theirs["state"][key][name], value, rtol=1e-3, atol=1e-6)
    nets = [torch.load(f / "experiments/toy/models/net_g_6.pth", weights_only=True)["params"] for f in (whole, divided)]
    for name, value in nets[0].items():
        torch.testing.assert_close(nets[1][name], value, rtol=1e-4, atol=1e-6)
    monkeypatch.chdir(divided)  # and it goes on without ranks
    train_pipeline({**alone, "train": {**alone["train"], "total_iter": 7}}, auto_resume=True)
    assert Path("experiments/toy/training_states/7.state").is_file()


def test_options() -> None:
    with pytest.raises(UserError, match="zero_optimizer: is for strategy: ddp"):
        check(options(train__strategy="fsdp", train__zero_optimizer=True))
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))])
    assert zero.divided(optimizer, "optim_g") is optimizer, "without other ranks"
