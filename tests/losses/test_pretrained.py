"""Weights from files, from the cache, from nowhere."""

from __future__ import annotations

from urllib.error import URLError

import pytest
import torch

from relume.core.errors import UserError
from relume.losses import build_loss
from relume.losses.pretrained import downloaded, pretrained_state, random_state

URL = "https://example.org/models/net-0123abcd.pth"
SHAPES = {"features.0.weight": torch.Size([4, 3, 3, 3]), "features.0.bias": torch.Size([4])}


@pytest.fixture
def hub(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def state(**changed):
    full = {key: torch.ones(shape) for key, shape in SHAPES.items()}
    return {**full, "classifier.weight": torch.ones(2), **{k.replace("__", "."): v for k, v in changed.items()}}


def test_a_file_gives_what_is_asked_for(tmp_path):
    torch.save({k: v.half() for k, v in state().items()}, tmp_path / "w.pth")
    got = pretrained_state("it", str(tmp_path / "w.pth"), lambda: URL, SHAPES)
    assert {k: (v.shape, v.dtype) for k, v in got.items()} == {k: (s, torch.float32) for k, s in SHAPES.items()}


def test_files_that_do_not_serve_are_named(tmp_path):
    path = tmp_path / "w.pth"

    def message(content=None):
        if content is not None:
            torch.save(content, path)
        with pytest.raises(UserError) as e:
            pretrained_state("it", str(path), lambda: URL, SHAPES)
        assert str(path) in str(e.value) and "\n" not in str(e.value)
        return str(e.value)

    assert "no such file" in message()
    assert "features.0.bias should have shape (4,), there is (5,)" in message(state(features__0__bias=torch.ones(5)))
    assert "there is nothing" in message({"features.0.weight": torch.ones(4, 3, 3, 3)})
    assert "holds no state dict but list" in message([1, 2])
    path.write_bytes(path.read_bytes()[:40])
    assert "cannot be read" in message()


def test_a_failed_download_says_what_to_fetch_and_where_to_put_it(hub, monkeypatch):
    def fail(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    with pytest.raises(UserError) as e:
        pretrained_state("PerceptualLoss", None, lambda: URL, SHAPES)
    text = str(e.value)
    assert text.startswith("PerceptualLoss: cannot download") and "\n" not in text
    assert URL in text and str(hub / "net-0123abcd.pth") in text and "no route to host" in text


def test_a_download_is_checked_cached_and_not_repeated(hub, monkeypatch):
    calls = []

    def fetch(url, path, prefix, progress):
        calls.append((url, prefix))
        torch.save(state(), path)

    monkeypatch.setattr(torch.hub, "download_url_to_file", fetch)
    for _ in range(2):
        assert downloaded("it", URL) == hub / "net-0123abcd.pth"
        assert set(pretrained_state("it", None, lambda: URL, SHAPES)) == set(SHAPES)
    assert calls == [(URL, "0123abcd")]


def test_random_weights_are_the_same_every_time_and_scaled_by_fan_in():
    shapes = {"a.weight": torch.Size([64, 32, 3, 3]), "a.bias": torch.Size([64])}
    torch.manual_seed(1)
    first = random_state(shapes)
    untouched = torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == untouched  # the global generator was left alone
    assert all(torch.equal(v, random_state(shapes)[k]) for k, v in first.items())
    assert float(first["a.weight"].std()) == pytest.approx((2 / 288) ** 0.5, rel=0.02)
    assert not first["a.bias"].any()


def test_vgg_loss_without_weights_names_the_network_and_the_file(hub, monkeypatch):
    def fail(*_, **__):
        raise URLError("no route to host")

    monkeypatch.setattr(torch.hub, "download_url_to_file", fail)
    for kind in ("VGGLoss", "PerceptualLoss"):
        with pytest.raises(
            UserError, match=rf"\(VGG19\): cannot download .*/vgg19-\w+\.pth \(.*Put that file at {hub}/vgg19-"
        ):
            build_loss({"type": kind, "layer_weights": {"conv5_4": 1.0}})
