"""``relume prepare``: pairs and tar files, dry runs that write nothing, and commands that are given again."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from relume.core.cli import main
from relume.core.imaging.image_io import imwrite, read_pixels
from relume.core.imaging.matlab_resize import imresize
from relume.core.preparation import packing
from relume.datasets import build_dataset
from relume.datasets.sources import Lmdb


@pytest.fixture(autouse=True)
def five_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for i in range(5):
        name = f"in/{'s/' if i == 4 else ''}im.{i}.png"
        imwrite(name, np.random.RandomState(i).randint(0, 256, (33, 41, 3)).astype(np.uint8))


def prepare(*arguments: str) -> int:
    return main(["prepare", *arguments, "--workers", "1"])


def times(folder: str) -> dict[str, tuple[int, int]]:
    """By file, what changes when it is written again."""
    found = [p for p in sorted(Path(folder).rglob("*")) if p.is_file()]
    return {str(p): (p.stat().st_ino, p.stat().st_mtime_ns) for p in found}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["crop", "in", "out", "--size", "16", "--step", "16"], "would be written: 45 images: out"),
        (["pairs", "in", "out", "--scale", "4"], "would be written: 5 pairs: out"),
        (["lmdb", "in", "out.lmdb"], "would be written: 5 images: out.lmdb"),
        (["tar", "in", "out", "--samples", "2"], "would be written: 5 images in 3 tar files: out"),
        (["meta", "in", "out.txt"], "would be written: 5 images: out.txt"),
        (["hdr", "in", "out", "--renditions", "2"], "would be written: 10 images: out"),
    ],
)
def test_a_dry_run_counts_and_writes_nothing(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(*arguments, "--dry_run") == 0
    assert said in capsys.readouterr().out and not list(Path().glob("out*"))
    assert prepare(*arguments) == 0
    assert said.removeprefix("would be written: ") in capsys.readouterr().out, "the same count when it is done"


@pytest.mark.parametrize(
    ("arguments", "lost", "others"),
    [
        (["crop", "in", "out", "--size", "16"], "out/im.3_s002.png", ["--step", "8"]),
        (["pairs", "in", "out", "--scale", "2", "--noise", "9"], "out/lq/s/im.4.png", ["--seed", "1"]),
        (["tar", "in", "out", "--samples", "2"], "out/000001.tar", ["--samples", "3"]),
        (["hdr", "in", "out"], "out/dgain/im.0.txt", ["--side", "20"]),
    ],
)
def test_what_is_missing_is_made_again_and_nothing_else(
    arguments: list[str], lost: str, others: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(*arguments) == 0
    before, content = times("out"), Path(lost).read_bytes()
    Path(lost).unlink()
    assert prepare(*arguments) == 0 and Path(lost).read_bytes() == content
    stem = Path(lost).stem.partition("_")[0]
    changed = {name for name, when in times("out").items() if when != before[name]}
    assert lost in changed and all(stem in name for name in changed), "at most what belongs to the same image"
    assert prepare(*arguments, *others) == 2
    assert f"out: was made of in with {others[0][2:]} " in capsys.readouterr().err
    Path("out/prepare.json").unlink()
    assert prepare(*arguments) == 2 and "is there already" in capsys.readouterr().err


def test_an_interrupted_database_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    decoded: list[str] = []
    whole = packing.meta_line

    def counted(source: object, name: str) -> str:
        if len(decoded) == 3:
            raise KeyboardInterrupt
        decoded.append(name)
        return whole(source, name)  # type: ignore[arg-type]

    monkeypatch.setattr(packing, "meta_line", counted)
    with pytest.raises(KeyboardInterrupt):
        packing.pack("in", "x.lmdb", batch=1)
    assert not Path("x.lmdb").exists()
    Path("in/im.1.png").unlink()
    imwrite("in/im.0.png", np.zeros((4, 5, 3), np.uint8))  # another picture by now
    del decoded[:]
    monkeypatch.setattr(packing, "meta_line", lambda source, name: (decoded.append(name), whole(source, name))[1])
    assert packing.pack("in", "x.lmdb", batch=1, workers=2) == 4
    assert sorted(decoded) == ["im.0.png", "im.3.png", "s/im.4.png"], "im.2 was there"
    with packing.require("lmdb", "a test").open("x.lmdb", readonly=True, lock=False) as database:
        assert database.stat()["entries"] == 4
    source = Lmdb("x.lmdb")
    assert list(source.sizes) == ["im.0.png", "im.2.png", "im.3.png", "s/im.4.png"]
    assert all(np.array_equal(source.pixels(n), read_pixels(f"in/{n}")) for n in source.sizes)


def test_pairs_are_what_the_formula_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare("pairs", "in", "out", "--scale", "4") == 0
    for name in ("im.0.png", "s/im.4.png"):
        target = read_pixels(f"in/{name}")[:32, :40]
        assert np.array_equal(read_pixels(f"out/gt/{name}"), target)
        small = imresize(target.astype(np.float32) / 255, 1 / 4)
        assert np.abs(read_pixels(f"out/lq/{name}") / 255 - np.clip(small, 0, 1)).max() <= 0.5001 / 255
    block = {"type": "PairedImageDataset", "dataroot_gt": "out/gt", "dataroot_lq": "out/lq"}
    assert len(build_dataset(block, phase="val", scale=4)) == 5
    imwrite("flat/a.png", np.full((64, 64, 3), 128, np.uint8))
    imwrite("flat/b.png", np.full((64, 64, 3), 128, np.uint8))
    assert main(["prepare", "pairs", "flat", "noisy", "--noise", "20", "--workers", "2"]) == 0
    a, b = (read_pixels(f"noisy/lq/{n}.png").astype(float) for n in "ab")
    assert abs(a.std() - 20) < 0.6 and abs(a.mean() - 128) < 0.6 and abs(np.corrcoef(a.ravel(), b.ravel())[0, 1]) < 0.05
    assert prepare("pairs", "in", "jpeg", "--jpeg", "30") == 0
    source = read_pixels("in/im.0.png")
    _, data = cv2.imencode(".jpg", source[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 30])
    assert np.array_equal(read_pixels("jpeg/lq/im.0.png"), cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
    edge = np.zeros((21, 21, 3), np.uint8)
    edge[10, 10] = 255
    imwrite("point/a.png", edge)
    assert prepare("pairs", "point", "blur", "--blur", "1.5") == 0
    x = np.exp(-(np.arange(-10, 11) ** 2) / (2 * 1.5**2))
    wanted = 255 * np.outer(x, x) / x.sum() ** 2
    assert np.abs(read_pixels("blur/lq/a.png")[..., 0] - wanted).max() < 0.6


def test_tar_files_hold_pairs_as_webdataset_names_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare("pairs", "in", "p", "--scale", "2") == 0
    assert prepare("tar", "p/lq", "out", "--gt", "p/gt", "--samples", "3") == 0
    assert "5 pairs in 2 tar files" in capsys.readouterr().out
    found = {}
    for path in sorted(Path("out").glob("*.tar")):
        with tarfile.open(path) as archive:
            found.update({m.name: archive.extractfile(m).read() for m in archive.getmembers()})  # type: ignore[union-attr]
    assert list(found)[:2] == ["im_0.lq.png", "im_0.gt.png"] and len(found) == 10
    assert found["s/im_4.gt.png"] == Path("p/gt/s/im.4.png").read_bytes()
    assert cv2.imdecode(np.frombuffer(io.BytesIO(found["im_2.lq.png"]).read(), np.uint8), 1).shape == (16, 20, 3)
    Path("p/gt/im.1.png").unlink()
    assert prepare("tar", "p/lq", "other", "--gt", "p/gt") == 2
    assert "files without a partner: im.1" in capsys.readouterr().err
    imwrite("in/im_0.png", np.zeros((4, 4, 3), np.uint8))
    assert prepare("tar", "in", "other") == 2 and "would both be im_0" in capsys.readouterr().err
    Path("in/im_0.png").unlink()
    Path("in/im.3.png").write_bytes(b"torn")
    assert prepare("tar", "in", "other") == 2 and "im.3.png" in capsys.readouterr().err
    assert not list(Path("other").glob("*.tar"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pairs", "in", "out"], "nothing would be degraded: give --scale, --blur, --noise or --jpeg"),
        (["pairs", "in", "out", "--scale", "0"], "--scale: at least 1, not 0"),
        (["pairs", "in", "out", "--jpeg", "101"], "--jpeg: from 1 to 100, not 101"),
        (["pairs", "in", "out", "--noise", "nan"], "--noise: from 0 to 255, not nan"),
        (["pairs", "in", "out", "--scale", "64"], "is smaller than --scale 64"),
        (["crop", "in", "out", "--step", "0"], "--size and --step: at least 1"),
        (["tar", "in", "out", "--samples", "0"], "--samples: at least 1, not 0"),
        (["crop", "in", "damaged", "--size", "8"], "prepare.json: is damaged"),
        (["meta", "gone", "out.txt"], "gone: there is no such folder"),
    ],
)
def test_bad_input(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("damaged").mkdir()
    Path("damaged/prepare.json").write_text("[1")
    assert prepare(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_imresize_is_in_one_place() -> None:
    from relume.core.compat.utils.matlab_functions import imresize as basicsrs

    assert basicsrs is imresize
    assert torch.equal(basicsrs(torch.full((3, 8, 8), 0.25), 0.5), torch.full((3, 4, 4), 0.25))
