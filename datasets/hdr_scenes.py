r"""HDR scenes made from photographs, and pictures taken of them: a task to train and test on without a download.

**Scene.** The photograph is brought to linear light J in [0, 1] (sRGB, IEC 61966-2-1). What is bright in it is taken to have
been much brighter: with v the largest channel of the photograph and s a smooth step of v from `knee` to 1, it is raised by

.. math::
    X = J \, 2^{\,\mathrm{stops} \cdot s \, (1 + \bar s) / 2},

the blurred step :math:`\bar s` making large highlights brighter than specks, as the brightness enhancement of Rempel et al.
(2007, "LDR2HDR") does. The largest possible X, 2^stops, is the peak radiance; diffuse white lies `stops` below it.

**Picture.** See `datasets.camera`. The gain is drawn around the one that just clips diffuse white, so that the raised
highlights are lost; exponent, noise (standard deviation :math:`n \sqrt{x + 0.01}` at the exposure x) and JPEG quality are
drawn too.

The scenes are plausible, not measured: results on them compare methods, and say nothing about how any does on real radiance.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..core.annotations import Count
from ..core.errors import UserError
from ..core.imaging.image_io import read_pixels, to_float
from ..core.imaging.opencv import cv2
from ..core.imaging.srgb import to_linear, to_srgb
from ..core.imaging.transfer import Transfer, TransferBlock, as_transfer
from . import DATASETS
from .base import Item, OnError
from .camera import SCENE_KEY, Curve, CurveChoice, to_8_bits
from .photographs import PhotographDataset, Span, refuse_bad_ranges, shrink
from .transforms import random_flip_rotate, to_tensor

GLOW = 0.05
"""Width of the blur (standard deviation of a Gaussian) relative to the image's shorter side."""


@dataclass(frozen=True)
class Shot:
    """One picture of a scene.

    Attributes:
        radiance: (H, W, 3) float32, 0 to the peak.
        picture: (H, W, 3) uint8.
        curve: gain and exponent of the camera.
    """

    radiance: np.ndarray
    picture: np.ndarray
    curve: Curve


def expand(photograph: np.ndarray, stops: float, knee: float) -> np.ndarray:
    """Relative radiance X / 2^stops in [0, 1], float32, of a photograph (H, W, 3), sRGB in [0, 1]."""
    return raise_highlights(to_linear(photograph).astype(np.float32), stops, knee)


def raise_highlights(light: np.ndarray, stops: float, knee: float) -> np.ndarray:
    """`expand` of linear light (H, W, 3) in [0, 1], float32."""
    t = np.clip((to_srgb(light.max(axis=2)) - knee) / (1 - knee), 0, 1).astype(np.float32)
    step = t * t * (3 - 2 * t)
    glow = cv2.GaussianBlur(step, (0, 0), GLOW * min(step.shape), borderType=cv2.BORDER_REFLECT)
    raised: np.ndarray = light * np.exp2(np.float32(stops) * (step * (1 + glow) / 2 - 1))[..., None]
    return raised


@functools.lru_cache(maxsize=16)
def light_of(path: str, shorter_side: int | None) -> np.ndarray:
    """Linear light of a photograph file that was shrunk first, float32; the last few are kept."""
    light = to_linear(to_float(shrink(read_pixels(path), shorter_side))).astype(np.float32)
    light.flags.writeable = False
    return light


@functools.lru_cache(maxsize=16)
def scene(path: str, shorter_side: int | None, stops: float, knee: float) -> np.ndarray:
    """`expand` of a photograph file that was shrunk first; the last few are kept."""
    expanded = raise_highlights(light_of(path, shorter_side), stops, knee)
    expanded.flags.writeable = False
    return expanded


