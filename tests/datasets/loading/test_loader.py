"""Loaders, with and without processes."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import random
import signal
import subprocess
import sys
import tarfile

import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.datasets import build_dataset
from relume.datasets.loading.loader import EvalLoader, build_eval_loader, build_train_loader
from relume.datasets.loading.placement import CudaPrefetcher, InBytes, Placement
from relume.datasets.loading.sampler import SampleKey
from relume.datasets.loading.worker import Failed, SeededDataset, collate_bytes, from_bytes

AUGMENTED = {"gt_size": 16, "use_hflip": True, "use_rot": True}


@contextlib.contextmanager
def loading(dataset, workers=0, seed=7, batch=2, **options):
    keywords = {k: options.pop(k) for k in ("rank", "world", "accumulate", "iteration", "position") if k in options}
    opt = {"batch_size_per_gpu": batch, "num_worker_per_gpu": workers, **options}
    loader = build_train_loader(dataset, opt, seed=seed, **keywords)
    try:
        yield loader
    finally:
        loader.close()


def take(dataset, count, **options):
    with loading(dataset, **options) as loader:
        return [next(loader) for _ in range(count)]


def same(a, b):
    return (
        all(torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a)
        and a.keys() == b.keys()
    )


def test_batches_do_not_depend_on_workers_or_restarts(paired):
    dataset = build_dataset({**paired, **AUGMENTED})
    reference = take(dataset, 9)
    assert reference[0]["gt"].shape == (2, 3, 16, 16) and len(reference[0]["lq_path"]) == 2
    for workers in (1, 3):
        random.seed(workers)
        assert all(map(same, take(dataset, 9, workers=workers), reference))
    assert all(map(same, take(dataset, 4, workers=2, iteration=5, position=10), reference[5:]))
    assert not same(take(dataset, 1, seed=8)[0], reference[0])


def test_samples_in_tar_files_are_continued_in_their_middle(paired, tmp_path):
    for name, folder in (("lq", "input"), ("gt", "gt")):
        with tarfile.open(tmp_path / f"{name}.tar", "w") as archive:
            archive.add(os.path.join(paired["dataroot"], folder), arcname=".")
    places = {f"dataroot_{name}": str(tmp_path / f"{name}.tar") for name in ("lq", "gt")}
    dataset = build_dataset({"type": paired["type"], **AUGMENTED, **places, "io_backend": {"type": "tar"}})
    batches = take(dataset, 9)
    for packed, loose in zip(batches, take(build_dataset({**paired, **AUGMENTED}), 9), strict=True):
        assert torch.equal(packed["lq"], loose["lq"]) and torch.equal(packed["gt"], loose["gt"])
    assert all(map(same, batches[5:], take(dataset, 4, workers=1, iteration=5, position=10)))


@pytest.mark.parametrize("workers", [0, 1])
def test_bytes_become_the_same_images(paired, workers):
    dataset = build_dataset({**paired, **AUGMENTED})
    batches = take(dataset, 3, workers=workers, send_uint8=True)
    assert all(map(same, batches, take(dataset, 3)))
    assert batches[0]["lq"].dtype == torch.float32


def test_only_what_bytes_can_hold_travels_in_bytes():
    levels = torch.arange(256).reshape(1, 16, 16).expand(3, 16, 16)
    whole, between = levels.float() / 255, levels.float() / 255 + 1e-4
    sample = {"lq": whole, "gt": between, "prior": torch.ones(4), "index": 3, "lq_path": "a.png"}
    packet = collate_bytes([sample, sample])
    assert packet.in_bytes == ("lq",) and packet.batch["lq"].dtype == torch.uint8
    assert torch.equal(from_bytes(packet.batch["lq"])[1], whole)
    assert torch.equal(packet.batch["gt"][1], between)
    assert Placement(torch.device("cpu"), True)({"lq": InBytes(packet.batch["lq"])})["lq"].is_contiguous(
        memory_format=torch.channels_last
    )
    assert collate_bytes([Failed("no such file")]).error == "no such file"


def test_ranks_together_see_what_one_rank_sees(paired):
    dataset = build_dataset({**paired, **AUGMENTED})
    whole = take(dataset, 4, batch=4)
    ranks = [take(dataset, 4, batch=2, rank=r, world=2) for r in range(2)]
    micro = take(dataset, 8, batch=2, accumulate=2)
    for i, batch in enumerate(whole):
        for parts in ([ranks[0][i], ranks[1][i]], micro[2 * i : 2 * i + 2]):
            assert torch.equal(torch.cat([p["gt"] for p in parts]), batch["gt"])
            assert [path for p in parts for path in p["gt_path"]] == batch["gt_path"]


def test_the_training_processes_random_numbers_are_untouched(paired):
    dataset = build_dataset({**paired, **AUGMENTED})
    for workers in (0, 1):
        torch.manual_seed(0)
        random.seed(0)
        np.random.seed(0)
        take(dataset, 2, workers=workers)
        drawn = (torch.rand(()).item(), random.random(), np.random.rand())
        assert drawn == pytest.approx((0.4962566, 0.8444218, 0.5488135))


def test_epochs_differ_and_are_counted(paired):
    dataset = build_dataset({**paired, **AUGMENTED})
    with loading(dataset, batch=4) as loader:
        assert (loader.epoch, loader.position) == (0, 0)
        batches, counts = [], []
        for _ in range(4):
            batches.append(next(loader))
            counts.append((loader.epoch, loader.position))
    assert counts == [(0, 4), (0, 8), (1, 12), (1, 16)]
    first, second = (
        {p: x for b in batches[i : i + 2] for p, x in zip(b["gt_path"], b["gt"], strict=True)} for i in (0, 2)
    )
    assert first.keys() == second.keys() and len(first) == 8
    assert sum(torch.equal(first[p], second[p]) for p in first) < 3


def test_the_position_counts_all_ranks_and_whole_iterations(paired):
    dataset = build_dataset({**paired, **AUGMENTED})
    with loading(dataset, batch=1, world=2, accumulate=2, iteration=3, position=12) as loader:
        next(loader)
        assert loader.position == 12
        next(loader)
        assert loader.position == 16
        text = loader.describe(13)
    assert (
        "8 samples, 8 per epoch; 1 x 2 ranks x 2 micro-batches = 4 per iteration; 13 iterations are 6.5 epochs" in text
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_progressive_schedule(paired, workers, caplog):
    dataset = build_dataset({**paired, **AUGMENTED})
    stages = {"mini_batch_sizes": [4, 2], "iters": [2, 1], "gt_sizes": [8, 32]}
    with loading(dataset, workers=workers, batch=4, **stages) as loader:
        with caplog.at_level(logging.INFO, logger="relume"):
            shapes = [tuple(next(loader)["gt"].shape) for _ in range(4)]
        assert loader.position == 12
    assert [m for m in caplog.messages if "From iteration" in m] == [
        "From iteration 1 on: patches of 8, batches of 4 (progressive training)",
        "From iteration 3 on: patches of 32, batches of 2 (progressive training)",
    ]
    assert shapes == [(4, 3, 8, 8)] * 2 + [(2, 3, 32, 32)] * 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"batch": 9},
            r"takes 9 samples, but the training set has 8: lower batch",
        ),
        ({"batch": 2, "world": 2, "accumulate": 3}, r"takes 2 x 2 ranks x 3 micro-batches = 12 samples"),
        ({"batch": 1, "mini_batch_sizes": [9], "iters": [1]}, r"takes 9 samples"),
        ({"gt_sizes": [8, 64], "iters": [1, 1]}, r"gt_size 64 is larger than 8 of 8 images"),
        ({"gt_sizes": [8]}, r"gt_sizes need iters"),
        ({"dataset_enlarge_ratio": 0}, r"dataset_enlarge_ratio"),
    ],
)
def test_impossible_requests_fail_before_training(paired, options, message):
    with pytest.raises(UserError, match=message):
        take(build_dataset({**paired, **AUGMENTED}), 1, **options)


def test_a_large_batch_fits_an_enlarged_dataset(paired):
    (batch,) = take(build_dataset({**paired, **AUGMENTED}), 1, batch=16, dataset_enlarge_ratio=2)
    assert sorted(batch["index"].tolist()) == sorted([*range(8)] * 2)


class Buggy(torch.utils.data.Dataset):
    def __len__(self):
        return 4

    def __getitem__(self, index):
        raise FileNotFoundError("in the dataset's own code")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_in_a_dataset_keeps_its_traceback(workers):
    with pytest.raises(FileNotFoundError, match="in the dataset's own code"):
        take(Buggy(), 1, workers=workers)


class Nothing(torch.utils.data.Dataset):
    def __len__(self):
        return 0


def test_an_empty_dataset_is_refused():
    for build in (lambda d: build_train_loader(d, {}, seed=0), build_eval_loader):
        with pytest.raises(UserError, match="dataset is empty"):
            build(Nothing())


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_file_is_raised_as_one_line_or_skipped(paired, tmp_path, workers, caplog):
    path = tmp_path / "gt" / "05.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError) as e:
        take(build_dataset(paired), 4, workers=workers)
    assert "gt/05.png" in str(e.value) and "\n" not in str(e.value)
    with caplog.at_level(logging.WARNING, logger="relume"):
        batches = take(build_dataset({**paired, "on_error": "skip"}), 8, workers=workers)
    indices = torch.cat([b["index"] for b in batches]).tolist()
    assert sorted(indices) == sorted([0, 1, 2, 3, 4, 6, 6, 7] * 2)
    messages = [r.getMessage() for r in caplog.records]
    assert len(messages) == 1 and messages[0].startswith("skipped: ") and "05.png" in messages[0]


def test_remote_folders_are_read_in_processes(tmp_path, write_images):
    root = f"memory://{tmp_path.name}"
    for kind in ("gt", "input"):
        write_images(f"{root}/{kind}", {f"{i}": (20, 24) for i in range(4)})
    dataset = build_dataset({"type": "PairedImageDataset", "dataroot": root, **AUGMENTED})
    assert all(map(same, take(dataset, 2, workers=1), take(dataset, 2)))


def test_images_of_different_sizes_are_explained(paired, write_images, tmp_path):
    for kind in ("gt", "input"):
        write_images(tmp_path / kind, {"08": (20, 20)})
    with pytest.raises(UserError, match=r"different sizes.*set gt_size"):
        take(build_dataset(paired), 9)


def test_evaluation_shares_images_out_in_order(paired):
    dataset = build_dataset(paired, phase="val")
    single = list(build_eval_loader(dataset))
    assert [b["index"] for b in single] == list(range(8))
    assert single[3]["lq"].shape == (1, 3, 40, 48) and single[3]["lq_path"][0].endswith("03.png")
    shares = [build_eval_loader(dataset, rank=r, world=3, workers=r) for r in range(3)]
    assert [[b["index"] for b in share] for share in shares] == [[0, 3, 6], [1, 4, 7], [2, 5]]
    assert [len(share) for share in shares] == [3, 3, 2]
    even = [[b["index"] for b in build_eval_loader(dataset, rank=r, world=3, even=True)] for r in range(3)]
    assert even == [[0, 3, 6], [1, 4, 7], [2, 5, -1]]
    crowd = [[b["index"] for b in build_eval_loader(dataset, rank=r, world=10, even=True)] for r in (0, 9)]
    assert crowd == [[0], [-1]]
    assert list(build_eval_loader(dataset, rank=9, world=10, workers=2)) == []


def test_a_replaced_image_does_not_count_in_evaluation(paired, tmp_path):
    (tmp_path / "gt" / "02.png").write_bytes(b"")
    loader = build_eval_loader(build_dataset({**paired, "on_error": "skip"}, phase="val"))
    assert [b["index"] for b in loader] == [0, 1, -1, 3, 4, 5, 6, 7]


def test_evaluation_can_be_left_early(paired):
    loader = EvalLoader(build_dataset(paired, phase="val"), 0, 0, 1, 2, False)
    for _ in range(2):
        batches = iter(loader)
        assert next(batches)["index"] == 0
        del batches


def test_processes_ignore_the_signals_that_the_trainer_handles(paired):
    with loading(build_dataset({**paired, **AUGMENTED}), workers=2) as loader:
        for _ in range(2):  # one batch from each, so that both are set up
            next(loader)
        processes = loader._packets._processes
        for process in processes:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
                os.kill(process.pid, number)
        for _ in range(8):
            next(loader)
        assert all(p.is_alive() for p in processes)
    assert not any(p.is_alive() for p in processes)


def test_a_process_that_dies_is_explained(paired):
    with loading(build_dataset({**paired, **AUGMENTED}), workers=1) as loader:
        next(loader)
        os.kill(loader._packets._processes[0].pid, signal.SIGKILL)
        with pytest.raises(UserError, match=r"a loading process died \(exit code -9\).*lower num_worker_per_gpu"):
            for _ in range(10):
                next(loader)


def test_a_process_that_dies_with_the_lock_of_the_event_is_explained_too(paired, monkeypatch):
    monkeypatch.setattr("torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL", 0.5)
    with loading(build_dataset({**paired, **AUGMENTED}), workers=2) as loader:
        next(loader)
        event = loader._packets._packets._workers_done_event._event
        assert event._cond.acquire(timeout=10)  # as if a process had it that is no more
        os.kill(loader._packets._processes[0].pid, signal.SIGKILL)
        with pytest.raises(UserError, match=r"a loading process died \(exit code -9\)"):
            for _ in range(20):
                next(loader)
        processes = loader._packets._processes
    assert not any(p.is_alive() for p in processes)


SCRIPT = """
import sys
from relume.datasets import build_dataset
from relume.datasets.loading.loader import build_train_loader

