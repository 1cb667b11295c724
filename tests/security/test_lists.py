"""Data sets from elsewhere: lists and templates name files below their folder, and what is read are files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from relume.core.errors import UserError
from relume.core.imaging.storage import UnreadableFile, read_bytes
from relume.datasets import DATASETS
from relume.datasets.triplets import read_list


@pytest.mark.parametrize("line", ["/etc/passwd", "../x 1 2", "a/../../x", "a/1.png ~/x.png a/3.png", "s3://b/x"])
def test_paths_that_lead_out_are_refused_with_their_line(line: str, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text(f"00001/0001\n{line}\n")
    with pytest.raises(UserError, match=r"list\.txt:2: '.*' leads out of the data set's folder"):
        read_list(tmp_path / "list.txt", "00001/0001")


def test_usual_lists_pass(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("data/a..b/1.png x/...\n00001/0001 7 (256,448,3)\n")
    assert len(read_list(tmp_path / "list.txt", "")) == 2


def frames(root: Path, folder: str) -> None:
    import cv2
    import numpy as np

    (root / folder).mkdir(parents=True)
    for name in ("im1", "im2", "im3"):
        cv2.imwrite(str(root / folder / f"{name}.png"), np.zeros((8, 8, 3), np.uint8))


@pytest.mark.parametrize("way", ["up", "absolute"])
@pytest.mark.parametrize("kind", ["Vimeo90KDataset", "SNUFILMDataset"])
def test_frames_outside_are_read_only_where_the_user_says_so(kind: str, way: str, tmp_path: Path) -> None:
    root = tmp_path / "set"
    frames(tmp_path, "secret")
    frames(root / "sequences", "1")
    lead = "../" * 2 if way == "up" else f"{tmp_path}/"
    if kind == "Vimeo90KDataset":
        (root / "tri_testlist.txt").write_text(f"1\n{lead}secret\n")
        block = {"type": kind, "dataroot": str(root), "use_rot": False}
    else:
        first = " ".join(f"sequences/1/im{k}.png" for k in (1, 2, 3))
        outside = " ".join(f"{lead[3:] if way == 'up' else lead}secret/im{k}.png" for k in (1, 2, 3))
        (root / "test-easy.txt").write_text(f"{first}\n{outside}\n")
        block = {"type": kind, "dataroot": str(root), "level": "easy"}
    phase = {"phase": "test"} if kind == "Vimeo90KDataset" else {}
    with pytest.raises(UserError, match=r"\.txt:2: '.*' leads out of the data set's folder; allow_outside: true"):
        DATASETS.build(block, **phase)
    found = DATASETS.build({**block, "allow_outside": True}, **phase)
    assert len(found) == 2 and found[1]["gt"].shape == (3, 8, 8) and "/" not in found[1]["name"]


@pytest.mark.parametrize(
    "template",
    [
        "../{}",
        "{}/../x",
        "/etc/{}",
        "{}{x}",
        "{0.__class__}",
        "{!r}",
        "{:99999999999}",
        "{",
        "",
        "x",
        "..",
        "{}\\..",
        "{}\0",
    ],
    ids=ascii,
)
def test_templates_of_names_are_names(template: str, tmp_path: Path) -> None:
    frames(tmp_path, "a")
    block = {
        "type": "PairedImageDataset",
        "dataroot_gt": f"{tmp_path}/a",
        "dataroot_lq": f"{tmp_path}/a",
        "filename_tmpl": template,
    }
    with pytest.raises(UserError, match="filename_tmpl") as caught:
        DATASETS.build(block, phase="test", scale=1)
    assert "\n" not in str(caught.value) and "\0" not in str(caught.value)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_pictures_that_are_pipes_or_devices_are_not_waited_for(kind: str, tmp_path: Path) -> None:
    frames(tmp_path, "a")
    (tmp_path / "a/im2.png").unlink()
    if kind == "pipe":
        os.mkfifo(tmp_path / "a/im2.png")
    else:
        (tmp_path / "a/im2.png").symlink_to("/dev/zero")
    with pytest.raises(UnreadableFile, match=r"im2\.png: cannot be read \(No plain file\)"):
        read_bytes(tmp_path / "a/im2.png")
