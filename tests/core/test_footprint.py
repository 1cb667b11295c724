"""The estimate of a training's memory: against measured figures, and against the division that it leads to."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import relume
from relume.core import options
from relume.core.building import footprint
from relume.core.building.footprint import GB, USABLE, divided
from relume.core.cli import main
from relume.losses import pretrained

FOLDER = Path(relume.__file__).resolve().parent / "options"
STATED = re.compile(r"^# Memory[^:]*: (?:up to )?([\d.]+) GB for one sample", re.MULTILINE)
DIVISION = re.compile(r"(\d+) x (\d+)\s(?:#\s)?on\s(?:#\s)?(?:a\s)?(\d+)\sGB")
HEADERS = [p for p in sorted(FOLDER.rglob("*.yml")) if STATED.search(p.read_text())]


@pytest.mark.parametrize("path", HEADERS, ids=lambda p: str(p.relative_to(FOLDER)))
def test_headers_divide_the_batch_by_the_rule(path: Path) -> None:
    text = path.read_text()
    sample = float(STATED.search(text)[1])  # type: ignore[index]
    opt = options.load(path)
    batch = opt.datasets.train.batch_size_per_gpu * opt.train.accumulate
    found = {int(card): (int(a), int(b)) for a, b, card in DIVISION.findall(text)}
    assert set(found) == {24, 48, 80}
    for card, (a, b) in found.items():
        assert a * b == batch and a == divided(batch, sample, USABLE * card), (card, a, b)


def test_the_recipes_of_the_originals_say_it() -> None:
    named = {str(p.relative_to(FOLDER)) for p in HEADERS}
    assert named >= {"hdr/s1.yml", "hdr/s2.yml", "vfi/phase1.yml", "vfi/phase2.yml", "generation/cifar10.yml"} | {
        f"underwater/{n}.yml" for n in ("spectroformer", "agssf1", "phaseformer", "phaseformer_learned_b8")
    }


@pytest.mark.parametrize(("name", "measured"), [("hdr/s1", 16.8)])
def test_the_estimate_is_near_what_was_measured(name: str, measured: float) -> None:
    found = footprint.footprint(options.load(FOLDER / f"{name}.yml"))
    assert (found.sample + found.fixed) / GB == pytest.approx(measured, rel=0.15)
    assert (found.side, found.batch, found.precision) == (512, 8, "float32")
    assert "batch x accumulate 4 x 2" in found.sentence(USABLE * 80 * GB, "a card")
    assert "too little for one" in found.sentence(USABLE * 12 * GB, "a card")


def test_describe_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "relume:quickstart.yml"]) == 0
    (line,) = (s for s in capsys.readouterr().out.splitlines() if s.startswith("Memory: about "))
    assert "for a sample of 64 x 64 in float32" in line and "this machine has" in line
    assert main(["describe", "relume:generation/faces.yml"]) == 0
    assert "Memory is not estimated: it trains on images as large as they are" in capsys.readouterr().out
    assert main(["describe", "relume:quickstart.yml", "--set-only"]) == 0
    assert "Memory" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["PerceptualLoss", "ContextualLoss", "LPIPSLoss"])
def test_no_weights_of_a_loss_are_fetched(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "LPIPSLoss":
        pytest.importorskip("lpips")
    fetched: list[str] = []
    monkeypatch.setattr(pretrained, "downloaded", lambda owner, url: fetched.append(url))
    loss = {"type": kind, "layer_weights": {"relu1_1": 1.0}} if kind != "LPIPSLoss" else {"type": kind}
    values = options.load(FOLDER / "quickstart.yml").to_dict()
    values["train"]["perceptual_opt"] = loss
    without = footprint.footprint(options.load(FOLDER / "quickstart.yml"))
    assert footprint.footprint(options.check(values)).sample > without.sample
    assert not fetched
