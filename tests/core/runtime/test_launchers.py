"""What torchrun and SLURM say, read: node lists, ports, places, and what is missing."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from relume.core.errors import UserError
from relume.core.runtime import distributed, launchers, threads
from relume.core.runtime.launchers import hosts, place, port_of_job, understood

SLURM = {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1", "SLURM_JOB_ID": "77", "SLURM_STEP_ID": "0"}


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ("node7", ["node7"]),
        ("a,b,c", ["a", "b", "c"]),
        ("n[1-3]", ["n1", "n2", "n3"]),
        ("n[08-11]", ["n08", "n09", "n10", "n11"]),
        ("n[001,003-004]", ["n001", "n003", "n004"]),
        ("r[1-2]c[1-2]-ib", ["r1c1-ib", "r1c2-ib", "r2c1-ib", "r2c2-ib"]),
        ("x[1-2],login.cluster.org,y[9-10]z", ["x1", "x2", "login.cluster.org", "y9z", "y10z"]),
    ],
)
def test_node_lists(nodes: str, expected: list[str]) -> None:
    assert hosts(nodes) == expected


@pytest.mark.parametrize("nodes", ["", "n[1-", "n[3-1]", "n[a]", "a b", "n[1-2]]", "n[]", ",a", "n[1-999999999999]"])
def test_what_is_no_node_list_is_refused_and_the_way_round_it_is_named(nodes: str, monkeypatch: Any) -> None:
    monkeypatch.setenv("PATH", "")  # no scontrol
    with pytest.raises(ValueError):
        hosts(nodes)
    with pytest.raises(UserError, match=r"MASTER_ADDR|SLURM_JOB_NODELIST"):
        place("slurm", None, {**SLURM, "SLURM_JOB_NODELIST": nodes})


def test_slurm_is_translated_from_the_step_or_the_job(monkeypatch: Any) -> None:
    monkeypatch.setenv("PATH", "")
    found = place("slurm", None, {**SLURM, "SLURM_JOB_NODELIST": "gpu[05-06]"})
    assert (found.rank, found.world, found.local_rank, found.address) == (3, 8, 1, "gpu05")
    assert found.port == port_of_job("77") and "77" in found.run
    step = {**SLURM, "SLURM_STEP_NODELIST": "b", "SLURM_JOB_NODELIST": "a,b", "SLURM_STEP_NUM_TASKS": "4"}
    assert (place("slurm", 1234, step).address, place("slurm", 1234, {**step}).port) == ("b", 1234)
    assert place("slurm", None, {**step}).world == 4
    told = place("slurm", 1234, {**SLURM, "MASTER_ADDR": "head", "MASTER_PORT": "5000"})  # needs no list
    assert (told.address, told.port) == ("head", 5000)
    with pytest.raises(UserError, match="SLURM_PROCID is not set; start with srun"):
        place("slurm", None, {})


def test_a_scontrol_that_fails_is_done_without(tmp_path: Any, monkeypatch: Any) -> None:
    for text, expected in (("#!/bin/sh\nexit 1\n", "n1"), ("#!/bin/sh\necho real; echo second\n", "real")):
        (tmp_path / "scontrol").write_text(text)
        (tmp_path / "scontrol").chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
        assert place("slurm", None, {**SLURM, "SLURM_JOB_NODELIST": "n[1-2]"}).address == expected


def test_ports_of_neighbouring_jobs_and_steps_differ_and_are_nobody_elses() -> None:
    ports = [port_of_job(str(job), str(step)) for job in range(123456, 123556) for step in (0, 1)]
    assert len(set(ports)) == len(ports) and min(ports) >= 10_000 and max(ports) < 30_000
    assert 10_000 <= port_of_job("12_3", "batch") < 30_000


def test_ranks_are_understood_without_the_launchers_name() -> None:
    told = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}
    assert understood("none", told) == "pytorch" and understood("slurm", told) == "slurm"
    assert understood("none", {**told, "WORLD_SIZE": "1"}) == understood("none", {}) == "none"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"RANK": "two"}, "RANK is 'two' in the environment; it must be a number"),
        ({"RANK": "2"}, "RANK is 2, but WORLD_SIZE is 2"),
        ({"MASTER_PORT": "0"}, "MASTER_PORT is 0"),
        ({"MASTER_ADDR": ""}, "the environment lacks MASTER_ADDR"),
    ],
)
def test_a_wrong_environment_is_one_line(change: dict[str, str], message: str) -> None:
    told = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}
    with pytest.raises(UserError, match=message):
        place("pytorch", None, {**told, **change})


def test_a_rank_takes_the_gpu_it_is_bound_to(monkeypatch: Any) -> None:
    monkeypatch.delenv("SLURM_GPUS_PER_TASK", raising=False)
    seen = 1
    monkeypatch.setattr(torch.cuda, "device_count", lambda: seen)
    assert distributed._device(3) == torch.device("cuda", 0)  # --gpus-per-task=1
    seen = 2
    assert distributed._device(1) == torch.device("cuda", 1)
    with pytest.raises(UserError, match=r"local rank 3, but this node has 2 GPU"):
        distributed._device(3)
    monkeypatch.setenv("SLURM_GPUS_PER_TASK", "2")
    assert distributed._device(3) == torch.device("cuda", 1)


def test_ranks_with_one_gpu_between_them_are_refused() -> None:
    class Met:
        others = [{"host": "a", "gpu": "1"}, {"host": "b", "gpu": "1"}, {"host": "a", "gpu": None}]

    assert distributed._same_gpu(Met()) is None  # type: ignore[arg-type]
    Met.others.append({"host": "b", "gpu": "1"})
    assert "ranks 1 and 3 have the same GPU of b" in str(distributed._same_gpu(Met()))  # type: ignore[arg-type]


def test_threads_leave_cores_to_other_ranks_and_loading_processes(monkeypatch: Any, tmp_path: Any) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads.chosen(None, 64, 4, 4, False)[0] == 12 and threads.chosen(None, 64, 4, 4, True)[0] == 8
    assert threads.chosen(None, 2, 1, 2, False)[0] == threads.chosen(None, 2, 4, 0, False)[0] == 1
    assert threads.chosen(3, 64, 1, 0, False) == (3, "dist_params.threads")
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert threads.chosen(None, 64, 1, 0, False) == (5, "OMP_NUM_THREADS=5")
    monkeypatch.setattr(threads, "CGROUP", tmp_path / "cpu.max")
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    assert threads.cores() == 1
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert threads.cores() >= 1
    before = torch.get_num_threads()
    with threads.shared_out(3, 0, torch.device("cpu")) as said:
        assert torch.get_num_threads() == 3 and said == "3 CPU threads per rank (dist_params.threads)"
    assert torch.get_num_threads() == before


def test_restarts_are_known() -> None:
    assert launchers.restarted({"SLURM_RESTART_COUNT": "1"}) and not launchers.restarted({"SLURM_RESTART_COUNT": "0"})
    assert launchers.restarted({"TORCHELASTIC_RESTART_COUNT": "2"}) and not launchers.restarted({})
