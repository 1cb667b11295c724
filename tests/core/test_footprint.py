"""The estimate of a training's memory: against measured figures, and against the division that it leads to."""

from __future__ import annotations

import os
import re
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import relume
from relume.core import options
from relume.core.building import footprint
from relume.core.building.footprint import GB, USABLE, divided
from relume.core.building.networks import build_model
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
    together = opt.datasets.train.batch_size_per_gpu if opt.model_type == "GenerationModel" else None
    for card, (a, b) in found.items():
        assert a * b == batch and a == divided(batch, sample, USABLE * card, together), (card, a, b)


def test_the_recipes_of_the_originals_say_it() -> None:
    named = {str(p.relative_to(FOLDER)) for p in HEADERS}
    assert named >= {"hdr/s1.yml", "hdr/s2.yml", "vfi/phase1.yml", "vfi/phase2.yml", "generation/cifar10.yml"} | {
        f"underwater/{n}.yml" for n in ("spectroformer", "agssf1", "phaseformer", "phaseformer_learned_b8")
    }


class Held(TorchDispatchMode):
    """Counts bytes of tensors that are alive, by what every operation returns: an independent measure of a step's memory."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.most = 0
        self.known: dict[int, Any] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self.known:
                storage = tensor.untyped_storage()
                self.known[storage._cdata] = weakref.finalize(storage, self.gone, storage._cdata, storage.nbytes())
                self.now += storage.nbytes()
                self.most = max(self.most, self.now)
        return made

    def gone(self, key: int, count: int) -> None:
        del self.known[key]
        self.now -= count


@pytest.mark.parametrize(("name", "count"), [("quickstart", 1), ("generation/faces", 8), ("video/quickstart", 1)])
def test_a_step_holds_what_is_estimated(name: str, count: int) -> None:
    opt = options.load(FOLDER / f"{name}.yml")
    found = footprint.footprint(opt)
    model, _ = build_model(opt, torch.device("cpu"), for_training=True)
    model.imagined(1, 16, 1)  # a bank of memory is there from now on
    with Held() as held:
        update = next(iter(model.updates(model.imagined(count, found.side, opt.scale, 7), footprint.LATE)))
        update.terms.sum().backward()
    gradients = sum(p.numel() * p.element_size() for n in model.networks.values() for p in n.parameters())
    assert 0.9 * held.most < count * found.sample + gradients < 1.4 * held.most


@pytest.mark.skipif("RELUME_SLOW_TESTS" not in os.environ, reason="a minute; set RELUME_SLOW_TESTS to run it")
@pytest.mark.parametrize(
    ("name", "measured"),
    [
        *(("hdr/s1", 16.8), ("hdr/s2", 16.5), ("vfi/phase1", 7.3), ("vfi/phase2", 8.0), ("underwater/agssf1", 2.6)),
        *(("underwater/spectroformer", 2.3), ("underwater/phaseformer", 2.9)),
    ],
)
def test_the_estimate_is_near_what_was_measured(name: str, measured: float) -> None:
    """Of the process with one sample, on a CPU, where it has 0.9 GB before its first step."""
    found = footprint.footprint(options.load(FOLDER / f"{name}.yml"))
    assert 0.9 + (found.sample + found.fixed) / GB == pytest.approx(measured, rel=0.1)


def test_a_batch_is_divided_as_memory_allows() -> None:
    found = footprint.Footprint(int(16 * GB), int(0.5 * GB), 512, 8, "float32")
    assert "batch x accumulate 4 x 2" in found.sentence(USABLE * 80 * GB, "a card")
    assert "too little for one" in found.sentence(USABLE * 12 * GB, "a card")
    matched = footprint.Footprint(int(0.2 * GB), int(2 * GB), 32, 256, "fp16", together=32)
    assert "batch x accumulate 32 x 8" in matched.sentence(USABLE * 80 * GB, "a card")
    assert "batch x accumulate 16 x 16" in matched.sentence(6 * GB, "a card")


def test_describe_prints_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["describe", "relume:quickstart.yml"]) == 0
    (line,) = (s for s in capsys.readouterr().out.splitlines() if s.startswith("Memory: about "))
    assert "for a sample of 64 x 64 in float32" in line and "this machine has" in line
    assert main(["describe", "relume:generation/faces.yml"]) == 0
    assert "for a sample of 16 x 16 in float32" in capsys.readouterr().out
    assert main(["describe", "relume:quickstart.yml", "--force_yml", "datasets:train:gt_size=~"]) == 0
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


@pytest.mark.parametrize(
    ("name", "expected"),
    [("realsr/realesrgan_x4", (256, 12)), ("stereo/nafssr_t_x2", (103, 4)), ("vfi/phase3", (384, 4))],
)
def test_the_largest_patches_are_found_wherever_they_are_said(name: str, expected: tuple[int, int]) -> None:
    assert footprint.largest_step(options.load(FOLDER / f"{name}.yml")) == expected
