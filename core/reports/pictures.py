"""The pictures of a comparison: what each run made of an image, its input and its target."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..imaging import visual
from ..imaging.image_io import READERS, read_pixels
from ..imaging.naming import fitting
from ..imaging.opencv import cv2
from .comparison import Compared, DataSet
from .places import Places

INPUT, TARGET = "input", "target"
QUALITY = 85
"""Quality of the JPEG pictures inside a page."""


def of_image(data: DataSet, image: str, places: Mapping[str, Places]) -> dict[str, np.ndarray]:
    """By label, the pictures (H, W, 3) uint8 of one image: input, each entry's output, target; what there is of them.

    Args:
        places: places that an entry's pictures may come from, by its label.
    """
    found: dict[str, np.ndarray] = {}
    ends: dict[str, np.ndarray] = {}
    for entry in data.entries:
        row = entry.rows.get(data.name, {}).get(image, {})
        allowed = places[entry.label]
        own = saved(entry, data.name, image, row)
        output = read(own, allowed) if own is not None else None
        for label, key in ((INPUT, "lq_path"), (TARGET, "gt_path")):
            if label not in ends and isinstance(row.get(key), str):
                picture = read(Path(row[key]), allowed)
                ends.update({} if picture is None else {label: picture})
        if output is None or len(ends) < 2:
            shown = saved(entry, data.name, image, row, comparison=True)
            whole = read(shown, allowed) if shown is not None else None
            parts = visual.panels(whole, 3) if whole is not None else None
            if parts is not None:
                ends.setdefault(INPUT, parts[0])
                ends.setdefault(TARGET, parts[2])
                output = parts[1] if output is None else output
        if output is not None:
            found[entry.label] = output
    first = {INPUT: ends[INPUT]} if INPUT in ends else {}
    last = {TARGET: ends[TARGET]} if TARGET in ends else {}
    return {**first, **found, **last}


def saved(entry: Compared, dataset: str, image: str, row: Mapping[str, Any], comparison: bool = False) -> Path | None:
    """The file of a run's output, or of its comparison, of the iteration whose scores these are if there is one."""
    if isinstance(row.get("output_path"), str):
        return None if comparison else Path(row["output_path"])
    folder = entry.run.root / "visualization" / dataset
    for place in (folder / f"{image}/{image}_0.png", folder / f"{image}_0.png"):
        parent = folder / Path(fitting(str(place.relative_to(folder)), reserve=16)).parent
        if not parent.is_dir() or not parent.resolve().is_relative_to(folder.resolve()):
            continue
        stem = re.escape(Path(image).name)
        pattern = re.compile(rf"{stem}_(.+?)(_comparison)?\.png")
        matches = [(p, m) for p in parent.glob("*.png") if (m := pattern.fullmatch(p.name))]
        wanted = [(p, m[1]) for p, m in matches if bool(m[2]) == comparison]
        if wanted:
            exact = [p for p, which in wanted if which in (str(row.get("iter")), entry.run.name)]
            numbered = sorted((int(w), p) for p, w in wanted if w.isascii() and w.isdigit())
            return exact[0] if exact else numbered[-1][1] if numbered else sorted(wanted)[0][0]
    return None


def read(path: Path, places: Places) -> np.ndarray | None:
    """A picture as 8-bit RGB; None where it cannot be read, or may not be shown."""
    if path.suffix.lower() not in READERS or not places.admits(path):
        return None
    try:
        return visual.to_uint8(read_pixels(path))
    except Exception:  # a picture that cannot be shown is no reason to have no table
        return None


def thumbnail(picture: np.ndarray, side: int) -> np.ndarray:
    """The picture with a longer side of at most so many pixels."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return picture
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA))


def encoded(picture: np.ndarray) -> str:
    """A picture as a ``data:`` URL."""
    kind, options = (".jpg", [cv2.IMWRITE_JPEG_QUALITY, QUALITY])
    if picture.shape[0] * picture.shape[1] <= 4096:
        kind, options = ".png", []  # artefacts would be all that one sees of so few pixels
    _, data = cv2.imencode(kind, picture[..., ::-1], options)
    return f"data:image/{'png' if kind == '.png' else 'jpeg'};base64,{base64.b64encode(data.tobytes()).decode()}"


def beside(folder: Path, image: int, pictures: dict[str, np.ndarray]) -> Iterator[tuple[str, str]]:
    """Write the pictures of one image in full; label and file name of each, which no stranger's name is in."""
    for i, (label, picture) in enumerate(pictures.items()):
        name = f"{image:05d}_{i}.png"
        folder.mkdir(parents=True, exist_ok=True)
        _, data = cv2.imencode(".png", picture[..., ::-1])
        (folder / name).write_bytes(data.tobytes())
        yield label, f"{folder.name}/{name}"
