r"""Transfer functions: between linear radiance and the space in which networks and losses see HDR images.

An error of 1 cd/m2 is invisible in the sun and everything in the shade, so networks are trained on an encoding in which equal
steps look about equal. All here are pointwise, increase, and map the peak radiance to 1. With x the radiance and p the peak:

| name     | encoding                                                              | from |
|----------|-----------------------------------------------------------------------|------|
| `log1p`  | ln(1 + x) / ln(1 + p + 1e-6)                                          | the HDR fork of DiffIR |
| `mu_law` | ln(1 + mu x / p) / ln(1 + mu)                                         | Kalantari and Ramamoorthi, ACM TOG 2017 |
| `pq`     | PQ(L) / PQ(`nits`), L = `nits` x / p in cd/m2                         | SMPTE ST 2084:2014 |
| `pu21`   | PU(L) / PU(`nits`), L as for `pq`                                     | Mantiuk and Azimi, PCS 2021 |

Radiance above the peak is encoded above 1. `log1p` and `mu_law` have no end; `pq` and `pu21` are defined up to 10,000 cd/m2, at
which they clip. No radiance is below 0, so decoding takes what a network makes below 0 for 0 (PU21's darkest is 0.005 cd/m2).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Annotated, Any, ClassVar, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..annotations import Positive, Range
from ..errors import UserError
from ..registry import Registry

TRANSFERS = Registry("transfer function", "relume.core.imaging.transfer")

PEAK = 1000.0
"""Radiance that is encoded as 1, in the units of the files: those of the AIM 2025 inverse tone mapping data."""
BRIGHTEST = 10_000.0
"""Luminance in cd/m2 at which ST 2084 and PU21 end."""
DARKEST = 0.005
"""Luminance in cd/m2 below which PU21 distinguishes nothing."""

A = TypeVar("A", Tensor, np.ndarray)


def of_arrays_too(function: Callable[..., Tensor]) -> Callable[..., Any]:
    """A pointwise method for tensors of any shape that also takes NumPy arrays, and returns the kind and precision it was
    given.
    """

    @functools.wraps(function)
    def call(self: Transfer, x: Tensor | np.ndarray) -> Tensor | np.ndarray:
        if isinstance(x, Tensor):
            return function(self, x)
        array: np.ndarray = function(self, torch.from_numpy(np.ascontiguousarray(x))).numpy()
        return array

    return call


class Transfer:
    """One pair of functions, inverse to each other, of tensors or arrays of any shape and floating type.

    Args:
        peak: radiance that is encoded as 1, in the units of the files.
    """

    def __init__(self, peak: float = PEAK) -> None:
        if not (peak > 0 and math.isfinite(peak)):
            raise UserError(f"a transfer function's peak is a positive number, not {peak}")
        self.peak = peak

    def encode(self, x: A) -> A:
        """Radiance in [0, inf) to network space; `peak` becomes 1.

        Raises:
            NotImplementedError: always; subclasses implement it.
        """
        raise NotImplementedError

    def decode(self, y: A) -> A:
        """Network space to radiance, at least 0; NaN stays NaN.

        Raises:
            NotImplementedError: always; subclasses implement it.
        """
        raise NotImplementedError


@TRANSFERS.register(name="log1p")
class Log1p(Transfer):
    """ln(1 + x) / ln(1 + peak + 1e-6): the original's. Not invariant to the units of x: the 1 is in them.

    Args:
        peak: radiance that is encoded as 1.
    """

    def __init__(self, peak: Positive = PEAK) -> None:
        super().__init__(peak)
        self.scale = math.log(1 + peak + 1e-6)

    @of_arrays_too
    def encode(self, x: Tensor) -> Tensor:
        return torch.log1p(x) / self.scale

    @of_arrays_too
    def decode(self, y: Tensor) -> Tensor:
        return torch.expm1(y.clamp(min=0) * self.scale)


@TRANSFERS.register(name="mu_law")
class MuLaw(Transfer):
    """ln(1 + mu x / peak) / ln(1 + mu).

    Args:
        peak: radiance that is encoded as 1.
        mu: strength of the compression.
    """

    def __init__(self, peak: Positive = PEAK, mu: Positive = 5000.0) -> None:
        super().__init__(peak)
        self.mu = mu

    @of_arrays_too
    def encode(self, x: Tensor) -> Tensor:
        return torch.log1p(x * (self.mu / self.peak)) / math.log1p(self.mu)

    @of_arrays_too
    def decode(self, y: Tensor) -> Tensor:
        return torch.expm1(y.clamp(min=0) * math.log1p(self.mu)) * (self.peak / self.mu)


@TRANSFERS.register(name="pq")
class PQ(Transfer):
    """The perceptual quantiser of HDR television, after Barten's threshold of contrast, divided by its value at the peak.

    Args:
        peak: radiance that is encoded as 1.
        nits: luminance of a display, in cd/m2, at the peak.
    """

    M1, M2 = 2610 / 16384, 2523 / 4096 * 128
    C1, C2, C3 = 3424 / 4096, 2413 / 4096 * 32, 2392 / 4096 * 32

    def __init__(self, peak: Positive = PEAK, nits: Annotated[float, Range(above=0, most=BRIGHTEST)] = 4000.0) -> None:
        super().__init__(peak)
        self.nits = nits
        self.white = float(self._quantiser(torch.tensor(nits / BRIGHTEST, dtype=torch.float64)))

    def _quantiser(self, share: Tensor) -> Tensor:
        """ST 2084's inverse EOTF of a luminance relative to 10,000 cd/m2."""
        powered = share**self.M1
        return ((self.C1 + self.C2 * powered) / (1 + self.C3 * powered)) ** self.M2

    @of_arrays_too
    def encode(self, x: Tensor) -> Tensor:
        return self._quantiser((x * (self.nits / (self.peak * BRIGHTEST))).clamp(max=1)) / self.white

    @of_arrays_too
    def decode(self, y: Tensor) -> Tensor:
        root = (y * self.white).clamp(0, 1) ** (1 / self.M2)
        share = ((root - self.C1).clamp(min=0) / (self.C2 - self.C3 * root)) ** (1 / self.M1)
        return share * (self.peak * BRIGHTEST / self.nits)


