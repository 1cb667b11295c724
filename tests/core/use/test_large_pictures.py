"""A picture of 12 megapixels through NAFNet of width 32: memory and time (with RELUME_SLOW_TESTS=1: minutes)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from relume.archs import build_network
from relume.core.options import check, description
from relume.core.runtime import checkpoint

NETWORK = {"type": "NAFNet", "width": 32, "enc_blk_nums": [2, 2, 4, 8], "middle_blk_num": 12, "dec_blk_nums": [2] * 4}
RUN = """
import resource, sys, time
from relume.core.cli import main
begun = time.perf_counter()
code = main(["infer", "-i", "in.png", "-o", "out.png", "--weights", "net.pth", "--device", "cpu"])
used = resource.getrusage(resource.RUSAGE_SELF)
print("used", code, used.ru_maxrss // 1024, round(used.ru_utime + used.ru_stime), round(time.perf_counter() - begun))
"""


@pytest.mark.skipif(not os.environ.get("RELUME_SLOW_TESTS"), reason="takes minutes; RELUME_SLOW_TESTS=1")
@pytest.mark.timeout(7200)
def test_twelve_megapixels_take_less_than_two_gibibytes(tmp_path: Path) -> None:
    torch.manual_seed(0)
    data = {"test": {"type": "SingleImageDataset", "dataroot_lq": "x"}}
    values = {"name": "large", "model_type": "RestorationModel", "network_g": NETWORK, "datasets": data}
    weights = {"params": build_network(NETWORK).state_dict(), "relume": description.weights_description(check(values))}
    checkpoint.save(tmp_path / "net.pth", weights)
    height, width = 3000, 4000
    ramp = np.linspace(0, 255, width)[None, :, None] * np.linspace(0.2, 1, height)[:, None, None]
    cv2.imwrite(str(tmp_path / "in.png"), np.repeat(ramp, 3, 2).astype(np.uint8))
    command = [sys.executable, "-c", RUN]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    _, code, peak, processor, wall = done.stdout.splitlines()[-1].split()
    print(f"{peak} MiB at the most, {processor} s of processor time, {wall} s")
    assert code == "0", done.stderr
    assert cv2.imread(str(tmp_path / "out.png")).shape == (height, width, 3)
    assert int(peak) < 2048
