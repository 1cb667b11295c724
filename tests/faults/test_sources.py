"""Folders, LMDB databases, zip files and lists: read as their users mean them, or refused in one line and passed over."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from clips import encode

from relume.core.cli import main
from relume.core.errors import UserError
from relume.core.imaging.image_io import imwrite, read_pixels
from relume.core.imaging.naming import LONGEST, fitting, natural_order
from relume.core.imaging.storage import UnreadableFile, list_files, read_lines
from relume.datasets import build_dataset
from relume.datasets.clips import find_clips
from relume.datasets.sources import Folder, IOBackend, lmdb_key, open_source

NAMES = ("a", "b", "c", "d")


def picture(value: int) -> np.ndarray:
    return np.full((16, 16, 3), value, np.uint8)


@pytest.fixture
def folder(tmp_path):
    for i, name in enumerate(NAMES):
        imwrite(tmp_path / f"set/{name}.png", picture(10 * i))
    return tmp_path / "set"


# ------------------------------------------------------------------ folders
def test_two_links_to_one_folder_are_two_folders(folder, tmp_path):
    (tmp_path / "lq").mkdir()
    for name in ("first", "second"):
        (tmp_path / "lq" / name).symlink_to(folder)
    assert list_files(str(tmp_path / "lq")) == [f"{f}/{n}.png" for f in ("first", "second") for n in NAMES]


def test_links_upwards_lead_nowhere(folder, tmp_path):
    (folder / "up").symlink_to(tmp_path)
    (folder / "here").symlink_to(".")
    (folder / "a/b/c").mkdir(parents=True)
    (folder / "a/b/c/mutual").symlink_to(folder / "a")
    assert list_files(str(folder)) == [f"{n}.png" for n in NAMES]
    assert [len(c) for c in find_clips(str(tmp_path))] == [4]
    imwrite(folder / "a/x.png", picture(1))
    assert list_files(str(folder)) == sorted([f"{n}.png" for n in NAMES] + ["a/x.png"])


def test_a_folder_that_cannot_be_listed_is_named(folder, monkeypatch):
    (folder / "closed").mkdir()
    real = os.scandir

    def scandir(path):
        if str(path).rstrip("/").endswith("closed"):
            raise PermissionError(13, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match=r"closed/ cannot be listed \(Permission denied\)"):
        list_files(str(folder))


@pytest.mark.parametrize(
    "hidden", ["__MACOSX/set/._a.png", "._a.png", ".thumbs/a.png", "@eaDir/a.png", "lost+found/x.png"]
)
def test_what_is_hidden_in_a_folder_is_hidden_in_a_zip(folder, tmp_path, hidden):
    (folder / hidden).parent.mkdir(parents=True, exist_ok=True)
    (folder / hidden).write_bytes(b"\0\5\26\7")
    packed = zipped(folder, tmp_path / "set.zip")
    for root in (folder, packed):
        dataset = build_dataset({"type": "ImageFolderDataset", "dataroot": str(root)}, phase="train")
        assert dataset.names == [f"{n}.png" for n in NAMES]
    assert [len(c) for c in find_clips(str(folder))] == [4]


def zipped(folder: Path, target: Path, compression: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(target, "w", compression) as archive:
        for path in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(path, path.relative_to(folder))
    return target


def test_separators_of_windows_in_a_zip(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "w.zip", "w") as archive:
        for kind in ("x", "y"):
            info = zipfile.ZipInfo(f"{kind}/a.png")
            info.filename = f"{kind}\\a.png"
            archive.writestr(info, (folder / "a.png").read_bytes())
    dataset = build_dataset(
        {"type": "ImageFolderDataset", "dataroot": str(tmp_path / "w.zip"), "labels": "folders"}, phase="train"
    )
    assert dataset.labels.tolist() == [0, 1] and dataset[1]["gt"].shape == (3, 16, 16)


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "JFIF", "dib", "pnm"])
def test_other_suffixes_of_formats_that_are_read(folder, suffix):
    known = {"jfif": ".jpg", "jpe": ".jpg", "dib": ".bmp", "pnm": ".ppm"}[suffix.lower()]
    imwrite(folder / f"photo{known}", picture(50))
    (folder / f"photo{known}").rename(folder / f"photo.{suffix}")
    source = Folder(str(folder))
    assert len(source.files) == 5 and abs(int(source.pixels(f"photo.{suffix}")[0, 0, 0]) - 50) <= 1


def test_what_is_left_out_is_counted_by_suffix(folder, caplog):
    for name in ("x.heic", "y.HEIC", "z.cr2", "notes.txt"):
        (folder / name).touch()
    Folder(str(folder))
    Folder(str(folder))
    (line,) = [r.message for r in caplog.records]
    assert line.endswith("left out are files that are not read here, by suffix: 2 .heic, 1 .cr2")


# ------------------------------------------------------------------ text that users write
TEXTS = {
    "byte order mark": b"\xef\xbb\xbfa.png\r\nb.png\r\n",
    "UTF-16 of Windows": "a.png\r\nb.png\r\n".encode("utf-16"),
    "big-endian": b"\xfe\xff" + "a.png\nb.png".encode("utf-16-be"),
    "old Macs": b"a.png\rb.png\r",
    "blank lines": b"\n\na.png  \n\t\nb.png\n\n",
    "sizes": b"a.png (16,16,3)\nb.png (16,16,3) 1\n",
    "compression": b"a.png 1\nb.png 1\n",
}


@pytest.mark.parametrize("kind", TEXTS)
def test_lists_are_read_however_they_were_saved(folder, tmp_path, kind):
    (tmp_path / "list.txt").write_bytes(TEXTS[kind])
    opt = {"type": "PairedImageDataset", "dataroot_lq": str(folder), "dataroot_gt": str(folder)}
    dataset = build_dataset({**opt, "meta_info_file": str(tmp_path / "list.txt")}, phase="val")
    assert [Path(dataset.result_path(i)).name for i in range(len(dataset))] == ["a.png", "b.png"]


@pytest.mark.parametrize(
    "content", [b"\x89PNG\r\n\x1a\n\xff\xfe", b"a.png\xff", b"a.png\0\0", bytes(range(256)), b"\xff\xfea"]
)
def test_lists_that_are_no_text(folder, tmp_path, content):
    (tmp_path / "list.txt").write_bytes(content)
    opt = {"type": "PairedImageDataset", "dataroot_lq": str(folder), "meta_info_file": str(tmp_path / "list.txt")}
    with pytest.raises(UserError, match=r"list\.txt: is not a text file"):
        build_dataset(opt, phase="val")
    with pytest.raises(UserError, match=r"list\.txt: is not a text file"):
        read_lines(tmp_path / "list.txt")


@pytest.mark.parametrize("name", ["a\u2028b", "a\x85b", "a\x0bb", "a (3,4,5) b", "a  b", "日本"])
def test_strange_names_in_lists(folder, tmp_path, name):
    imwrite(folder / f"{name}.png", picture(99))
    assert main(["prepare", "lmdb", str(folder), str(tmp_path / "x.lmdb")]) == 0
    source = open_source(str(tmp_path / "x.lmdb"), IOBackend("lmdb"))
    assert len(source.files) == 5 and source.pixels(f"{name}.png")[0, 0, 0] == 99


# ------------------------------------------------------------------ long names
def test_deep_folders_are_packed_under_short_keys(folder, tmp_path):
    deep = "/".join(f"{'folder' * 8}{i}" for i in range(12))
    (folder / deep).mkdir(parents=True)
    shutil.copy(folder / "b.png", folder / deep / "x.png")
    assert main(["prepare", "lmdb", str(folder), str(tmp_path / "x.lmdb")]) == 0
    assert len(lmdb_key(f"{deep}/x.png")) <= 511
    opt = {"type": "PairedImageDataset", "io_backend": {"type": "lmdb"}}
    opt |= {"dataroot_lq": str(tmp_path / "x.lmdb"), "dataroot_gt": str(tmp_path / "x.lmdb")}
    dataset = build_dataset(opt, phase="val")
    assert len(dataset) == 5
    (found,) = [i for i in range(5) if dataset[i]["lq_path"].endswith("x.png")]
    assert float(dataset[found]["lq"].max()) == pytest.approx(10 / 255)


def test_numbers_in_names_may_be_of_any_length_and_script() -> None:
    names = [
        "10.png",
        "2.png",
        "٣.png",
        "²0.png",
        "007.png",
        "7.png",
        "a1_2.png",
        "a1_10.png",
        "a.png",
        f"x{'9' * 5000}.png",
    ]
    ordered = sorted(names, key=natural_order)
    assert ordered[:4] == ["2.png", "007.png", "7.png", "10.png"]
    assert ordered.index("a1_2.png") < ordered.index("a1_10.png")


@pytest.mark.parametrize("letter", ["x", "ß", "日"])
def test_names_are_shortened_and_stay_different(tmp_path, letter):
    longest = LONGEST // len(letter.encode())
    names = {f"{letter * (longest - 5)}{i}_suffix.png" for i in range(3)} | {
        f"{letter * longest}{i}.png" for i in range(3)
    }
    short = {fitting(name, reserve=16) for name in names}
    assert len(short) == 6 and all(len(os.fsencode(n)) <= LONGEST - 16 and n.endswith(".png") for n in short)
    for name in short:
        imwrite(tmp_path / name, picture(3))
        assert read_pixels(tmp_path / name).max() == 3
    assert fitting("results/a.png") == "results/a.png"


def test_results_of_long_names_have_short_ones_that_differ() -> None:
    from relume.core.use.inputs import Input, result_names

    names = [f"folder/{'y' * 249}{i}.png" for i in range(3)]
    results = result_names([Input(n, n) for n in names], [".png"] * 3, "_restored")
    assert len(set(results)) == 3
    assert all(r.startswith("folder/") and r.endswith(".png") and len(r) <= 7 + LONGEST for r in results)


def test_a_name_as_long_as_can_be_is_written(tmp_path):
    imwrite(tmp_path / ("y" * (LONGEST - 4) + ".png"), picture(3))
    assert len(list(tmp_path.iterdir())) == 1


# ------------------------------------------------------------------ damage
def packed_lmdb(folder: Path, target: Path) -> Path:
    assert main(["prepare", "lmdb", str(folder), str(target)]) == 0
    return target


def halve(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 // 4096 * 4096])


LMDB = {
    "empty": lambda r: (r / "data.mdb").write_bytes(b""),
    "cut": lambda r: halve(r / "data.mdb"),
    "cut within the first page": lambda r: (r / "data.mdb").write_bytes((r / "data.mdb").read_bytes()[:1000]),
    "text": lambda r: (r / "data.mdb").write_text("hello\n" * 2000),
    "zeros": lambda r: (r / "data.mdb").write_bytes(bytes(32768)),
    "a folder": lambda r: ((r / "data.mdb").unlink(), (r / "data.mdb").mkdir()),
    "noise in the list": lambda r: (r / "meta_info.txt").write_bytes(np.random.RandomState(0).bytes(500)),
    "letters in the list": lambda r: (r / "meta_info.txt").write_text("some words\nwithout sense\n"),
    "an empty list": lambda r: (r / "meta_info.txt").write_bytes(b""),
    "no list": lambda r: (r / "meta_info.txt").unlink(),
    "long names in the list": lambda r: (r / "meta_info.txt").write_text(f"{'x' * 700}.png (16,16,3) 1\n"),
    "names that are not there": lambda r: (r / "meta_info.txt").write_text("z.png (16,16,3) 1\n"),
}


@pytest.mark.parametrize("kind", LMDB)
def test_damaged_databases(folder, tmp_path, kind):
    root = packed_lmdb(folder, tmp_path / "x.lmdb")
    LMDB[kind](root)
    opt = {"type": "PairedImageDataset", "dataroot_lq": str(root), "io_backend": {"type": "lmdb"}, "on_error": "skip"}
    with pytest.raises(UserError, match=r"none of the|x\.lmdb") as error:
        dataset = build_dataset(opt, phase="val")
        for i in range(len(dataset)):
            dataset[i]
    assert "\n" not in str(error.value)


def test_a_database_that_is_cut_while_it_is_read(folder, tmp_path):
    root = packed_lmdb(folder, tmp_path / "x.lmdb")
    source = open_source(str(root), IOBackend("lmdb"))
    assert source.pixels("a.png").max() == 0
    os.truncate(root / "data.mdb", 8192)
    with pytest.raises(UnreadableFile, match=r"a\.png: data\.mdb is cut: 8192 of \d+ bytes are there"):
        source.pixels("a.png")


def change(path: Path, member: str, offset: int, value: bytes) -> None:
    """Change the local and the central header of a zip's member, `offset` as the local one counts."""
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(io.BytesIO(bytes(data))) as archive:
        local = archive.getinfo(member).header_offset
    central = data.rfind(member.encode()) - 46
    for at in (local + offset, central + offset + 2):
        data[at : at + len(value)] = value
    path.write_bytes(data)


