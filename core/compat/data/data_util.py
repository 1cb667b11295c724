"""Where the files of BasicSR's data sets are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ....datasets.video_tests import duf_downsample as thinned_out
from ...imaging.opencv import cv2
from ..utils.img_util import img2tensor, padding
from ..utils.misc import scandir
from .transforms import mod_crop

__all__ = [
    "duf_downsample",
    "generate_frame_indices",
    "padding",
    "paired_DP_paths_from_folder",
    "paired_paths_from_folder",
    "paired_paths_from_lmdb",
    "paired_paths_from_meta_info_file",
    "paths_from_folder",
    "paths_from_lmdb",
    "read_img_seq",
]


def paths_from_folder(folder: str) -> list[str]:
    """Whole paths of a folder's files."""
    return [str(Path(folder) / path) for path in scandir(folder)]


def paired_paths_from_folder(
    folders: Sequence[str], keys: Sequence[str], filename_tmpl: str = "{}"
) -> list[dict[str, str]]:
    """``{lq_path, gt_path}`` of the files of two folders, (input, ground truth), with `keys` such as ``["lq", "gt"]``.

    Raises:
        ValueError: there are more of the one than of the other, or one has no partner.
    """
    (input_folder, gt_folder), (input_key, gt_key) = folders, keys
    inputs, truths = list(scandir(input_folder)), list(scandir(gt_folder))
    if len(inputs) != len(truths):
        raise ValueError(
            f"{input_key} and {gt_key} datasets have different number of images: {len(inputs)}, {len(truths)}."
        )
    by_stem = {Path(path).with_suffix("").as_posix(): path for path in inputs}
    paths = []
    for truth in truths:
        stem = filename_tmpl.format(Path(truth).with_suffix("").as_posix())
        if stem not in by_stem:
            raise ValueError(f"{stem}{Path(truth).suffix} is not in {input_key}_paths.")
        paths.append(
            {
                f"{input_key}_path": str(Path(input_folder) / by_stem[stem]),
                f"{gt_key}_path": str(Path(gt_folder) / truth),
            }
        )
    return paths


def paired_DP_paths_from_folder(  # noqa: N802
    folders: Sequence[str], keys: Sequence[str], filename_tmpl: str = "{}"
) -> list[dict[str, str]]:
    """As `paired_paths_from_folder` with the folders and keys of two views first: left, right, ground truth."""
    left, right = (
        paired_paths_from_folder([folders[i], folders[2]], [keys[i], keys[2]], filename_tmpl) for i in (0, 1)
    )
    return [{**first, **second} for first, second in zip(left, right, strict=True)]


def paired_paths_from_meta_info_file(
    folders: Sequence[str], keys: Sequence[str], meta_info_file: str, filename_tmpl: str = "{}"
) -> list[dict[str, str]]:
    """As `paired_paths_from_folder`, of the names that the lines of a file begin with."""
    (input_folder, gt_folder), (input_key, gt_key) = folders, keys
    paths = []
    for line in Path(meta_info_file).read_text(encoding="utf-8").splitlines():
        if not line.strip():
            continue
        name = line.strip().split(" ")[0]
        stem, suffix = Path(name).with_suffix("").as_posix(), Path(name).suffix
        paths.append(
            {
                f"{input_key}_path": str(Path(input_folder) / f"{filename_tmpl.format(stem)}{suffix}"),
                f"{gt_key}_path": str(Path(gt_folder) / name),
            }
        )
    return paths


def paths_from_lmdb(folder: str) -> list[str]:
    """The keys of a database, from its ``meta_info.txt``.

    Raises:
        ValueError: the folder's name does not end in ``.lmdb``.
    """
    if not folder.endswith(".lmdb"):
        raise ValueError(f"Folder {folder} should in lmdb format.")
    lines = (Path(folder) / "meta_info.txt").read_text(encoding="utf-8").splitlines()
    return [line.split(".")[0] for line in lines if line.strip()]


def paired_paths_from_lmdb(folders: Sequence[str], keys: Sequence[str]) -> list[dict[str, str]]:
    """The keys that two databases have in common.

    Raises:
        ValueError: one has keys that the other lacks.
    """
    inputs, truths = (paths_from_lmdb(folder) for folder in folders)
    if set(inputs) != set(truths):
        raise ValueError(f"Keys in {keys[0]}_folder and {keys[1]}_folder are different.")
    return [{f"{keys[0]}_path": key, f"{keys[1]}_path": key} for key in sorted(inputs)]


def read_img_seq(path: Any, require_mod_crop: bool = False, scale: int = 1, return_imgname: bool = False) -> Any:
    """The frames of a folder, or of a list of files, in order: (T, C, H, W) RGB in [0, 1], and their names if asked for.

    Raises:
        ValueError: OpenCV cannot read a file.
    """
    files = list(path) if isinstance(path, list) else sorted(scandir(path, full_path=True))
    frames: list[np.ndarray] = []
    for file in files:
        image = cv2.imread(str(file))
        if image is None:
            raise ValueError(f"{file}: this is no picture that OpenCV reads")
        frames.append(image.astype(np.float32) / 255.0)
    if require_mod_crop:
        frames = [mod_crop(frame, scale) for frame in frames]
    stacked: Tensor = torch.stack(img2tensor(frames, bgr2rgb=True, float32=True))
    return (stacked, [Path(file).stem for file in files]) if return_imgname else stacked


def duf_downsample(x: Tensor, kernel_size: int = 13, scale: int = 4) -> Tensor:
    """Frames (B, T, C, H, W) or (T, C, H, W), blurred by a Gaussian and thinned out, as DUF's inputs are.

    Raises:
        ValueError: the kernel is not BasicSR's, of 13 pixels.
    """
    if kernel_size != 13:
        raise ValueError("Relume's stand-in for duf_downsample has a kernel of 13 pixels")
    return torch.stack([thinned_out(clip, scale) for clip in x]) if x.dim() == 5 else thinned_out(x, scale)


def generate_frame_indices(crt_idx: int, max_frame_num: int, num_frames: int, padding: str = "reflection") -> list[int]:
    """The frames around one, where `padding` says what stands for those before the first and after the last.

    Raises:
        ValueError: `num_frames` is even.
    """
    if num_frames % 2 == 0:
        raise ValueError("num_frames should be an odd number.")
    half, last = num_frames // 2, max_frame_num - 1
    found = []
    for i in range(crt_idx - half, crt_idx + half + 1):
        before = {"replicate": 0, "reflection": -i, "reflection_circle": crt_idx + half - i, "circle": num_frames + i}
        after = {
            "replicate": last,
            "reflection": 2 * last - i,
            "reflection_circle": (crt_idx - half) - (i - last),
            "circle": i - num_frames,
        }
        found.append(before[padding] if i < 0 else after[padding] if i > last else i)
    return found
