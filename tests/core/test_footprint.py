"""The estimate of a training's memory: against measured figures, and against the division that it leads to."""

from __future__ import annotations

import gc
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
from relume.core.runtime.activations import recomputed
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


STEP = re.compile(r"^# Memory, estimated: ([\d.]+) GB for the largest step of any stage", re.MULTILINE)
OF_ANOTHER = re.compile(r"^# Memory: that of ([\w/.]+\.yml)\.", re.MULTILINE)
OTHERS = {"_base_", "laptop", "test", "small", "video", "faces.yml", "quickstart.yml"}
"""Folders and files of trainings that are made for a CPU, and of parts of files."""
PUBLISHED = [
    p
    for p in sorted(FOLDER.rglob("*.yml"))
    if not OTHERS & set(p.relative_to(FOLDER).parts)
    and p.parent.relative_to(FOLDER).as_posix() not in ("underwater/ablation", "generation/ablation")
    and "\n" in p.read_text().strip()  # or it has another file's name alone
]


@pytest.mark.parametrize("path", PUBLISHED, ids=lambda p: str(p.relative_to(FOLDER)))
def test_every_published_recipe_says_what_fits(path: Path) -> None:
    text = path.read_text()
    if another := OF_ANOTHER.search(text):
        other = path.parent / another[1]
        mine, theirs = (footprint.largest_step(options.load(p)) for p in (path, other))
        assert mine == theirs
        text = other.read_text()
    said = text[text.index("# Memory") :].partition("\n_base_")[0].partition("\nname:")[0]
    assert all(re.search(rf"\b{card}\sGB", said.replace("\n# ", " ")) for card in (24, 48, 80))
    if step := STEP.search(text):
        assert options.load(path).datasets.train.gt_sizes
        assert float(step[1]) < USABLE * 24 or "train.checkpoint_activations: true" in said.replace("\n# ", " ")


ESTIMATED = re.compile(r"^# Memory, estimated: ([\d.]+) GB for (?:one sample|the largest step)", re.MULTILINE)
CHEAP = ("sr/x4/msrresnet",)


@pytest.mark.parametrize("path", [p for p in PUBLISHED if ESTIMATED.search(p.read_text())], ids=lambda p: p.stem)
def test_headers_say_what_is_estimated(path: Path) -> None:
    name = path.relative_to(FOLDER).with_suffix("").as_posix()
    if name not in CHEAP and "RELUME_SLOW_TESTS" not in os.environ:
        pytest.skip("slow; set RELUME_SLOW_TESTS=1")
    said = float(ESTIMATED.search(path.read_text())[1])  # type: ignore[index]
    assert footprint.footprint(options.load(path)).sample / GB == pytest.approx(said, rel=0.1, abs=0.006)


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


@pytest.mark.parametrize(
    ("name", "count", "again"),
    [
        *(("quickstart", 1, False), ("generation/faces", 8, False), ("video/quickstart", 1, False)),
        *(("quickstart", 1, True), ("sr/x4/msrresnet", 1, True)),
    ],
)
def test_a_step_holds_what_is_estimated(name: str, count: int, again: bool) -> None:
    values = options.load(FOLDER / f"{name}.yml").to_dict()
    values["train"]["checkpoint_activations"] = again
    opt = options.check(values)
    found = footprint.footprint(opt)
    model, networks = build_model(opt, torch.device("cpu"), for_training=True)
    assert not again or sum(map(recomputed, networks.values())) > 1
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


def test_an_estimate_leaves_nothing_behind() -> None:
    def tensors() -> int:
        gc.collect()
        return sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects())

    opt = options.load(FOLDER / "sr/x4/msrresnet.yml")
    footprint.footprint(opt)
    before = tensors()
    footprint.footprint(opt)
    assert tensors() == before


def test_images_of_as_many_channels_as_the_network_takes() -> None:
    values = options.load(FOLDER / "stereo/nafssr_t_x2.yml").to_dict()
    values["network_g"].update(width=8, num_blks=1)
    assert footprint.footprint(options.check(values)).sample > 4 * 103 * 103 * 8
    values = options.load(FOLDER / "quickstart.yml").to_dict()
    found = []
    for channels in (1, 3):
        values["network_g"] = {"type": "NAFNet", "img_channel": channels, "width": 4}
        found.append(footprint.footprint(options.check(values)).sample)
    assert 0.7 * found[1] < found[0] < found[1]


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