def spoil(path: Path, member: str) -> None:
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(member)
    start = info.header_offset + 30 + len(member)
    data[start : start + info.compress_size] = os.urandom(info.compress_size)
    path.write_bytes(data)


ZIP = {
    "a password": lambda p: change(p, "b.png", 6, struct.pack("<H", 1)),
    "an unknown compression": lambda p: change(p, "b.png", 8, struct.pack("<H", 77)),
    "another compression than it has (bzip2)": lambda p: change(p, "b.png", 8, struct.pack("<H", 12)),
    "another compression than it has (lzma)": lambda p: change(p, "b.png", 8, struct.pack("<H", 14)),
    "noise": lambda p: spoil(p, "b.png"),
}


@pytest.mark.parametrize("kind", ZIP)
def test_damaged_members_of_zips_are_named_and_passed_over(folder, tmp_path, kind, caplog):
    path = zipped(folder, tmp_path / "x.zip")
    ZIP[kind](path)
    opt = {"type": "ImageFolderDataset", "dataroot": str(path)}
    with pytest.raises(UserError, match=r"x\.zip/b\.png: cannot be read \(.+\)"):
        build_dataset(opt, phase="train")[1]
    assert build_dataset({**opt, "on_error": "skip"}, phase="train")[1]["gt"].max() == pytest.approx(20 / 127.5 - 1)
    assert "skipped" in caplog.text


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\5\6" + bytes(18), b"text" * 99])
def test_what_is_no_zip(tmp_path, content):
    (tmp_path / "x.zip").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.zip: (cannot be read as a zip file|there are no files)"):
        build_dataset({"type": "ImageFolderDataset", "dataroot": str(tmp_path / "x.zip")}, phase="train")


