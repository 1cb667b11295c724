"""``relume compare``: the table's figures, the page in a browser, and runs that do not fit together."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from left_behind import a_test, experiment, picture, scored

from relume.core.cli import main
from relume.core.imaging import visual
from relume.core.imaging.image_io import imwrite
from relume.core.reports.statistics import bootstrap
from relume.core.runtime.lock import owned

CHROMIUM = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
NASTY = "</script><img src=x onerror=document.title='owned'>&_%"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scores(seed: int, names: list[str], shift: float = 0.0) -> dict[str, dict[str, float | None]]:
    random = np.random.default_rng(seed)
    hard = np.random.default_rng(99).normal(25, 4, len(names))
    noise = random.normal(shift, 0.3, len(names))
    return {n: {"psnr": float(h + d), "lpips": float(1 / (h + d))} for n, h, d in zip(names, hard, noise, strict=True)}


def lines(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> list[dict[str, str]]:
    assert main(["compare", *arguments, "--csv"]) == 0
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


NAMES = [f"im{i}" for i in range(12)]


# ------------------------------------------------------------------ the table
def test_figures_are_those_of_a_direct_formula(capsys: pytest.CaptureFixture[str]) -> None:
    a, b = scores(0, NAMES), scores(1, NAMES, 0.5)
    a_test(Path("results/a"), a)
    scored(experiment(Path("experiments/b")), b)
    rows = {(r["run"], r["metric"]): r for r in lines(["results/a", "experiments/b"], capsys)}
    for metric in ("psnr", "lpips"):
        x, y = (np.array([row[metric] for row in s.values()]) for s in (a, b))
        row = rows["b", metric]
        assert float(row["mean"]) == pytest.approx(y.mean()) and float(row["std"]) == pytest.approx(y.std(ddof=1))
        expected = bootstrap(y - x)
        assert (float(row["low"]), float(row["high"])) == pytest.approx((expected.low, expected.high))
        assert rows["a", metric]["low"] == "" and row["images"] == "12"
    assert rows["b", "psnr"]["rank"] == "1" and rows["b", "lpips"]["rank"] == "1", "of LPIPS less is better"
    assert rows["a", "psnr"]["rank"] == "2" and rows["a", "lpips"]["better"] == "lower"


def test_best_bold_second_underlined_names_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    for i, name in enumerate(("a_1", "b&2", "c|3")):
        a_test(Path("results") / name, scores(i, NAMES, 0.4 * i))
    assert main(["compare", "results", "--latex"]) == 0
    text = capsys.readouterr().out
    assert r"c|3 & \textbf{" in text and r"b\&2 & \underline{" in text and r"a\_1 & " in text
    assert text.count("{") == text.count("}") and r"\begin{tabular}{lrr}" in text
    assert main(["compare", "results", "--md"]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert r"c\|3" in table[4] and "**" in table[4] and "<u>" in table[3]
    means = re.findall(r"\d+\.\d+", table[3])
    assert len(means[0].split(".")[1]) == 1, "the interval is 0.2 to 0.3 dB wide: one decimal means something"


def test_the_pictures_that_all_have(capsys: pytest.CaptureFixture[str]) -> None:
    a_test(Path("results/a"), scores(0, NAMES))
    a_test(Path("results/b"), scores(1, [*NAMES[2:], "other"]))
    assert main(["compare", "a", "b", "--csv"]) == 0
    out, err = capsys.readouterr()
    assert "compared on the 10 pictures that all have, of 13; left out: im0, im1, other" in err and ",10," in out
    a = scores(0, NAMES)
    row = next(csv.DictReader(io.StringIO(out)))
    assert float(row["mean"]) == pytest.approx(np.mean([a[n]["psnr"] for n in NAMES[2:]]))


def test_scores_that_are_not_finite_do_not_count(capsys: pytest.CaptureFixture[str]) -> None:
    a = scores(0, NAMES)
    a["im3"]["psnr"] = None
    a_test(Path("results/a"), a)
    a_test(Path("results/b"), scores(1, NAMES))
    assert main(["compare", "results", "--csv"]) == 0
    out, err = capsys.readouterr()
    assert "psnr of im3 is not finite or is missing" in err
    images = {(r["run"], r["metric"]): r["images"] for r in csv.DictReader(io.StringIO(out))}
    assert images["b", "psnr"] == "11" and images["b", "lpips"] == "12"


def test_runs_that_go_on_have_no_scores_or_broken_lines(capsys: pytest.CaptureFixture[str]) -> None:
    experiment(Path("experiments/means"))
    experiment(Path("experiments/new"), reached=0)
    going = experiment(Path("experiments/going"), outcome=None)
    scored(going, scores(0, NAMES))
    with (going / "metrics.jsonl").open("a") as file:
        file.write('{"iter": 1, "dataset": "val", "metr\n{}\n')
    with owned(going):
        assert main(["compare", "experiments", "--md"]) == 0
    out, err = capsys.readouterr()
    assert "means: has no scores per picture" in err and "new: has no scores yet, and is left out" in err
    assert "going: is still running" in err and "metrics.jsonl:14: is no JSON object; it is left out" in err
    assert "21.00" in out and "new" not in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["results/nobody", "--md"], "results/nobody: no such run"),
        (["a"], "give -o page.html, or one of --md, --latex and --csv"),
        (["a", "-o", "page.pdf"], "page.pdf: the page's name ends in .html"),
        (["a", "strangers", "--md"], "no picture has been scored by all: a has im0, ...; strangers has x, ..."),
        (["a", "other_set", "--md"], "no data set has been scored by all: a: val; other_set: test"),
        (["pictures", "--md"], "pictures: a folder of pictures has no scores; give --gt DIR"),
        (["nothing", "--md"], "nothing: neither a run, nor a folder of runs or pictures"),
    ],
)
def test_bad_input(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    a_test(Path("results/a"), scores(0, NAMES))
    a_test(Path("results/strangers"), scores(0, ["x", "y"]))
    a_test(Path("results/other_set"), scores(0, NAMES), "test")
    picture(Path("pictures/im0.png"), 0)
    Path("nothing").mkdir()
    assert main(["compare", *arguments]) == 2
    assert said in capsys.readouterr().err


def test_pictures_that_others_made(capsys: pytest.CaptureFixture[str]) -> None:
    rows = scores(0, ["x", "y"])
    a_test(Path("results/a"), {n: {"psnr": r["psnr"]} for n, r in rows.items()})
    for i, name in enumerate(("x", "y", "z")):
        target = picture(Path(f"gt/{name}.png"), i)
        imwrite(f"theirs/{name}.png", np.clip(target.astype(int) + 10, 0, 255).astype(np.uint8))
    picture(Path("theirs/alone.png"), 7)
    assert main(["compare", "a", "theirs", "--gt", "gt", "--csv", "-o", "p.html"]) == 0
    out, err = capsys.readouterr()
    found = {r["run"]: r for r in csv.DictReader(io.StringIO(out))}
    assert found["theirs"]["dataset"] == "val" and 27 < float(found["theirs"]["mean"]) < 30
    assert "without a target of the same name, and left out: alone" in err and Path("p.html").exists()


# ------------------------------------------------------------------ the page
def page_data(path: Path) -> dict:
    text = path.read_text()
    return json.loads(text.partition('type="application/json">')[2].partition("</script>")[0])


def with_pictures(root: Path, names: list[str], seed: int, side: int = 48) -> None:
    """Outputs of a test, their inputs and targets as files."""
    more = {}
    for i, name in enumerate(names):
        clean = picture(Path(f"data/gt/{i}.png").absolute(), i, side)
        imwrite(f"data/lq/{i}.png", clean // 2)
        imwrite(root / "visualization" / "val" / f"{name}_{root.name}.png", clean - clean // (4 + seed))
        more[name] = {
            "lq_path": str(Path(f"data/lq/{i}.png").absolute()),
            "gt_path": str(Path(f"data/gt/{i}.png").absolute()),
        }
    a_test(root, scores(seed, names, 0.3 * seed), **more)


def test_the_page_has_all_pictures_and_no_name_breaks_out() -> None:
    nasty = NASTY.replace("/", "_")
    with_pictures(Path("results") / nasty, ["x", "<b>y"], 0)
    with_pictures(Path("results/b"), ["x", "<b>y"], 1)
    assert main(["compare", "results", "-o", "out/page.html", "--full"]) == 0
    text = Path("out/page.html").read_text()
    assert text.count("</script>") == 2 and "<img" not in text
    assert not re.findall(r"(?:src|href)=[\"']?(?:https?:)?//", text), "nothing is fetched"
    content = page_data(Path("out/page.html"))
    image = content["sets"][0]["images"][0]
    assert list(image["small"]) == ["input", "b", nasty, "target"] or list(image["small"]) == [
        "input",
        nasty,
        "b",
        "target",
    ]
    assert all(v.startswith("data:image/") for v in image["small"].values())
    assert all((Path("out") / file).is_file() for file in image["full"].values())
    assert {k for k, *_ in content["options"]} <= {"train.optim_g.lr"}


def test_pictures_of_a_comparison_serve_where_there_are_no_files() -> None:
    parts = {k: np.random.RandomState(i).randint(0, 256, (200, 220, 3), np.uint8) for i, k in enumerate("abc")}
    found = visual.panels(visual.comparison(parts), 3)
    assert found is not None and all(np.array_equal(x, y) for x, y in zip(found, parts.values(), strict=True))
    assert visual.panels(parts["a"], 3) is None
    scored(experiment(Path("experiments/a")), {"im": {"psnr": 20.0}})
    imwrite("experiments/a/visualization/val/im/im_100_comparison.png", visual.comparison(parts))
    assert main(["compare", "a", "-o", "page.html"]) == 0
    assert list(page_data(Path("page.html"))["sets"][0]["images"][0]["small"]) == ["input", "a", "target"]


class Dom(html.parser.HTMLParser):
    """Counts the elements of a page that a browser has built."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        self.tags.append(tag)


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium (Debian: apt-get install chromium)")
def test_the_page_in_a_browser() -> None:
    with_pictures(Path("results") / NASTY.replace("/", "_"), [f"im{i}" for i in range(100)], 0)
    with_pictures(Path("results/b"), [f"im{i}" for i in range(100)], 1)
    assert main(["compare", "results", "-o", "page.html"]) == 0
    content = Path("page.html").read_text()
    assert content.count("</body>") == 1 and len(content) < 10_000_000
    clock = "<script>document.body.dataset.opened = Math.round(performance.now())</script></body>"
    Path("page.html").write_text(content.replace("</body>", clock))
    address = Path("page.html").absolute().as_uri()
    flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    command = [str(CHROMIUM), *flags, f"--user-data-dir={os.path.abspath('profile')}"]
    done = subprocess.run([*command, "--dump-dom", address], capture_output=True, text=True, timeout=120, check=True)
    assert 'data-ready="1"' in done.stdout, "the script ran to its end"
    opened = re.search(r'data-opened="(\d+)"', done.stdout)
    assert opened is not None and int(opened[1]) < 60_000, "milliseconds; 2000 where nothing else runs"
    assert "<title>owned" not in done.stdout
    tags = Dom(done.stdout).tags
    assert tags.count("tr") > 100 and tags.count("img") > 100
