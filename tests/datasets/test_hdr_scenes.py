"""HDR scenes made from photographs, and the pictures taken of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.core.imaging.srgb import to_linear
from relume.core.imaging.transfer import as_transfer
from relume.datasets import build_dataset
from relume.datasets.hdr_scenes import expand
from relume.datasets.loading.worker import seeded
from relume.datasets.photographs import SHIPPED

SHIPPED_BLOCK = {"type": "SyntheticHDRDataset", "source": "skimage", "shorter_side": 64}
CLEAN = {"noise": [0.0, 0.0], "quality": None}


@pytest.fixture
def folder(tmp_path, write_images):
    write_images(tmp_path / "air", {"a": (40, 56), "b": (36, 40), "c": (48, 40)})
    return {"type": "SyntheticHDRDataset", "dataroot_gt": str(tmp_path / "air")}


# ------------------------------------------------------------------ scenes
def test_shadows_stay_and_highlights_rise():
    ramp = np.repeat(np.linspace(0, 1, 101, dtype=np.float32)[None, :, None], 3, axis=2).repeat(20, axis=0)
    relative = expand(ramp, stops=4, knee=0.6)
    assert relative.dtype == np.float32 and relative.min() >= 0 and relative.max() <= 1
    ratio = relative[10, 1:, 0] / to_linear(ramp[10, 1:, 0])
    assert np.allclose(ratio[:60], 2.0**-4, rtol=1e-6), "below the knee only the unit changes"
    assert (np.diff(relative[10, :, 0]) > 0).all()
    assert ratio[-1] > 8 * ratio[0]
    assert np.allclose(expand(ramp, stops=0, knee=0.6), to_linear(ramp), atol=1e-6)


def test_large_highlights_rise_further_than_specks():
    picture = np.full((60, 60, 3), 0.3, np.float32)
    picture[5:35, 5:35] = 1.0
    picture[50, 50] = 1.0
    relative = expand(picture, stops=4, knee=0.6)
    assert relative[20, 20, 0] > 2.5 * relative[50, 50, 0]
    white = expand(np.ones((9, 9, 3), np.float32), stops=4, knee=0.6)
    assert np.allclose(white, 1), "a white wall is the peak"


# ------------------------------------------------------------------ pictures
def test_no_photograph_is_in_both_splits():
    train, val = (build_dataset(SHIPPED_BLOCK, phase=phase) for phase in ("train", "val"))
    names = [{name for _, name in d.photographs} for d in (train, val)]
    assert names == [set(SHIPPED["train"]), set(SHIPPED["val"])]
    assert not names[0] & names[1]


@pytest.mark.parametrize("transfer", ["log1p", "pu21"])
def test_the_curve_is_undone_where_nothing_clips(transfer):
    dataset = build_dataset({**SHIPPED_BLOCK, **CLEAN, "transfer": transfer}, phase="val")
    for i in range(len(dataset)):
        item = dataset[i]
        shot, _ = dataset.shot(i)
        assert item["lq"].shape == item["gt"].shape == (3, *shot.picture.shape[:2])
        assert item["lq"].min() >= 0 and item["lq"].max() <= 1 and item["gt"].max() <= 1
        decoded = as_transfer(transfer).decode(item["gt"]).permute(1, 2, 0).numpy()
        assert np.allclose(decoded, shot.radiance, rtol=2e-4, atol=2e-3)
        kept = torch.from_numpy((shot.picture < 255) & (shot.picture > 20)).permute(2, 0, 1)
        difference = (item["lq"] - item["gt"]).abs()
        assert difference[kept].max() < 0.02 < difference[~kept].max(), "eight bits, and clipped highlights"
        share = (shot.picture == 255).any(-1).mean()
        assert 0.005 < share < 0.7
        assert (shot.radiance > 1000 / shot.curve.dgain).any(-1).mean() == pytest.approx(share, abs=0.02)


def test_brighter_exposures_clip_more():
    shares = []
    for stops in (-1.0, 0.0, 1.5):
        dataset = build_dataset({**SHIPPED_BLOCK, **CLEAN, "exposure": [stops, stops]}, phase="val")
        shares.append((dataset.shot(1)[0].picture == 255).mean())
        assert dataset.shot(1)[0].curve.dgain == pytest.approx(16 * 2**stops)
    assert shares[0] < shares[1] < shares[2]


def test_noise_and_compression_are_seen():
    pictures = [
        build_dataset({**SHIPPED_BLOCK, **CLEAN, **change}, phase="val").shot(0)[0].picture.astype(int)
        for change in ({}, {"noise": [0.05, 0.05]}, {"quality": [30, 30]})
    ]
    for changed in pictures[1:]:
        assert 1 < np.abs(changed - pictures[0]).mean() < 20


def test_evaluation_is_fixed_and_training_is_drawn_from_the_global_generators(folder):
    val = build_dataset({**folder, "renditions": 2}, phase="val")
    assert len(val) == 6
    assert torch.equal(val[4]["lq"], val[4]["lq"]) and torch.equal(val[1]["gt"], val[4]["gt"])
    assert not torch.equal(val[1]["lq"], val[4]["lq"])
    assert [val[i]["lq_path"].rpartition("/")[2] for i in (0, 1, 4)] == ["a_0.png", "b_0.png", "b_1.png"]
    train = build_dataset({**folder, "gt_size": 24, "use_hflip": True, "use_rot": True}, phase="train")
    items = []
    for seed in (1, 1, 2):
        with seeded(seed):
            items.append(train[0])
    assert items[0]["gt"].shape == (3, 24, 24)
    assert torch.equal(items[0]["lq"], items[1]["lq"]) and torch.equal(items[0]["gt"], items[1]["gt"])
    assert not torch.equal(items[0]["gt"], items[2]["gt"])


def test_validation_images_are_the_same_everywhere(folder):
    """A change of the scenes would make results of different versions incomparable."""
    item = build_dataset({**folder, "quality": None}, phase="val")[1]
    means = [float(item[k].mean()) for k in ("lq", "gt")]
    assert means == pytest.approx([0.40665, 0.47403], abs=2e-4)


def test_the_curve_may_be_given_or_guessed(folder):
    plain = build_dataset({**folder, **CLEAN}, phase="val")
    known, curve = plain.shot(0)
    assert curve == known.curve
    given = build_dataset({**folder, **CLEAN, "dgain": 3.0}, phase="val").shot(0)[1]
    assert given.dgain == 3.0 and given.gamma == curve.gamma
    guess = {"estimate_dgain": True, "gamma": 2.0}
    whole = build_dataset({**folder, **CLEAN, **guess}, phase="val").shot(0)[1]
    assert whole.gamma == 2.0 and 0.1 < whole.dgain / curve.dgain < 10
    train = build_dataset({**folder, **CLEAN, **guess, "gt_size": 8, "exposure": [0, 0], "camera_gamma": [2, 2]})
    guesses = set()
    for seed in range(5):
        with seeded(seed):
            guesses.add(train.shot(0)[1].dgain)
    assert len(guesses) == 1, "of the whole picture, wherever the patch"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataroot_gt": None}, "give either dataroot_gt"),
        ({"knee": 1.0}, "knee is in"),
        ({"stops": 30.0}, "stops in"),
        ({"exposure": [1.0, 0.0]}, "exposure: a range"),
        ({"camera_gamma": [0.0, 2.0]}, "camera_gamma: a range .* both positive"),
        ({"noise": [-1.0, 1.0]}, "noise: a range .* neither negative"),
        ({"quality": [0, 50]}, "quality: a range"),
        ({"estimate_dgain": True, "dgain": 1.0}, "leave one out"),
        ({"transfer": "gamma"}, "no transfer function is called 'gamma'"),
    ],
)
def test_impossible_options(folder, options, message):
    with pytest.raises(UserError, match=message):
        build_dataset({**folder, **options}, phase="train")


def test_darker_photographs_make_other_scenes_in_training_only(folder):
    bright, dark = ({**folder, **CLEAN, "darken": span} for span in ([0.0, 0.0], [0.0, 3.0]))

    def radiance(block, phase):
        dataset = build_dataset(block, phase=phase)
        return [dataset.shot(i)[0].radiance.mean() for i in range(len(dataset)) for _ in range(5)]

    assert radiance(bright, "val") == radiance(dark, "val")
    with seeded(1):
        usual, varied = radiance(bright, "train"), radiance(dark, "train")
    assert len(set(usual)) == 3, "without a patch size, only the camera varies"
    assert len(set(varied)) == 15 and max(varied) <= max(usual) and min(varied) < 0.3 * min(usual)
    with pytest.raises(UserError, match="darken: a range is"):
        build_dataset({**folder, "darken": [1.0, 0.0]}, phase="train")