LABELS = {
    "nested": b'{"labels": ' + b"[" * 10_000 + b"]" * 10_000 + b"}",
    "deep": b"[" * 100_000,
    "not JSON": b"{labels}",
    "noise": bytes(range(256)),
    "a list": b"[1, 2]",
    "a number": b"3",
    "pairs of three": b'{"labels": [["a.png", 1, 2]]}',
    "a word": b'{"labels": "many"}',
    "huge": json.dumps({"labels": [[f"{n}.png", 10**30] for n in NAMES]}).encode(),
    "long digits": b'{"labels": [["a.png", ' + b"9" * 5000 + b"]]}",
    "NaN": b'{"labels": [["a.png", NaN], ["b.png", 1], ["c.png", 1], ["d.png", 1]]}',
    "true": json.dumps({"labels": [[f"{n}.png", True] for n in NAMES]}).encode(),
}


@pytest.mark.parametrize("place", ["folder", "zip"])
@pytest.mark.parametrize("kind", LABELS)
def test_damaged_labels(folder, tmp_path, kind, place):
    (folder / "dataset.json").write_bytes(LABELS[kind])
    root = folder if place == "folder" else zipped(folder, tmp_path / "x.zip")
    with pytest.raises(UserError) as error:
        build_dataset({"type": "ImageFolderDataset", "dataroot": str(root)}, phase="train")
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_labels_that_cannot_be_read_are_not_taken_for_none(folder, tmp_path):
    (folder / "dataset.json").write_text(json.dumps({"labels": [[f"{n}.png", 1] for n in NAMES]}))
    path = zipped(folder, tmp_path / "x.zip")
    change(path, "dataset.json", 6, struct.pack("<H", 1))
    with pytest.raises(UserError, match=r"dataset\.json: cannot be read \(.*password"):
        build_dataset({"type": "ImageFolderDataset", "dataroot": str(path)}, phase="train")


