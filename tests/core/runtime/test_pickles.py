"""Pickles read without running them: whatever was written into them by hand."""

from __future__ import annotations

import zipfile

import pytest
import torch

from relume.core.errors import UserError
from relume.core.runtime import pickles


def written(path, data, storages=None):
    """A file of torch.save's form with these bytes as its pickle."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        for key, value in (storages or {}).items():
            archive.writestr(f"archive/data/{key}", value)
    return path


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"cmodel_with_eca\nos\n.", "holds no network"),  # a stub class, not an instance, and nothing was imported
        (b"cos\nsystem\n(Vtouch x\ntR.", "names os.system, which is neither .*; nothing was run"),
        (b"cmodels.net\nNet\n.", r"names models.net.Net, which is neither .* --stub models\.net"),
        (b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93.", "names builtins.eval"),
        (b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.__init__\x93.", "names collections.OrderedDict.__init__"),
        (b"ctorch.nn.modules.conv\nConv2d\n)\x81}V_modules\n}Va\nNssb.", "holds no network's state dict"),
        (b"(Vfile\nVa\ntQ.", "an object of unknown kind"),
        (b"not a pickle", "cannot be read"),
    ],
)
def test_pickles_written_by_hand(tmp_path, data, message):
    with pytest.raises(UserError, match=message):
        pickles.read(written(tmp_path / "x.pth", data), ["model_with_eca"])


def test_tensors_stay_within_their_data(tmp_path):
    head = b"ctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI4\ntQ"
    tensor = head + b"I%d\n(I%d\nt(I%d\ntI00\nNtR"
    item = b"}Vw\n%bs."
    good = written(tmp_path / "good.pth", item % (tensor % (1, 3, 1)), {"0": torch.arange(4.0).numpy().tobytes()})
    assert pickles.read(good)["w"].tolist() == [1.0, 2.0, 3.0]
    for offset, size, stride in ((2, 3, 1), (0, 3, 2), (-1, 2, 1), (3, 2, -1)):
        path = written(tmp_path / "bad.pth", item % (tensor % (offset, size, stride)), {"0": bytes(16)})
        with pytest.raises(UserError, match="larger than its data"):
            pickles.read(path)
    with pytest.raises(UserError, match="larger than its data"):
        pickles.read(written(tmp_path / "bad.pth", item % (tensor % (0, 2, 1)), {"0": bytes(8)}))


def test_modules_that_contain_themselves_are_refused(tmp_path):
    loop = b"ctorch.nn.modules.container\nSequential\n)\x81q\x01}V_modules\n}Va\nh\x01ssb."
    with pytest.raises(UserError, match="holds no network"):
        pickles.read(written(tmp_path / "x.pth", loop))
