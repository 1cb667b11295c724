"""What ``relume compare`` puts into a page that is passed on: no picture that only a stranger's files have named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from left_behind import a_test, picture

from relume.core.cli import main
from relume.core.reports.files import Run
from relume.core.reports.places import Places


@pytest.fixture(autouse=True)
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures of the user's outside of the working directory; the user's home."""
    picture(tmp_path / "home/private/secret.png", 0)
    picture(tmp_path / "home/desk/own.png", 1)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path / "home/desk")
    return tmp_path / "home"


def shown(*arguments: str) -> list[str]:
    assert main(["compare", "theirs", "-o", "page.html", "--full", *arguments]) == 0
    text = Path("page.html").read_text().partition('type="application/json">')[2].partition("</script>")[0]
    (image,) = json.loads(text)["sets"][0]["images"]
    files = list(Path("page_files").glob("*")) if Path("page_files").exists() else []
    assert len(files) == len(image["small"])
    return list(image["small"])


@pytest.mark.parametrize("key", ["lq_path", "gt_path", "output_path"])
@pytest.mark.parametrize("file", ["{home}/private/secret.png", "../private/secret.png", "own.png", "data/../own.png"])
def test_pictures_outside_are_not_shown_unless_asked_for(
    key: str, file: str, mine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("data").mkdir()
    named = file.format(home=mine)
    a_test(Path("theirs"), {"im": {"psnr": 20.0}}, im={key: named})
    Path("theirs/theirs.yml").write_text(f"datasets:\n  val:\n    dataroot_lq: {Path(named).parent}\n")
    assert shown() == []
    assert "theirs: 1 pictures that its files name lie outside of its folder" in capsys.readouterr().err
    assert len(shown("--data", str(Path(named).parent))) == 1, "the user may"


@pytest.mark.parametrize("link", ["theirs/visualization/val/im_0.png", "theirs/visualization/val", "data/x.png"])
def test_links_that_lead_out_are_not_followed(link: str, mine: Path) -> None:
    a_test(Path("theirs"), {"im": {"psnr": 20.0}}, im={"lq_path": "data/x.png"})
    target = mine / "private/secret.png"
    if link == "theirs/visualization/val":
        (mine / "private/im_0.png").hardlink_to(target)
        target = target.parent
    Path(link).parent.mkdir(parents=True, exist_ok=True)
    Path(link).symlink_to(target)
    assert shown() == []


def test_data_of_the_working_directory_is_shown(mine: Path) -> None:
    for place in ("data/lq/im.png", "mine/gt/im.png", "theirs/out.png"):
        picture(Path(place), 2)
    paths = {
        "lq_path": str(Path("data/lq/im.png").absolute()),
        "gt_path": "mine/gt/im.png",
        "output_path": "theirs/out.png",
    }
    a_test(Path("theirs"), {"im": {"psnr": 20.0}}, im=paths)
    assert shown() == ["input", "theirs"], "nothing says that mine/ holds data"
    Path("page_files/00000_0.png").unlink()
    Path("theirs/theirs.yml").write_text("datasets:\n  val:\n    dataroot_gt: mine/gt\n")
    assert shown() == ["input", "theirs", "target"]


def test_of_a_home_no_stranger_makes_data(mine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(mine)
    Path("theirs").mkdir()
    Path("theirs/theirs.yml").write_text("datasets:\n  val:\n    dataroot_gt: [private, 'work']\n")
    assert not Places(Run(Path("theirs"))).admits(Path("private/secret.png"))
    assert not Places(Run(Path("theirs"))).admits(Path("pri\0vate/\udc80.png"))
    monkeypatch.setenv("HOME", "/nobody")
    assert Places(Run(Path("theirs"))).admits(Path("private/secret.png"))
