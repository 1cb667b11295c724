"""Ranks that differ, fail, are late or strangers: every one leaves soon, with one line that says which and why."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ranks import Ended, Rank, Ranks, by_hand, free_port, written
from runs import options, records

from relume.core.imaging.opencv import cv2


@pytest.fixture(scope="module")
def ranks() -> Iterator[Ranks]:
    started = Ranks()
    yield started
    started.close()


def short(**changes: Any) -> dict[str, Any]:
    """Options of two iterations."""
    return options(**{"train__total_iter": 2, "val__val_freq": None, **changes})


def left(ended: list[Ended], code: int, *said: str) -> None:
    """All ranks left with a code and without a traceback, and the first one said something for all."""
    for rank, end in enumerate(ended):
        assert end.code == code, f"rank {rank}: {end.code}\n{end.out}\n{end.err}"
        assert "Traceback" not in end.err, end.err
    for text in said:
        assert text in ended[0].err, ended[0].err


def pictures(folder: Path, count: int, size: int = 24) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        noise = np.random.default_rng(i).integers(0, 256, (size, size, 3), np.uint8)
        cv2.imwrite(str(folder / f"{i}.png"), noise)


def of_files(**changes: Any) -> dict[str, Any]:
    """Options with a validation set of files, relative to the working directory, as of nodes with disks of their own."""
    opt = short(**changes)
    block = {"type": "PairedImageDataset", "dataroot_gt": "gt", "dataroot_lq": "gt", "num_worker_per_gpu": 1}
    opt["datasets"]["val"] = {"name": "held_out", **block}
    return opt


def nodes(ranks: Ranks, folders: list[Path], opt: dict[str, Any]) -> list[Ended]:
    """A run whose ranks have a folder each, as on nodes with disks of their own."""
    port = free_port()
    return ranks.run(
        [
            Rank(["train", "-opt", written(f, opt), "--launcher", "pytorch"], str(f), by_hand(i, len(folders), port))
            for i, f in enumerate(folders)
        ]
    )


def test_options_that_differ_are_named_with_both_values_on_four_ranks(ranks: Ranks, tmp_path: Path) -> None:
    opts = [short(), short(), short(train__total_iter=3, val__val_freq=1), short()]
    ended = ranks.train(tmp_path, opts)
    left(ended, 2, "rank 2 on ", "train.total_iter: 2 on rank 0, 3 on rank 2", "val.val_freq: nothing on rank 0, 1 on")
    assert not (tmp_path / "experiments").exists() and max(e.seconds for e in ended) < 60
    # another version of the code, another number of ranks
    (tmp_path / "plug.py").write_text("A = 1\n")
    (tmp_path / "two").mkdir()
    (tmp_path / "two/plug.py").write_text("A = 2\n")
    plugins = short()["plugins"]
    coded = [short(plugins=[*plugins, str(tmp_path / p / "plug.py")]) for p in (".", "two")]
    left(ranks.train(tmp_path, coded), 2, "code of plug.py: ")
    port, name = free_port(), written(tmp_path, short())
    arguments = ["train", "-opt", name, "--launcher", "pytorch"]
    counted = [Rank(arguments, str(tmp_path), by_hand(i, world, port)) for i, world in ((0, 3), (1, 2))]
    left(ranks.run(counted), 2, "WORLD_SIZE is 3 on rank 0 and 2 on rank 1")


def test_ranks_that_see_other_files_do_not_begin(ranks: Ranks, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    pictures(folders[0] / "gt", 7)
    pictures(folders[1] / "gt", 4)
    left(nodes(ranks, folders, of_files()), 2, "samples of 'held_out': 7 on rank 0, 4 on rank 1")
    for i in range(4, 6):
        (folders[1] / "gt" / f"{i}.png").write_bytes((folders[0] / "gt" / f"{i}.png").read_bytes())
    other = folders[1] / "gt" / "other.png"
    other.write_bytes((folders[0] / "gt/6.png").read_bytes())
    ended = nodes(ranks, folders, of_files())
    left(ended, 2, "rank 1 on ", "names of 'held_out': 6.png on rank 0, other.png on rank 1")
    assert "samples of" not in ended[0].err
    other.unlink()
    (folders[1] / "gt/6.png").write_bytes((folders[0] / "gt/6.png").read_bytes() + b"more")
    size = (folders[0] / "gt/6.png").stat().st_size
    said = f"sizes of files of 'held_out': 6.png of {size} bytes on rank 0, 6.png of {size + 4} bytes on rank 1"
    left(nodes(ranks, folders, of_files()), 2, said)
    (folders[1] / "gt").rename(folders[1] / "elsewhere")
    ended = nodes(ranks, folders, of_files())
    left(ended, 2, "gt: no such file or folder", "datasets.val.dataroot_gt")
    assert "rank 1 on " in ended[0].err and "failed: " in ended[0].err


def test_a_mistake_of_one_rank_while_it_trains_is_said_by_all(ranks: Ranks, tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for folder in folders:
        pictures(folder / "gt", 4)
    damaged = folders[0] / "gt/2.png"
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    opt = of_files(train__total_iter=4)
    opt["datasets"]["train"] = {
        **opt["datasets"]["val"],
        "batch_size_per_gpu": 2,
        "gt_size": 12,
        "num_worker_per_gpu": 0,
    }
    del opt["datasets"]["val"]
    ended = nodes(ranks, folders, opt)
    left(ended, 2, "2.png")
    assert "2.png" not in ended[1].err  # one mistake is one line


def test_two_jobs_on_one_port_do_not_mix(ranks: Ranks, tmp_path: Path) -> None:
    port = free_port()
    slurm = {"SLURM_NTASKS": "2", "SLURM_JOB_NODELIST": "localhost", "MASTER_PORT": str(port)}
    started = []
    for job, after in (("31", 0.0), ("32", 0.4)):
        folder = tmp_path / job
        name = written(folder, short(train__total_iter=40))
        for task in ("0", "1"):
            env = {**slurm, "SLURM_JOB_ID": job, "SLURM_PROCID": task, "SLURM_LOCALID": task}
            started.append(Rank(["train", "-opt", name, "--launcher", "slurm"], str(folder), env, after))
    ended = ranks.run(started)
    first, second = sorted((ended[:2], ended[2:]), key=lambda e: e[0].code)
    assert [e.code for e in first] == [0, 0], first
    left(second, 2)
    assert f"cannot listen on port {port}" in second[0].err and "another run" in second[0].err
    assert "SLURM job 3" in second[1].err and "must not join" in second[1].err


def test_ranks_that_do_not_come_or_cannot_are_named(ranks: Ranks, tmp_path: Path) -> None:
    port, name = free_port(), written(tmp_path, short(dist_params={"timeout": 1.5}))
    arguments = ["train", "-opt", name, "--launcher", "pytorch"]
    two_of_four = [Rank(arguments, str(tmp_path), by_hand(i, 4, port)) for i in (0, 2)]
    left(ranks.run(two_of_four), 2, "rank 1, rank 3 did not come to localhost", "within 1.5 s (dist_params.timeout)")
    addresses = ("localhost", "no-such-host.invalid")
    alone = [Rank(arguments, str(tmp_path), by_hand(1, 2, free_port(), MASTER_ADDR=a)) for a in addresses]
    for address, end in zip(addresses, ranks.run(alone), strict=True):
        left([end], 2, f"cannot reach rank 0 at {address}:", "MASTER_ADDR", "within 1.5 s")
    # who is signalled while it waits leaves at once, and the others with it
    name = written(tmp_path, short(dist_params={"timeout": 100}))
    ports = free_port(), free_port()
    waiting = [
        Rank(arguments, str(tmp_path), by_hand(rank, 3, ports[job]), signals={2.5: 15} if signalled else {})
        for job, rank, signalled in ((0, 0, False), (0, 2, True), (1, 1, True))
    ]
    ended = ranks.run(waiting)
    assert [e.code for e in ended] == [75] * 3 and max(e.seconds for e in ended) < 90, ended
    assert not any("Traceback" in e.err for e in ended)
    assert "preempted before the first iteration" in ended[0].err
    name = written(tmp_path, short(dist_params={"timeout": 1.5}))
    twice = [Rank(arguments, str(tmp_path), by_hand(i, 3, port := free_port() if i == 0 else port)) for i in (0, 1, 1)]
    ended = ranks.run(twice)
    assert "rank 1 came twice" in ended[1].err + ended[2].err and {e.code for e in ended} == {2}


def test_ranks_without_the_launchers_name_are_one_run_and_what_is_left_over_is_said(
    ranks: Ranks, tmp_path: Path
) -> None:
    port = free_port()
    name = written(tmp_path, of_files(val__val_freq=1))
    pictures(tmp_path / "gt", 3)
    both = ranks.run([Rank(["train", "-opt", name], str(tmp_path), by_hand(i, 2, port)) for i in range(2)])
    assert [e.code for e in both] == [0, 0], both
    assert "as with --launcher pytorch" in both[0].err and "2 rank(s), 1 CPU thread per rank" in both[0].out
    assert len([r for r in records(tmp_path / "experiments/toy") if "metrics" in r]) == 2


@pytest.mark.parametrize(("world", "number"), [(4, 9), (2, 19)])  # dead, and silent
def test_a_rank_that_is_gone_in_the_middle_is_named(world: int, number: int, ranks: Ranks, tmp_path: Path) -> None:
    (tmp_path / "soon.py").write_text("from relume.core.runtime import distributed\ndistributed.ROLL_CALL = 3.0\n")
    plugins = [*short()["plugins"], str(tmp_path / "soon.py")]
    seconds = {"dist_params": {"timeout": 20.0 if world == 4 else 2.5}}
    opt = short(train__total_iter=6, datasets__train__batch_size_per_gpu=1, plugins=plugins, **seconds)
    env = {"RELUME_TEST_SIGNAL": f"loss:4:{number}", "RELUME_TEST_RANK": str(world - 1)}
    port = free_port()
    name = written(tmp_path, opt)
    arguments = ["train", "-opt", name, "--launcher", "pytorch"]
    every = [Rank(arguments, str(tmp_path), by_hand(i, world, port, **env)) for i in range(world)]
    ended = ranks.run(every, seconds=40, for_first=True)
    assert ended[-1].code == -9
    left(ended[:1], 1, f"rank {world - 1} on ", "s (dist_params.timeout) or died")
    assert ended[0].seconds < 39
    sound = [f"rank {r} on" for r in range(world - 1)]
    assert not any(name in end.err + end.out for name in sound for end in ended[:-1]), ended
