"""core/building/global_batch.py: what a resume on another number of ranks does to the batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from runs import differences, options, weights

from relume.core.building import global_batch
from relume.core.options import check
from relume.core.pipeline import train_pipeline
from relume.core.runtime import distributed

BEFORE: dict[str, Any] = {
    "world_size": 4,
    "options": {"train.accumulate": 1, "datasets.train.batch_size_per_gpu": 2},
}
STAGES: dict[str, Any] = {
    "world_size": 4,
    "options": {
        "datasets.train.mini_batch_sizes": [4, 2],
        "datasets.train.batch_size_per_gpu": 2,
        "datasets.train.accumulates": [1, 3],
    },
}
PROGRESSIVE: dict[str, Any] = {
    "datasets__train__mini_batch_sizes": [4, 2],
    "datasets__train__iters": [6, 6],
    "datasets__train__gt_sizes": [8, 12],
    "datasets__train__accumulates": [1, 3],
}


@pytest.mark.parametrize(
    ("ranks", "batch", "accumulate"),
    [(4, 2, 1), (2, 2, 2), (1, 2, 4), (8, 1, 1), (2, 4, 1), (3, 2, None), (8, 2, None)],
)
def test_micro_batches_make_up_for_ranks(
    ranks: int, batch: int, accumulate: int | None, monkeypatch: pytest.MonkeyPatch, said: list[str]
) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: ranks)
    opt = check(options(train__keep_global_batch=True, datasets__train__batch_size_per_gpu=batch))
    kept = global_batch.kept(opt, BEFORE)
    assert kept.train is not None and kept.train.accumulate == (accumulate or 1)
    assert any("cannot be shared out over" in s for s in said) == (accumulate is None)
    assert global_batch.kept(check(options()), BEFORE).train.accumulate == 1  # type: ignore[union-attr]  # not asked for
    assert global_batch.kept(opt, None) is opt


def test_each_stage_keeps_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    opt = check(options(train__keep_global_batch=True, **PROGRESSIVE))
    assert list(global_batch.kept(opt, STAGES).datasets["train"].accumulates) == [2, 6]


def test_a_resume_says_what_changes_and_the_same_batch_ends_alike(
    monkeypatch: pytest.MonkeyPatch, said: list[str], tmp_path: Path
) -> None:
    """Two micro-batches on one rank stand for two ranks: the samples are the same."""
    monkeypatch.chdir(tmp_path)
    same: dict[str, Any] = {"network_g__dropout": 0.0, "network_g__norm": False, "val__val_freq": None}
    whole = options("straight", **same, train__accumulate=2)
    train_pipeline(whole)
    train_pipeline(options(**same, train__accumulate=2, train__total_iter=5))
    path = Path("experiments/toy/training_states/5.state")
    state = torch.load(path, weights_only=True)
    assert state["global_batch"] == 4
    monkeypatch.setattr(global_batch.distributed, "is_main", lambda: True)
    on_two_ranks = {**state, "world_size": 2, "options": {**state["options"], "train.accumulate": 1}}
    monkeypatch.setattr("relume.core.pipeline.find_resume", lambda *_: resume(path, on_two_ranks))
    train_pipeline(options(**same, train__keep_global_batch=True))
    assert any("4 samples on 1 rank(s) as on 2, in 2 micro-batch(es)" in s for s in said)
    assert not any("the batch over all ranks was" in s for s in said)
    assert differences(weights(Path("experiments/toy"), 12), weights(Path("experiments/straight"), 12)) == []
    train_pipeline(options(**same))
    assert any("the batch over all ranks was 4 (2 rank(s)) and is 2 (1 rank(s))" in s for s in said)


def resume(path: Path, state: dict[str, Any]) -> Any:
    from relume.core.experiment import Resume

    return Resume(5, path, state)
