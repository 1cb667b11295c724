"""Ranks of which one, the others or all are signalled at any point of a run end alike, and go on as if never stopped."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from runs import REPO, by_hand, forked


@pytest.mark.parametrize(("ranks", "strategy", "stride"), [(2, "ddp", 13), (4, "fsdp", 61)])
def test_a_signal_at_any_point_is_answered_by_all_ranks_together(
    ranks: int, strategy: str, stride: int, tmp_path: Path
) -> None:
    stride = 1 if os.environ.get("RELUME_SLOW_TESTS") else stride
    command = [str(REPO / "tests" / "signal_proof.py"), str(stride), strategy]
    done = forked(command, tmp_path, by_hand(ranks, {**os.environ, "OMP_NUM_THREADS": "1"}))
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["points"] > 50 and said["stopped"] > said["runs"] // 3
