"""What is not done here is said in words, once, and the way out beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from relume.core import options
from relume.core.options.refused import topic_of

FILE = """name: x
model_type: {model}
scale: 4
datasets:
  val: {{type: {data}, dataroot_gt: a, dataroot_lq: b}}
network_g: {{type: {network}}}
path: {{pretrain_network_g: x.pth, strict_load: true}}
"""
PLAIN = {"model": "SRModel", "data": "PairedImageDataset", "network": "MSRResNet"}


def mistakes(tmp_path: Path, **parts: str) -> list[str]:
    path = tmp_path / "x.yml"
    path.write_text(FILE.format(**{**PLAIN, **parts}))
    with pytest.raises(options.OptionError) as caught:
        options.load(path)
    return [p.text for p in caught.value.problems]


@pytest.mark.parametrize(
    ("parts", "topic"),
    [
        ({"model": "VideoRecurrentGANModel", "network": "PSRTRecurrent"}, "video by these networks"),
        ({"model": "HiFaceGANModel", "data": "FFHQDataset", "network": "HiFaceGAN"}, "faces"),
        ({"network": "StyleGAN2Generator"}, "faces"),
        ({"model": "ImageEventRestorationModel", "data": "VoxelnpzPngSingleDeblurDataset"}, "event cameras"),
        ({"data": "RefCUFEDDataset"}, "reference images"),
    ],
)
def test_a_topic_is_named_once(tmp_path: Path, parts: dict[str, str], topic: str) -> None:
    (text,) = mistakes(tmp_path, **parts)
    name = next(iter(parts.values()))
    assert text.startswith(f"{name} is of ") and topic in text and "plugins" in text


@pytest.mark.parametrize(
    ("parts", "meant"),
    [
        ({"data": "VideoDatset"}, "VideoDataset"),
        ({"data": "Vimeo90KDatset"}, "Vimeo90KDataset"),
        ({"network": "EDSRR"}, "EDSR"),
    ],
)
def test_slips_of_what_is_here_are_still_slips(tmp_path: Path, parts: dict[str, str], meant: str) -> None:
    (text,) = mistakes(tmp_path, **parts)
    assert f"Did you mean '{meant}'?" in text


def test_no_topic_takes_what_is_here() -> None:
    from relume.archs import ARCHS
    from relume.core.models import MODELS
    from relume.datasets import DATASETS

    for registry in (ARCHS, DATASETS, MODELS):
        names = [n for name in registry.names() for n in (name, *registry.aliases(name))]
        taken = {n for n in names if topic_of(n)}
        assert taken <= {"HiFaceGANDiscriminator", "VideoDataset"}, taken


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name: x\nmodel: sr\nnetwork_G: {which_model_G: RRDB}\ntrain: {niter: 5}\n", "BasicSR before version 1"),
        ('{"task": "x", "model": "plain", "netG": {"net_type": "swinir"}}\n', "KAIR's words"),
        ("name: x\nscale: 4\nnetwork_g: {type: span}\ntrain: {losses: [{type: l1loss}]}\n", "traiNNer-redux"),
        ("name: x\nscale: 4\nuse_amp: true\nnetwork_g: {type: span}\n", "traiNNer-redux"),
        ("name: x\nscale: 4\nnetwork_g: {type: dat}\nonnx: {opset: 20}\n", "traiNNer-redux"),
    ],
)
def test_other_dialects_are_recognised_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    path = tmp_path / "x.yml"
    path.write_text(text)
    with pytest.raises(options.OptionError, match=expected) as caught:
        options.load(path)
    assert str(caught.value).count("\n") == 0
    path.write_text("name: x\nscale: 4\nnetwork_g: {type: EDSR}\n")
    with pytest.raises(options.OptionError, match="lacks 'model_type'"):
        options.load(path)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("x.json", '{\n  "task": "x"  // of the folder\n  , "model": "plain"\n}\n', "JSON with // comments"),
        ("x.yml", '{"task": "x"\n, "gpu_ids": [0] // one\n}\n', "JSON with // comments"),
        ("x.py", "_base_ = ['a.py']\nmodel = dict(type='BaseEditModel')\n", "Python"),
    ],
)
def test_other_formats_are_recognised_in_one_line(tmp_path: Path, name: str, text: str, expected: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(options.OptionError, match=rf"{name}:1:1: this is {expected}") as caught:
        options.load(path)
    assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("value", ['"https://example.org/x.pth"', "https://example.org/x.pth", '"a // b"'])
def test_slashes_in_a_value_are_no_comment(tmp_path: Path, value: str) -> None:
    path = tmp_path / "x.json"
    path.write_text('{"name": "x", "path": {"pretrain_network_g": ' + value + "}}")
    with pytest.raises(options.OptionError, match="lacks 'model_type'"):
        options.load(path)
