"""Folders of pictures that others made, scored against targets."""

from __future__ import annotations

from typing import Any

from ...datasets.sources import Folder
from ..errors import UserError, in_one_line, listing
from ..imaging.image_io import READERS
from ..imaging.visual import to_uint8
from ..metrics.psnr import calculate_psnr
from ..metrics.ssim import calculate_ssim
from .comparison import Compared
from .files import Run

METRICS = {"psnr": calculate_psnr, "ssim": calculate_ssim}


def entry_of(run: Run, label: str, targets: str | None, inputs: str | None, notes: list[str]) -> Compared:
    """The scores of a folder's pictures, filed under their names without suffix.

    Raises:
        UserError: there are no pictures, or nothing to score them against.
    """
    if not any(p.suffix.lower() in READERS for p in run.root.rglob("*")):
        raise UserError(f"{run.root}: neither a run, nor a folder of runs or pictures")
    if targets is None:
        raise UserError(f"{run.root}: a folder of pictures has no scores; give --gt DIR, the targets of the same names")
    # Score every picture that has a target, and note why the others are left out.
    made, wanted = Folder(str(run.root)), Folder(targets)
    given = Folder(inputs) if inputs else None
    rows: dict[str, dict[str, Any]] = {}
    left, alone = [], [key for key in made.files if key not in wanted.files]
    for key in [k for k in made.files if k in wanted.files]:
        try:
            output, target = (to_uint8(s.pixels(s.files[key])) for s in (made, wanted))
            if output.shape != target.shape:
                raise UserError(
                    f"{output.shape[1]} x {output.shape[0]} pixels, its target {target.shape[1]} x {target.shape[0]}"
                )
            scores = {name: float(metric(output, target, crop_border=0)) for name, metric in METRICS.items()}
        except Exception as e:
            left.append(f"{key} ({in_one_line(e)})")
            continue
        paths = {"output_path": made.path(made.files[key]), "gt_path": wanted.path(wanted.files[key])}
        if given is not None and key in given.files:
            paths["lq_path"] = given.path(given.files[key])
        rows[key] = {"image": key, **paths, **scores}
    # What the reader of the report is told.
    if alone:
        notes.append(f"{label}: without a target of the same name, and left out: {listing(alone)}")
    if left:
        notes.append(f"{label}: left out: {listing(left)}")
    if not rows:
        raise UserError(f"{run.root}: none of its pictures has a target of the same name and size in {targets}")
    return Compared(label, run, {"pictures": rows}, {})
