"""A long clip takes no more memory than a short one (with RELUME_SLOW_TESTS=1: minutes)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch

from relume.archs import build_network
from relume.core.imaging.video_writer import VideoWriter
from relume.core.options import check, description
from relume.core.runtime import checkpoint
from relume.datasets.videos import Video

NETWORK = {"type": "BasicVSR", "num_feat": 2, "num_block": 0, "flow_levels": 1}
RUN = """
import resource, sys
from relume.core.cli import main
code = main(sys.argv[1:])
print("peak", code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def peak_of(folder: Path, *arguments: str) -> float:
    """The most memory that ``relume ARGUMENTS`` takes in a folder, in MiB."""
    command = [sys.executable, "-c", RUN, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    _, code, peak = done.stdout.splitlines()[-1].split()
    assert code == "0", done.stdout + done.stderr
    return int(peak) / 1024


@pytest.mark.skipif(not os.environ.get("RELUME_SLOW_TESTS"), reason="takes minutes; RELUME_SLOW_TESTS=1")
@pytest.mark.timeout(3600)
def test_ten_thousand_frames_take_the_memory_of_three_hundred(tmp_path: Path) -> None:
    pytest.importorskip("av")
    torch.manual_seed(0)
    values = {
        **{"name": "clips", "model_type": "VideoModel", "scale": 4, "network_g": NETWORK},
        "datasets": {"test": {"type": "SingleImageDataset", "dataroot_lq": "x"}},
    }
    weights = {"params": build_network(NETWORK).state_dict(), "relume": description.weights_description(check(values))}
    checkpoint.save(tmp_path / "net.pth", weights)
    peaks = {}
    for count in (300, 10_000):
        with VideoWriter(tmp_path / f"{count}.mp4", Fraction(25)) as video:
            for i in range(count):
                video.write(np.full((16, 16, 3), i % 200 + 20, np.uint8), Fraction(i, 25))
        files = ("-i", f"{count}.mp4", "-o", f"out_{count}.mp4")
        peaks[count] = peak_of(tmp_path, "infer", *files, "--weights", "net.pth", "--device", "cpu")
        made = Video(str(tmp_path / f"out_{count}.mp4"))
        assert (len(made), made.size(0)) == (count, (64, 64))
    print({count: f"{peak:.0f} MiB" for count, peak in peaks.items()})
    assert peaks[10_000] < peaks[300] + 40


@pytest.mark.skipif(not os.environ.get("RELUME_SLOW_TESTS"), reason="takes minutes; RELUME_SLOW_TESTS=1")
@pytest.mark.timeout(7200)
def test_ten_thousand_frames_are_scored_in_the_memory_of_three_hundred(tmp_path: Path) -> None:
    """``relume test`` with ``max_frames``: clips are read, restored and scored in parts."""
    pytest.importorskip("av")
    torch.manual_seed(0)
    checkpoint.save(tmp_path / "net.pth", {"params": build_network(NETWORK).state_dict()})
    peaks = {}
    for count in (300, 10_000):
        for side, pixels in (("lq", 16), ("gt", 64)):
            (tmp_path / str(count) / side).mkdir(parents=True)
            with VideoWriter(tmp_path / str(count) / side / "a.mp4", Fraction(25)) as video:
                for i in range(count):
                    video.write(np.full((pixels, pixels, 3), i % 200 + 20, np.uint8), Fraction(i, 25))
        data = {"type": "VideoRecurrentTestDataset", "max_frames": 100, "context": 5, "scale": 4}
        values = {
            **{"name": f"long{count}", "model_type": "VideoModel", "scale": 4, "num_gpu": 0, "network_g": NETWORK},
            "datasets": {"test": {**data, "dataroot_lq": f"{count}/lq", "dataroot_gt": f"{count}/gt"}},
            "path": {"pretrain_network_g": "net.pth"},
            "val": {"metrics": {"psnr": {"type": "calculate_psnr"}, "ssim": {"type": "calculate_ssim"}}},
        }
        (tmp_path / f"{count}.yml").write_text(json.dumps(values))
        peaks[count] = peak_of(tmp_path, "test", "-opt", f"{count}.yml")
    print({count: f"{peak:.0f} MiB" for count, peak in peaks.items()})
    assert peaks[10_000] < peaks[300] + 40
