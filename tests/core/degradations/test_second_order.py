"""The second-order chain against the original, its draws against their laws, and its two engines against each other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from relume.core.degradations.draws import Draws
from relume.core.degradations.engines import Engine, OpenCVEngine
from relume.core.degradations.jpeg import DiffJPEG
from relume.core.degradations.second_order import (
    MODES,
    BlurOptions,
    SecondOrder,
    degrade_one,
    degrade_second_order,
    draw_final_kernel,
    synthesise,
)
from relume.core.errors import UserError


def photograph(height: int = 96, width: int = 112) -> Tensor:
    """Smooth shapes with edges, (3, H, W)."""
    y, x = torch.meshgrid(torch.linspace(0, 6, height), torch.linspace(0, 7, width), indexing="ij")
    return torch.stack([(x.sin() * y.cos() + 1) / 2, ((x + y).sin() > 0).float() * 0.8 + 0.1, (y * 0.9).cos() ** 2])


def kernels(seed: int) -> list[Tensor]:
    draws = Draws(seed)
    drawn = [BlurOptions().draw(draws.part(n)) for n in "ab"] + [draw_final_kernel(draws.part("c"), 0.8, (7, 21))]
    return [torch.from_numpy(k).float() for k in drawn]


# ------------------------------------------------------------------ the original
def test_the_chain_equals_the_original(golden: Callable[[str], Path]) -> None:
    for case in torch.load(golden("adversarial/degradation_chain.pt"), weights_only=True)["cases"]:
        count = len(case["gt"])
        draws = [
            {**case["draws"], **{f"quality{n}": float(case["draws"][f"quality{n}"][i]) for n in (1, 2)}}
            for i in range(count)
        ]
        met = []

        def noise(stage: int, sample: int, image: Tensor, case: dict = case, met: list = met) -> Tensor:
            met.append((image - case["after"][f"resize{stage}"][sample]).abs().max().item())
            return case["after"][f"noise{stage}"][sample]

        names = ("gt_usm", "kernel1", "kernel2", "sinc_kernel")
        lq = degrade_second_order(*(case[n] for n in names), draws, case["scale"], noise)
        assert len(met) == 2 * count
        assert max(met[::2]) <= 3e-5
        difference = (lq - case["after"]["lq"]).abs()
        assert (difference > case["atol"]).float().mean() <= case["may_differ"], case["name"]


def test_the_first_resize_maps_positions_by_the_factor() -> None:
    image = torch.rand(3, 40, 40)
    ours = Engine().rescale(image, 0.61, "bilinear")
    assert ours.shape == (3, 24, 24)
    assert (ours - Engine().resize(image, (24, 24), "bilinear")).abs().max() > 0.05


# ------------------------------------------------------------------ draws
def test_draws_follow_the_stated_laws() -> None:
    """Chi-square and Kolmogorov-Smirnov tests of fixed seeds, at a level that chance reaches once in a thousand."""
    options = SecondOrder()
    drawn = [options.decide(Draws(seed)) for seed in range(4000)]

    def fits(counts: Counter, expected: dict) -> bool:
        seen = [counts[k] for k in expected]
        total = sum(seen)
        assert total == len(drawn)
        return bool(stats.chisquare(seen, [total * p for p in expected.values()]).pvalue > 1e-3)

    for stage, probabilities in ((1, options.resize_prob), (2, options.resize_prob2)):
        expected = dict(zip(("up", "down", "keep"), probabilities, strict=True))
        assert fits(Counter(d[f"updown{stage}"] for d in drawn), expected)
    for n in (1, 2, 3):
        assert fits(Counter(d[f"mode{n}"] for d in drawn), dict.fromkeys(MODES, 1 / 3))
    coins = {"gaussian1": 0.5, "gray1": 0.4, "blur2": 0.8, "gaussian2": 0.5, "gray2": 0.4, "sinc_first": 0.5}
    for name, p in coins.items():
        assert fits(Counter(d[name] for d in drawn), {True: p, False: 1 - p}), name
    for values, (low, high) in (
        ([d["scale1"] for d in drawn if d["updown1"] == "down"], (0.15, 1)),
        ([d["scale2"] for d in drawn if d["updown2"] == "up"], (1, 1.2)),
        ([d["amount1"] for d in drawn if d["gaussian1"]], (1, 30)),
        ([d["amount2"] for d in drawn if not d["gaussian2"]], (0.05, 2.5)),
        ([d["quality1"] for d in drawn], (30, 95)),
        ([d["quality2"] for d in drawn], (30, 95)),
    ):
        assert stats.kstest(values, "uniform", (low, high - low)).pvalue > 1e-3


def test_draws_of_one_sample_are_independent_of_each_other() -> None:
    drawn = [SecondOrder().decide(Draws(seed)) for seed in range(2000)]
    columns = np.array(
        [[d["quality1"], d["quality2"], d["gray1"], d["gray2"], d["sinc_first"], d["blur2"]] for d in drawn]
    )
    correlation = np.corrcoef(columns.T) - np.eye(6)
    assert np.abs(correlation).max() < 0.08


def test_a_draw_depends_on_its_name_and_seed_alone() -> None:
    first = Draws(7)
    alone = first.uniform("b")
    again = Draws(7)
    again.uniform("a")
    assert again.uniform("b") == alone != Draws(8).uniform("b")
    assert first.part("x").uniform("b") != alone
    assert Draws(7).uniform("b") == 0.7701528818380083  # in every process, and in every version


def test_sizes_of_kernels_and_sincs_come_as_often_as_they_should() -> None:
    drawn = [draw_final_kernel(Draws(seed), 0.8, (7, 21)) for seed in range(600)]
    assert sum(k[10, 10] == 1 for k in drawn) == pytest.approx(120, abs=35)
    widths = Counter(int((k != 0).any(axis=0).sum()) for k in drawn if k[10, 10] != 1)
    assert set(widths) == set(range(7, 22, 2))


def test_noise_is_each_samples_own() -> None:
    """The original draws gray noise once for a batch."""
    image = torch.full((3, 24, 24), 0.5)
    fields = [Engine().gaussian(image, 20, True, Draws(seed)) - image for seed in (1, 2)]
    assert torch.equal(fields[0][0], fields[0][2])
    assert not torch.equal(fields[0], fields[1])


@pytest.mark.parametrize("gray", [False, True])
def test_noise_has_the_stated_mean_and_variance(gray: bool) -> None:
    image = (torch.arange(200 * 200) % 64).reshape(1, 200, 200).repeat(3, 1, 1) / 255 * 2 + 0.2
    normal = Engine().gaussian(image, 20, gray, Draws(3)) - image
    assert normal.mean().item() == pytest.approx(0, abs=1e-3)
    assert normal.std().item() * 255 == pytest.approx(20, rel=0.03)
    shot = Engine().poisson(image, 0.7, gray, Draws(3)) - image
    photons = 64  # as many distinct values: a power of two already
    assert shot.mean().item() == pytest.approx(0, abs=2e-3)
    assert shot.var().item() == pytest.approx(0.49 * image.mean().item() / photons, rel=0.05)


def test_poisson_noise_of_a_constant_image_is_possible() -> None:
    assert torch.isfinite(Engine().poisson(torch.full((3, 16, 16), 0.3), 1.0, False, Draws(1))).all()


# ------------------------------------------------------------------ engines
class OpenCVWithoutCodecs(OpenCVEngine):
    """OpenCV's engine with JPEG by tensors, as the comparison needs it."""

    def compress(self, image: Tensor, codec: str, quality: float) -> Tensor:
        return DiffJPEG(False)(image[None].clamp(0, 1), quality)[0]