# ------------------------------------------------------------------ on_error: skip, by kind of source
def spoilt_folder(folder, tmp_path):
    (folder / "b.png").write_bytes(b"\x89PNG")
    return {"type": "PairedImageDataset", "dataroot_lq": str(folder), "dataroot_gt": str(folder)}, "b.png"


def spoilt_lmdb(folder, tmp_path, value=b"noise"):
    import lmdb

    root = str(packed_lmdb(folder, tmp_path / "x.lmdb"))
    with lmdb.open(root, map_size=1 << 24) as environment, environment.begin(write=True) as transaction:
        transaction.put(b"b", value) if value else transaction.delete(b"b")
    opt = {"type": "PairedImageDataset", "dataroot_lq": root, "dataroot_gt": root, "io_backend": {"type": "lmdb"}}
    return opt, "b.png"


def cut_zip(folder, tmp_path):
    path = zipped(folder, tmp_path / "x.zip")
    spoil(path, "b.png")
    return {"type": "ImageFolderDataset", "dataroot": str(path)}, "b.png"


def spoilt_remote(folder, tmp_path):
    import fsspec

    opt, _ = spoilt_folder(folder, tmp_path)
    for path in folder.iterdir():
        fsspec.filesystem("memory").pipe_file(f"/spoilt/{path.name}", path.read_bytes())
    return {**opt, "dataroot_lq": "memory://spoilt", "dataroot_gt": "memory://spoilt"}, "b.png"


