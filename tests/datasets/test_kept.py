"""Decoded images that loading processes share: the same pixels as decoded anew, whatever happens around them."""

from __future__ import annotations

import multiprocessing
import pickle
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.core.imaging.image_io import imwrite
from relume.core.imaging.video_codecs import Encoding
from relume.core.imaging.video_writer import VideoWriter
from relume.datasets import build_dataset
from relume.datasets.kept import Pool, Shelf
from relume.datasets.loading.packets import Packets
from relume.datasets.loading.sampler import SampleKey
from relume.datasets.loading.worker import SeededDataset

LENGTH = 6


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for i in range(LENGTH):
        for which, kind in (("lq", np.uint8), ("gt", np.uint16)):
            imwrite(tmp_path / which / f"{i}.png", rng.integers(0, np.iinfo(kind).max, (24, 20 + i, 3), kind, True))
    return tmp_path


def batches(dataset: object, workers: int, epochs: int = 1) -> list[torch.Tensor]:
    keys = [[SampleKey(0, i, i)] for i in range(LENGTH)]
    packets = Packets(SeededDataset(dataset, 0), keys, workers, keep=True)
    try:
        found = []
        for epoch in range(epochs):
            if epoch:
                packets.again()
            for _ in keys:
                packet = next(packets)
                assert packet.batch is not None, packet.error
                found += [packet.batch["lq"], packet.batch["gt"]]
        return found
    finally:
        packets.close()


def paired(folders: Path, phase: str = "val", gt_size: int | None = None, **backend: object) -> object:
    block = {"type": "PairedImageDataset", "dataroot_lq": str(folders / "lq"), "dataroot_gt": str(folders / "gt")}
    backends = {"type": "disk", **backend}
    return build_dataset({**block, "gt_size": gt_size, "io_backend": backends}, phase=phase, scale=1)


def test_an_image_is_decoded_once_by_all_processes_together(folders: Path) -> None:
    plain = batches(paired(folders), 0)
    dataset = paired(folders, cache=0.01)
    first = batches(dataset, 2)
    for file in folders.rglob("*.png"):
        file.unlink()
    again = batches(dataset, 2, epochs=2)  # other processes: what they know was there when they were forked
    for a, b in zip(plain * 2, [*first, *again[: len(first)]], strict=True):
        assert torch.equal(a, b)
    assert all(torch.equal(a, b) for a, b in zip(again[: len(first)], again[len(first) :], strict=True))


def test_a_small_training_set_is_decoded_once_where_nobody_says_otherwise(folders: Path) -> None:
    keys = [SampleKey(0, i, i, 8) for i in range(LENGTH)]
    samples = {
        cache: SeededDataset(paired(folders, "train", 8, **({} if cache is None else {"cache": cache})), 0)
        for cache in (None, 0)
    }
    first = [samples[None][key] for key in keys]
    for kept, plain in zip(first, [samples[0][key] for key in keys], strict=True):
        assert torch.equal(kept["lq"], plain["lq"]) and torch.equal(kept["gt"], plain["gt"])
    held_out = paired(folders)
    for file in folders.rglob("*.png"):
        file.unlink()
    for kept, again in zip(first, [samples[None][key] for key in keys], strict=True):
        assert torch.equal(kept["lq"], again["lq"])
    for dataset in (samples[0].dataset, held_out):  # neither where 0 is asked for, nor outside training
        with pytest.raises(UserError, match="cannot be read"):
            dataset[0]


