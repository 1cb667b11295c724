"""Metrics of other libraries by dotted name: the library's own values, and a line for what is none of its metrics."""

from __future__ import annotations

import logging
import math
from typing import Any

import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.core.metrics import METRICS, calculate_metric, needs_reference
from relume.core.metrics.scoring import Scorer

X, Y = np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), np.uint8)


def tensors(scale: float = 1.0, shift: float = 0.0) -> list[torch.Tensor]:
    """The images as the libraries want them: RGB."""
    return [
        torch.from_numpy(i[..., ::-1] / 255.0 * scale + shift).float().permute(2, 0, 1)[None].contiguous()
        for i in (X, Y)
    ]


def score(kind: str, **options: Any) -> float:
    return calculate_metric({"img": X, "img2": Y}, {"type": kind, "better": "lower", **options})


def test_functions_and_classes_of_piq() -> None:
    piq = pytest.importorskip("piq")
    assert score("piq.gmsd") == pytest.approx(float(piq.gmsd(*tensors())), rel=1e-6)
    assert score("piq.gmsd", t=0.01) == pytest.approx(float(piq.gmsd(*tensors(), t=0.01)), rel=1e-6)
    assert score("piq.vif_p", data_range=255) == pytest.approx(
        float(piq.vif_p(*tensors(255), data_range=255)), rel=1e-5
    )
    assert score("piq.GMSDLoss") == pytest.approx(float(piq.GMSDLoss()(*tensors())), rel=1e-6)
    assert score("piq.total_variation") == pytest.approx(float(piq.total_variation(tensors()[0])), rel=1e-6)
    cut = [t[..., 4:-4, 4:-4] for t in tensors()]
    assert score("piq.gmsd", crop_border=4) == pytest.approx(float(piq.gmsd(*cut)), rel=1e-6)


def test_functions_and_classes_of_torchmetrics(caplog: pytest.LogCaptureFixture) -> None:
    image = pytest.importorskip("torchmetrics.image")
    kind = "torchmetrics.image.VisualInformationFidelity"
    expected = image.VisualInformationFidelity()(*tensors(255))
    assert score(kind, data_range=255) == pytest.approx(float(expected), rel=1e-5)
    with caplog.at_level(logging.INFO, "relume"):
        assert score(kind) == pytest.approx(float(image.VisualInformationFidelity()(*tensors())), rel=1e-4)
    assert "is given images in [0, 1]" in caplog.text
    psnr = "torchmetrics.image.PeakSignalNoiseRatio"
    assert score(psnr, data_range=1.0) == pytest.approx(score("calculate_psnr"), abs=1e-4)
    assert score(psnr, data_range=1.0) == score(psnr, data_range=1.0)  # nothing is kept from image to image
    expected = image.SpectralAngleMapper()(*tensors(2, -1))
    assert score("torchmetrics.image.SpectralAngleMapper", data_range=[-1, 1]) == pytest.approx(
        float(expected), rel=1e-5
    )
    assert score("torchmetrics.functional.image.structural_similarity_index_measure", data_range=1.0) == pytest.approx(
        float(image.StructuralSimilarityIndexMeasure(data_range=1.0)(*tensors())), rel=1e-5
    )
    assert not needs_reference("torchmetrics.image.TotalVariation") and needs_reference(psnr)


def test_arrays_of_skimage() -> None:
    from skimage import metrics

    x, y = (i[..., ::-1].astype(np.float32) / np.float32(255) for i in (X, Y))
    expected = metrics.structural_similarity(x, y, channel_axis=-1, data_range=1.0)
    assert score("skimage.metrics.structural_similarity", channel_axis=-1) == pytest.approx(float(expected), rel=1e-5)
    expected = metrics.normalized_mutual_information(x, y, bins=50)
    assert score("skimage.metrics.normalized_mutual_information", bins=50) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_scores_nan(value: float, which: int) -> None:
    pytest.importorskip("piq")
    pair = [X / np.float32(255), Y / np.float32(255)]
    pair[which][0, 0, 0] = value
    assert math.isnan(calculate_metric(dict(zip(("img", "img2"), pair, strict=True)), {"type": "piq.gmsd"}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("os.system", "os.system: metrics with dotted names are of piq, torchmetrics"),
        ("builtins.eval", "builtins.eval: metrics with dotted names are of"),
        ("torch.load", "torch.load: metrics with dotted names are of"),
        ("pyiqa.create_metric", "pyiqa is left out for its licence"),
        ("piqq.gmsd", "Did you mean 'piq'"),
        ("piq.gmsdd", "piq has no 'gmsdd'. Did you mean 'gmsd'"),
        ("piq.os.system", "'os'|is not a metric of piq"),
        ("piq.torch.load", "is not a metric of piq|has no 'torch'"),
        ("piq.functional", "is not a metric of piq"),
        ("piq.__loader__", "no public name"),
        ("piq.FID", "scores sets of images"),
        ("piq.", "no metric is called 'piq.'"),
        (".gmsd", "no metric is called '.gmsd'"),
        ("torchmetrics.image.FrechetInceptionDistance", "scores sets of images"),
        ("torchmetrics.image.InceptionScore", "scores sets of images"),
        ("skimage.io.imread", "only what is in skimage.metrics"),
        ("kornia.metrics.psnr", "needs kornia, which is not installed"),
    ],
)
def test_what_is_no_metric_is_one_line(name: str, message: str) -> None:
    pytest.importorskip("piq")
    with pytest.raises(UserError, match=message) as caught:
        score(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("piq.gmsd", {"tt": 1}, "unknown key 'tt' in piq.gmsd"),
        ("piq.gmsd", {"reduction": "none"}, None),
        ("piq.gmsd", {"reduction": "some"}, "piq.gmsd: "),
        ("piq.gmsd", {"data_range": 0}, "white must be above black"),
        ("piq.ssim", {"full": True}, "gives .*not one number"),
        ("piq.multi_scale_ssim", {}, "piq.multi_scale_ssim: "),  # too small for it
    ],
)
def test_what_a_metric_cannot_do_is_one_line(name: str, options: dict[str, Any], message: str | None) -> None:
    pytest.importorskip("piq")
    if message is None:
        assert math.isfinite(score(name, **options))
        return
    with pytest.raises(UserError, match=message) as caught:
        score(name, **options)
    assert "\n" not in str(caught.value)


def test_the_direction_must_be_said() -> None:
    pytest.importorskip("piq")
    with pytest.raises(UserError, match="give better: lower"):
        Scorer({"gmsd": {"type": "piq.gmsd"}}, {})
    scorer = Scorer({"gmsd": {"type": "piq.gmsd", "better": "lower"}}, {})
    assert scorer.better == {"gmsd": "lower"}
    images = [torch.from_numpy(i / 255.0).float().permute(2, 0, 1)[None] for i in (X, Y)]
    scores, failures = scorer.of_image("set", *images, {})
    assert not failures
    # The evaluation's images are RGB; here X and Y are taken for that.
    expected = calculate_metric({"img": X[..., ::-1], "img2": Y[..., ::-1]}, {"type": "piq.gmsd"})
    assert scores["gmsd"] == pytest.approx(expected, rel=1e-6)
    with pytest.raises(UserError, match="space: encoded"):
        Scorer({"gmsd": {"type": "piq.gmsd", "better": "lower", "space": "linear"}}, {})


def test_forms_are_listed() -> None:
    assert "piq.<metric>" in METRICS.library_names()
    with pytest.raises(UserError, match="write the metric's name"):
        score("piq.<metric>")