Viewing = Literal["banding", "banding_glare", "peaks", "peaks_glare"]


@TRANSFERS.register(name="pu21")
class PU21(Transfer):
    """The perceptually uniform encoding of absolute luminance, divided by its value at the peak.

    PU(L) = p7 (((p1 + p2 L^p4) / (1 + p3 L^p4))^p5 - p6), at least 0, of L clipped to [0.005, 10,000] cd/m2. The scale is such
    that the range of a display of 100 cd/m2 gets about 256 steps.

    Args:
        peak: radiance that is encoded as 1.
        nits: luminance of a display, in cd/m2, at the peak.
        viewing: which of the published fits: to the visibility of banding or of the peaks of the contrast sensitivity, each
            with or without the eye's glare.
    """

    FITS: ClassVar[dict[str, tuple[float, ...]]] = {
        "banding": (1.070275272, 0.4088273932, 0.153224308, 0.2520326168, 1.063512885, 1.14115047, 521.4527484),
        "banding_glare": (
            0.353487901,
            0.3734658629,
            8.277049286e-05,
            0.9062562627,
            0.09150303166,
            0.9099517204,
            596.3148142,
        ),
        "peaks": (1.043882782, 0.6459495343, 0.3194584211, 0.374025247, 1.114783422, 1.095360363, 384.9217577),
        "peaks_glare": (816.885024, 1479.463946, 0.001253215609, 0.9329636822, 0.06746643971, 1.573435413, 419.6006374),
    }

    def __init__(
        self,
        peak: Positive = PEAK,
        nits: Annotated[float, Range(above=DARKEST, most=BRIGHTEST)] = 4000.0,
        viewing: Viewing = "banding_glare",
    ) -> None:
        super().__init__(peak)
        self.nits = nits
        self.fit = self.FITS[viewing]
        self.white, self.most = (float(self.units(torch.tensor(v, dtype=torch.float64))) for v in (nits, BRIGHTEST))

    @of_arrays_too
    def units(self, luminance: Tensor) -> Tensor:
        """PU units, from 0 to about 595, of luminance in cd/m2; elementwise, any shape."""
        p1, p2, p3, p4, p5, p6, p7 = self.fit
        powered = luminance.clamp(DARKEST, BRIGHTEST) ** p4
        return (p7 * (((p1 + p2 * powered) / (1 + p3 * powered)) ** p5 - p6)).clamp(min=0)

    @of_arrays_too
    def luminance(self, units: Tensor) -> Tensor:
        """Luminance in cd/m2, in [0.005, 10,000], of PU units; elementwise, any shape."""
        p1, p2, p3, p4, p5, p6, p7 = self.fit
        inner = (units.clamp(0, self.most) / p7 + p6) ** (1 / p5)
        powered = ((inner - p1).clamp(min=0) / (p2 - p3 * inner)) ** (1 / p4)
        return powered.clamp(DARKEST, BRIGHTEST)

    @of_arrays_too
    def encode(self, x: Tensor) -> Tensor:
        result: Tensor = self.units(x * (self.nits / self.peak)) / self.white
        return result

    @of_arrays_too
    def decode(self, y: Tensor) -> Tensor:
        result: Tensor = self.luminance(y * self.white) * (self.peak / self.nits)
        return result


TransferBlock = Annotated[str, TRANSFERS] | Annotated[Transfer, TRANSFERS]
"""How an option names a transfer function: ``mu_law``, or ``{type: mu_law, mu: 500}``."""


def as_transfer(choice: str | Transfer) -> Transfer:
    """The transfer function that a `TransferBlock` asks for."""
    return choice if isinstance(choice, Transfer) else TRANSFERS.build({"type": choice})


def radiance(image: Tensor, transfer: Transfer) -> np.ndarray:
    """(C, H, W) in network space as linear radiance, (H, W, C) float32, finite, neither clipped at the peak nor rounded.

    As elsewhere, NaN is black. What a network makes beyond the code 2 is nothing that its data had, and is taken for 2.
    """
    codes = image.detach().float().nan_to_num(0.0).clamp(max=2.0)
    array: np.ndarray = transfer.decode(codes).permute(1, 2, 0).cpu().numpy()
    return array
