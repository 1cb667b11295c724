"""The tool that counts what becomes of option files, and cuts them down to run."""

from __future__ import annotations

from pathlib import Path

import pytest

from relume.core import options
from relume.core.pipeline import train_pipeline
from relume.tools.fuzzing.cut_down import NotCut, cut_down
from relume.tools.try_option_files import kind, outcome, ran

FILE = """name: published
model_type: MambaIRModel
scale: 2
num_gpu: 8
datasets:
  train:
    type: PairedImageDataset
    dataroot_gt: somewhere/gt
    dataroot_lq: somewhere/lq
    filename_tmpl: '{}x2'
    meta_info_file: list.txt
    gt_size: 128
    iters: [1000, 500]
    mini_batch_sizes: [8, 4]
  val_1: {type: PairedImageDataset, dataroot_gt: elsewhere/gt, dataroot_lq: elsewhere/lq}
network_g: {type: NAFSSRX, up_scale: 2}
path: {pretrain_network_g: weights.pth}
train:
  total_iter: 500000
  warmup_iter: 1000
  optim_g: {type: Adam, lr: 1e-3}
  pixel_opt: {type: L1Loss}
val: {val_freq: 5000, metrics: {psnr: {type: calculate_psnr, crop_border: 2}}}
logger: {use_tb_logger: true}
"""
NETWORK = "{type: EDSR, num_in_ch: 3, num_out_ch: 3, num_feat: 256, num_block: 32, upscale: 2}"


def test_a_published_file_runs_cut_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.yml"
    path.write_text(FILE)
    found = outcome(path)
    assert not found.accepted and not found.failure
    assert kind(found.problems[0]) == "no architecture is called 'NAFSSRX'"
    path.write_text(FILE.replace("{type: NAFSSRX, up_scale: 2}", NETWORK))
    assert outcome(path).accepted
    assert ran(path) == "ran"
    monkeypatch.chdir(tmp_path)
    values = cut_down(options.load(path), tmp_path / "data")
    assert values["network_g"]["num_feat"] == 16
    scores = train_pipeline(options.check(values))
    assert scores["val_1"]["psnr"] > 5
    assert (tmp_path / "experiments" / "cut" / "models" / "net_g_2.pth").is_file()


def test_what_trains_nothing_is_not_cut_down(tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    path.write_text(FILE.replace("{type: NAFSSRX, up_scale: 2}", NETWORK).partition("train:\n  total_iter")[0])
    with pytest.raises(NotCut, match="trains nothing"):
        cut_down(options.load(path), tmp_path)


def test_clips_are_cut_down_to_a_few_frames(tmp_path: Path) -> None:
    path = tmp_path / "x.yml"
    data = """
  train: {type: REDSRecurrentDataset, name: REDS, dataroot_gt: a, dataroot_lq: b, dataroot_flow: null,
          meta_info_file: c.txt, num_frame: 15, gt_size: 256}
  val: {type: VideoRecurrentTestDataset, name: REDS4, dataroot_gt: d, dataroot_lq: e, num_frame: -1}
"""
    head, _, tail = FILE.partition("  train:\n")
    text = head.replace("MambaIRModel", "VideoRecurrentModel").replace("scale: 2", "scale: 4") + data.lstrip("\n")
    tail = "network_g:" + tail.partition("network_g:")[2]
    network = "{type: BasicVSR, num_feat: 64, num_block: 30, spynet_path: weights/spynet.pth}"
    path.write_text(text + tail.replace("{type: NAFSSRX, up_scale: 2}", network))
    values = cut_down(options.load(path), tmp_path / "data")
    assert "spynet_path" not in values["network_g"] and values["datasets"]["train"]["num_frame"] == 5
    for block in values["datasets"].values():
        assert len(list(Path(block["dataroot_lq"]).glob("001/*.png"))) == 8
    options.check(values)
