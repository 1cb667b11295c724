"""Several ranks (gloo, torchrun) equal one rank on the same global batch, fail together, and come back together."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import REPO, differences, forked, launched, options, outcome, train, weights

from relume.core.errors import EXIT_NONFINITE, EXIT_PREEMPTED
from relume.core.runtime import parallel

# Batch statistics and dropout masks belong to a rank's own batch by design, so these networks have neither.
DETERMINISTIC: dict[str, Any] = {"network_g__dropout": 0.0, "network_g__norm": False, "train__ema_decay": 0.9}


def close(a: dict[str, Any], b: dict[str, Any]) -> None:
    for key in ("params", "params_ema"):
        for name, tensor in a["weights"][key].items():
            torch.testing.assert_close(tensor, b["weights"][key][name], rtol=1e-4, atol=1e-6, msg=f"{key} {name}")


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_ranks_equal_one(strategy: str, tmp_path: Path) -> None:
    one = options(**DETERMINISTIC, datasets__train__batch_size_per_gpu=4)
    two = options(**DETERMINISTIC, train__strategy=strategy)
    assert train(tmp_path / "one", one).returncode == 0
    done = train(tmp_path / "two", two, ranks=2)
    assert done.returncode == 0, done.stdout + done.stderr
    a, b = outcome(tmp_path / "one"), outcome(tmp_path / "two")
    close(a, b)
    assert a["state"]["position"] == b["state"]["position"]
    for mine, theirs in zip(a["records"], b["records"], strict=True):
        assert mine.keys() == theirs.keys()
        for key in ("l_pix", "grad_norm"):
            if key in mine:
                assert mine[key] == pytest.approx(theirs[key], rel=1e-4)
        if "metrics" in mine:
            assert mine["metrics"]["score"] == pytest.approx(theirs["metrics"]["score"], rel=1e-3)


def test_ranks_leave_without_the_interpreters_teardown(tmp_path: Path) -> None:
    # A thread for which a torn-down interpreter would wait stands for torch's, which abort it now and then.
    script = """if True:
        import atexit, threading, time
        from relume.core.runtime import distributed
        atexit.register(print, "closed")
        threading.Thread(target=time.sleep, args=(300,)).start()
        print("done")
        distributed.leave(75)
    """
    done = forked(["-c", script], tmp_path, [{**os.environ, "RANK": "1"}])
    assert (done.returncode, done.stdout) == (75, "done\nclosed\n"), done.stderr


@pytest.mark.parametrize("decay", [0.0, 0.9])
def test_sharded_networks_survive_validations_without_improvement(decay: float, tmp_path: Path) -> None:
    worse = {"score": {"type": "toy_score", "better": "lower"}}  # the score rises
    short = {"train__total_iter": 4, "train__ema_decay": decay, "val__val_freq": 1, "val__metrics": worse}
    settings = {**DETERMINISTIC, **short}
    assert train(tmp_path / "one", options(**settings, datasets__train__batch_size_per_gpu=4)).returncode == 0
    done = train(tmp_path / "two", options(**settings, train__strategy="fsdp"), ranks=2)
    assert done.returncode == 0, done.stdout + done.stderr
    for which in (4, "best"):
        a, b = (weights(tmp_path / name / "experiments/toy", which) for name in ("one", "two"))
        assert a.keys() == b.keys() == ({"params", "params_ema"} if decay else {"params"})
        for entry in a:
            for name, tensor in a[entry].items():
                assert type(b[entry][name]) is torch.Tensor
                torch.testing.assert_close(tensor, b[entry][name], rtol=1e-4, atol=1e-6)


def test_accumulation_equals_a_larger_batch(tmp_path: Path) -> None:
    whole = options(**DETERMINISTIC, datasets__train__batch_size_per_gpu=4)
    parts = options(**DETERMINISTIC, train__accumulate=2)
    assert train(tmp_path / "whole", whole).returncode == 0
    assert train(tmp_path / "parts", parts).returncode == 0
    close(outcome(tmp_path / "whole"), outcome(tmp_path / "parts"))


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_resume_on_another_number_of_ranks_continues_the_same_samples(strategy: str, tmp_path: Path) -> None:
    one = options(**DETERMINISTIC, datasets__train__batch_size_per_gpu=4)
    assert train(tmp_path / "straight", one).returncode == 0
    two = options(**DETERMINISTIC, train__strategy=strategy)
    first = train(tmp_path / "moved", two, ranks=2, env={"RELUME_TEST_SIGNAL": "loss:7:15"})
    assert first.returncode != 0 and "the checkpoint is saved" in first.stderr
    assert train(tmp_path / "moved", one, "--auto_resume").returncode == 0
    close(outcome(tmp_path / "straight"), outcome(tmp_path / "moved"))


def test_a_rank_that_dies_is_restarted_by_torchrun_and_the_run_finishes(tmp_path: Path) -> None:
    opt = options(**DETERMINISTIC, val__val_freq=None)
    assert train(tmp_path / "straight", opt, ranks=2).returncode == 0
    env = {"RELUME_TEST_ACCIDENT": "loss:8", "RELUME_TEST_RANK": "1"}
    done = train(tmp_path / "killed", opt, ranks=2, torchrun=["--max_restarts=1"], env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    close(outcome(tmp_path / "straight"), outcome(tmp_path / "killed"))


def test_every_rank_skips_a_step_that_is_bad_on_one(tmp_path: Path) -> None:
    done = train(tmp_path, options(**DETERMINISTIC, datasets__train__poison=3), ranks=2)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "skipped on rank" in done.stdout and "img003.png" in done.stdout
    skipped = re.findall(r"iteration (\d+) skipped", done.stdout + done.stderr)
    assert len(skipped) == len(set(skipped)), "one finding is one line"
    weights = outcome(tmp_path)["weights"]["params"]
    assert all(torch.isfinite(v).all() for v in weights.values())


def test_a_user_mistake_is_one_line_on_every_number_of_ranks(tmp_path: Path) -> None:
    done = train(tmp_path, options(datasets__train__batch_size_per_gpu=100), ranks=2)
    assert done.returncode != 0
    assert "100 x 2 ranks = 200 samples" in done.stderr and 'train.py", line' not in done.stderr


def test_the_old_launcher_spelling_still_works(tmp_path: Path) -> None:
    (tmp_path / "opt.json").write_text(json.dumps(options(train__total_iter=2, val__val_freq=None)))
    script = [str(REPO / "train.py"), "-opt", "opt.json", "--launcher", "pytorch"]
    command = launched(2, "--master_port=0", *script, by="torch.distributed.launch")
    done = forked(command, tmp_path, [{**os.environ, "OMP_NUM_THREADS": "1"}])
    assert done.returncode == 0, done.stdout + done.stderr


def test_launcher_without_its_environment_says_what_to_type(tmp_path: Path) -> None:
    done = train(tmp_path, options(), "--launcher", "pytorch")
    assert done.returncode == 2
    assert "torchrun --nproc_per_node" in done.stderr and "Traceback" not in done.stderr
    slurm = train(tmp_path, options(), "--launcher", "slurm")
    assert slurm.returncode == 2 and "start with srun" in slurm.stderr


def test_too_many_nonfinite_steps_stop_with_their_own_code_and_a_bundle(tmp_path: Path) -> None:
    opt = options(train__max_nonfinite=3, train__pixel_opt__loss_weight=1e39)
    done = train(tmp_path, opt)
    assert done.returncode == EXIT_NONFINITE, done.stdout + done.stderr
    bundle = tmp_path / "experiments/toy/nonfinite_3_rank0.pt"
    assert bundle.exists() and str(bundle.relative_to(tmp_path)) in done.stderr
    replayed = forked([str(REPO / "tools/replay.py"), str(bundle), "--plugins"], tmp_path, [os.environ])
    assert replayed.returncode == 0, replayed.stderr
    assert "l_pix = inf" in replayed.stdout
    assert EXIT_NONFINITE != EXIT_PREEMPTED and differences({}, {}) == []


@pytest.mark.parametrize("kernel", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gradients_are_laid_out_like_their_parameters(kernel: int, layout: torch.memory_format) -> None:
    """Or DistributedDataParallel copies them, and warns."""
    shape = (6, 4, kernel, kernel)
    parameter = torch.rand(shape).to(memory_format=layout)
    values = torch.rand(shape)
    for strides in ((4 * kernel * kernel, kernel * kernel, kernel, 1), (4 * kernel * kernel, 1, 4 * kernel, 4)):
        gradient = torch.empty_strided(shape, strides).copy_(values)
        found = parallel._laid_out_like(parameter.stride(), gradient)
        found = gradient if found is None else found
        assert torch.equal(found, values) and found.stride() == parameter.stride()
