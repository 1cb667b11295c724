"""Which frames of a clip stand around one of them."""

from __future__ import annotations

from typing import Literal, get_args

from ..core.errors import UserError

FramePadding = Literal["replicate", "reflection", "reflection_circle", "circle"]


def generate_frame_indices(
    crt_idx: int, max_frame_num: int, num_frames: int, padding: FramePadding = "reflection"
) -> list[int]:
    """The frames around one, those beyond a clip's ends replaced.

    Args:
        crt_idx: the frame in the middle, counted from 0.
        max_frame_num: frames of the clip.
        num_frames: how many to give, odd.
        padding: ``replicate`` repeats the outermost frame; ``reflection`` mirrors at it; ``reflection_circle`` takes the frames
            beyond the other end of the window, nearest first; ``circle`` the same, farthest first.

    Raises:
        UserError: an even `num_frames`, an unknown padding, or a window that the clip is too short for.

    >>> [generate_frame_indices(0, 10, 5, p) for p in ("replicate", "reflection", "reflection_circle", "circle")]
    [[0, 0, 0, 1, 2], [2, 1, 0, 1, 2], [4, 3, 0, 1, 2], [3, 4, 0, 1, 2]]
    """
    if num_frames < 1 or num_frames % 2 == 0:
        raise UserError(f"num_frame: must be odd, so that one frame is in the middle, not {num_frames}")
    if padding not in get_args(FramePadding):
        raise UserError(f"padding: there is no '{padding}'; {', '.join(get_args(FramePadding))} are there")
    last, half = max_frame_num - 1, num_frames // 2
    # Frames before the first and after the last are replaced according to `padding`.
    indices = []
    for i in range(crt_idx - half, crt_idx + half + 1):
        if i < 0:
            i = {
                "replicate": 0,
                "reflection": -i,
                "reflection_circle": crt_idx + half - i,
                "circle": num_frames + i,
            }[padding]
        elif i > last:
            i = {
                "replicate": last,
                "reflection": 2 * last - i,
                "reflection_circle": (crt_idx - half) - (i - last),
                "circle": i - num_frames,
            }[padding]
        if not 0 <= i <= last:
            raise UserError(
                f"num_frame: {num_frames} frames do not fit into a clip of {max_frame_num} (padding {padding})"
            )
        indices.append(i)
    return indices
