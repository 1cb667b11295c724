"""Tar files as data: the same samples as from folders, whoever packed them; damage and mistakes are one line."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import re
import signal
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import torch
from runs import differences, options, train

from relume.core.cli import main
from relume.core.errors import UserError
from relume.core.files import ceilings
from relume.core.imaging.image_io import imwrite
from relume.core.pipeline import train_pipeline
from relume.core.runtime.checkpoint import Checkpoints
from relume.datasets import build_dataset
from relume.datasets.archives import Tar, entries, listed
from relume.datasets.loading.loader import build_train_loader

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
    clips = build_dataset(block, phase="val", scale=1)
    clip = clips[0]
    place = clips.stored_at(0)
    assert place is not None and place.archive == str(Path("clips", "000000.tar"))
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


class Server(SimpleHTTPRequestHandler):
    """A folder over HTTP. What is asked for of a file is sent, or the whole of it by a server that knows no parts."""

    parts = True

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not path.is_file() or asked is None or not self.parts:
            super().do_GET()
            return
        data = path.read_bytes()
        part = data[int(asked[1]) : int(asked[2]) + 1]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {asked[1]}-{int(asked[1]) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)

    def log_message(self, *_: object) -> None:
        """Nothing."""


class WithoutParts(Server):
    """One that always sends the whole file."""

    parts = False


@pytest.fixture(params=["memory", "file", "http", "http without parts"])
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the folder ``shards`` is, by a protocol of fsspec."""
    fsspec = pytest.importorskip("fsspec")
    if request.param == "memory":
        memory = fsspec.filesystem("memory")
        for path in Path("shards").glob("*[rn]"):
            memory.pipe_file(f"/bucket/{path.name}", path.read_bytes())
        yield "memory://bucket"
        memory.rm("/bucket", recursive=True)
    elif request.param == "file":
        yield Path("shards").absolute().as_uri()
    else:
        pytest.importorskip("aiohttp")
        handler = Server if request.param == "http" else WithoutParts
        with ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory="shards")) as server:
            thread = threading.Thread(target=server.serve_forever, args=(0.02,))
            thread.start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()
            thread.join()


def test_behind_a_url(url: str) -> None:
    block = {"type": "PairedImageDataset", "io_backend": TAR}
    items = build_dataset({**block, "dataroot_lq": url, "dataroot_gt": url}, phase="val")
    near = build_dataset({**block, "dataroot_lq": "shards", "dataroot_gt": "shards"}, phase="val")
    assert len(items) == 3 and all(torch.equal(a["gt"], b["gt"]) for a, b in zip(items, near, strict=True))
    assert [items.stored_at(i).start for i in range(3)] == [near.stored_at(i).start for i in range(3)]


# ------------------------------------------------------------------ the index beside the archives
def test_the_index_is_believed_and_checked(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    looked = [e for name in ("000000.tar", "000001.tar") for e in entries(f"shards/{name}")]
    assert listed("shards", ["shards/000000.tar", "shards/000001.tar"]) == looked
    Path("shards/index.json").unlink()
    assert main(["prepare", "index", "shards"]) == 0 and "6 files in 2 tar files" in capsys.readouterr().out
    assert listed("shards", ["shards/000000.tar", "shards/000001.tar"]) == looked
    # Archives that were packed anew after it.
    whole = json.loads(Path("shards/index.json").read_text())
    whole["000000.tar"] = [[name, start + 512, size] for name, start, size in whole["000000.tar"]]
    Path("shards/index.json").write_text(json.dumps(whole))
    with pytest.raises(UserError, match=r"000000\.tar/a\.gt\.png: is not at its place.*index\.json"):
        Tar("shards", part="gt").read("a.png")
    Path("shards/000002.tar").write_bytes(Path("shards/000001.tar").read_bytes())
    with pytest.raises(UserError, match=r"is in .*000001\.tar and in .*000002\.tar"):
        Tar("shards", part="gt")
    assert "is of other archives" in caplog.text


OTHER = '"000001.tar": []}'


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{",
        '{"000000.tar": 3, ' + OTHER,
        '{"000000.tar": [["../a.png", 512, 1]], ' + OTHER,
        '{"000000.tar": [["a.png", -512, 1]], ' + OTHER,
        '{"000000.tar": [["a.png", 512]], ' + OTHER,
    ],
)
def test_a_damaged_index(text: str) -> None:
    Path("shards/index.json").write_text(text)
    if text == "[]":
        assert len(Tar("shards", part="gt").entries) == 3, "it is of none of these archives"
        return
    with pytest.raises(UserError, match=r"index\.json: is damaged") as error:
        Tar("shards")
    assert "\n" not in str(error.value)


