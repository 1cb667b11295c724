"""Optical flow in files, as ``basicsr.utils.flow_util`` reads it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ...imaging.opencv import cv2

MAGIC = b"PIEH"


def flowread(flow_path: str, quantize: bool = False, concat_axis: int = 0, max_val: float = 0.02) -> np.ndarray:
    """Flow (H, W, 2), float32: of a ``.flo`` file, or with `quantize` of a picture with both directions one after the other.

    Raises:
        ValueError: it is no such file.
    """
    if quantize:
        picture = cv2.imread(str(flow_path), cv2.IMREAD_UNCHANGED)
        if picture is None or concat_axis not in (0, 1) or picture.shape[concat_axis] % 2:
            raise ValueError(f"{flow_path}: this is no picture of two directions of flow")
        dx, dy = np.split(picture, 2, axis=concat_axis)
        return dequantize_flow(dx, dy, max_val)
    content = Path(flow_path).read_bytes()
    if content[:4] != MAGIC or len(content) < 12:
        raise ValueError(f"Invalid flow file: {flow_path}, header does not contain PIEH")
    width, height = (int(side) for side in np.frombuffer(content, "<i4", 2, 4))
    return np.array(np.frombuffer(content, "<f4", width * height * 2, 12).reshape(height, width, 2))


def flowwrite(flow: np.ndarray, filename: str) -> None:
    """Write flow (H, W, 2) as a ``.flo`` file."""
    Path(filename).absolute().parent.mkdir(parents=True, exist_ok=True)
    height, width = flow.shape[:2]
    Path(filename).write_bytes(MAGIC + np.array([width, height], "<i4").tobytes() + flow.astype("<f4").tobytes())


def quantize_flow(flow: np.ndarray, max_val: float = 0.02, norm: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """Both directions of (H, W, 2) as bytes: values over width and height, if `norm`, within ``max_val``."""
    height, width = flow.shape[:2]
    sizes = (width, height) if norm else (1, 1)
    scaled = [np.clip(flow[..., i] / sizes[i], -max_val, max_val) for i in range(2)]
    dx, dy = (np.clip(np.floor((d + max_val) / (2 * max_val) * 255), 0, 254).astype(np.uint8) for d in scaled)
    return dx, dy


def dequantize_flow(dx: np.ndarray, dy: np.ndarray, max_val: float = 0.02, denorm: bool = True) -> np.ndarray:
    """The way back of `quantize_flow`: (H, W, 2), float32.

    Raises:
        ValueError: the directions are not of one size, (H, W).
    """
    if dx.shape != dy.shape or dx.ndim != 2:
        raise ValueError(f"two directions of flow must be (H, W) of one size, not {dx.shape} and {dy.shape}")
    sizes = (dx.shape[1], dx.shape[0]) if denorm else (1, 1)
    parts = [((d + 0.5) * 2 * max_val / 255 - max_val) * size for d, size in zip((dx, dy), sizes, strict=True)]
    return np.dstack(parts).astype(np.float32)
