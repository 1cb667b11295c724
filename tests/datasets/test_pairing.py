"""Matching inputs with ground truths."""

from __future__ import annotations

import numpy as np
import pytest

from relume.core.errors import UserError
from relume.core.imaging.image_io import imwrite
from relume.core.imaging.storage import write_bytes
from relume.datasets import build_dataset
from relume.datasets.pairing import find_roots, find_samples
from relume.datasets.sources import IOBackend

DISK = IOBackend()


@pytest.fixture
def touch(tmp_path):
    """``touch("gt", "a.png", ...)``: files that pass for images as long as nobody reads them."""

    def make(folder, *names):
        for name in names:
            write_bytes(tmp_path / folder / name, b"x")
        return str(tmp_path / folder)

    return make


def pairs(samples):
    return [(s.lq_name, s.gt_name) for s in samples]


def test_pairs_are_sorted_and_suffixes_and_subfolders_handled(touch):
    gt = touch("gt", "b.png", "a.JPG", "s/c.png", "notes.txt", ".DS_Store", "._a.png")
    lq = touch("lq", "s/c.bmp", "b.jpg", "a.png", "thumbs.db")
    assert pairs(find_samples(lq, gt, DISK)) == [("a.png", "a.JPG"), ("b.jpg", "b.png"), ("s/c.bmp", "s/c.png")]


def test_the_template_gives_the_inputs_name(touch):
    gt, lq = touch("gt", "1.png", "s/2.png"), touch("lq", "1x4.png", "s/2x4.png")
    assert pairs(find_samples(lq, gt, DISK, "{}x4")) == [("1x4.png", "1.png"), ("s/2x4.png", "s/2.png")]
    with pytest.raises(UserError, match=r"2 of 2 ground truths.*filename_tmpl"):
        find_samples(lq, gt, DISK)


def test_twenty_thousand_pairs(touch, monkeypatch):
    names = [f"{i // 1000}/{i:05d}.png" for i in range(20_000)]
    from relume.datasets import sources

    monkeypatch.setattr(sources, "list_files", lambda root: names)
    samples = find_samples("/lq", "/gt", DISK)
    assert len(samples) == 20_000
    assert all(s.lq_name == s.gt_name for s in samples)


def test_missing_partners_are_counted_and_ten_named(touch):
    gt = touch("gt", *(f"{i:02d}.png" for i in range(15)))
    lq = touch("lq", "00.png", "01.png")
    with pytest.raises(UserError) as e:
        find_samples(lq, gt, DISK)
    message = str(e.value)
    assert "13 of 15 ground truths" in message
    assert gt in message and lq in message
    assert "02.png" in message and "11.png" in message and "12.png" not in message and "and 3 more" in message
    with pytest.raises(UserError, match=r"13 of 15 inputs in .*gt have no ground truth in .*lq: 02\.png"):
        find_samples(gt, lq, DISK)


def test_two_files_of_one_stem_are_refused(touch):
    gt, lq = touch("gt", "a.png", "a.jpg", "b.png"), touch("lq", "a.png", "b.png")
    with pytest.raises(UserError, match=r"gt: .*a\.jpg and a\.png"):
        find_samples(lq, gt, DISK)


def test_empty_and_missing_folders_are_named(touch, tmp_path):
    lq = touch("lq", "a.png")
    gt = touch("gt", "readme.txt")
    with pytest.raises(UserError, match=r"gt: there are no files to read"):
        find_samples(lq, gt, DISK)
    with pytest.raises(UserError, match=r"gone: there is no such folder"):
        find_samples(lq, str(tmp_path / "gone"), DISK)


def test_a_meta_file_chooses_and_orders(touch, tmp_path):
    gt = touch("gt", "a.png", "b c.png", "d.v1.png", "e.png")
    lq = touch("lq", "ax2.png", "b cx2.png", "d.v1x2.png")
    meta = tmp_path / "meta.txt"
    meta.write_text("d.v1.png (40,48,3)\nb c.png (40,48,3) 1\n\na.png\n")
    expected = [("d.v1x2.png", "d.v1.png"), ("b cx2.png", "b c.png"), ("ax2.png", "a.png")]
    assert pairs(find_samples(lq, gt, DISK, "{}x2", str(meta))) == expected
    meta.write_text("a.png\nz.png\n")
    with pytest.raises(UserError, match=r"gt: lacks 1 files that .*meta\.txt lists: z\.png"):
        find_samples(lq, gt, DISK, "{}x2", str(meta))
    meta.write_text("e.png\n")
    with pytest.raises(UserError, match=r"1 of 1 ground truths .* have no input"):
        find_samples(lq, gt, DISK, "{}x2", str(meta))


def test_roots_of_the_options():
    assert find_roots("lsui", None, None) == [("lsui/input", "lsui/gt")]
    assert find_roots(["a", "s3://b/"], None, None) == [("a/input", "a/gt"), ("s3://b/input", "s3://b/gt")]
    assert find_roots(None, "gt", "lq") == [("lq", "gt")]
    assert find_roots(None, None, ["x", "y"]) == [("x", None), ("y", None)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("a", "gt", None), "either dataroot"),
        ((None, "gt", None), "dataroot_lq is missing"),
        ((None, ["a", "b"], ["a"]), "1 folders and dataroot_gt 2"),
        ((None, None, []), "dataroot_lq: give a folder"),
        (([""], None, None), "dataroot: give a folder"),
    ],
)
def test_roots_that_do_not_fit_together(arguments, message):
    with pytest.raises(UserError, match=message):
        find_roots(*arguments)


def test_test_sets_leave_sub_folders_out_unless_told(tmp_path, caplog):
    for kind in ("lq", "gt"):
        for name in ("a", "old/b", "mine/c"):
            imwrite(tmp_path / kind / f"{name}.png", np.zeros((4, 4, 3), np.uint8))
    pair = {"type": "PairedImageDataset", **{f"dataroot_{k}": str(tmp_path / k) for k in ("lq", "gt")}}
    single = {"type": "SingleImageDataset", "dataroot_lq": str(tmp_path / "lq")}
    for block, phase, count in ((pair, "train", 3), (pair, "val", 3), (pair, "test", 1), (single, "test", 1)):
        assert len(build_dataset(block, phase=phase, scale=1)) == count
    for block in (pair, single):
        assert len(build_dataset({**block, "recursive": True}, phase="test", scale=1)) == 3
    with caplog.at_level("INFO", "relume"):
        build_dataset(single, phase="test", scale=1)
    assert "2 files in sub-folders are left out (recursive: true takes them too)" in caplog.text
    (tmp_path / "lq/a.png").unlink()
    assert len(build_dataset(single, phase="test", scale=1)) == 2, "a folder of folders"