def listed(folder, tmp_path):
    (tmp_path / "list.txt").write_text("a.png\nz.png\nc.png\n")
    opt = {"type": "PairedImageDataset", "dataroot_lq": str(folder), "dataroot_gt": str(folder)}
    return {**opt, "meta_info_file": str(tmp_path / "list.txt")}, "z.png"


def listed_in_pairs(folder, tmp_path):
    (tmp_path / "list.txt").write_bytes("a.png, a.png\nz.png, a.png\nc.png, c.png\n".encode("utf-16"))
    opt = {"type": "RealESRGANPairedDataset", "dataroot_lq": str(folder), "dataroot_gt": str(folder), "scale": 1}
    return {**opt, "meta_info": str(tmp_path / "list.txt")}, "z.png"


def no_video(folder, tmp_path):
    (tmp_path / "v").mkdir()
    encode(tmp_path / "v/a.mkv", 9, "ffv1")
    (tmp_path / "v/b.mkv").write_bytes(b"none")
    return {"type": "VideoDataset", "dataroot": str(tmp_path / "v")}, "b.mkv"


def no_video_of_a_pair(folder, tmp_path):
    for kind in ("lq", "gt"):
        (tmp_path / kind).mkdir()
        for name in "ab":
            encode(tmp_path / f"{kind}/{name}.mkv", 9, "ffv1")
    (tmp_path / "lq/b.mkv").write_bytes(b"")
    opt = {"type": "ClipsDataset", "dataroot_lq": str(tmp_path / "lq"), "dataroot_gt": str(tmp_path / "gt"), "scale": 1}
    return opt, "b.mkv"


