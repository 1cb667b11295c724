"""Clips degraded in the loading process: what is drawn is drawn once for a clip, as for one that was filmed and uploaded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..core.degradations.draws import Draws
from ..core.degradations.engines import EngineName, make_engine, of_frame
from ..core.degradations.operations import Degradation, DegradationList
from ..core.degradations.second_order import BlurOptions, SecondOrder, degrade_one, draw_kernels
from ..core.errors import UserError

BLURS = (BlurOptions(), BlurOptions(blur_sigma=(0.2, 1.5)))
"""Options of the first and of the second stage's blur, with Real-ESRGAN's values."""
FINAL_SINC = 0.8
"""Probability of a sinc at the end, Real-ESRGAN's."""


class ClipDegradation:
    """Real-ESRGAN's chain or a list of operations on the frames of a clip, as RealBasicVSR has it (Chan et al., CVPR 2022).

    Kernels, sizes, qualities and what happens at all are the same in all frames; noise has the same strength and other fields.
    Codecs of video compress the clip as a whole.

    Args:
        degradation: options of the chain.
        degradations: operations instead.
        engine: engine that computes them.
        scale: factor by which frames become smaller.

    Raises:
        UserError: neither is given, or both are.
    """

    def __init__(
        self,
        degradation: SecondOrder | Mapping[str, Any] | None,
        degradations: Sequence[Degradation] | None,
        engine: EngineName,
        scale: int,
    ) -> None:
        if degradation is not None and degradations is not None:
            raise UserError("degradations: degradation is given too; leave one of them out")
        self.chain = None if degradation is None else SecondOrder.of(degradation)
        self.operations = None if degradations is None else DegradationList(degradations)
        self.engine, self.scale = make_engine(engine), scale

    def __call__(self, frames: Sequence[Tensor], draws: Draws) -> list[Tensor]:
        """The degraded frames (3, H // scale, W // scale), on the 8-bit grid, of (3, H, W) RGB in [0, 1]."""
        if self.operations is not None:
            return self.operations.of_clip(frames, draws.part("degradations"), self.engine, self.scale)
        assert self.chain is not None
        kernels = draw_kernels(draws, BLURS, FINAL_SINC)
        decisions = self.chain.decide(draws)
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            return [
                degrade_one(frame, kernels, decisions, self.scale, of_frame(self.engine, n))
                for n, frame in enumerate(frames)
            ]
