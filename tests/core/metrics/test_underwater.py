"""UIQM, UCIQE and CCF: against the originals' values, against the formulas written out, and on images that are flat."""

import math

import cv2
import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.core.metrics import calculate_metric, ccf, fog, uiqm
from relume.core.metrics.fog_statistics import CLEAR_COVARIANCE, CLEAR_MEAN, FOGGY_COVARIANCE, FOGGY_MEAN


def photograph(height=72, width=70):
    """An image with colours, edges and texture by formula, uint8 RGB."""
    y, x = np.mgrid[:height, :width].astype(float)
    base = 120 + 70 * np.sin(x / 9) * np.cos(y / 7) + 50 * ((x // 16 + y // 12) % 2)
    texture = 12 * np.sin(2.3 * x + 1.7 * y)
    rgb = np.stack([0.7 * base + texture, base - 20 + 0.5 * texture, 1.1 * base - 30 * np.cos(x / 20)], axis=-1)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def underwater(image, depth):
    """What water leaves of it: red goes first, and a blue-green veil is added."""
    left = np.exp(-depth * np.array([1.2, 0.3, 0.2]))
    return (
        np.rint(image * left + 255 * np.array([0.05, 0.35, 0.45]) * (1 - np.exp(-depth))).clip(0, 255).astype(np.uint8)
    )


def score(kind, image, **options):
    return calculate_metric({"img": image}, {"type": f"calculate_{kind}", "color_order": "rgb", **options})


def flat(*colour, size=64):
    return np.full((size, size, 3), colour, np.uint8)


# ------------------------------------------------------------------ UIQM
def test_uiqm_of_funie(golden):
    case = torch.load(golden("underwater/metrics.pt"), weights_only=True)
    image = case["pred_u8_hwc"].numpy()
    assert score("uiqm_funie", image) == pytest.approx(case["uiqm"], abs=1e-6)
    rgb = image.astype(float)
    assert uiqm.colorfulness(rgb, lost=1) == pytest.approx(case["uicm"], abs=1e-6)
    assert uiqm.sharpness(rgb, (0.299, 0.587, 0.144)) == pytest.approx(case["uism"], abs=1e-6)
    assert uiqm.contrast(rgb) == pytest.approx(case["uiconm"], abs=1e-6)


def uicm_by_hand(rgb):
    parts = []
    for o in (rgb[..., 0] - rgb[..., 1], (rgb[..., 0] + rgb[..., 1]) / 2 - rgb[..., 2]):
        values = sorted(o.ravel())
        n = len(values)
        low, high = math.ceil(0.1 * n), math.floor(0.1 * n)
        mean = sum(values[low : n - high]) / (n - low - high)
        parts.append((mean, sum((v - mean) ** 2 for v in values) / n))
    (m1, v1), (m2, v2) = parts
    return -0.0268 * math.sqrt(m1**2 + m2**2) + 0.1586 * math.sqrt(v1 + v2)


def blocks(image):
    for top in range(0, image.shape[0] - 9, 10):
        for left in range(0, image.shape[1] - 9, 10):
            yield image[top : top + 10, left : left + 10]


def uism_by_hand(rgb):
    kernel = np.outer([1, 2, 1], [-1, 0, 1])
    total = 0.0
    for weight, channel in zip((0.299, 0.587, 0.114), np.moveaxis(rgb, 2, 0), strict=True):
        padded = np.pad(channel, 1, mode="symmetric")
        edges = np.zeros_like(channel)
        for i, j in np.ndindex(channel.shape):
            window = padded[i : i + 3, j : j + 3]
            edges[i, j] = math.hypot((window * kernel).sum(), (window * kernel.T).sum())
        product = edges / edges.max() * 255 * channel
        terms = [math.log(b.max() / b.min()) if b.min() > 0 else 0.0 for b in blocks(product)]
        total += weight * 2 * sum(terms) / len(terms)
    return total


def uiconm_by_hand(rgb):
    terms = []
    for b in blocks(rgb):
        m = (b.max() - b.min()) / (b.max() + b.min())
        terms.append(m * math.log(m))
    return -sum(terms) / len(terms)


def logamee_by_hand(rgb):
    """The PLIP mean over whole blocks, each difference, sum and product of intensities written out."""
    gray = rgb @ [0.299, 0.587, 0.114]
    k, total, blocks = 1026, 0.0, 0
    for y in range(0, gray.shape[0] // 10 * 10, 10):
        for x in range(0, gray.shape[1] // 10 * 10, 10):
            low, high = gray[y : y + 10, x : x + 10].min(), gray[y : y + 10, x : x + 10].max()
            m = (k * (high - low) / (k - low)) / (high + low - high * low / k)
            total += m * math.log(m) if m > 0 else 0
            blocks += 1
    return k - k * (1 - total / k) ** (1 / blocks)


def test_uiqm_formula():
    image = photograph(33, 41)
    rgb = image.astype(float)
    expected = 0.0282 * uicm_by_hand(rgb) + 0.2953 * uism_by_hand(rgb) + 3.5753 * logamee_by_hand(rgb)
    assert uiqm.contrast(rgb) == pytest.approx(uiconm_by_hand(rgb), abs=1e-9)
    assert score("uiqm", image) == pytest.approx(expected, abs=1e-9)


def test_uiqm_of_floats_is_that_of_the_rounded_image():
    image = photograph()
    noise = np.random.default_rng(0).uniform(-0.4, 0.4, image.shape)
    assert score("uiqm", (image + noise).clip(0, 255) / 255) == pytest.approx(score("uiqm", image), abs=1e-12)


# ------------------------------------------------------------------ UCIQE
def lab_by_hand(rgb):
    """sRGB (R, G, B) of 8 bits to 8-bit Lab under D65."""
    c = np.asarray(rgb) / 255
    linear = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    matrix = [[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]]
    xyz = np.array(matrix) @ linear / [0.950456, 1.0, 1.088754]
    fx, fy, fz = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return 2.55 * (116 * fy - 16), 500 * (fx - fy) + 128, 200 * (fy - fz) + 128


def test_uciqe_formula():
    colours = [(200, 40, 60), (10, 120, 90), (90, 90, 90), (20, 30, 200)]
    image = np.array(colours, np.uint8).reshape(2, 2, 3)
    values = [lab_by_hand(c) for c in colours]
    chroma = [math.hypot(a, b) / 255 for _, a, b in values]
    light = [v[0] / 255 for v in values]
    mean = sum(chroma) / 4
    spread = math.sqrt(sum(abs(1 - (mean / c) ** 2) for c in chroma) / 4)
    saturation = sum(c / math.hypot(c, v) for c, v in zip(chroma, light, strict=True)) / 4
    expected = 0.4680 * spread + 0.2745 * (max(light) - min(light)) + 0.2576 * saturation
    assert score("uciqe", image) == pytest.approx(expected, abs=0.01)  # Lab is rounded to whole numbers


def test_uciqe_leaves_out_one_percent_at_each_end():
    image = flat(100, 100, 100, size=40)  # 1600 pixels
    dotted = image.copy()
    dotted[0, :16] = 0
    dotted[1, :16] = 255
    lightness = cv2.cvtColor(dotted, cv2.COLOR_RGB2LAB)[..., 0]
    assert int(lightness.max()) - int(lightness.min()) == 255
    less = score("uciqe", dotted)
    dotted[2, :2] = 0
    dotted[3, :2] = 255
    assert score("uciqe", dotted) - less == pytest.approx(0.2745, abs=0.02)


# ------------------------------------------------------------------ CCF
def test_statistics_are_distributions():
    for mean, covariance in ((CLEAR_MEAN, CLEAR_COVARIANCE), (FOGGY_MEAN, FOGGY_COVARIANCE)):
        assert mean.shape == (12,)
        assert covariance.shape == (12, 12)
        assert (covariance == covariance.T).all()
        assert np.linalg.eigvalsh(covariance).min() > 0
    assert CLEAR_MEAN[[3, 9]] == pytest.approx([3.21585250666259, 0.171471878267803])
    assert CLEAR_COVARIANCE[4, 11] == -0.0141581226090149
    assert FOGGY_COVARIANCE[11, 11] == 0.34274648480752


def energies_by_hand(channel, noise):
    """Contrast energy everywhere, by explicit convolution sums."""
    x = np.arange(20) - 9.75
    gauss = np.exp(-(x**2) / (2 * 3.25**2))
    gauss /= gauss.sum()
    taps = (x**2 / 3.25**4 - 1 / 3.25**2) * gauss
    taps -= taps.mean()
    taps /= 0.5 * (x**2 * taps).sum()

    def convolved(line):
        framed = np.concatenate([line[:10], line, line[-10:]])
        return [sum(taps[j] * framed[i + 20 - j] for j in range(20)) for i in range(len(line))]

    across = np.array([convolved(row) for row in channel])
    down = np.array([convolved(column) for column in channel.T]).T
    response = np.sqrt(across**2 + down**2)
    return np.maximum(response * response.max() / (response + 0.1 * response.max()) - noise, 0)


def test_fog_features_of_a_patch():
    image = photograph(24, 32)
    rgb = image.astype(float)
    red, green, blue = np.moveaxis(rgb, 2, 0)
    gray = np.floor(0.298936021293775 * red + 0.587043074451121 * green + 0.114020904255103 * blue + 0.5)
    g = np.exp(-(np.arange(-3, 4) ** 2) / (2 * (7 / 6) ** 2))
    window = np.outer(g, g) / g.sum() ** 2
    padded = np.pad(gray, 3, mode="edge")
    local = [[padded[i : i + 7, j : j + 7] for j in range(32)] for i in range(24)]
    mean = np.array([[(window * b).sum() for b in row] for row in local])
    deviation = np.sqrt([[(window * (b - (window * b).sum()) ** 2).sum() for b in row] for row in local])
    mscn = (gray - mean) / (deviation + 1)
    patch = np.s_[8:16, 16:24]  # row 1, column 2 of 3 x 4
    products = (mscn * np.roll(mscn, 1, axis=0))[patch]
    rg, yb = (red - green), (red + green) / 2 - blue
    counts = np.unique(gray[patch], return_counts=True)[1] / 64
    largest, smallest = rgb.max(-1)[patch], rgb.min(-1)[patch]
    expected = [
        mscn[patch].var(ddof=1),
        products[products >= 0].var(ddof=1),
        products[products <= 0].var(ddof=1),
        deviation[patch].mean(),
        (deviation / mean)[patch].mean(),
        energies_by_hand(0.299 * red + 0.587 * green + 0.114 * blue, 9.225496406318721e-4 * 255)[patch].mean(),
        energies_by_hand(yb, 8.969246659629488e-4 * 255)[patch].mean(),
        energies_by_hand(rg, 2.069284034165411e-4 * 255)[patch].mean(),
        -(counts * np.log2(counts)).sum(),
        (smallest / 255).mean(),
        ((largest - smallest) / largest).mean(),
        math.sqrt(rg[patch].var(ddof=1) + yb[patch].var(ddof=1))
        + 0.3 * math.sqrt(rg[patch].mean() ** 2 + yb[patch].mean() ** 2),
    ]
    assert fog.patch_features(rgb)[1 * 4 + 2] == pytest.approx(np.log1p(expected), abs=1e-9)


def test_fog_distance_formula():
    features = fog.patch_features(photograph(16, 16).astype(float))
    features[1, 2] = np.nan  # a patch without negative products does not count
    distances = []
    for f in features[[0, 2, 3]]:
        own = np.full((12, 12), f.var(ddof=1))
        d = CLEAR_MEAN - f
        distances.append(math.sqrt(d @ np.linalg.inv((CLEAR_COVARIANCE + own) / 2) @ d))
    assert fog._mean_distance(features, CLEAR_MEAN, CLEAR_COVARIANCE) == pytest.approx(np.mean(distances), rel=1e-9)


def test_haze_is_foggier():
    image = photograph(96, 96).astype(float)
    densities = [fog.fog_density(np.rint(image * left + 220 * (1 - left))) for left in (1.0, 0.6, 0.3, 0.1)]
    assert densities == sorted(densities)
    assert densities[-1] > 3 * densities[0]


def test_ccf_parts():
    image = photograph(130, 70).astype(float)
    logs = np.log(image + 1e-5)
    r, g, b = np.moveaxis(logs - logs.mean((0, 1)), 2, 0)
    spread = sum(np.var([np.var(c, ddof=1) for c in o.T], ddof=1) for o in (r - g, (r + g) / 2 - b))
    assert ccf.colorfulness(image) == pytest.approx(1000 * math.sqrt(spread) / 85.59, rel=1e-9)
    gray = np.floor(image @ np.array(fog.GRAY) + 0.5)
    assert ccf.contrast(image) == pytest.approx((gray[:64, :64].std() + gray[64:128, :64].std()) / 2, rel=1e-9)
    image[:64, :64] = 80  # a flat block counts in the mean, and adds nothing
    assert ccf.contrast(image) == pytest.approx(gray[64:128, :64].std() / 2, rel=1e-9)


def test_a_block_counts_when_it_has_edges():
    block = np.full((64, 64), 100.0)
    assert not ccf._has_edges(block)
    block[:, 32:] = 101.0
    assert ccf._has_edges(block)


# ------------------------------------------------------------------ all
@pytest.mark.parametrize("kind", ["uiqm", "uiqm_funie", "uciqe", "ccf"])
def test_water_lowers_the_score(kind):
    image = photograph(128, 128)
    scores = [score(kind, underwater(image, depth)) for depth in (0.0, 1.0, 3.0)]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("kind", ["uiqm", "uiqm_funie", "uciqe", "ccf"])
@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (90, 90, 90), (255, 0, 0), (0, 0, 255)])
def test_flat_images_have_a_finite_score(kind, colour):
    of_black = kind == "ccf" and colour == (0, 0, 0)  # no patch is left for the fog density
    assert math.isnan(score(kind, flat(*colour))) if of_black else math.isfinite(score(kind, flat(*colour)))


@pytest.mark.parametrize("kind", ["uiqm", "uiqm_funie", "uciqe", "ccf"])
def test_color_order_and_ignored_reference(kind):
    image = photograph()
    expected = score(kind, image)
    bgr = {"img": image[..., ::-1], "img2": "not looked at"}
    assert calculate_metric(bgr, {"type": kind}) == expected
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    assert calculate_metric({"img": tensor}, {"type": kind}) == expected


@pytest.mark.parametrize(("kind", "side"), [("uiqm", 10), ("uiqm_funie", 10), ("uciqe", 1), ("ccf", 64)])
def test_the_smallest_image(kind, side):
    assert math.isfinite(score(kind, photograph(side, side)))
    if side > 1:
        with pytest.raises(UserError, match=f"calculate_{kind}: needs RGB and {side} pixels a side"):
            score(kind, photograph(side - 1, 80))
    with pytest.raises(UserError, match=f"calculate_{kind}: needs RGB"):
        score(kind, photograph()[..., :1])


def test_fingerprints():
    image = photograph()
    expected = {"uiqm": 0.876923, "uiqm_funie": 3.234747, "uciqe": 0.501873, "ccf": 27.416231}
    assert {kind: score(kind, image) for kind in expected} == pytest.approx(expected, abs=1e-6)
