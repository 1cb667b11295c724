"""Generators scored as test.py and validation do it: the pipeline, set metrics and caches together."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from relume.archs import build_network
from relume.core.errors import UserError
from relume.core.features import build_features
from relume.core.metrics import sets
from relume.core.metrics.generative import kernel_distance
from relume.core.metrics.reference import quantised
from relume.core.models.draws import normal_of
from relume.core.pipeline import test_pipeline as run_test
from relume.core.runtime import checkpoint
from relume.datasets import build_dataset

NETWORK = {
    "type": "OneStepGenerator",
    "img_resolution": 8,
    "label_dim": 2,
    "model_channels": 8,
    "channel_mult": [1],
    "num_blocks": 1,
    "attn_resolutions": [],
    "dropout": 0.0,
}
REFERENCE = {"type": "ShippedImagesDataset", "source": "faces_and_backgrounds", "resolution": 8}
PIXELS = {"type": "pixel_avgpool", "size": 4}


@pytest.fixture
def opt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sets, "_shared", type(sets._shared)())
    torch.manual_seed(0)
    network = build_network(NETWORK)
    for p in network.parameters():
        torch.nn.init.normal_(p, std=0.2)
    checkpoint.save(tmp_path / "w.pth", {"params": network.state_dict()})
    return {
        "name": "tiny",
        "model_type": "GenerationModel",
        "num_gpu": 0,
        "datasets": {
            "test": {
                "name": "made",
                "type": "NoiseDataset",
                "num_images": 23,
                "first_seed": 100,
                "batch_size_per_gpu": 5,
                "num_worker_per_gpu": 0,
                "reference": REFERENCE,
            }
        },
        "network_g": NETWORK,
        "path": {"pretrain_network_g": "w.pth"},
        "val": {
            "save_grid": 4,
            "metrics": {
                "fid": {"type": "FID", "features": PIXELS, "stats": "faces.safetensors"},
                "kid": {
                    "type": "KID",
                    "features": PIXELS,
                    "subset_size": 10,
                    "subsets": 5,
                    "stats": "faces.safetensors",
                },
                "recall": {"type": "Recall", "features": PIXELS},
            },
        },
    }


def test_generated_images_are_scored_as_by_hand(opt: dict[str, Any], tmp_path: Path) -> None:
    found = run_test(opt)["made"]
    network: Any = build_network(NETWORK).eval()
    checkpoint.load_weights(network, tmp_path / "w.pth", "params", strict=True)
    labels = torch.eye(2)[torch.arange(100, 123) % 2]
    made = network.sample(normal_of(range(100, 123), 3, 8, 8), labels)
    dataset, extractor = build_dataset(REFERENCE), build_features(PIXELS)
    real = extractor(torch.stack([dataset.image(i) for i in range(len(dataset))]))
    values = kernel_distance(extractor(quantised(made)), real, subsets=5, size=10)
    assert found["kid"] == pytest.approx(float(values.mean()), rel=1e-4)
    assert found["kid_std"] == pytest.approx(float(values.std(correction=0)), rel=1e-4)
    assert list(found) == ["fid", "kid", "kid_std", "recall"]
    assert json.loads((tmp_path / "results/tiny/metrics.json").read_text())["made"] == pytest.approx(found)
    assert (tmp_path / "results/tiny/visualization/made/grid_0.png").is_file()
    assert not list((tmp_path / "results/tiny/visualization").glob("*_scores.jsonl"))
    # The cache serves a run that does not have the images, and refuses another resolution's.
    del opt["val"]["metrics"]["recall"], opt["datasets"]["test"]["reference"]
    opt["datasets"]["test"]["num_classes"] = 2
    sets._shared.clear()
    again = run_test(opt)["made"]
    assert again == pytest.approx({k: v for k, v in found.items() if k != "recall"})
    opt["datasets"]["test"]["reference"] = {**REFERENCE, "use_labels": False}
    sets._shared.clear()
    with pytest.raises(UserError, match=r"faces\.safetensors: its dataset_id is faces_and_backgrounds-"):
        run_test(opt)


def test_the_batch_size_does_not_matter(
    opt: dict[str, Any],
) -> None:
    one = run_test(opt)["made"]
    opt["datasets"]["test"]["batch_size_per_gpu"] = 1
    assert run_test(opt)["made"] == pytest.approx(one, rel=1e-4)


def test_what_cannot_be_scored_is_said_before_anything_is_made(opt: dict[str, Any]) -> None:
    opt["datasets"]["test"]["num_images"] = 3
    with pytest.raises(UserError, match=r"^val\.metrics\.recall: Recall: needs at least 4 images, there are 3$"):
        run_test(opt)
    del opt["datasets"]["test"]["reference"]
    with pytest.raises(UserError, match=r"^val\.metrics\.fid: FID: there are no real images to compare with"):
        run_test(opt)