@pytest.mark.parametrize("seed", range(6))
def test_both_engines_compute_the_same(seed: int) -> None:
    decisions = SecondOrder().decide(Draws(seed))
    results = [
        degrade_one(photograph(), kernels(seed), decisions, 2, engine) for engine in (Engine(), OpenCVWithoutCodecs())
    ]
    assert ((results[0] - results[1]).abs() > 1.01 / 255).float().mean() <= 0.01


@pytest.mark.parametrize("mode", MODES)
def test_both_engines_resize_alike(mode: str) -> None:
    for size in ((31, 45), (150, 130)):
        ours = [e.resize(photograph(), size, mode) for e in (Engine(), OpenCVEngine())]
        assert (ours[0] - ours[1]).abs().max() < 3e-5


def test_both_engines_blur_alike() -> None:
    kernel = kernels(3)[0]
    ours = [e.blur(photograph(), kernel) for e in (Engine(), OpenCVEngine())]
    assert (ours[0] - ours[1]).abs().max() < 1e-5


def test_real_jpeg_is_near_the_standard_table() -> None:
    image = photograph()[:1].repeat(3, 1, 1)  # gray: libjpeg enlarges chroma smoothly, which is another matter
    real = OpenCVEngine().compress(image, "jpeg", 60)
    near, far = (Engine(table).compress(image, "jpeg", 60) for table in ("standard", "basicsr"))
    assert (near - real).abs().mean() < min(1 / 255, (far - real).abs().mean())