@DATASETS.register()
class SyntheticHDRDataset(PhotographDataset):
    """Photographs made into HDR scenes, and 8-bit pictures of them (the module says how).

    An item has ``gt``, the radiance, and ``lq``, the picture with its camera's curve undone, both (3, H, W) float32 RGB in
    the network's space (see `core.imaging.transfer`), 1 at the peak radiance, and the paths: as `LDR_HDR_PairedDataset`
    gives them. In training, patch and camera are drawn anew for every sample; else they are fixed by the index, and images
    whole.

    Args:
        dataroot_gt: folder(s) of photographs, local or remote.
        source: ``skimage`` for photographs that come with scikit-image instead: nothing to download.
        split: part of the photographs of ``source``: ``train`` or ``val``; by phase when omitted.
        gt_size: side of the training patch; whole images when omitted.
        phase: ``train``, or ``val`` and ``test``, in which nothing is random.
        shorter_side: photographs are first shrunk until their shorter side has so many pixels, if it is longer.
        renditions: how many times each photograph occurs, by different cameras.
        stops: how far the peak lies above diffuse white.
        knee: sRGB value in [0, 1) from which on highlights are raised.
        darken: range of stops, in training, by which photographs are made darker first, so that few of them make scenes of many
            kinds: of what is equally clipped, some was hardly brighter, some much.
        exposure: range of the gain, in stops from the one at which diffuse white just clips.
        camera_gamma: range of the exponent.
        noise: range of the noise's standard deviation at full exposure.
        quality: range of the JPEG quality, 1 to 100; null for pictures that are not compressed.
        dgain: gain that ``lq`` is made with; the camera's own when omitted.
        gamma: exponent that ``lq`` is made with; the camera's own when omitted.
        estimate_dgain: guess the gain from the picture alone, with `gamma` or 2.2 for the exponent.
        scene_key: log-average radiance relative to the peak that the guess takes every scene to have.
        transfer: how radiance is encoded: ``log1p``, ``mu_law``, ``pq``, ``pu21``, or a block with their options.
        use_hflip: flip at random, left to right.
        use_rot: turn at random, by vertical flip and transposition.
        on_error: what an unreadable file does: ``raise``, or ``skip`` to the next one.
    """

    transfer: Transfer

    def __init__(
        self,
        dataroot_gt: str | list[str] | None = None,
        source: Literal["skimage"] | None = None,
        split: Literal["train", "val"] | None = None,
        gt_size: Count | None = None,
        phase: Literal["train", "val", "test"] = "train",
        shorter_side: int | None = None,
        renditions: int = 1,
        stops: float = 4.0,
        knee: float = 0.6,
        darken: Span = (0.0, 0.0),
        exposure: Span = (-0.5, 1.5),
        camera_gamma: Span = (1.8, 2.4),
        noise: Span = (0.0, 0.01),
        quality: tuple[int, int] | None = (80, 100),
        dgain: float | None = None,
        gamma: float | None = None,
        estimate_dgain: bool = False,
        scene_key: float = SCENE_KEY,
        transfer: TransferBlock = "log1p",
        use_hflip: bool = False,
        use_rot: bool = False,
        on_error: OnError = "raise",
    ) -> None:
        super().__init__(dataroot_gt, source, split, gt_size, phase, shorter_side, renditions, on_error)
        if not 0 <= knee < 1 or not 0 <= stops <= 20:
            raise UserError(f"knee is in [0, 1) and stops in [0, 20]; got {knee} and {stops}")
        if len(exposure) != 2 or exposure[0] > exposure[1]:
            raise UserError(f"exposure: a range is [least, largest]; got {list(exposure)}")
        refuse_bad_ranges({"noise": noise, "darken": darken})
        refuse_bad_ranges({"camera_gamma": camera_gamma}, positive=True)
        if quality is not None and not 1 <= quality[0] <= quality[1] <= 100:
            raise UserError(f"quality: a range [least, largest] within 1 to 100 is expected; got {list(quality)}")
        self.stops = float(stops)
        self.knee = float(knee)
        self.darken = darken if self.training else (0.0, 0.0)
        self.exposure = exposure
        self.camera_gamma = camera_gamma
        self.noise = noise
        self.quality = quality
        self.curves = CurveChoice(dgain, gamma, estimate_dgain, scene_key)
        self.transfer = as_transfer(transfer)
        self.hflip = use_hflip
        self.rotate = use_rot

    def shot(self, index: int) -> tuple[Shot, Curve]:
        """The sample's radiance and picture, and the curve that is taken for the picture's."""
        source, name = self.photographs[index]
        path = source.path(name)
        rng = self.generator(index)
        if self.darken[1] > 0:
            light = light_of(path, self.shorter_side) * np.float32(2.0 ** -rng.uniform(*self.darken))
            whole = raise_highlights(light, self.stops, self.knee)
        else:
            whole = scene(path, self.shorter_side, self.stops, self.knee)
        own = Curve(2.0 ** (self.stops + rng.uniform(*self.exposure)), rng.uniform(*self.camera_gamma))
        noise = rng.uniform(*self.noise)
        quality = None if self.quality is None else int(rng.randint(self.quality[0], self.quality[1] + 1))
        top, left, height, width = self.window((whole.shape[0], whole.shape[1]), path, rng)
        relative = whole[top : top + height, left : left + width]
        if self.training:
            relative = random_flip_rotate([relative], self.hflip, self.rotate)[0]
        exposed = relative * np.float32(own.dgain)
        exposed = exposed + np.float32(noise) * np.sqrt(exposed + 0.01) * rng.standard_normal(exposed.shape)
        picture = to_8_bits(np.clip(exposed, 0, 1) ** (1 / own.gamma), quality)
        # A guess needs the whole picture, of which a patch is a part.
        seen = own.develop(whole, 1.0) if self.curves.estimate else picture
        return Shot(relative * np.float32(self.transfer.peak), picture, own), self.curves.of(seen, own)

    def load(self, index: int) -> Item:
        shot, curve = self.shot(index)
        lq = curve.linearise(to_float(shot.picture), self.transfer.peak)
        source, name = self.photographs[index]
        return {
            "lq": to_tensor(self.transfer.encode(lq)),
            "gt": to_tensor(self.transfer.encode(shot.radiance)),
            "lq_path": self.result_path(index),
            "gt_path": source.path(name),
        }