SPOILT = {
    "folder": spoilt_folder,
    "LMDB": spoilt_lmdb,
    "LMDB that lacks one": lambda folder, tmp_path: spoilt_lmdb(folder, tmp_path, None),
    "zip": cut_zip,
    "remote": spoilt_remote,
    "list": listed,
    "list of pairs": listed_in_pairs,
    "video": no_video,
    "video of a pair": no_video_of_a_pair,
}


@pytest.mark.parametrize("kind", SPOILT)
def test_what_cannot_be_read_is_named_or_passed_over_in_all_sources_alike(folder, tmp_path, kind, caplog):
    opt, name = SPOILT[kind](folder, tmp_path)
    with pytest.raises(UserError, match=re.escape(name)) as error:
        dataset = build_dataset(opt, phase="train")
        for i in range(len(dataset)):
            dataset[i]
    assert "\n" not in str(error.value)
    dataset = build_dataset({**opt, "on_error": "skip"}, phase="train")
    assert all(dataset[i] is not None for i in range(len(dataset)))
    (line,) = {r.message for r in caplog.records if "skipped" in r.message}
    assert name in line


def test_a_pipe_among_pictures_is_not_waited_for(folder):
    (folder / "b.png").unlink()
    os.mkfifo(folder / "b.png")
    source = Folder(str(folder))
    assert source.size("a.png") is not None and source.size("b.png") is None
    with pytest.raises(UserError, match=r"b\.png: cannot be read \(No plain file\)"):
        source.pixels("b.png")


def test_nothing_at_all_is_not_passed_over(folder, tmp_path):
    (tmp_path / "list.txt").write_text("x.png\nz.png\n")
    opt = {"type": "PairedImageDataset", "dataroot_lq": str(folder), "meta_info_file": str(tmp_path / "list.txt")}
    with pytest.raises(UserError, match=r"lacks 2 files"):
        build_dataset({**opt, "on_error": "skip"}, phase="val")
    (tmp_path / "v").mkdir()
    (tmp_path / "v/b.mkv").write_bytes(b"none")
    with pytest.raises(UserError, match="none of the 1 videos"):
        build_dataset({"type": "VideoDataset", "dataroot": str(tmp_path / "v"), "on_error": "skip"}, phase="train")


def test_what_is_hidden_is_no_clip_of_a_published_set(tmp_path):
    for number in range(9):
        imwrite(tmp_path / f"train/one/clip/{number:04}.png", picture(number))
    for hidden in ("train/one/clip/._0000.png", "train/one/.clip/0000.png", "train/.one/clip/0000.png"):
        (tmp_path / hidden).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / hidden).write_bytes(b"\0\5\26\7")
    dataset = build_dataset({"type": "X4K1000FPSDataset", "dataroot": str(tmp_path), "stride": [8, 8]}, phase="val")
    assert len(dataset) == 1 and dataset[0]["gt"].max() * 255 == pytest.approx(4)


def test_a_remote_error_of_any_class_is_one_of_ours(monkeypatch, caplog):
    import fsspec

    memory = fsspec.filesystem("memory")
    for name in NAMES:
        memory.pipe_file(f"/faults/{name}.png", b"x")
    source = Folder("memory://faults")

    class Refused(Exception):
        pass

    def refuse(*_: object, **__: object) -> None:
        raise Refused("403: not yours\nand more")

    monkeypatch.setattr(type(memory), "cat_file", refuse)
    with pytest.raises(UnreadableFile, match=r"memory://faults/a\.png: cannot be read \(403: not yours\)$"):
        source.pixels("a.png")