def test_the_result_has_the_expected_size_and_grid() -> None:
    for engine in (Engine(), OpenCVEngine()):
        lq = degrade_one(photograph(90, 101), kernels(1), SecondOrder().decide(Draws(1)), 4, engine)
        assert lq.shape == (3, 22, 25)
        assert torch.equal((lq * 255).round() / 255, lq)


# ------------------------------------------------------------------ batches
def test_a_sample_does_not_depend_on_its_batch() -> None:
    seeds = torch.tensor([5, 2**62 + 11, 17])
    gt = torch.stack([photograph(), photograph().flip(-1), photograph().flip(-2)])
    drawn = [kernels(int(s)) for s in seeds]
    batch = {
        "gt": gt,
        "seed": seeds,
        **{n: torch.stack([k[i] for k in drawn]) for i, n in enumerate(("kernel1", "kernel2", "sinc_kernel"))},
    }
    whole = synthesise(batch, SecondOrder(), 2, 48, Engine())
    assert whole["lq"].shape == (3, 3, 24, 24)
    alone = synthesise({k: v[1:2] for k, v in batch.items()}, SecondOrder(), 2, 48, Engine())
    for name in ("lq", "gt", "degraded"):
        assert torch.equal(whole[name][1:2], alone[name])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(synthesise(batch, SecondOrder(), 2, 48, Engine())["lq"], whole["lq"])


def test_patches_of_input_and_target_show_the_same() -> None:
    nothing = SecondOrder(
        resize_prob=[0, 0, 1], resize_prob2=[0, 0, 1], gaussian_noise_prob=1, gaussian_noise_prob2=1, noise_range=(0, 0),
        noise_range2=(0, 0), jpeg_range=(100, 100), jpeg_range2=(100, 100), second_blur_prob=0,
    )  # fmt: skip
    pulse = torch.zeros(1, 21, 21)
    pulse[0, 10, 10] = 1
    batch = {
        "gt": photograph()[None, :1].repeat(1, 3, 1, 1),
        "seed": torch.tensor([3]),
        "kernel1": pulse,
        "kernel2": pulse,
        "sinc_kernel": pulse,
    }
    made = synthesise(batch, nothing, 1, 40, Engine())
    assert (made["lq"] - made["gt"]).abs().mean() < 1.5 / 255


# ------------------------------------------------------------------ mistakes
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resize_prob": [0.2, 0.7, 0.2]}, "resize_prob: must be three probabilities"),
        ({"jpeg_range": [0, 95]}, "jpeg_range: must be a range .* from 1 to 100"),
        ({"jpeg_range2": [30, 101]}, "jpeg_range2: must be"),
        ({"gray_noise_prob": 1.5}, "gray_noise_prob: must be at least 0 and at most 1"),
        ({"noise_range": [30, 1]}, "noise_range: must be a range"),
        ({"noise_rang": [1, 30]}, "unknown key 'noise_rang'"),
    ],
)
def test_wrong_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        SecondOrder.of(options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kernel_range": (7, 20)}, "odd sizes"),
        ({"kernel_prob": [0.5, 0.5]}, "has 2 probabilities for the 6 entries of kernel_list"),
        ({"kernel_prob": [0.5, 0.6]}, "sum to 1"),
    ],
)
def test_wrong_kernel_options_are_refused(options: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        BlurOptions(**options)