dataset = build_dataset({"type": "PairedImageDataset", "dataroot": sys.argv[1], "gt_size": 16})
loader = build_train_loader(dataset, {"num_worker_per_gpu": 2}, seed=0)
print(next(loader)["gt"].shape)
1 / 0  # and nobody closes the loader
"""


def test_a_crash_does_not_hang(paired):
    command = [sys.executable, "-c", SCRIPT, paired["dataroot"]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr
    assert done.stdout == "torch.Size([1, 3, 16, 16])\n"


def test_what_is_sent_to_new_processes_survives_pickling(paired):
    dataset = SeededDataset(build_dataset({**paired, **AUGMENTED}), 3)
    key = SampleKey(1, 2, 3, 24)
    copied, copied_key = pickle.loads(pickle.dumps((dataset, key)))
    assert same(copied[copied_key], dataset[key])


def test_placement_changes_the_layout_of_images_only():
    batch = {"lq": torch.rand(2, 3, 4, 5), "index": torch.arange(2), "path": ["a", "b"]}
    placed = Placement(torch.device("cpu"), True)(batch)
    assert placed["lq"].is_contiguous(memory_format=torch.channels_last) and torch.equal(placed["lq"], batch["lq"])
    assert placed["path"] == ["a", "b"]
    assert Placement(torch.device("cpu"), False)(batch)["lq"].is_contiguous()


class FakeStream:
    """Stands in for a CUDA stream and notes what is asked of it."""

    def __init__(self, device=None):
        self.waited_for = []

    def wait_stream(self, other):
        self.waited_for.append(other)


def test_prefetching_keeps_the_order_waits_for_the_copy_and_is_one_ahead(monkeypatch):
    current, recorded = FakeStream(), []
    monkeypatch.setattr(torch.cuda, "Stream", FakeStream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: current)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: contextlib.nullcontext())
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: recorded.append((tensor, stream)))
    loaded = []

    def load():
        loaded.append({"lq": torch.full((1,), float(len(loaded))), "lq_path": [str(len(loaded))]})
        return loaded[-1]

    prefetcher = CudaPrefetcher(load, Placement(torch.device("cpu"), False))
    for i in range(4):
        batch = next(prefetcher)
        assert batch["lq"].item() == i and batch["lq_path"] == [str(i)]
        assert len(loaded) == i + 2
        assert len(current.waited_for) == i + 1
        assert recorded[-1][0] is batch["lq"] and recorded[-1][1] is current


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("prefetch_mode", [None, "cuda"])
def test_batches_on_a_gpu_are_those_of_the_cpu(paired, prefetch_mode):
    dataset = build_dataset({**paired, **AUGMENTED})
    reference = take(dataset, 6)
    opt = {"batch_size_per_gpu": 2, "num_worker_per_gpu": 2, "prefetch_mode": prefetch_mode}
    loader = build_train_loader(dataset, opt, seed=7, device="cuda", channels_last=True)
    for expected in reference:
        batch = next(loader)
        assert batch["lq"].is_cuda and batch["lq"].is_contiguous(memory_format=torch.channels_last)
        assert same({k: v.cpu() if isinstance(v, torch.Tensor) else v for k, v in batch.items()}, expected)
    loader.close()


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("even", [False, True])
def test_evaluation_in_batches_shows_each_rank_the_same_images(paired, workers, even):
    dataset = build_dataset(paired, phase="val")
    for rank in range(3):
        settings = {"rank": rank, "world": 3, "workers": workers, "even": even}
        alone, batches = (build_eval_loader(dataset, **settings, batch=batch) for batch in (1, 2))
        assert len(batches) == -(-len(alone) // 2)
        ones, twos = list(alone), list(batches)
        assert torch.cat([b["index"] for b in twos]).tolist() == [int(b["index"]) for b in ones]
        assert torch.equal(torch.cat([b["lq"] for b in twos]), torch.cat([b["lq"] for b in ones]))
        assert [p for b in twos for p in b["lq_path"]] == [b["lq_path"][0] for b in ones]
