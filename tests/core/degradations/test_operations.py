"""Degradations as a list: registration, order, draws, codecs, and mistakes."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch

from relume.core.degradations import DEGRADATIONS, build_degradation
from relume.core.degradations.codecs import recompress
from relume.core.degradations.draws import Draws
from relume.core.degradations.engines import Engine, OpenCVEngine
from relume.core.degradations.operations import Degradation, DegradationList, Target
from relume.core.errors import UserError


def built(*blocks: dict[str, Any]) -> DegradationList:
    return DegradationList([build_degradation(b) for b in blocks])


class Mark(Degradation):
    """Writes down when it is its turn."""

    def __init__(self, name: str, told: list[str]) -> None:
        self.name, self.told = name, told

    def apply(self, image: torch.Tensor, draws: Draws, engine: Engine, target: Target) -> torch.Tensor:
        self.told.append(self.name)
        return image


ISSUE = (
    {"type": "blur", "kernel": "aniso"},
    {"type": "resize", "factor": [0.5, 1.0]},
    {"type": "noise"},
    {"type": "compress", "codec": ["jpeg", "webp"], "quality": [30, 95]},
    {"type": "shuffle"},
)


def test_a_list_gives_the_final_size_on_the_8_bit_grid_and_the_same_again() -> None:
    image = torch.rand(3, 48, 60)
    run = built(*ISSUE)
    first, again, other = (run(image, Draws(seed), OpenCVEngine(), 2) for seed in (1, 1, 2))
    assert first.shape == (3, 24, 30)
    assert torch.equal((first * 255).round() / 255, first)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_shuffle_puts_those_before_it_in_every_order() -> None:
    told: list[str] = []
    shuffle = build_degradation({"type": "shuffle"})
    run = DegradationList([*(Mark(n, told) for n in "abc"), shuffle, Mark("d", told)])
    orders: Counter[str] = Counter()
    for seed in range(600):
        told.clear()
        run(torch.rand(3, 4, 4), Draws(seed), Engine(), 1)
        orders["".join(told)] += 1
    assert {o[-1] for o in orders} == {"d"}
    assert len(orders) == 6
    assert min(orders.values()) > 60


def test_an_operation_more_leaves_the_draws_of_those_before_it() -> None:
    image = torch.rand(3, 32, 32)
    noise = {"type": "noise", "prob": 0.5}
    alone = built(noise)(image, Draws(4), Engine(), 1)
    both = built(noise, {"type": "blur", "prob": 0.0})(image, Draws(4), Engine(), 1)
    assert torch.equal(alone, both)


def test_bsrgan_gives_what_it_should() -> None:
    image = torch.rand(3, 64, 64)
    run = built({"type": "bsrgan"})
    for seed in range(12):
        lq = run(image, Draws(seed), OpenCVEngine(), 4)
        assert lq.shape == (3, 16, 16)
        assert torch.isfinite(lq).all()


@pytest.mark.parametrize("codec", ["jpeg", "webp", "avif", "h264", "h265"])
def test_codecs_are_nearer_at_higher_quality(codec: Any) -> None:
    if codec == "avif":
        cv2 = pytest.importorskip("cv2")
        if not cv2.haveImageWriter("x.avif"):
            pytest.skip("this OpenCV has no AVIF")
    if codec.startswith("h26"):
        pytest.importorskip("av")
    y, x = np.mgrid[:45, :51]
    pixels = np.stack([(np.sin(x / 3) + 1) * 120, (np.cos(y / 4) + 1) * 120, (x * 5 + y * 3) % 256], -1).astype(
        np.uint8
    )
    errors = []
    for quality in (5, 50, 95):
        result = recompress(pixels, codec, quality)
        assert result.shape == pixels.shape
        assert result.dtype == np.uint8
        errors.append(np.abs(result.astype(float) - pixels).mean())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 12
    assert np.array_equal(recompress(pixels, codec, 50), recompress(pixels, codec, 50))


def test_every_operation_is_documented_and_registered() -> None:
    assert {"blur", "bsrgan", "compress", "noise", "resize", "shuffle"} <= set(DEGRADATIONS.names())


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([], "give at least one"),
        ([{"type": "shuffle"}], "needs two operations before it"),
        ([{"type": "blur", "size": (7, 8)}], "size: must be a range .* of odd sizes"),
        ([{"type": "compress", "quality": (0, 50)}], "quality: must be"),
        (
            [{"type": "compress", "codec": ["jpeg", "webp"], "codec_prob": [0.5, 0.4]}],
            "codec_prob: must be probabilities",
        ),
        ([{"type": "noise", "kind": ["gaussian", "poisson"], "kind_prob": [1.0]}], "has 1 probabilities for the 2"),
        ([{"type": "blurr"}], "blur"),
    ],
)
def test_mistakes_are_refused(blocks: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        built(*blocks)


def test_the_tensor_engine_says_that_it_has_no_webp() -> None:
    with pytest.raises(UserError, match="engine: opencv"):
        built({"type": "compress", "codec": "webp"})(torch.rand(3, 16, 16), Draws(0), Engine(), 1)
