"""Each option of each shipped recipe changes the plan, the data or the result, or is refused."""

from __future__ import annotations

import os
import re

SLOW = "RELUME_SLOW_TESTS" in os.environ
SMALL = [
    "datasets:train:num_worker_per_gpu=0",
    "train:total_iter=3",
    "val:val_freq=3",
    "logger:print_freq=1",
    "logger:save_checkpoint_freq=2",
    "logger:keep_checkpoints=1",
]
PHOTOGRAPHS = ["datasets:train:shorter_side=96", "datasets:train:gt_size=32", "datasets:train:batch_size_per_gpu=2"]
HELD_OUT = ["datasets:val:shorter_side=48", "datasets:val:renditions=1", "datasets:val:num_worker_per_gpu=0"]
TINY = ["network_g:dim=8", "network_g:num_blocks=[1,1,1,1]", "network_g:num_refinement_blocks=1"]
FEW = [f"datasets:val_{n}:{k}" for n in ("medium", "large", "extreme") for k in ("renditions=1",)]
FASTER = re.compile(
    r"num_worker|prefetch|pin_memory|timeout|persistent|async_save|cudnn|matmul|val\.pbar|num_gpu|channels_last"
)
"""Options that change how fast a run is on some machines, and nothing else."""
RECIPES = {
    "quickstart": [*PHOTOGRAPHS, *HELD_OUT, "train:warmup_iter=1", "train:scheduler:T_max=3"],
    "underwater/laptop/phaseformer": [*PHOTOGRAPHS, *HELD_OUT, "train:warmup_iter=1"],
    "hdr/small/s1": [*PHOTOGRAPHS, *HELD_OUT],
    "hdr/small/s2": [
        *PHOTOGRAPHS, *HELD_OUT, "path:pretrain_network_g=~", "path:pretrain_network_S1=~", "train:encoder_iter=1",
    ],
    "generation/faces": ["datasets:train:batch_size_per_gpu=4", "datasets:val:num_images=20", "train:times:stage1_samples=8"],
    "vfi/laptop/phase1": [*PHOTOGRAPHS[:1], "datasets:train:gt_size=48", *FEW],
    "vfi/laptop/phase2": [
        *PHOTOGRAPHS[:1], "datasets:train:gt_size=48", *FEW, "path:pretrain_network_g=~", "train:flow_first=1",
        "train:freeze_backbone=2",
    ],
    "realsr/quickstart": [
        *PHOTOGRAPHS[1:], *HELD_OUT, "datasets:train:pad_size=64", "train:net_g_pretrain_iters=1",
        "train:scheduler:milestones=[2]",
    ],
    "restoration/denoising/laptop/nafnet": [*PHOTOGRAPHS, *HELD_OUT, "train:warmup_iter=1", "train:scheduler:T_max=3"],
    "sr/x2/laptop/msrresnet": [*PHOTOGRAPHS, *HELD_OUT, "train:warmup_iter=1", "train:scheduler:T_max=3"],
}  # fmt: skip
"""Shipped recipes that need no downloads, one of each task, and what cuts them down to a second."""
