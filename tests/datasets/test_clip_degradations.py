"""Clips that are degraded as a whole: the same in every frame but noise, as the seed says, by codecs that see the clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from relume.core.degradations import build_degradation
from relume.core.degradations.codecs import recompress, recompress_clip
from relume.core.degradations.draws import Draws
from relume.core.degradations.engines import make_engine
from relume.core.degradations.operations import DegradationList
from relume.core.errors import UserError
from relume.core.imaging.image_io import imwrite
from relume.datasets import build_dataset
from relume.datasets.clip_degradations import ClipDegradation

SMOOTH = torch.from_numpy(np.random.default_rng(0).random((1, 3, 6, 6), np.float32))
IMAGE = torch.nn.functional.interpolate(SMOOTH, (48, 64), mode="bicubic").clamp(0, 1)[0]
STILL = [IMAGE] * 5
"""A clip in which nothing moves: whatever differs between its frames is what the degradation does."""
EXACT = (
    {"type": "blur", "kernel": ["aniso", "plateau_iso", "sinc"]},
    {"type": "resize", "factor": [0.4, 1.4], "updown_prob": [0.3, 0.4, 0.3], "mode": ["area", "bilinear", "bicubic"]},
    {"type": "compress", "codec": ["jpeg", "webp"]},
    {"type": "motion"},
    {"type": "shuffle"},
)


def operations(*blocks: dict[str, Any]) -> ClipDegradation:
    return ClipDegradation(None, [build_degradation(b) for b in blocks], "opencv", 4)


def apart(frames: list[Tensor]) -> float:
    return max(float((frame - frames[0]).abs().max()) for frame in frames)


@pytest.mark.parametrize("seed", range(5))
def test_frames_are_degraded_alike(seed: int) -> None:
    degrade = operations(*EXACT)
    frames = degrade(STILL, Draws(seed))
    assert apart(frames) == 0 and frames[0].shape == (3, 12, 16)
    listed = DegradationList([build_degradation(b) for b in EXACT])
    alone = listed(IMAGE, Draws(seed).part("degradations"), make_engine("opencv"), 4)
    assert torch.equal(frames[2], alone)  # as one image with the same draws
    assert not torch.equal(frames[0], degrade(STILL, Draws(seed + 100))[0])


def test_noise_has_one_strength_and_other_fields() -> None:
    for kind in ("gaussian", "poisson"):
        block = {"type": "noise", "kind": kind, "sigma": [4, 30], "scale": [0.5, 3], "gray_prob": 0.0}
        degrade = ClipDegradation(None, [build_degradation(block)], "opencv", 1)
        strengths = []
        for seed in range(6):
            frames = degrade([torch.full((3, 64, 64), 0.5)] * 4, Draws(seed))
            fields = torch.stack(frames) - 0.5
            deviations = fields.flatten(1).std(1)
            assert float(deviations.max() / deviations.min()) < 1.05
            assert float(torch.corrcoef(fields.flatten(1)).fill_diagonal_(0).abs().max()) < 0.05
            strengths.append(float(deviations.mean()))
        assert kind == "poisson" or max(strengths) > 1.5 * min(strengths)


def test_the_chain_of_real_esrgan_over_a_clip() -> None:
    quiet = {
        "noise_range": [0, 0],
        "noise_range2": [0, 0],
        "poisson_scale_range": [0, 0],
        "poisson_scale_range2": [0, 0],
    }
    degrade = ClipDegradation(quiet, None, "opencv", 4)
    frames = degrade(STILL, Draws(3))
    assert apart(frames) == 0 and frames[0].shape == (3, 12, 16)
    noisy = ClipDegradation({}, None, "opencv", 4)
    first = noisy(STILL, Draws(3))
    assert all(torch.equal(a, b) for a, b in zip(first, noisy(STILL, Draws(3)), strict=True))
    assert apart(first) > 0


@pytest.mark.parametrize("codec", ["h264", "h265", "mpeg4"])
def test_codecs_of_video_predict_frames_from_each_other(codec: Any) -> None:
    pytest.importorskip("av")
    rng = np.random.default_rng(0)
    wide = np.kron(rng.integers(0, 255, (12, 24, 3)), np.ones((4, 4, 1))).astype(np.uint8)
    clip = [np.ascontiguousarray(wide[:45, 3 * i : 3 * i + 61]) for i in range(6)]
    made = recompress_clip(clip, codec, 60)
    assert len(made) == 6 and all(frame.shape == (45, 61, 3) for frame in made)
    errors = [[np.abs(m.astype(int) - c).mean() for c in clip] for m in made]
    assert [int(np.argmin(e)) for e in errors] == list(range(6))  # in order, none doubled
    assert all(np.array_equal(a, b) for a, b in zip(made, recompress_clip(clip, codec, 60), strict=True))
    alone = [recompress(frame, codec, 60) for frame in clip]
    assert any(not np.array_equal(a, b) for a, b in zip(made[1:], alone[1:], strict=True))
    frames = [torch.from_numpy(frame).permute(2, 0, 1) / 255 for frame in clip]
    degrade = ClipDegradation(
        None, [build_degradation({"type": "compress", "codec": codec, "quality": [60, 60]})], "opencv", 1
    )
    assert np.array_equal((degrade(frames, Draws(0))[3] * 255).round().byte().permute(1, 2, 0).numpy(), made[3])
    harsh = recompress_clip(clip, codec, 10)
    assert np.abs(harsh[3].astype(int) - clip[3]).mean() > np.abs(made[3].astype(int) - clip[3]).mean()


@pytest.fixture
def gt(tmp_path: Path) -> str:
    for clip, count in (("a", 4), ("b", 6)):
        for i in range(count):
            image = np.random.default_rng(i).integers(0, 255, (34, 41, 3), np.uint8)
            imwrite(tmp_path / "gt" / clip / f"{i}.png", image)
    return str(tmp_path / "gt")


LIST = [{"type": "blur"}, {"type": "noise"}, {"type": "compress", "codec": ["jpeg", "h264"]}]


@pytest.mark.parametrize("how", [{"degradations": LIST}, {"degradation": {}}], ids=["list", "chain"])
def test_clips_without_lq_are_degraded_as_seed_and_index_say(how: dict[str, Any], gt: str) -> None:
    block = {"type": "ClipsDataset", "dataroot_gt": gt, "num_frame": 3, **how}
    train = build_dataset({**block, "gt_size": 24, "use_hflip": True}, phase="train", scale=4)

    def item(index: int, seed: int) -> dict[str, Any]:
        np.random.seed(seed)
        import random

        random.seed(seed)
        found: dict[str, Any] = train[index]
        return found

    first, again, other = item(0, 5), item(0, 5), item(0, 6)
    assert first["lq"].shape == (3, 3, 6, 6) and first["gt"].shape == (3, 3, 24, 24)
    assert torch.equal(first["lq"], again["lq"]) and torch.equal(first["gt"], again["gt"])
    assert first["seed"] == again["seed"] != other["seed"]
    val = build_dataset(block, phase="val", scale=4)
    whole = [val[i] for i in range(2)]
    assert [tuple(w["lq"].shape) for w in whole] == [(4, 3, 8, 10), (6, 3, 8, 10)]
    assert [tuple(w["gt"].shape) for w in whole] == [(4, 3, 32, 40), (6, 3, 32, 40)]
    np.random.seed(9)
    assert torch.equal(whole[1]["lq"], val[1]["lq"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "dataroot_lq: give a folder of degraded clips, or degradation: {}, or degradations, to degrade gt here"),
        ({"dataroot_lq": "x", "degradation": {}}, "dataroot_lq: degraded clips are given, so leave degradation"),
        ({"degradation": {}, "degradations": LIST}, "degradation is given too; leave one of them out"),
        ({"degradation": {"noise": 3}}, "unknown key 'noise'"),
    ],
)
def test_what_does_not_go_together_is_one_line(options: dict[str, Any], message: str, gt: str) -> None:
    with pytest.raises(UserError) as caught:
        build_dataset({"type": "ClipsDataset", "dataroot_gt": gt, **options}, scale=4)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_frames_of_several_sizes_that_headers_did_not_tell_are_refused(
    gt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relume.datasets.clips.FrameList.size", lambda self, number: None)  # as behind a URL
    imwrite(Path(gt) / "a" / "2.png", np.zeros((50, 60, 3), np.uint8))
    dataset = build_dataset({"type": "ClipsDataset", "dataroot_gt": gt, "degradation": {}}, phase="val", scale=4)
    with pytest.raises(UserError, match="frames of one clip have several sizes: 34x41, 50x60"):
        dataset[0]
