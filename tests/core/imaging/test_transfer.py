"""Transfer functions: values from their formulas and standards, each pair inverse to each other, arrays like tensors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from relume.core.errors import UserError
from relume.core.imaging.transfer import PQ, PU21, TRANSFERS, as_transfer

FITS = ("banding", "banding_glare", "peaks", "peaks_glare")


@pytest.mark.parametrize("name", TRANSFERS.names())
def test_decoding_undoes_encoding(name):
    transfer = as_transfer(name)
    x = torch.tensor([2e-3, 0.5, 18.0, 999.0, 1000.0, 2400.0], dtype=torch.float64)
    torch.testing.assert_close(transfer.decode(transfer.encode(x)), x, rtol=1e-8, atol=0)
    torch.testing.assert_close(transfer.decode(transfer.encode(x.float())), x.float(), rtol=5e-4, atol=0)


@pytest.mark.parametrize("name", TRANSFERS.names())
def test_encodings_increase_from_0_to_1_at_the_peak_and_beyond(name):
    for peak in (1.0, 1000.0):
        transfer = TRANSFERS.build({"type": name, "peak": peak})
        y = transfer.encode(torch.linspace(0, 2 * peak, 4001, dtype=torch.float64))
        assert (y.diff() > 0).all()
        assert float(y[0]) == pytest.approx(0, abs=1e-4)
        assert float(y[2000]) == pytest.approx(1, abs=2e-9 if peak > 1 else 1e-6)


@pytest.mark.parametrize("name", TRANSFERS.names())
def test_decoding_what_a_network_may_make(name):
    """Below 0 is black, above the end of a standard is its end, NaN is not hidden."""
    radiance = as_transfer(name).decode(torch.tensor([-0.5, 0.0, 1.2, 3.0, math.nan]))
    assert radiance[0] == radiance[1] < 2e-3
    assert 1000 < radiance[2] <= radiance[3] < math.inf
    assert radiance[4].isnan()


@pytest.mark.parametrize("name", TRANSFERS.names())
def test_arrays_are_encoded_as_tensors_are_and_keep_their_precision(name):
    transfer = as_transfer(name)
    x = np.linspace(0, 1500, 60).reshape(4, 5, 3)[:, ::-1]
    for dtype in (np.float32, np.float64):
        y = transfer.encode(x.astype(dtype))
        assert isinstance(y, np.ndarray) and y.dtype == dtype
        assert np.array_equal(y, transfer.encode(torch.from_numpy(x.astype(dtype).copy())).numpy())
        assert transfer.decode(y).dtype == dtype


def test_values_from_the_formulas():
    x = torch.tensor([10.0], dtype=torch.float64)
    assert float(as_transfer("log1p").encode(x)) == pytest.approx(math.log(11) / math.log(1001 + 1e-6), rel=1e-12)
    assert float(as_transfer("mu_law").encode(x)) == pytest.approx(math.log(51) / math.log(5001), rel=1e-12)


def test_pq_at_the_luminances_of_bt2408():
    """Of a 10-bit range, ITU-R BT.2408 gives 0.58 for 203 cd/m2; 100 cd/m2 is 0.5081 and 1000 is 0.7518 by ST 2084."""
    pq = PQ(peak=10_000, nits=10_000)
    values = pq.encode(torch.tensor([100.0, 203.0, 1000.0], dtype=torch.float64)).tolist()
    assert values == pytest.approx([0.5081, 0.5807, 0.7518], abs=5e-5)


def test_pu21_units():
    pu = PU21()
    units = pu.units(torch.tensor([100.0, 1000.0, 4000.0, 10_000.0, 50_000.0], dtype=torch.float64))
    assert units.tolist() == pytest.approx([256.4, 420.1, 527.5, 595.4, 595.4], abs=0.05)


@pytest.mark.parametrize("viewing", FITS)
def test_pu21_against_the_original(golden, viewing):
    data = torch.load(golden("hdr/metrics.pt"), weights_only=True)
    pu, luminance = PU21(viewing=viewing), data["input"]["luminance"]
    expected = data["pu21_encoder"][viewing]
    torch.testing.assert_close(pu.units(luminance), expected["encode"], rtol=0, atol=1e-9)
    torch.testing.assert_close(pu.luminance(pu.units(luminance)), expected["decode_of_encode"], rtol=1e-9, atol=1e-9)


def test_log1p_against_the_original(golden):
    data = torch.load(golden("hdr/tone_and_transforms.pt"), weights_only=True)["output"]
    for peak in (1000.0, 4000.0):
        transfer = TRANSFERS.build({"type": "log1p", "peak": peak})
        torch.testing.assert_close(transfer.encode(data["hdr"]), data[f"log_{peak:.0f}"], rtol=0, atol=2e-6)
    decoded = as_transfer("log1p").decode(data["log_1000"])
    torch.testing.assert_close(decoded, data["inv_log_1000"], rtol=0, atol=1.0)  # 1e-3 of the peak


@pytest.mark.parametrize("name", TRANSFERS.names())
def test_gradients(name):
    transfer = as_transfer(name)
    x = torch.tensor([0.1, 3.0, 700.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(transfer.encode, (x,))
    assert torch.autograd.gradcheck(transfer.decode, (x.detach().div(1000).requires_grad_(),))


def test_what_is_refused():
    with pytest.raises(UserError, match=r"no transfer function is called 'mulaw'.*Did you mean 'mu_law'"):
        as_transfer("mulaw")
    with pytest.raises(UserError, match="peak is a positive number, not 0"):
        TRANSFERS.build({"type": "log1p", "peak": 0})
