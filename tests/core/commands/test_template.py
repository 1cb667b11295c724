"""``relume template``: what it prints is a valid option file with every key, for every architecture, task and shipped file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from relume.archs import ARCHS
from relume.core.cli import main
from relume.core.commands.template import tasks
from relume.core.imaging.image_io import imwrite
from relume.core.models import MODELS
from relume.core.options import load, reference, shipped

FILES = [name for name in shipped.names() if not name.startswith(shipped.BLOCKS)]


@pytest.fixture(autouse=True)
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    code = main(["template", *arguments])
    out, error = capsys.readouterr()
    assert (code, error) == (0, "")
    Path("mine.yml").write_text(out)
    return out


def lacking(given: Mapping[str, Any], found: Mapping[str, Any], where: str = "") -> list[str]:
    """Keys of `given` that `found` has not, or has with another value."""
    problems = []
    for key, value in given.items():
        if isinstance(value, Mapping):
            problems += lacking(value, found.get(key) or {}, f"{where}.{key}")
        elif key not in found or found[key] != value:
            problems.append(f"{where}.{key}")
    return problems


@pytest.mark.parametrize("arch", ARCHS.names())
def test_a_template_of_every_architecture_is_valid(arch: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, arch)
    opt = load("mine.yml")
    assert [b["type"] for b in opt.networks.values()].count(arch) == 1
    for key in (*reference.section(""), *(k for s in ("train", "val", "logger") for k in reference.section(s))):
        assert not key.has_effect or f"{key.name}:" in text or key.name in ("is_train", "plugins", "scheduler")
    sentence = reference.first_sentence(next(k.text for k in reference.section("val") if k.name == "tile"))
    assert f"tile: null  # {sentence}" in text or "tile: " in text


@pytest.mark.parametrize("name", [*FILES, *tasks()])
def test_a_template_of_every_shipped_file_says_what_that_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = printed(capsys, name)
    assert "_base_" not in text
    assert lacking(load(tasks().get(name, name)).to_dict(), load("mine.yml").to_dict()) == []


def write_pairs(scale: float, count: int = 3) -> None:
    for i in range(count):
        for folder, factor in (("lq", 1.0), ("gt", scale)):
            size = (round(12 * factor), round(16 * factor), 3)
            imwrite(Path(folder) / f"{i}.png", np.full(size, 10 * i, np.uint8))


def test_the_scale_is_that_of_the_pictures(capsys: pytest.CaptureFixture[str]) -> None:
    write_pairs(2)
    printed(capsys, "EDSR", "--lq", "lq", "--gt", "gt", "--val_lq", "lq", "--val_gt", "gt", "--name", "twice")
    opt = load("mine.yml")
    assert (opt.name, opt.scale, opt.network_g.upscale) == ("twice", 2, 2)
    assert opt.datasets["train"].extra["dataroot_lq"] == "lq" and opt.datasets["val"].extra["dataroot_gt"] == "gt"
    assert "no validation" not in Path("mine.yml").read_text()
    text = printed(capsys, "EDSR", "--lq", "lq", "--gt", "gt")
    assert list(load("mine.yml").datasets) == ["train"]
    assert "There is no validation: --val_lq" in text and "relume template relume:sr/x2/edsr.yml\n" in text


@pytest.mark.parametrize(
    ("start", "scale", "model", "dataset", "network"),
    [
        ("SwinIR", 2, "RestorationModel", "PairedImageDataset", {"upscale": 2, "window_size": 8, "img_size": 48}),
        (
            "MambaIRv2Light",
            3,
            "RestorationModel",
            "PairedImageDataset",
            {"upscale": 3, "upsampler": "pixelshuffledirect"},
        ),
        ("BasicVSR", 4, "VideoModel", "ClipsDataset", {}),
        ("EDVR", 4, "VideoModel", "REDSDataset", {"num_frame": 5}),
        ("NAFSSR", 4, "ImageRestorationModel", "PairedStereoImageDataset", {"up_scale": 4}),
        ("UNetDiscriminatorSN", 2, "SRGANModel", "PairedImageDataset", {"type": "MSRResNet", "upscale": 2}),
        ("DiffIRS1", 1, "DiffIRS1Model", "PairedImageDataset", {"scale": 1}),
    ],
)
def test_a_network_gets_the_model_the_data_and_the_sizes_that_it_needs(
    start: str, scale: int, model: str, dataset: str, network: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    write_pairs(scale)
    printed(capsys, start, "--lq", "lq", "--gt", "gt")
    opt = load("mine.yml")
    assert (MODELS.get(opt.to_dict()["model_type"]), opt.scale) == (MODELS.get(model), scale)
    train = opt.to_dict()["datasets"]["train"]
    assert (train["type"], train["dataroot_lq"]) == (dataset, "lq")
    assert lacking(network, opt.to_dict()["network_g"]) == []


@pytest.mark.parametrize(
    ("arch", "scale", "message"),
    [
        ("NAFNet", 2, "NAFNet enlarges by 1, and the pictures of gt are 2 times those of lq"),
        ("MSRResNet", 5, "network_g.upscale: expected one of 2, 3, 4, got the integer 5"),
        ("OneStepGenerator", 1, "GenerationModel does not learn from pairs; leave out --lq and --gt"),
        ("EDSR", 1.5, "1.5 times as large as those of lq; one whole number is needed"),
    ],
)
def test_a_network_that_cannot_have_the_scale(
    arch: str, scale: float, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pairs(scale)
    assert main(["template", arch, "--lq", "lq", "--gt", "gt"]) == 2
    out, error = capsys.readouterr()
    assert out == "" and message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["NAFnett"], "no architecture, task or shipped file 'NAFnett'. Did you mean 'NAFNet'?"),
        (["NAFNet", "--lq", "lq"], "--lq and --gt belong together"),
        (["NAFNet", "--lq", "nowhere", "--gt", "nowhere"], "nowhere"),
        (["relume:quikstart.yml"], "Did you mean 'relume:quickstart.yml'?"),
    ],
)
def test_mistakes(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["template", *arguments]) == 2
    out, error = capsys.readouterr()
    assert out == "" and message in error and error.count("\n") == 1