def test_a_zip_file_is_a_folder() -> None:
    with zipfile.ZipFile("lq.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a.png", "b.png", "s/c.png"):
            archive.write(f"lq/{name}", name)
    block = {"type": "PairedImageDataset", "io_backend": {"type": "zip"}, "dataroot_lq": "lq.zip"}
    near = build_dataset({"type": "PairedImageDataset", "dataroot_lq": "lq"}, phase="val")
    found = build_dataset(block, phase="val")
    assert len(found) == 3 and all(torch.equal(a["lq"], b["lq"]) for a, b in zip(found, near, strict=True))
    with pytest.raises(UserError, match="cannot be read as a zip file"):
        build_dataset({**block, "dataroot_lq": "lq"}, phase="val")


# ------------------------------------------------------------------ by shard and buffer
def run_of_tar() -> dict[str, object]:
    """A run on the pairs in tar files, each archive read from its beginning."""
    block = {
        "type": "PairedImageDataset", "dataroot_lq": "many", "dataroot_gt": "many", "io_backend": TAR, "gt_size": 8,
        "use_hflip": True, "batch_size_per_gpu": 3, "num_worker_per_gpu": 2, "shuffle_buffer": 5,
    }  # fmt: skip
    return options(datasets__train=block, train__total_iter=9, logger__save_checkpoint_freq=2, val__val_freq=None)


def test_killed_in_the_middle_of_an_epoch_and_resumed_at_the_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.RandomState(1)
    for i in range(11):  # three archives, of which an epoch ends in the middle of a batch
        for kind in ("lq", "gt"):
            imwrite(f"in/{kind}/{i:02d}.png", rng.rand(9 + i % 3, 12, 3))
    for name in ("straight", "killed"):
        assert main(["prepare", "tar", "in/lq", f"{name}/many", "--gt", "in/gt", "--samples", "4"]) == 0
    opt = run_of_tar()
    killed = train(tmp_path / "killed", opt, env={"RELUME_TEST_ACCIDENT": "loss:6"})
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert Checkpoints(tmp_path / "killed/experiments/toy").newest_good() == (4, [])
    for name in ("straight", "killed"):
        monkeypatch.chdir(tmp_path / name)
        train_pipeline(opt, auto_resume=name == "killed")
    for which in ("training_states/9.state", "models/net_g_9.pth"):
        a, b = (
            torch.load(tmp_path / name / "experiments/toy" / which, weights_only=True)
            for name in ("straight", "killed")
        )
        assert differences(a, b) == []


def test_only_archives_are_shuffled_by_archive() -> None:
    folders = build_dataset({"type": "PairedImageDataset", "dataroot_lq": "lq", "dataroot_gt": "gt"}, phase="train")
    with pytest.raises(UserError, match="shuffle_buffer: is for data in tar files"):
        build_train_loader(folders, {"shuffle_buffer": 3}, seed=0)
    block = {"type": "PairedImageDataset", "dataroot_lq": ["shards"] * 2, "dataroot_gt": ["shards"] * 2}
    weighted = build_dataset({**block, "io_backend": TAR, "weights": [1.0, 2.0]}, phase="train")
    with pytest.raises(UserError, match="not drawn alike"):
        build_train_loader(weighted, {"shuffle_buffer": 3}, seed=0)


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
