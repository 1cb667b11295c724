"""Published data sets: where they come from, and from a download to what the shipped option files look for."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import relume
from relume.core import options
from relume.core.cli import main
from relume.core.errors import UserError
from relume.core.imaging.image_io import imwrite, read_pixels
from relume.core.options.places import missing
from relume.core.preparation import published
from relume.core.preparation.requests import file_size
from relume.datasets import build_dataset
from relume.datasets.origins import KNOWN, ORIGINS, UNPACKED, origin_of, origins_table

ROOT = Path(relume.__file__).resolve().parent
SYSTEMS = ("underwater", "hdr", "vfi", "generation", "realsr", "stereo")
SHIPPED = [
    path
    for system in SYSTEMS
    for path in sorted((ROOT / "options" / system).rglob("*.yml"))
    if not {"ablation", "small"} & set(path.parts)
]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def picture(path: str, size: tuple[int, int] = (16, 20), seed: int = 0) -> None:
    imwrite(path, np.random.RandomState(seed).randint(0, 256, (*size, 3)).astype(np.uint8))


def prepare(*arguments: str) -> int:
    return main(["prepare", "data", *arguments])


def block(name: str, part: str) -> dict[str, Any]:
    return options.load(ROOT / f"options/{name}.yml").datasets[part].to_dict()


def test_the_page_has_the_table_and_every_data_set_its_way(capsys: pytest.CaptureFixture[str]) -> None:
    assert origins_table() in (ROOT / "docs/data.md").read_text()
    assert {o.name for o in ORIGINS if o.prepare != UNPACKED} == set(published.WAYS)
    assert prepare() == 0 and capsys.readouterr().out.strip() == origins_table()
    assert prepare("uieb") == 0 and "source: https://li-chongyi" in capsys.readouterr().out


def test_a_missing_folder_answers_with_its_line_and_systems_share_none_of_ones_own() -> None:
    known, users = set(), {}
    for path in SHIPPED:
        for line in missing(options.load(path), weights=False):
            place = line.partition(":")[0]
            where = origin_of(place)
            if where is None:
                users.setdefault(place, set()).add(path.relative_to(ROOT / "options").parts[0])
                continue
            known.add(Path(where.folder).name)
            assert where.source in line and where.prepare in line and where.licence in line, line
    assert known >= {"AIM_ITM", "GoPro", "LSUI", "UIEB", "HIDE", "SNU-FILM", "xiph", "X4K1000FPS", "vimeo_triplet"}
    assert users["data/pictures"] == {"hdr"} and not [who for who in users.values() if len(who) > 1], users


def test_lsui_in_two_parts(capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(12):
        for kind in ("input", "GT"):
            picture(f"down/{kind}/{i}.png", seed=i)
    assert prepare("lsui", "down", "data/LSUI") == 0
    assert "11 pairs to train on and 1 to test" in capsys.readouterr().out
    sets = [build_dataset(block("underwater/spectroformer", part), phase=part, scale=1) for part in ("train", "val")]
    assert [len(s) for s in sets] == [11, 1]
    first = sorted(p.name for p in Path("data/LSUI/test/gt").iterdir())
    assert prepare("lsui", "down", "data/LSUI") == 2, "what is there already is left alone"
    assert prepare("lsui", "down", "again") == 0 and sorted(p.name for p in Path("again/test/gt").iterdir()) == first
    Path("names.txt").write_text("3.png\n5.png\n")
    assert prepare("lsui", "down", "listed", "--list", "names.txt") == 0
    assert sorted(p.name for p in Path("listed/test/input").iterdir()) == ["3.png", "5.png"]


def test_uieb_by_two_lists() -> None:
    for i in range(20):
        for kind in ("raw-890", "reference-890"):
            picture(f"data/UIEB/{kind}/{i}_img_.png", seed=i)
    assert prepare("uieb", "data/UIEB") == 0
    lists = [set(Path(f"data/UIEB/{part}.txt").read_text().split()) for part in ("train", "test")]
    assert [len(names) for names in lists] == [18, 2] and not lists[0] & lists[1]
    sets = [build_dataset(block("underwater/paper/spectroformer_uieb", p), phase=p, scale=1) for p in ("train", "val")]
    assert [len(s) for s in sets] == [18, 2]
    assert prepare("uieb", "data/UIEB", "--seed", "1") == 0
    assert set(Path("data/UIEB/test.txt").read_text().split()) != lists[1]


def test_gopro_in_crops_and_hide(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(published, "PATCH", 8)
    monkeypatch.setattr(published, "STEP", 4)
    for part, scene in (("train", "A"), ("train", "B"), ("test", "C")):
        for kind in ("blur", "blur_gamma", "sharp"):
            picture(f"GOPRO_Large/{part}/{scene}/{kind}/000001.png", (12, 16), seed=len(kind))
    assert prepare("gopro", "GOPRO_Large", "data/GoPro") == 0
    assert "12 crops to train on and 1 pairs to test" in capsys.readouterr().out
    blur = read_pixels("GOPRO_Large/train/B/blur/000001.png")
    assert np.array_equal(read_pixels("data/GoPro/train/input/B_000001_s006.png"), blur[4:, 8:])
    sharp = read_pixels("data/GoPro/test/target/C_000001.png")
    assert np.array_equal(sharp, read_pixels("GOPRO_Large/test/C/sharp/000001.png"))
    for name, folder in (("1fromA", "test-close-ups"), ("2fromB", "test-long-shot")):
        picture(f"HIDE_dataset/test/{folder}/{name}.png")
        picture(f"HIDE_dataset/GT/{name}.png", seed=1)
    assert prepare("hide", "HIDE_dataset", "data/HIDE") == 0
    for name, count in (("hdr/test/deblur_s2", 1), ("hdr/test/deblur_s2_hide", 2)):
        assert len(build_dataset(block(name, "val"), phase="val", scale=1)) == count


def test_aim_by_names() -> None:
    for i in range(10):
        picture(f"down/LDR/{i}.jpg")
        imwrite(f"down/HDR/{i}.hdr", np.full((16, 20, 3), 2.0, np.float32))
        Path(f"down/LDR/{i}.txt").write_text("dgain: 2.0\ngamma: 2.2\n")
    assert prepare("aim", "down", "data/AIM_ITM") == 0
    sets = [build_dataset({**block("hdr/s1", p), "gt_size": None}, phase=p, scale=1) for p in ("train", "val")]
    assert [len(s) for s in sets] == [9, 1]


def test_frames_that_are_checked_or_decoded(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for level in ("easy", "medium", "hard", "extreme"):
        paths = [f"datasets/SNU-FILM/test/{level}/{i}.png" for i in range(3)]
        for path in paths:
            picture(path)
        Path(f"datasets/SNU-FILM/test-{level}.txt").write_text(" ".join(f"data/{p[9:]}" for p in paths))
    assert prepare("snu-film", "datasets/SNU-FILM") == 0
    assert "1 easy, 1 medium, 1 hard, 1 extreme (published: 310" in capsys.readouterr().out
    Path("datasets/SNU-FILM/test/hard/2.png").unlink()
    assert prepare("snu-film", "datasets/SNU-FILM") == 2
    assert "test-hard.txt: 1 of 3 frames are not in datasets/SNU-FILM: test/hard/2.png" in capsys.readouterr().err
    for i in range(33):
        picture(f"datasets/X4K1000FPS/test/Type1/TEST01/{i:04d}.png", (2, 2))
    assert prepare("x-test", "datasets/X4K1000FPS") == 0 and "1 clips, 7 samples" in capsys.readouterr().out
    monkeypatch.setattr(published, "FRAMES", 2)
    frames = [np.full((16, 16, 3), 80 * k, np.uint8) for k in range(3)]
    monkeypatch.setattr(published, "Video", lambda file: Clip(frames))
    for clip in published.XIPH_CLIPS:
        Path(f"Netflix_{clip}_4096x2160_60fps_10bit_420.y4m").touch()
    assert prepare("xiph", ".", "datasets/xiph") == 0
    assert len(list(Path("datasets/xiph").glob("*.png"))) == 16
    assert np.array_equal(read_pixels("datasets/xiph/FoodMarket-002.png"), frames[1])


class Clip(list):  # type: ignore[type-arg]
    """A video that need not be decoded."""

    def frames(self) -> Any:
        return ((i, lambda frame=frame: frame.astype(np.uint16) * 257) for i, frame in enumerate(self))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["lsu"], "lsu: no such data set is known. Did you mean 'lsui'? Known: "),
        (["uieb", "nowhere"], "nowhere: there is no such folder. It is fetched from https://li-chongyi"),
        (["uieb", "."], "has no folder raw-890. There is: nothing"),
        (["gopro", ".", "o"], "has no train/<scene>/blur and test/<scene>/blur; GOPRO_Large has"),
        (["aim", ".", "o"], "has no pictures with radiance files"),
        (["xiph", ".", "o"], "has 0 videos whose names hold BoxingPractice_, and needs one"),
        (["gopro", "."], "OUT: say where the data shall go"),
        (["vimeo90k", "."], "needs no preparation: unpack it to datasets/vimeo_triplet"),
    ],
)
def test_bad_input(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(*arguments) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and not Path("o").exists()


def test_a_file_without_a_partner_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    picture("raw-890/1.png")
    picture("reference-890/1.png")
    picture("reference-890/2.png")
    assert prepare("uieb", ".") == 2
    assert "files without a partner: 2" in capsys.readouterr().err
    assert KNOWN["uieb"].folder == "data/UIEB"


def test_a_pipe_among_the_pictures_is_not_waited_for() -> None:
    Path("d").mkdir()
    os.mkfifo("d/a.png")
    with pytest.raises(UserError, match=r"d/a\.png: cannot be read"):
        file_size(Path("d/a.png"))
    picture("d/b.png", (5, 7))
    assert file_size(Path("d/b.png")) == (5, 7)
