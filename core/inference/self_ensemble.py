"""Self-ensembles: a network's answers for mirrored and turned images, turned back and averaged (Timofte et al., CVPR 2016)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from ..errors import UserError, did_you_mean

Ensemble = Literal["none", "hflip", "rot180", "dihedral"]
"""The image as it is; with its mirror image; with itself upside down (turned by 180 degrees); all eight of its symmetries."""

_FLIPS: list[tuple[int, ...]] = [(), (3,), (2,), (2, 3)]
SYMMETRIES: dict[str, list[tuple[bool, tuple[int, ...]]]] = {
    "none": [(False, ())],
    "hflip": [(False, ()), (False, (3,))],
    "rot180": [(False, ()), (False, (2, 3))],
    "dihedral": [(transposed, dims) for transposed in (False, True) for dims in _FLIPS],
}
"""Whether the image is transposed after it was flipped along these dimensions."""


def self_ensemble(fn: Callable[[Tensor], Tensor], x: Tensor, ensemble: Ensemble = "none") -> Tensor:
    """Mean of `fn` over symmetries of its input.

    Args:
        fn: function from images to images of the same size; with ``dihedral`` it sees height and width exchanged too.
        x: (B, C, H, W).
        ensemble: symmetries to average over.

    Raises:
        UserError: there is no such ensemble.
    """
    if ensemble not in SYMMETRIES:
        known = get_args(Ensemble)
        raise UserError(f"no self-ensemble '{ensemble}'.{did_you_mean(ensemble, known)} Accepted: {', '.join(known)}.")
    answers = []
    for transposed, dims in SYMMETRIES[ensemble]:
        seen = x.flip(dims) if dims else x
        answer = fn(seen.transpose(2, 3) if transposed else seen)
        answer = answer.transpose(2, 3) if transposed else answer
        answers.append(answer.flip(dims) if dims else answer)
    return torch.stack(answers).mean(0) if len(answers) > 1 else answers[0]
