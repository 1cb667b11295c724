"""A long clip takes no more memory than a short one (with RELUME_SLOW_TESTS=1: minutes)."""

from __future__ import annotations

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
code = main(["infer", "-i", sys.argv[1], "-o", sys.argv[2], "--weights", "net.pth", "--device", "cpu"])
print("peak", code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(not os.environ.get("RELUME_SLOW_TESTS"), reason="takes minutes; RELUME_SLOW_TESTS=1")
@pytest.mark.timeout(3600)
def test_ten_thousand_frames_take_the_memory_of_three_hundred(tmp_path: Path) -> None:
    pytest.importorskip("av")
    torch.manual_seed(0)
    values = {
        **{"name": "clips", "model_type": "VideoModel", "scale": 4, "network_g": NETWORK},
        "datasets": {"test": {"type": "SingleImageDataset", "dataroot_lq": "x"}},
    }
    weights = {"params": build_network(NETWORK).state_dict(), "relume": description.describe(check(values))}
    checkpoint.save(tmp_path / "net.pth", weights)
    peaks = {}
    for count in (300, 10_000):
        with VideoWriter(tmp_path / f"{count}.mp4", Fraction(25)) as video:
            for i in range(count):
                video.write(np.full((16, 16, 3), i % 200 + 20, np.uint8), Fraction(i, 25))
        command = [sys.executable, "-c", RUN, f"{count}.mp4", f"out_{count}.mp4"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        _, code, peak = done.stdout.splitlines()[-1].split()
        assert code == "0"
        made = Video(str(tmp_path / f"out_{count}.mp4"))
        assert (len(made), made.size(0)) == (count, (64, 64))
        peaks[count] = int(peak) / 1024
    print({count: f"{peak:.0f} MiB" for count, peak in peaks.items()})
    assert peaks[10_000] < peaks[300] + 40
