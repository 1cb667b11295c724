"""Tar files as data: the same samples as from folders, whoever packed them; damage and mistakes are one line."""

from __future__ import annotations

import io
import os
import pickle
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from relume.core.cli import main
from relume.core.errors import UserError
from relume.core.files import ceilings
from relume.core.imaging.image_io import imwrite
from relume.datasets import build_dataset
from relume.datasets.sources import Tar, entries

TAR = {"type": "tar"}


@pytest.fixture(autouse=True)
def pairs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs in lq and gt, and the same in two tar files in shards."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.RandomState(0)
    for name in ("b.png", "a.png", "s/c.png"):
        for kind, bits in (("lq", 8), ("gt", 16)):
            imwrite(f"{kind}/{name}", rng.rand(12, 14, 3), bits)
    assert main(["prepare", "tar", "lq", "shards", "--gt", "gt", "--samples", "2"]) == 0


def test_pairs_are_those_of_the_folders() -> None:
    block = {"type": "PairedImageDataset", "gt_size": 8, "use_hflip": True, "use_rot": True}
    folders = build_dataset({**block, "dataroot_lq": "lq", "dataroot_gt": "gt"}, phase="train")
    packed = build_dataset(
        {**block, "dataroot_lq": "shards", "dataroot_gt": "shards", "io_backend": TAR}, phase="train"
    )
    packed = pickle.loads(pickle.dumps(packed))  # as a process that is spawned gets it
    assert len(packed) == 3
    for i in range(3):
        items = []
        for dataset in (folders, packed):
            torch.manual_seed(i)
            np.random.seed(i)
            random.seed(i)
            items.append(dataset[i])
        assert torch.equal(items[0]["lq"], items[1]["lq"]) and torch.equal(items[0]["gt"], items[1]["gt"])
    assert items[1]["lq_path"] == str(Path("shards", "000001.tar", "s/c.png"))
    with pytest.raises(UserError, match="the patch gt_size 13 is larger than 3 of 3"):
        packed.require_patch(13)


def test_photographs_and_clips_take_their_part() -> None:
    block = {"type": "RealESRGANDataset", "dataroot_gt": "shards", "io_backend": TAR, "scale": 2}
    photographs = build_dataset({**block, "gt_size": 8, "pad_size": 12}, phase="train")
    assert len(photographs) == 3
    block = {"type": "PairedImageDataset", "dataroot_lq": "shards/000000.tar", "io_backend": TAR}
    assert [Path(i["lq_path"]).name for i in build_dataset(block, phase="val")] == ["a.png", "b.png"]
    imwrite("frames/x/10.png", np.zeros((8, 8, 3), np.uint8))
    imwrite("frames/x/9.png", np.ones((8, 8, 3), np.uint8))
    assert main(["prepare", "tar", "frames", "clips", "--gt", "frames"]) == 0
    block = {"type": "ClipsDataset", "dataroot_lq": "clips", "dataroot_gt": "clips", "io_backend": TAR, "num_frame": 2}
    clip = build_dataset(block, phase="val", scale=1)[0]
    assert clip["lq"].shape == (2, 3, 8, 8) and clip["lq"][0].max() > clip["lq"][1].max() == 0, "numbers are in order"


def test_archives_of_others() -> None:
    """What ``tar cf x.tar -C folder .`` writes: leading ``./``, folders, hidden files, names with dots and of any length."""
    long = "long" * 40
    imwrite(f"in/{long}/im.0.png", np.zeros((3, 4, 3), np.uint8))
    Path("in/._im.png").write_bytes(b"x")
    Path("in/notes.json").write_text("{}")
    with tarfile.open("x.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        archive.add("in", ".")
        link = tarfile.TarInfo("link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    source = Tar("x.tar", part="lq")
    assert list(source.files) == [f"{long}/im.0"] and source.size(f"{long}/im.0.png") == (3, 4)
    assert source.pixels(f"{long}/im.0.png").shape == (3, 4, 3)


def test_behind_a_url() -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for path in Path("shards").glob("*.tar"):
        memory.pipe_file(f"/bucket/{path.name}", path.read_bytes())
    try:
        block = {"type": "PairedImageDataset", "io_backend": TAR}
        items = build_dataset(
            {**block, "dataroot_lq": "memory://bucket", "dataroot_gt": "memory://bucket"}, phase="val"
        )
        near = build_dataset({**block, "dataroot_lq": "shards", "dataroot_gt": "shards"}, phase="val")
        assert len(items) == 3 and all(torch.equal(a["gt"], b["gt"]) for a, b in zip(items, near, strict=True))
    finally:
        memory.rm("/bucket", recursive=True)


def spoilt(how: str) -> str:
    """A root of tar files that something is wrong with."""
    whole = Path("shards/000000.tar").read_bytes()
    first = entries("shards/000000.tar")[0]
    if how == "cut":
        Path("x.tar").write_bytes(whole[: first.start + 20])
    elif how == "compressed":
        with tarfile.open("x.tar", "w:gz") as archive:
            archive.add("lq", "lq")
    elif how == "noise":
        Path("x.tar").write_bytes(b"noise" * 1000)
    elif how == "a folder":
        Path("x.tar").mkdir()
    elif how == "a pipe":
        os.mkfifo("x.tar")
    elif how == "leads out":
        with tarfile.open("x.tar", "w") as archive:
            archive.add("lq/a.png", "a.png")
            member = archive.getmembers()[0]
            member.name = "s/../../a.png"
            archive.addfile(member, io.BytesIO(Path("lq/a.png").read_bytes()))
    elif how == "twice":
        Path("shards/000003.tar").write_bytes(whole)
        return "shards"
    return "lq" if how == "none" else "x.tar"


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("cut", r"x\.tar: .*(cut|cannot be read)"),
        ("compressed", r"x\.tar: cannot be read as a tar file without compression"),
        ("noise", r"x\.tar: cannot be read as a tar file"),
        ("absent", r"x\.tar: cannot be read \(No such file"),
        ("a folder", r"x\.tar: cannot be read"),
        ("a pipe", r"x\.tar: cannot be read \(No plain file"),
        ("leads out", r"'\.\./a\.png' leads out of the archive"),
        ("twice", r"is in .*000000\.tar and in .*000003\.tar"),
        ("none", r"lq: there are no \.tar files"),
    ],
)
def test_bad_input(how: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as error:
        Tar(spoilt(how))
    assert "\n" not in str(error.value)


def test_ceilings_and_pictures_that_are_damaged() -> None:
    whole = bytearray(Path("shards/000000.tar").read_bytes())
    entry = next(e for e in entries("shards/000000.tar") if e.name == "a.lq.png")
    whole[entry.start + 30 : entry.start + entry.size] = bytes(entry.size - 30)
    Path("shards/000000.tar").write_bytes(whole)
    block = {"type": "PairedImageDataset", "dataroot_lq": "shards", "dataroot_gt": "shards", "io_backend": TAR}
    with pytest.raises(UserError, match=r"000000\.tar/a\.png"):
        build_dataset(block, phase="val").load(0)
    assert build_dataset({**block, "on_error": "skip"}, phase="val")[0]["lq_path"].endswith("b.png")
    before = ceilings.in_force()
    try:
        ceilings.use(ceilings.Ceilings(max_unpacked_bytes=100))
        with pytest.raises(UserError, match=r"data\.max_unpacked_bytes is 100"):
            Tar("shards", part="gt").read("b.png")
    finally:
        ceilings.use(before)
