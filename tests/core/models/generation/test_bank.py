"""The memory bank: row i is image i, built once, kept under its ids, drawn from by seed and iteration alone."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from relume.core.errors import UserError
from relume.core.features import build_features
from relume.core.models.generation.bank import (
    BankOptions,
    MemoryBank,
    as_bytes,
    as_floats,
    build_bank,
    extract,
    interleaved,
)
from relume.datasets import build_dataset

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def dataset():
    block = {"type": "ShippedImagesDataset", "source": "faces_and_backgrounds", "resolution": 8, "use_hflip": True}
    return build_dataset(block, phase="train")


@pytest.fixture(scope="module")
def extractor():
    return build_features({"type": "random_conv", "width": 4, "levels": 2})


@pytest.fixture
def bank(dataset, extractor):
    return build_bank(dataset, extractor, BankOptions(flips=True), CPU)


def test_every_row_is_the_image_of_its_number(bank, dataset, extractor):
    rows = torch.arange(bank.rows)
    images = bank.images_of(rows)
    for row in (0, 1, 77, 199, 200, 333, 399):
        image = dataset.image(row % 200, flip=row >= 200)
        assert torch.equal(images[row], image)
        expected = F.normalize(extractor(image[None]), dim=1)[0]
        torch.testing.assert_close(bank.features_of(rows[row : row + 1])[0], expected, rtol=1e-4, atol=1e-5)
    assert bank.rows == 400 and torch.equal(bank.labels_of(rows), torch.cat([dataset.labels, dataset.labels]))
    assert bank.images.dtype == torch.uint8, "bytes hold these images without loss"


def test_shares_of_ranks_are_put_in_order_and_must_be_whole(monkeypatch):
    from relume.core.runtime import distributed

    table = torch.arange(10.0)[:, None]
    shares = [(table[r::3], list(range(r, 10, 3))) for r in range(3)]
    monkeypatch.setattr(distributed, "gather", lambda value: shares)
    assert torch.equal(interleaved(*shares[0], 10), table)
    monkeypatch.setattr(distributed, "gather", lambda value: shares[:2])
    with pytest.raises(RuntimeError, match="each once"):
        interleaved(*shares[0], 10)


def test_draws_are_a_function_of_seed_and_iteration(bank):
    drawn = bank.draw(3, 50)
    assert torch.equal(drawn, bank.draw(3, 50)) and len(drawn.unique()) == 50
    assert not torch.equal(drawn, bank.draw(4, 50))
    assert sorted(bank.draw(1, 2048).tolist()) == list(range(400)), "all, where there are fewer"
    everything = torch.cat([bank.draw(i, 40) for i in range(100)]).bincount(minlength=400)
    assert everything.float().mean() == 10 and everything.max() < 30, "uniform"


@pytest.mark.parametrize("flips", [False, True])
def test_shards_hold_their_rows(bank, dataset, extractor, flips, monkeypatch):
    """Two shards, asked one after the other, give together what the whole bank gives."""
    from relume.core.runtime import distributed

    whole = build_bank(dataset, extractor, BankOptions(flips=flips), CPU)
    sides = whole.features.chunk(1 + flips)
    shards = [
        MemoryBank(
            "x", torch.cat([s[r::2] for s in sides]), whole.images[r::2], whole.labels, 200, flips, whole.seed, (r, 2)
        )
        for r in range(2)
    ]
    rows = whole.draw(0, 60)
    assert all(torch.equal(s.draw(0, 60), rows) for s in shards)
    monkeypatch.setattr(distributed, "total", lambda values: values)
    found = sum(s.features_of(rows) for s in shards)
    torch.testing.assert_close(found, whole.features_of(rows))
    asked = [rows[:7], rows[20:27]]
    monkeypatch.setattr(distributed, "concatenated", lambda values: torch.cat(asked))
    parts = []
    for s in shards:
        monkeypatch.setattr(distributed, "total", lambda values: parts.append(values) or values)
        s.images_of(asked[s.rank])
    monkeypatch.setattr(distributed, "total", lambda values: sum(parts[:2]))
    for s in shards:
        assert torch.equal(s.images_of(asked[s.rank]), whole.images_of(asked[s.rank]))


def test_bytes_only_without_loss():
    stored = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    assert torch.equal(as_bytes(as_floats(stored)), stored)
    fine = as_floats(stored) + 1e-3
    assert torch.equal(as_bytes(fine), fine) and torch.equal(as_floats(fine), fine)


# ------------------------------------------------------------------ the cache
def test_cached_features_are_used(dataset, extractor, tmp_path, monkeypatch):
    options = BankOptions(cache=str(tmp_path), flips=True)
    first = build_bank(dataset, extractor, options, CPU)
    (file,) = tmp_path.glob("*.safetensors")
    assert file.name == f"features_{extractor.id}_{dataset.id}_flips.safetensors"
    monkeypatch.setattr(type(extractor), "features", None)
    second = build_bank(dataset, extractor, options, CPU)
    assert torch.equal(first.features, second.features) and torch.equal(first.images, second.images)


def test_other_features_are_refused(dataset, extractor, tmp_path):
    file = tmp_path / "bank.safetensors"
    options = BankOptions(cache=str(file))
    build_bank(dataset, extractor, options, CPU)
    other = build_features({"type": "pixel_avgpool", "size": 4})
    with pytest.raises(UserError, match="are of another extractor") as caught:
        build_bank(dataset, other, options, CPU)
    assert "\n" not in str(caught.value) and other.id in str(caught.value)
    elsewhere = build_dataset({"type": "ShippedImagesDataset", "source": "faces", "resolution": 8}, phase="train")
    with pytest.raises(UserError, match="are of another dataset"):
        build_bank(elsewhere, extractor, options, CPU)
    with pytest.raises(UserError, match=r"of shape \(200, 48\), not \(400, 48\)"):
        build_bank(dataset, extractor, BankOptions(cache=str(file), flips=True), CPU)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(UserError, match="cannot be read as cached features"):
        build_bank(dataset, extractor, options, CPU)


# ------------------------------------------------------------------ what cannot be
def test_features_that_are_not_finite_name_their_image(extractor):
    images = torch.zeros(3, 3, 8, 8)
    images[1] = torch.nan
    with pytest.raises(UserError, match=r"the features of image 17 are NaN or infinite \(random_conv-"):
        extract(extractor, images, [16, 17, 18])


def test_other_datasets_cannot_fill_it(extractor):
    with pytest.raises(UserError, match=r"list cannot fill a memory bank"):
        build_bank([1, 2], extractor, BankOptions(), CPU)
