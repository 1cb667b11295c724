"""What wrappers of forks do beyond their options is written out: as an option that can be seen, overridden, and is noted."""

from __future__ import annotations

from pathlib import Path

import pytest

from relume.core import options
from relume.core.inference.parts import Cut, EqualParts, Grid, SideBySide

BASE = """name: x
model_type: {model}
scale: 2
{top}
datasets:
  val: {{type: PairedImageDataset, dataroot_gt: a, dataroot_lq: b}}
network_g: {{type: {network}}}
{val}
train: {{total_iter: 2, optim_g: {{type: Adam, lr: 1e-3}}, pixel_opt: {{type: L1Loss}}{train}}}
"""
PLAIN = "MSRResNet, num_feat: 4, num_block: 1, upscale: 2"
WINDOWS = "MambaIRv2Light, window_size: 12, upscale: 2"


def resolved(tmp_path: Path, model: str, **parts: str) -> options.Resolved:
    path = tmp_path / "x.yml"
    path.write_text(BASE.format(**{"model": model, "top": "", "val": "", "train": "", "network": PLAIN, **parts}))
    return options.resolve(path)


@pytest.mark.parametrize("model", ["MambaIRModel", "MambaIRv2Model", "MambaIRv2LightModel"])
def test_mambair_tests_in_equal_parts(tmp_path: Path, model: str) -> None:
    found = resolved(tmp_path, model)
    assert found.options.val.cut(2) == EqualParts(200, 0.1)
    assert [str(n).partition("x.yml:2:1: ")[2] for n in found.notes] == [
        f"val.parts: 200, as {model} has it",
        f"val.parts_context: 0.1, as {model} has it",
    ]
    assert options.check(found.options) == found.options


@pytest.mark.parametrize(
    ("val", "expected"),
    [
        ("val: {tile: 64}", None),
        ("val: {parts: 100}", EqualParts(100, 16)),
        ("val: {grids: true, crop_size_h: 64, crop_size_w: 32}", Grid(64, 32, 2)),
    ],
)
def test_what_the_file_says_stays(tmp_path: Path, val: str, expected: Cut | None) -> None:
    assert resolved(tmp_path, "MambaIRModel", val=val).options.val.cut(2) == expected


@pytest.mark.parametrize("model", ["SwinIRModel", "HATModel", "DRCTModel", "CRAFT_Model"])
def test_window_networks_are_given_multiples_of_their_window(tmp_path: Path, model: str) -> None:
    assert resolved(tmp_path, model, network=WINDOWS).options.val.window_size == 12
    assert resolved(tmp_path, model, network=WINDOWS, val="val: {window_size: 8}").options.val.window_size == 8
    assert resolved(tmp_path, model).options.val.window_size is None
    assert resolved(tmp_path, "SRModel", network=WINDOWS).options.val.window_size is None


def test_nafnet_clips_unless_told_otherwise(tmp_path: Path) -> None:
    for train, clips in [("", True), (", use_grad_clip: false", False), (", grad_clip_norm: 1", False)]:
        found = resolved(tmp_path, "ImageRestorationModel", train=train).options.train
        assert found is not None
        assert found.use_grad_clip is clips
    plain = resolved(tmp_path, "SRModel").options.train
    assert plain is not None
    assert plain.use_grad_clip is False


def test_tiles_of_hat(tmp_path: Path) -> None:
    found = resolved(tmp_path, "HATModel", top="tile: {tile_size: 24, tile_pad: 8}")
    assert found.options.val.cut(2) == SideBySide(24, 8)
    assert str(found.notes[0]).endswith("x.yml:4:1: tile: taken as val.tile: 24, val.tile_pad: 8")
    for wrong in ("tile: {tile_size: 0, tile_pad: 8}", "tile: {tile_sizes: 24}", "tile: 24", "tile: {tile_pad: 8}"):
        with pytest.raises(options.OptionError, match="tile"):
            resolved(tmp_path, "HATModel", top=wrong)


@pytest.mark.parametrize(
    ("val", "message"),
    [
        ("{tile: 64, parts: 100}", r"x\.yml:8:\d+: val\.parts: images are cut by tile already"),
        ("{tile_pad: 8}", r"x\.yml:8:\d+: val\.tile_pad: there is no tile"),
        ("{grids: true}", r"x\.yml:8:\d+: val\.grids: needs crop_size_h and crop_size_w"),
        ("{grids: true, crop_size: 0}", "crop_size_h: must be at least 2, got 0"),
    ],
)
def test_ways_of_cutting_that_do_not_go_together(tmp_path: Path, val: str, message: str) -> None:
    with pytest.raises(options.OptionError, match=message):
        resolved(tmp_path, "SRModel", val=f"val: {val}")


def test_toflow_takes_frames_that_were_enlarged_beforehand(tmp_path: Path) -> None:
    found = resolved(tmp_path, "SRModel", network="TOFlow")
    assert found.options.scale == 1
    assert any("scale: 1, as TOFlow takes frames of the size of its output" in str(note) for note in found.notes)
