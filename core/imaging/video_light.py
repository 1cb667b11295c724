"""What an HDR video says of its light: the display it was graded on (SMPTE ST 2086), and the brightest pixels (CTA-861.3)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

NAMES = "GBRW"
"""The order in which encoders want the display's primaries, and its white."""
STORED = "RGBW"
"""The order in which FFmpeg has them."""
CHROMATICITY, LUMINANCE = 50_000, 10_000
"""Units per 1, and per cd/m2, in H.264 and H.265."""


@dataclass(frozen=True)
class Light:
    """What a video says of its light; what is None it does not say.

    Attributes:
        primaries: chromaticities (x, y) of the display's red, green, blue and white.
        luminance: luminance of the display's black and white, cd/m2.
        brightest: luminance of the brightest pixel of all frames, and the largest mean of a frame, cd/m2.
    """

    primaries: tuple[tuple[Fraction, Fraction], ...] | None = None
    luminance: tuple[Fraction, Fraction] | None = None
    brightest: tuple[int, int] | None = None

    @property
    def display(self) -> bool:
        """Whether the display is known: encoders want all of it."""
        return self.primaries is not None and self.luminance is not None

    def settings(self, codec: str) -> dict[str, str]:
        """What makes an encoder write it, ``key=value:...`` by the name of its option; nothing where it cannot."""
        if codec not in KEYS or not (self.display or self.brightest):
            return {}
        option, display, brightest, of_display = KEYS[codec]
        words = [f"{display}={of_display(self)}"] if self.display else []
        words += [f"{brightest}={self.brightest[0]},{self.brightest[1]}"] if self.brightest else []
        return {option: ":".join(words)}


def light_of(frame: Any) -> Light:
    """What a decoded frame has of it."""
    from av.sidedata.sidedata import Type

    found = {data.type: bytes(data) for data in frame.side_data}
    primaries = luminance = brightest = None
    if display := found.get(Type.MASTERING_DISPLAY_METADATA):
        *numbers, has_primaries, has_luminance = struct.unpack_from("22i", display)
        ratios = [Fraction(n, d) if d else None for n, d in zip(numbers[::2], numbers[1::2], strict=True)]
        known = [ratio for ratio in ratios if ratio is not None]
        if len(known) == len(ratios):
            primaries = tuple(zip(known[:8:2], known[1:8:2], strict=True)) if has_primaries else None
            luminance = (known[8], known[9]) if has_luminance else None
    if content := found.get(Type.CONTENT_LIGHT_LEVEL):
        most, mean = struct.unpack_from("2I", content)
        brightest = (most, mean)
    return Light(primaries, luminance, brightest)


def _in_units(light: Light) -> str:
    """The display as x264 and x265 take it."""
    assert light.primaries is not None and light.luminance is not None
    points = dict(zip(STORED, light.primaries, strict=True))
    shown = [f"{n}({','.join(str(round(v * CHROMATICITY)) for v in points[n])})" for n in NAMES]
    black, white = (round(v * LUMINANCE) for v in light.luminance)
    return "".join(shown).replace("W(", "WP(") + f"L({white},{black})"


def _in_decimals(light: Light) -> str:
    """The display as SVT-AV1 takes it."""
    assert light.primaries is not None and light.luminance is not None
    points = dict(zip(STORED, light.primaries, strict=True))
    shown = [f"{n}({','.join(f'{float(v):.5f}' for v in points[n])})" for n in NAMES]
    black, white = (f"{float(v):.4f}" for v in light.luminance)
    return "".join(shown).replace("W(", "WP(") + f"L({white},{black})"


KEYS = {
    "h264": ("x264-params", "mastering-display", "cll", _in_units),
    "hevc": ("x265-params", "master-display", "max-cll", _in_units),
    "av1": ("svtav1-params", "mastering-display", "content-light", _in_decimals),
}
"""Each codec's own option for what FFmpeg has no option for, the names of both in it, and how a display is written."""
