"""The Inception network of FID, against torch-fidelity's port of TensorFlow's graph."""

from __future__ import annotations

import pytest
import torch
from filling import waves

from relume.core.errors import UserError
from relume.core.features import build_features
from relume.core.features.inception import InceptionFID, resize_like_tensorflow1
from relume.core.runtime import checkpoint


@pytest.fixture(scope="module")
def extractor() -> InceptionFID:
    return build_features({"type": "inception_fid", "weights": "random"})


def test_resizing_begins_at_the_corner() -> None:
    ramp = torch.arange(4.0).expand(1, 1, 4, 4)
    found = resize_like_tensorflow1(ramp, 8)
    assert found[0, 0, 3].tolist() == [0, 0.5, 1, 1.5, 2, 2.5, 3, 3]
    assert torch.equal(resize_like_tensorflow1(ramp.mT, 8), found.mT)


def test_features_and_logits_equal_torch_fidelitys(extractor: InceptionFID, tmp_path) -> None:
    port = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    torch.save(extractor.network.state_dict(), tmp_path / "w.pth")
    theirs = port.FeatureExtractorInceptionV3("x", ["2048", "logits_unbiased"], str(tmp_path / "w.pth"))
    levels = (waves("inception", (2, 3, 24, 31)) * 127.5 + 127.5).round().to(torch.uint8)
    features, logits = theirs(levels)
    found = extractor(levels / 127.5 - 1)
    assert found.shape == (2, 2048) and found.dtype == torch.float32
    torch.testing.assert_close(found, features, rtol=1e-5, atol=1e-5 * float(features.abs().max()))
    torch.testing.assert_close(extractor.classify(found), logits, rtol=1e-4, atol=1e-5 * float(logits.abs().max()))
    # Its published file fits: the same names and shapes.
    assert build_features({"type": "inception_fid", "weights": str(tmp_path / "w.pth")}).id == extractor.id
    with pytest.raises(UserError, match="is not the file asked for: its SHA-256 is"):
        build_features({"type": "inception_fid", "weights": str(tmp_path / "w.pth"), "sha256": "00ff"})


def test_weights_that_are_missing_or_others_are_one_line(tmp_path) -> None:
    with pytest.raises(UserError, match=r"there is no file .*w\.pth\. Fetch https://\S+ and put it there"):
        build_features({"type": "inception_fid", "weights": str(tmp_path / "w.pth")})
    checkpoint.save(tmp_path / "w.pth", {"a": torch.zeros(2)})
    with pytest.raises(UserError, match="does not fit") as e:
        build_features({"type": "inception_fid", "weights": str(tmp_path / "w.pth")})
    assert "\n" not in str(e.value)
