"""Folders and zip files to generate from, with labels from EDM's dataset.json or from folders' names."""

from __future__ import annotations

import json
import pickle
import zipfile

import pytest
import torch

from relume.core.errors import UserError
from relume.datasets import build_dataset
from relume.datasets.loading.loader import build_train_loader

NAMES = ["00000/img0", "00000/img1", "00001/img2", "00001/img3"]


@pytest.fixture
def folder(tmp_path, write_images):
    write_images(tmp_path / "set", dict.fromkeys(NAMES, (10, 12)))
    return tmp_path / "set"


def write_labels(folder, labels):
    (folder / "dataset.json").write_text(json.dumps({"labels": labels}))


def packed(folder):
    target = folder.with_suffix(".zip")
    with zipfile.ZipFile(target, "w") as archive:
        for path in sorted(folder.rglob("*.*")):
            archive.write(path, path.relative_to(folder))
    return target


def build(root, **settings):
    return build_dataset({"type": "ImageFolderDataset", "dataroot": str(root), "resolution": 8, **settings})


def test_a_zip_file_is_the_folder_that_was_packed(folder):
    write_labels(folder, [[f"{n}.png", i % 3] for i, n in enumerate(reversed(NAMES))])
    loose, zipped = build(folder), build(packed(folder))
    assert len(loose) == len(zipped) == 4 and zipped.num_classes == 3
    assert zipped.labels.tolist() == loose.labels.tolist() == [0, 2, 1, 0]
    for i in range(4):
        assert torch.equal(loose[i]["gt"], zipped[i]["gt"]) and zipped[i]["gt"].shape == (3, 8, 8)
        assert zipped[i]["label"] == zipped.labels[i]
    again = pickle.loads(pickle.dumps(zipped))  # as a loading process gets it
    assert torch.equal(again[3]["gt"], zipped[3]["gt"]) and again.id == zipped.id


def test_loading_processes_read_one_zip_file_side_by_side(folder):
    dataset = build(packed(folder))
    dataset[0]  # opened before the processes are forked
    loader = build_train_loader(dataset, {"batch_size_per_gpu": 4, "num_worker_per_gpu": 2}, seed=0)
    try:
        for _ in range(6):
            batch = next(loader)
            assert torch.equal(batch["gt"], torch.stack([dataset.image(i) for i in batch["index"].tolist()]))
    finally:
        loader.close()


def test_classes_come_from_where_the_options_say(folder):
    assert build(folder).labels is None and "label" not in build(folder)[0]
    assert build(folder, labels="folders").labels.tolist() == [0, 0, 1, 1]
    write_labels(folder, None)
    assert build(folder).labels is None
    write_labels(folder, [[f"{n}.png", 5] for n in NAMES])
    assert build(folder).labels.tolist() == [5] * 4 and build(folder, labels="none").labels is None


@pytest.mark.parametrize(
    "labels, message",
    [
        ([["00000/img0.png", 1]], r"has no label for 00000/img1\.png and 2 more"),
        ([[f"{n}.png", 0.5] for n in NAMES], r"the label of 00000/img0\.png is 0\.5; class numbers can be read"),
        ([3, 4], "is not of the form"),
        ([[f"{n}.png", -1] for n in NAMES], "class numbers must be 0 or more, not -1"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels, message, folder):
    write_labels(folder, labels)
    with pytest.raises(UserError, match=message):
        build(folder)


def test_what_is_missing_or_torn_is_named(folder, tmp_path):
    with pytest.raises(UserError, match=r"dataset\.json: is needed for labels: json, and is not there"):
        build(folder, labels="json")
    with pytest.raises(UserError, match="needs a folder for each class"):
        build(folder / "00000", labels="folders")
    archive = packed(folder)
    archive.write_bytes(archive.read_bytes()[:100])
    with pytest.raises(UserError, match=r"set\.zip: cannot be read as a zip file"):
        build(archive)
    (folder / "00001" / "img2.png").write_bytes(b"no image")
    with pytest.raises(UserError, match=r"img2\.png"):
        build(folder)[2]
    item = build(folder, on_error="skip")[2]
    assert item["index"] == 3


def test_the_id_tells_another_set_of_files(folder):
    before = build(folder).id
    assert before == build(folder, use_hflip=True).id and before.startswith("set-")
    assert before != build(folder, resolution=4).id
    (folder / "00001" / "img3.png").unlink()
    assert before != build(folder).id
