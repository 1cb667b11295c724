"""What datasets to generate from share: range, labels, flips, identity; and seeds of noise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.datasets import build_dataset
from relume.datasets.generation import StoredImages
from relume.datasets.loading.loader import build_eval_loader, build_train_loader

FACES = {"type": "ShippedImagesDataset", "source": "faces_and_backgrounds", "resolution": 12}


def stored(images, labels=None, classes=None, resolution=None, use_hflip=False, phase="train"):
    return StoredImages("mine", images, labels, classes, resolution, use_hflip, phase)


@pytest.mark.parametrize("dtype, white", [(np.uint8, 255), (np.uint16, 65535)])
def test_black_is_minus_one_and_white_is_one_by_the_type_of_the_samples(dtype, white):
    images = np.stack([np.full((6, 6, 3), v, dtype) for v in (0, 1, white)])
    dataset = stored(images)
    low, dark, high = (dataset[i]["gt"] for i in range(3))
    assert low.unique().tolist() == [-1.0] and high.unique().tolist() == [1.0]
    # A batch of all-dark images stays dark.
    assert dark.unique().tolist() == pytest.approx([2 / white - 1])
    resized = stored(images, resolution=4)
    assert [resized[i]["gt"].unique().tolist() for i in (0, 2)] == [[-1.0], [1.0]]


def test_floats_are_refused_because_their_range_would_be_a_guess():
    with pytest.raises(UserError, match="mine 0: holds float32 samples"):
        stored(np.zeros((1, 4, 4, 3), np.float32))[0]


def test_images_are_cut_to_their_central_square():
    image = np.zeros((1, 4, 8, 3), np.uint8)
    image[:, :, 2:6] = 255
    assert stored(image, resolution=4)[0]["gt"].unique().tolist() == [1.0]
    with pytest.raises(UserError, match="mine 0: is 4x8, not square; give the dataset a resolution"):
        stored(image)[0]


def test_each_sample_is_flipped_or_not_as_its_epoch_says_and_never_in_evaluation():
    block = {**FACES, "use_hflip": True}
    dataset = build_dataset(block, phase="train")
    seen = {}
    for _ in range(2):
        loader = build_train_loader(dataset, {"batch_size_per_gpu": 50, "num_worker_per_gpu": 0}, seed=3)
        for epoch in range(2):
            for _ in range(4):
                batch = next(loader)
                for i, image, label in zip(batch["index"].tolist(), batch["gt"], batch["label"], strict=True):
                    plain, mirrored = dataset.image(i), dataset.image(i, flip=True)
                    assert torch.equal(mirrored, plain.flip(-1)) and label == dataset.labels[i]
                    flipped = torch.equal(image, mirrored)
                    assert flipped or torch.equal(image, plain)
                    assert seen.setdefault((epoch, i), flipped) == flipped, "a run again sees the same"
    decisions = np.array([[seen[epoch, i] for i in range(200)] for epoch in range(2)])
    assert (decisions.mean(1) > 0.35).all() and (decisions.mean(1) < 0.65).all()
    assert (decisions[0] != decisions[1]).any()
    still = build_dataset(block, phase="val")
    assert all(torch.equal(still[i]["gt"], still.image(i)) for i in range(20))


def test_the_id_follows_content_labels_and_resolution_but_not_flips():
    images = np.arange(2 * 4 * 4 * 3, dtype=np.uint8).reshape(2, 4, 4, 3)
    other = images.copy()
    other[1, 2, 3, 0] += 1
    same = {stored(images).id, stored(images.copy(), use_hflip=True).id, stored(images, phase="val").id}
    assert len(same) == 1 and next(iter(same)).startswith("mine-")
    different = [stored(other), stored(images[:1]), stored(images, resolution=2), stored(images, [0, 1])]
    assert len(same | {d.id for d in different}) == 5


def test_labels_outside_of_the_classes_are_refused():
    images = np.zeros((2, 4, 4, 3), np.uint8)
    assert stored(images, [0, 3]).num_classes == 4 and stored(images, [0, 3], 10).num_classes == 10
    for wrong in ([0, 3], [-1, 0]):
        with pytest.raises(UserError, match=r"mine: class numbers must be from 0 to 2, not (3|-1)$"):
            stored(images, wrong, 3)


@pytest.mark.parametrize("labels", ["cycle", "uniform"])
def test_seeds_and_labels_are_the_same_for_any_number_of_ranks(labels):
    dataset = build_dataset(
        {"type": "NoiseDataset", "num_images": 7, "first_seed": 5, "labels": labels, "reference": FACES}
    )
    assert dataset.num_classes == 2 and len(dataset.reference) == 200
    whole = {int(b["index"]): (int(b["seed"]), int(b["label"])) for b in build_eval_loader(dataset)}
    assert [whole[i][0] for i in range(7)] == list(range(5, 12))
    assert {label for _, label in whole.values()} == {0, 1}
    shares = [build_eval_loader(dataset, rank=r, world=2, seed=r) for r in range(2)]
    assert {int(b["index"]): (int(b["seed"]), int(b["label"])) for share in shares for b in share} == whole


def test_without_classes_there_are_no_labels():
    assert "label" not in build_dataset({"type": "NoiseDataset", "num_images": 2})[1]
