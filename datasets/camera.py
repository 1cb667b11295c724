r"""A camera: from scene radiance to an 8-bit picture, and what of it can be undone.

The forward model is that of the HDR fork of DiffIR and its data (AIM 2025, inverse tone mapping). With X the radiance, p its
peak, g the gain ("dgain") and γ the exponent:

.. math::
    \mathrm{ldr} = \mathrm{clip}(g X / p, 0, 1)^{1/γ}, \qquad \hat X = p\, \mathrm{clip}(\mathrm{ldr}^{γ} / g, 0, 1).

The picture is quantised, and here also noisy and compressed. Whatever lay beyond p / g is clipped, and becomes p / g.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..core.errors import UserError
from ..core.imaging.image_io import Readers, to_float
from ..core.imaging.opencv import cv2
from ..core.imaging.storage import UnreadableFile, decode_text

SCENE_KEY = 0.01
"""Log-average radiance relative to the peak that `estimated_gain` takes every scene to have."""
TYPICAL_GAMMA = 2.2
"""Exponent of a camera that nothing is known about."""
FAINT = 1e-4
"""Number that is added before logarithms are averaged, so that a black pixel is not the whole average."""


@dataclass(frozen=True)
class Curve:
    """How a picture was developed: gain and exponent, both positive."""

    dgain: float
    gamma: float

    def develop(self, radiance: np.ndarray, peak: float) -> np.ndarray:
        """The picture in [0, 1], not quantised, that this camera takes of `radiance`."""
        return np.clip(radiance * (self.dgain / peak), 0, 1) ** (1 / self.gamma)

    def linearise(self, ldr: np.ndarray, peak: float) -> np.ndarray:
        """Radiance in [0, peak] of a picture in [0, 1], float32."""
        return np.clip(np.power(ldr, np.float32(self.gamma)) / np.float32(self.dgain), 0, 1) * np.float32(peak)


def parse_prompt(text: str, name: str) -> Curve:
    """The lines ``dgain: 2.0`` and ``gamma: 1.8`` of a prompt file; the last of each counts, other lines are ignored.

    The other lines of the original's files (strategy, PSNR, ...) say how gain and exponent were fitted to the ground truth.
    There, a line that is missing or garbled silently means dgain 1.0 or gamma 1.6; here it is an error.

    Args:
        text: contents.
        name: name of the file, for messages.

    Raises:
        UnreadableFile: one of the two is missing, is not a number, or is not positive and finite.
    """
    found: dict[str, float] = {}
    for number, line in enumerate(text.splitlines(), 1):
        key, colon, value = line.strip().partition(":")
        if not colon or key not in ("dgain", "gamma"):
            continue
        try:
            found[key] = float(value)
        except ValueError:
            raise UnreadableFile(f"{name}:{number}: {key} is '{value.strip()}', which is not a number") from None
        if not 0 < found[key] < float("inf"):
            raise UnreadableFile(f"{name}:{number}: {key} is {value.strip()}; a positive number is expected")
    for key in ("dgain", "gamma"):
        if key not in found:
            raise UnreadableFile(f"{name}: has no line '{key}: <number>'; a prompt file gives dgain and gamma")
    return Curve(found["dgain"], found["gamma"])


def format_prompt(curve: Curve) -> str:
    """A prompt file that `parse_prompt` reads back exactly."""
    return f"dgain: {curve.dgain!r}\ngamma: {curve.gamma!r}\n"


def decode_prompt(data: bytes, name: str) -> Curve:
    """`parse_prompt` of a file's bytes."""
    return parse_prompt(decode_text(data, name), name)


PROMPTS: Readers = {".txt": decode_prompt}
"""Decoder of prompt files, by suffix."""


def log_average(image: np.ndarray) -> float:
    """exp of the mean of ln(luminance + 1e-4), the "key" of Reinhard et al. (2002); Rec. 709 luminance of linear RGB."""
    luminance = image @ np.array([0.2126, 0.7152, 0.0722], image.dtype)
    return float(np.exp(np.mean(np.log(luminance + np.float32(FAINT)))))


def estimated_gain(ldr: np.ndarray, gamma: float, scene_key: float = SCENE_KEY) -> float:
    """A guess of dgain from the picture alone.

    Absolute radiance is not in a picture. An automatic exposure scales a scene so that its log-average comes out at middle
    grey; if all scenes had the same log-average radiance, the gain would be what brings the one to the other:
    (log-average of ldr^γ) / `scene_key`. Pictures exposed alike thus get the gain of their scene up to how far that scene is
    from the average; clipped highlights make the guess too small.

    Args:
        ldr: the picture, (H, W, 3) in [0, 1].
        gamma: exponent of the picture's curve.
        scene_key: log-average radiance of scenes relative to the peak, best measured on the training set.
    """
    return max(log_average(np.power(ldr, np.float32(gamma))), FAINT) / scene_key


def to_8_bits(image: np.ndarray, quality: int | None = None) -> np.ndarray:
    """A picture in [0, 1] as 8-bit RGB, through JPEG compression (4:2:0) where `quality` (1 to 100) is given."""
    picture = np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8)
    if quality is None:
        return picture
    encoded = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]), [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.ascontiguousarray(np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))[..., ::-1])


@dataclass(frozen=True)
class CurveChoice:
    """What is taken for the curve of a picture: its own, from a prompt file or the synthetic camera, or other values.

    Args:
        dgain: gain of every picture; each picture's own when None.
        gamma: exponent of every picture; each picture's own when None.
        estimate: guess the gain from the picture, as `estimated_gain` does; the exponent is `gamma`, or 2.2.
        scene_key: log-average radiance that `estimated_gain` takes every scene to have.

    Raises:
        UserError: not positive, dgain both given and estimated, or `scene_key` where nothing is estimated.
    """

    dgain: float | None = None
    gamma: float | None = None
    estimate: bool = False
    scene_key: float = SCENE_KEY

    def __post_init__(self) -> None:
        for key in ("dgain", "gamma", "scene_key"):
            value = getattr(self, key)
            if value is not None and not 0 < value < float("inf"):
                raise UserError(f"{key}: a positive number is expected, not {value}")
        if self.scene_key != SCENE_KEY and not self.estimate:
            raise UserError("scene_key has no effect without estimate_dgain: true, which guesses gains")
        if self.estimate and self.dgain is not None:
            raise UserError("dgain is given and estimate_dgain asks to guess it; leave one out")

    @property
    def needs_own(self) -> bool:
        """Whether the picture's own curve has to be known."""
        return not self.estimate and (self.dgain is None or self.gamma is None)

    def of(self, ldr: np.ndarray, own: Curve | None) -> Curve:
        """The curve of the whole picture `ldr`, (H, W, 3) as it was read; `own` may be None where `needs_own` is false."""
        if self.estimate:
            gamma = self.gamma or TYPICAL_GAMMA
            return Curve(estimated_gain(to_float(ldr), gamma, self.scene_key), gamma)
        if self.dgain is not None and self.gamma is not None:
            return Curve(self.dgain, self.gamma)
        assert own is not None
        return Curve(self.dgain or own.dgain, self.gamma or own.gamma)
