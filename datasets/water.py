r"""How water changes a photograph: absorption, scattering and veiling light.

The image formation model is that of McGlamery (1980) and Jaffe (1990, "Computer modeling and the design of optimal underwater
imaging systems"), with one attenuation for the object's light and another for the veil, and a veil whose colour depends on
the depth, as Akkaynak and Treibitz (2018, "A revised underwater image formation model") found it. In linear light, per channel,
for an object J at distance z in depth D:

.. math::
    I = E J e^{-cz} + h_z * \left[E J (e^{-gz} - e^{-cz})\right] + E B (1 - e^{-gz}), \qquad E = e^{-K D},

direct light, light scattered forward (blurred by a spread h that grows with z), and the veil. K is the diffuse attenuation of
daylight, tabulated by water type; a = 0.8 K is the absorption (Gordon 1989, "Can the Lambert-Beer law be applied to the
diffuse attenuation coefficient of ocean water?": K is about a over the mean cosine of the light field, here 0.8);
b = b550 (550 nm / wavelength) the scattering (Gordon and Morel 1983); c = a + b the beam attenuation. Ocean water scatters
forward (mean cosine 0.92, Mobley 1994), so the light that is not merely spread is lost at the rate g = a + (1 - 0.92) b. The
veil's share of white is the single-scattering albedo, B = b / c, times a brightness.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..core.imaging.srgb import to_linear, to_srgb
from .photographs import Span

JERLOV: dict[str, tuple[float, float, float]] = {
    "I": (0.235, 0.043, 0.018),
    "IA": (0.240, 0.048, 0.025),
    "IB": (0.245, 0.054, 0.033),
    "II": (0.260, 0.076, 0.062),
    "III": (0.295, 0.116, 0.116),
    "1C": (0.300, 0.130, 0.170),
    "3C": (0.330, 0.200, 0.290),
    "5C": (0.400, 0.310, 0.430),
    "7C": (0.480, 0.490, 0.710),
    "9C": (0.600, 0.780, 1.230),
}
"""Diffuse attenuation of daylight per metre at 600, 525 and 475 nm (where a camera's R, G and B respond most), in oceanic
(I to III) and coastal (1C to 9C) water: Jerlov, Marine Optics, 2nd edition (1976), table XXVII."""

WAVELENGTHS = np.array([600.0, 525.0, 475.0])
MEAN_COSINE = 0.8
FORWARD = 0.92
FAINTEST = 2.0
"""Optical distance, in the clearest channel, beyond which nobody takes a photograph: 13 % of the light arrive."""
SPREAD = 0.0015
"""Width of the light scattered forward (standard deviation of a Gaussian) per metre, relative to the image's shorter side."""


@dataclass(frozen=True)
class Scene:
    """One dive: the water, and how far away things are.

    Attributes:
        daylight: (3,) light E at the scene's depth, relative to the brightest channel (the camera adapts its exposure).
        absorption: (3,) a, per metre.
        scattering: (3,) b, per metre.
        brightness: brightness of the veil, relative to white paper.
        relief: coarse map of distances in metres over the whole image, nearer at the bottom.
        noise: standard deviation of the sensor's noise at full exposure.
    """

    daylight: np.ndarray
    absorption: np.ndarray
    scattering: np.ndarray
    brightness: float
    relief: np.ndarray
    noise: float


def random_water(
    rng: np.random.RandomState,
    water_types: Sequence[str],
    depth: Span,
    distance: Span,
    scattering: Span,
    noise: Span,
) -> Scene:
    """Draw a scene; every span is that of a uniform distribution.

    Args:
        rng: the only source of randomness.
        water_types: keys of `JERLOV`, equally likely.
        depth: range of the depth below the surface, in metres.
        distance: range of the distances of the nearest and farthest things, in metres.
        scattering: range of b550, per metre.
        noise: range of the standard deviation of the sensor's noise at full exposure.
    """
    attenuation = np.array(JERLOV[water_types[rng.randint(len(water_types))]])
    daylight = np.exp(-attenuation * rng.uniform(*depth))
    absorption = MEAN_COSINE * attenuation
    b = rng.uniform(*scattering) * 550.0 / WAVELENGTHS
    reach = FAINTEST / np.min(absorption + (1 - FORWARD) * b)
    near, far = sorted(rng.uniform(distance[0], max(distance[0], min(distance[1], reach)), 2))
    bumps = rng.uniform(0.3, 0.7)
    relief = (1 - bumps) * np.linspace(1.0, 0.0, 5)[:, None] + bumps * rng.uniform(0, 1, (5, 5))
    return Scene(
        daylight / daylight.max(),
        absorption,
        b,
        rng.uniform(0.4, 0.8),
        (near + (far - near) * relief).astype(np.float32),
        rng.uniform(*noise),
    )


def distances(scene: Scene, size: tuple[int, int], window: tuple[int, int, int, int]) -> np.ndarray:
    """Distance of every pixel of a window, in metres, smoothly interpolated from the scene's relief.

    Args:
        scene: scene whose relief covers the whole image.
        size: (height, width) of the whole image.
        window: (top, left, height, width).
    """
    from ..core.imaging.opencv import cv2

    top, left, height, width = window
    rows, columns = scene.relief.shape
    y = (np.arange(top, top + height, dtype=np.float32) + 0.5) / size[0] * (rows - 1)
    x = (np.arange(left, left + width, dtype=np.float32) + 0.5) / size[1] * (columns - 1)
    grid_x, grid_y = np.meshgrid(x, y)
    return cv2.remap(scene.relief, grid_x, grid_y, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE).clip(0.1)


def submerge(image: np.ndarray, z: np.ndarray, scene: Scene, rng: np.random.RandomState, side: int) -> np.ndarray:
    """The photograph as taken under water.

    Args:
        image: (H, W, 3) sRGB in [0, 1].
        z: (H, W) distances in metres.
        scene: the water.
        rng: generator of the noise.
        side: shorter side of the whole image, in pixels: the blur grows with it.

    Returns:
        (H, W, 3) sRGB in [0, 1], float32.
    """
    from ..core.imaging.opencv import cv2

    z = z[..., None]
    c = scene.absorption + scene.scattering
    g = scene.absorption + (1 - FORWARD) * scene.scattering
    lit = scene.daylight * to_linear(image)
    unscattered, kept = np.exp(-c * z), np.exp(-g * z)
    blurred = cv2.GaussianBlur(lit * (kept - unscattered), (0, 0), max(0.1, SPREAD * side * float(z.mean())))
    veil = scene.daylight * scene.brightness * scene.scattering / c * (1 - kept)
    light = lit * unscattered + blurred + veil
    light += scene.noise * np.sqrt(light + 0.01) * rng.standard_normal(light.shape)
    return to_srgb(light.clip(0, 1)).astype(np.float32)
