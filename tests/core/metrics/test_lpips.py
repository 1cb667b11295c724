"""LPIPS: the package's network, fed as it wants to be, built once; a missing trunk is one clear line."""

import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.core.metrics import calculate_metric
from relume.core.metrics import lpips as module

pytest.importorskip("lpips")
pytest.importorskip("torchvision")

PAIR = np.random.default_rng(0).integers(0, 256, (2, 40, 48, 3), np.uint8)


def score(pair=PAIR, **options):
    return calculate_metric(
        {"img": pair[0], "img2": pair[1]}, {"type": "calculate_lpips", "weights": "random", **options}
    )


def test_is_the_packages_distance_of_rgb_in_minus_one_to_one():
    net = module.network("alex", "random", torch.device("cpu"))
    x, y = (torch.from_numpy(p[..., ::-1].astype(np.float32) / 127.5 - 1).permute(2, 0, 1)[None] for p in PAIR)
    with torch.no_grad():
        expected = float(net(x, y))
    assert expected > 1e-3
    assert score() == pytest.approx(expected, rel=1e-5)
    assert score(PAIR[..., ::-1], color_order="rgb") == score()
    tensors = [torch.from_numpy(p[..., ::-1].copy()).permute(2, 0, 1) for p in PAIR]
    assert score(tensors) == pytest.approx(score(), rel=1e-6)
    assert score([t / 255 * 1.0 for t in tensors]) == pytest.approx(score(), rel=1e-4)


def test_properties():
    assert score((PAIR[1], PAIR[1])) == 0.0
    nearer = np.rint(0.5 * PAIR[0] + 0.5 * PAIR[1]).astype(np.uint8)
    assert score((nearer, PAIR[1])) < score()
    assert score(crop_border=3) == pytest.approx(score(PAIR[:, 3:-3, 3:-3]), rel=1e-6)


def test_the_network_is_built_once_and_works_outside_inference_mode():
    module.network.cache_clear()
    score()
    score()
    assert module.network.cache_info().misses == 1
    with torch.inference_mode():
        score(net="squeeze")
    assert score(net="squeeze") == score(net="squeeze")
    assert module.network.cache_info().misses == 2


@pytest.mark.parametrize(("net", "smallest"), [("alex", 31), ("squeeze", 17)])
def test_the_smallest_image(net, smallest):
    assert score(PAIR[:, :smallest, :smallest], net=net) > 0
    with pytest.raises(UserError, match=f"needs 3 channels and {smallest} pixels a side, got 3 of {smallest - 1}x40"):
        score(PAIR[:, : smallest - 1, :40], net=net)
    with pytest.raises(UserError, match="got 1 of 40x48"):
        score(PAIR[..., 0], net=net)


def test_a_missing_trunk_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"calculate_lpips: weights: .*nothing\.pth: no such file") as caught:
        score(weights=str(tmp_path / "nothing.pth"))
    assert "\n" not in str(caught.value)


def test_a_failed_download_is_one_line(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    module.network.cache_clear()
    with pytest.raises(UserError, match=r"calculate_lpips: cannot download .*alexnet.*no network") as caught:
        score(weights=None)
    assert "\n" not in str(caught.value)