@pytest.mark.parametrize("room", [True, False])
def test_of_a_jpeg_that_finds_no_room_no_more_than_a_patch_is_decoded(
    room: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for which in ("lq", "gt"):
        for i in range(3):
            imwrite(tmp_path / which / f"{i}.jpg", np.full((64, 64, 3), 80 * i, np.uint8))
    one = 64 * 64 * 3 + 128
    dataset = SeededDataset(paired(tmp_path, "train", 8, cache=(8 if room else 3) * one / 2**30), 0)
    first = [dataset[SampleKey(0, i, i)] for i in range(3)]
    partial = []
    monkeypatch.setattr("relume.datasets.source.undecoded", lambda data, name: partial.append(name))
    for a, b in zip(first, [dataset[SampleKey(0, i, i)] for i in range(3)], strict=True):
        assert torch.equal(a["lq"], b["lq"]) and torch.equal(a["gt"], b["gt"])
    assert len(partial) == (0 if room else 3)


def test_frames_of_both_folders_share_one_pool(tmp_path: Path) -> None:
    for root in ("lq", "gt"):
        for i in range(5):
            imwrite(tmp_path / root / "001" / f"{i:08d}.png", np.full((8, 8, 3), i, np.uint8))
    meta = tmp_path / "meta.txt"
    meta.write_text("001 5 (8,8,3)\n")
    block = {"type": "REDSDataset", "num_frame": 3, "gt_size": None, "meta_info_file": str(meta)}
    roots = {f"dataroot_{root}": str(tmp_path / root) for root in ("lq", "gt")}
    dataset = build_dataset({**block, **roots, "io_backend": {"type": "disk", "cache": 0.01}}, phase="val", scale=1)
    assert dataset.gt._shelf.pool is dataset.lq._shelf.pool


@pytest.mark.parametrize("kind", ["folders", "videos"])
def test_frames_of_clips_without_lists_are_kept(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips = {name: np.random.default_rng(ord(name)).integers(0, 255, (6, 16, 24, 3), np.uint8) for name in "ab"}
    for name, frames in clips.items():
        if kind == "videos":
            with VideoWriter(tmp_path / f"{name}.mkv", Fraction(25), encoding=Encoding("ffv1")) as video:
                for i, frame in enumerate(frames):
                    video.write(frame, Fraction(i, 25))
        for i, frame in enumerate(frames) if kind == "folders" else ():
            imwrite(tmp_path / name / f"{i}.png", frame)
    block = {"type": "ClipsDataset", "dataroot_gt": str(tmp_path), "dataroot_lq": str(tmp_path)}
    dataset = build_dataset({**block, "io_backend": {"type": "disk", "cache": 0.01}}, phase="val", scale=1)
    first = [dataset[i] for i in range(2)]
    for opened in ("relume.datasets.videos.PyAV.frames", "relume.datasets.sources.Source.read"):
        monkeypatch.setattr(opened, lambda *_: pytest.fail("was decoded again"))
    for i, item in enumerate(first):
        again = dataset[i]
        assert torch.equal(again["gt"], item["gt"]) and torch.equal(again["lq"], item["lq"])
        expected = torch.from_numpy(clips[item["folder"]]).permute(0, 3, 1, 2) / 255
        assert torch.equal(item["gt"], expected)


def test_what_one_process_has_kept_another_reads() -> None:
    pool = Pool(1 << 16)
    shelf = Shelf(pool, 2)
    images = [np.arange(60, dtype=np.uint16).reshape(4, 5, 3), np.ones((3, 2), np.float32)]
    context = multiprocessing.get_context("fork")
    for number, image in enumerate(images):
        child = context.Process(target=shelf.get, args=(number, lambda image=image: image))
        child.start()
        child.join()
    for number, image in enumerate(images):
        found = shelf.get(number, lambda: pytest.fail("was decoded again"))
        assert found.dtype == image.dtype and np.array_equal(found, image)
        assert not found.flags.writeable, "it stays as it is for the others"
        assert np.array_equal(shelf.get(number, lambda: pytest.fail("was decoded again")), image)


def test_a_full_pool_keeps_what_it_has_and_decodes_the_rest() -> None:
    shelf = Shelf(Pool(4096), 3)
    image = np.full((32, 32, 3), 5, np.uint8)  # one fits beside its head, two do not
    assert all(np.array_equal(shelf.get(i, lambda: image), image) for i in (0, 1))
    assert np.array_equal(shelf.get(0, lambda: pytest.fail("was decoded again")), image)
    assert np.array_equal(shelf.get(1, lambda: image + 1), image + 1)


def test_a_lock_that_a_dead_process_holds_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relume.datasets.kept.PATIENCE", 0.01)
    pool = Pool(4096)
    shelf = Shelf(pool, 1)
    pool.lock.acquire()
    assert shelf.get(0, lambda: np.ones((2, 2), np.uint8)).sum() == 4
    assert shelf.get(0, lambda: np.zeros((2, 2), np.uint8)).sum() == 0


def test_a_copy_begins_anew(folders: Path) -> None:
    shelf = Shelf(Pool(4096), 1)
    shelf.get(0, lambda: np.ones((2, 2), np.uint8))
    other = pickle.loads(pickle.dumps(shelf))
    assert other.get(0, lambda: np.zeros((2, 2), np.uint8)).sum() == 0
    dataset = pickle.loads(pickle.dumps(paired(folders, cache=0.01)))
    assert dataset[0]["lq"].shape == (3, 24, 20)


@pytest.mark.parametrize(
    ("cache", "message"),
    [(-1, "a number of GiB, 0 for none"), (True, "a number of GiB"), (1e6, "do not fit into memory")],
)
def test_impossible_sizes_are_refused(cache: float, message: str, folders: Path) -> None:
    with pytest.raises(UserError, match=message):
        paired(folders, cache=cache)


def test_memory_that_the_system_refuses_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr("relume.datasets.kept.mmap.mmap", refuse)
    with pytest.raises(
        UserError, match=r"io_backend.cache: .* GB of memory cannot be had \(.*Cannot allocate memory\)"
    ):
        Pool(3 << 30)


def test_what_is_kept_is_lent_and_not_copied() -> None:
    shelf, image = Shelf(Pool(10_000), 1), np.arange(24, dtype=np.uint16).reshape(2, 4, 3)
    assert shelf.find(0) is None and shelf.get(0, lambda: image) is image
    lent = shelf.find(0)
    assert lent is not None and np.array_equal(lent, image) and not lent.flags.writeable
    again = shelf.find(0)
    assert again is not None and np.shares_memory(lent, again)
