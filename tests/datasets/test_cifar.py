"""CIFAR-10 in its binary version, packed and unpacked, and in its Python version."""

from __future__ import annotations

import pickle
import tarfile

import numpy as np
import pytest

from relume.core.errors import UserError
from relume.datasets import build_dataset
from relume.datasets.cifar import ARCHIVE, BATCHES, BINARY, PYTHON


@pytest.fixture
def cifar(tmp_path):
    """Three images in each file; the first one of all is red on its left half. Returns the folder."""
    rng = np.random.RandomState(0)
    folder = tmp_path / BINARY
    folder.mkdir()
    for name in [*BATCHES[True], *BATCHES[False]]:
        records = rng.randint(0, 256, (3, 3073)).astype(np.uint8)
        records[:, 0] = rng.randint(0, 10, 3)
        if name == "data_batch_1.bin":
            red = np.zeros((3, 32, 32), np.uint8)
            red[0, :, :16] = 255
            records[0, 0], records[0, 1:] = 7, red.ravel()
        (folder / name).write_bytes(records.tobytes())
    return tmp_path


def build(root, **settings):
    return build_dataset({"type": "CIFAR10Dataset", "dataroot": str(root), **settings})


def test_planes_become_an_image_and_the_first_byte_its_class(cifar):
    dataset = build(cifar)
    item = dataset[0]
    assert len(dataset) == 15 and dataset.num_classes == 10
    assert item["gt"].shape == (3, 32, 32) and item["label"] == 7 and item["index"] == 0
    assert item["gt"][0, :, :16].unique().tolist() == [1.0] and item["gt"][0, :, 16:].unique().tolist() == [-1.0]
    assert item["gt"][1:].unique().tolist() == [-1.0]
    assert len(build(cifar, test_images=True)) == 3
    assert "label" not in build(cifar, use_labels=False)[0]
    assert build(cifar, resolution=16)[0]["gt"].shape == (3, 16, 16)


def test_it_is_read_from_the_archive_too(cifar, tmp_path):
    unpacked = build(cifar)
    elsewhere = tmp_path / "packed"
    elsewhere.mkdir()
    with tarfile.open(elsewhere / ARCHIVE, "w:gz") as tar:
        tar.add(cifar / BINARY, BINARY)
    assert build(elsewhere).id == build(elsewhere / ARCHIVE).id == build(cifar / BINARY).id == unpacked.id
    (elsewhere / ARCHIVE).write_bytes((elsewhere / ARCHIVE).read_bytes()[:2000])
    with pytest.raises(UserError, match="is torn or not CIFAR-10's binary version"):
        build(elsewhere)


def test_a_missing_download_says_what_to_fetch_and_where_to_put_it(tmp_path):
    with pytest.raises(UserError, match=r"CIFAR-10 is not here. Fetch https://\S+ and put it into this folder as") as e:
        build(tmp_path)
    assert str(tmp_path) in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("harm", ["missing", "torn", "another"])
def test_damaged_files_are_named(harm, cifar):
    path = cifar / BINARY / "data_batch_3.bin"
    data = path.read_bytes()
    path.unlink()
    if harm != "missing":
        path.write_bytes(data[:5000] if harm == "torn" else b"\xff" * len(data))
    with pytest.raises(UserError, match=r"data_batch_3\.bin"):
        build(cifar)


class Bomb:
    def __reduce__(self):
        return (print, ("a pickle ran",))


def test_pickles_that_are_not_the_published_ones_are_not_opened(tmp_path, capsys):
    folder = tmp_path / PYTHON
    folder.mkdir()
    for name in ["batches.meta", "test_batch", *(f"data_batch_{i}" for i in range(1, 6))]:
        (folder / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(UserError, match="are not the published ones, so they are not opened"):
        build(tmp_path)
    assert "a pickle ran" not in capsys.readouterr().out
