"""Images that come with scikit-image."""

from __future__ import annotations

import pytest

from relume.core.errors import UserError
from relume.datasets import build_dataset


@pytest.mark.parametrize(
    "source, count, classes", [("faces", 100, 0), ("faces_and_backgrounds", 200, 2), ("photographs", 212, 5)]
)
def test_they_are_there_without_a_download(source, count, classes):
    stride = {"stride": 64} if source == "photographs" else {}
    dataset = build_dataset({"type": "ShippedImagesDataset", "source": source, "resolution": 16, **stride})
    assert len(dataset) == count and dataset.num_classes == classes
    assert sorted({dataset[i].get("label", 0) for i in range(count)}) == list(range(max(1, classes)))
    for item in (dataset[i] for i in range(0, count, 9)):
        assert item["gt"].shape == (3, 16, 16) and -1 <= item["gt"].min() < item["gt"].max() <= 1
        assert (source == "photographs") or bool((item["gt"][0] == item["gt"][2]).all()), "faces are gray"


def test_pieces_must_fit():
    with pytest.raises(UserError, match=r"crop 400 is larger than the photograph chelsea\.png, which is 300x451"):
        build_dataset({"type": "ShippedImagesDataset", "source": "photographs", "crop": 400})
    with pytest.raises(UserError, match="crop and stride cut pieces of photographs; source: faces has none"):
        build_dataset({"type": "ShippedImagesDataset", "stride": 8})
