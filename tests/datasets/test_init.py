"""Building datasets from option blocks."""

from __future__ import annotations

import copy

import pytest
from addict import Dict

from relume.core.errors import UserError
from relume.datasets import DATASETS, build_dataset


def test_loader_options_are_left_to_the_loader_and_the_block_is_not_changed(paired):
    block = {
        **paired,
        "name": "LSUI",
        "batch_size_per_gpu": 4,
        "prefetch_mode": None,
        "gt_sizes": [32],
        "use_shuffle": True,
    }
    for opt in (block, Dict(block)):
        before = copy.deepcopy(opt)
        assert len(build_dataset(opt, phase="val", scale=1)) == 8
        assert opt == before


def test_injected_values_fill_gaps_only(paired):
    assert build_dataset(paired, phase="val").training is False
    assert build_dataset({**paired, "phase": "train"}, phase="val").training is True
    assert (
        build_dataset({"type": "SyntheticUnderwaterDataset", "source": "skimage"}, phase="val", scale=4).training
        is False
    )


def test_messages_name_the_dataset(paired):
    with pytest.raises(UserError, match=r"^dataset LSUI: .*unknown key 'gt_siz'.*Did you mean 'gt_size'"):
        build_dataset({**paired, "name": "LSUI", "gt_siz": 8})
    with pytest.raises(UserError, match=r"^dataset val: no dataset is called 'PairedImagDataset'.*PairedImageDataset"):
        build_dataset({**paired, "type": "PairedImagDataset"}, phase="val")


def test_names_of_basicsr_and_restormer_are_known():
    names = ("PairedImageDataset", "SingleImageDataset", "Dataset_PairedImage", "Dataset_GaussianDenoising")
    assert all(name in DATASETS for name in names)
