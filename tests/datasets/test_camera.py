"""The camera model: forwards and back, prompt files, guesses of the gain."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from filling import image

from relume.core.errors import UserError
from relume.core.imaging.storage import UnreadableFile
from relume.datasets.camera import (
    Curve,
    CurveChoice,
    decode_prompt,
    estimated_gain,
    format_prompt,
    log_average,
    parse_prompt,
    to_8_bits,
)


def scene() -> np.ndarray:
    """(H, W, 3) radiance in (0, 1000]."""
    return 1000 ** image("scene", 1, 3, 16, 20)[0].permute(1, 2, 0).numpy()


def test_the_original_curve_both_ways(golden):
    data = torch.load(golden("hdr/tone_and_transforms.pt"), weights_only=True)["output"]
    for (dgain, gamma), forwards, back in zip(
        data["params_dgain_gamma"].tolist(), data["custom"], data["inverse_custom"], strict=True
    ):
        curve = Curve(dgain, gamma)
        assert np.abs(curve.develop(data["hdr"].numpy(), 1000.0) - forwards.numpy()).max() <= 2e-6
        assert np.abs(curve.linearise(data["ldr"].numpy(), 1000.0) - back.numpy()).max() <= 2e-6 * 1000


def test_what_is_not_clipped_comes_back():
    curve, radiance = Curve(4.0, 2.2), scene()
    back = curve.linearise(curve.develop(radiance, 1000.0).astype(np.float32), 1000.0)
    assert back.dtype == np.float32
    kept = radiance < 250
    assert np.allclose(back[kept], radiance[kept], rtol=1e-5) and kept.any()
    assert np.allclose(back[~kept], 250, rtol=1e-6), "the rest becomes peak / dgain"


def test_a_small_gain_never_makes_more_than_the_peak():
    assert Curve(0.5, 2.0).linearise(np.ones((2, 2, 3), np.float32), 1000.0).max() == 1000.0


# ------------------------------------------------------------------ prompt files
def test_prompt_files_of_the_original(golden):
    """Where the original found both numbers, the same ones; where it silently took others, an error."""
    data = torch.load(golden("hdr/tone_and_transforms.pt"), weights_only=True)["output"]["parse"]
    read = 0
    for case in data:
        keys = [line.partition(":")[0].strip() for line in case["text"].splitlines()]
        try:
            curve = parse_prompt(case["text"], "p.txt")
        except UnreadableFile:
            assert not {"dgain", "gamma"} <= set(keys) or "abc" in case["text"]
        else:
            read += 1
            assert (curve.dgain, curve.gamma) == (case["info"]["dgain"], case["info"]["gamma"])
    assert read == 1
    files = torch.load(golden("hdr/dataset.pt"), weights_only=True)["files"]
    for file in files.values():
        curve = parse_prompt(file["dgain_txt"], "p.txt")
        assert (curve.dgain, curve.gamma) == (file["dgain_info"]["dgain"], file["dgain_info"]["gamma"])


def test_last_line_counts_and_others_are_ignored():
    text = "\ufeffstrategy: a: b\n dgain:2\n\ngamma: 1.8 \nPSNR: x\nDGAIN: 9\ndgain: 4e0\n"
    assert decode_prompt(text.encode(), "p.txt") == Curve(4.0, 1.8)


def test_prompt_round_trip():
    curve = Curve(math.pi * 10, 2.2000000001)
    assert parse_prompt(format_prompt(curve), "p.txt") == curve


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"p\.txt: has no line 'dgain: <number>'"),
        ("dgain: 2", r"p\.txt: has no line 'gamma: <number>'"),
        ("dgain: 2\ngamma: abc", r"p\.txt:2: gamma is 'abc', which is not a number"),
        ("gamma: 2\n\ndgain:", r"p\.txt:3: dgain is '', which is not a number"),
        ("dgain: 0\ngamma: 2", r"p\.txt:1: dgain is 0; a positive number"),
        ("dgain: -1\ngamma: 2", r"p\.txt:1: dgain is -1; a positive number"),
        ("dgain: nan\ngamma: 2", r"p\.txt:1: dgain is nan; a positive number"),
        ("dgain: 1\ngamma: inf", r"p\.txt:2: gamma is inf; a positive number"),
    ],
)
def test_garbled_prompt_files(text, message):
    with pytest.raises(UnreadableFile, match=message):
        parse_prompt(text, "p.txt")


def test_a_prompt_file_that_is_none():
    with pytest.raises(UnreadableFile, match=r"p\.txt: is not a text file"):
        decode_prompt(b"\x89PNG\xff\xfe", "p.txt")


# ------------------------------------------------------------------ guesses and choices
def test_guesses_follow_the_exposure():
    """Twice the exposure is twice the guess, as long as nothing clips, and the guess is right for a scene of that key."""
    radiance = scene()
    key = log_average(radiance / np.float32(1000))
    for dgain in (0.25, 0.5, 1.0):
        picture = Curve(dgain, 2.2).develop(radiance, 1000.0).astype(np.float32)
        assert estimated_gain(picture, 2.2, key) == pytest.approx(dgain, rel=0.02)
    assert estimated_gain(np.zeros((4, 4, 3), np.float32), 2.2) > 0, "a black picture has a gain, too"


def test_choices():
    ldr, own = (scene() / 4).astype(np.uint8), Curve(3.0, 1.8)
    assert CurveChoice().of(ldr, own) == own and CurveChoice().needs_own
    assert CurveChoice(gamma=2.0).of(ldr, own) == Curve(3.0, 2.0) and CurveChoice(gamma=2.0).needs_own
    fixed = CurveChoice(dgain=2.0, gamma=2.0)
    assert fixed.of(ldr, None) == Curve(2.0, 2.0) and not fixed.needs_own
    guess = CurveChoice(estimate=True)
    assert not guess.needs_own and guess.of(ldr, own) == guess.of(ldr, None)
    assert guess.of(ldr, None).gamma == 2.2
    assert CurveChoice(estimate=True, gamma=1.0).of(ldr, None).gamma == 1.0
    for wrong, message in (
        ({"dgain": 0.0}, "dgain: a positive number is expected, not 0"),
        ({"gamma": -2.0}, "gamma: a positive number"),
        ({"scene_key": 0.0}, "scene_key: a positive number"),
        ({"scene_key": 0.1}, "scene_key has no effect without estimate_dgain: true"),
        ({"dgain": 1.0, "estimate": True}, "leave one out"),
    ):
        with pytest.raises(UserError, match=message):
            CurveChoice(**wrong)


def test_quantisation_and_compression():
    picture = image("p", 1, 3, 32, 32)[0].permute(1, 2, 0).numpy()
    exact = to_8_bits(picture)
    assert exact.dtype == np.uint8 and np.array_equal(exact, np.rint(picture * 255))
    flat = np.full((16, 16, 3), (0.8, 0.4, 0.1))
    assert np.abs(to_8_bits(flat, 95).astype(int) - to_8_bits(flat)).max() <= 4, "channels stay where they are"
    smooth = np.stack([*np.meshgrid(np.linspace(0, 1, 32), np.linspace(0, 1, 32)), np.full((32, 32), 0.5)], -1)
    errors = [np.abs(to_8_bits(smooth, q).astype(int) - to_8_bits(smooth)).mean() for q in (95, 20)]
    assert 0 < errors[0] < errors[1]
